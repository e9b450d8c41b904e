//! Checks the blob store: writes, reads and deletes a probe, and looks for the newest results.

use std::path::Path;

use bytes::Bytes;

use super::{Check, no_answer, within};
use crate::blobs::{BlobError, Blobs, BlobsLocation};
use crate::config::{BrokerChoice, Parts};
use crate::store::Store;

const NAME: &str = "blobs";
const RESULTS: &str = "results";
/// Newest results that are looked for.
const LOOKED_FOR: u32 = 5;

/// The checks, and the store if it can be used.
pub(super) async fn check(parts: &Parts) -> (Vec<Check>, Option<Blobs>) {
    let Ok(location) = &parts.blobs else {
        return (vec![Check::skipped(NAME, "skipped: it needs the settings")], None);
    };
    if let BlobsLocation::Folder(folder) = location
        && !folder.exists()
    {
        return (vec![missing(folder)], None);
    }
    let opened = match Blobs::open_to_look(location) {
        Ok(blobs) => within(probe(&blobs)).await.map(|probed| probed.map(|()| blobs)),
        Err(error) => Some(Err(error)),
    };
    match opened {
        Some(Ok(blobs)) => (vec![Check::good(NAME, good(location, parts))], Some(blobs)),
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            (vec![failed(location, &why)], None)
        }
    }
}

/// A worker creates its own folder; a network folder can only be mounted.
fn missing(folder: &Path) -> Check {
    let above = folder.ancestors().skip(1).find(|above| above.exists());
    let made = above.is_some_and(|above| above.is_dir() && writable(above));
    let detail = format!("there is no folder {}", folder.display());
    if made {
        return Check::warning(
            NAME,
            detail,
            "a worker makes it when it starts; if it is to be mounted, mount it first",
        );
    }
    Check::failed(NAME, format!("{detail}, and it cannot be made"), "make it, or correct RETOUCH_BLOBS")
}

/// Tests by writing: mode bits are unreliable for root, read-only file systems and network folders.
fn writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".retouch-doctor-{}", uuid::Uuid::now_v7().simple()));
    let made = std::fs::create_dir(&probe).is_ok();
    made && std::fs::remove_dir(&probe).is_ok()
}

/// Unique bytes, so that the deletion cannot hit another blob.
async fn probe(blobs: &Blobs) -> Result<(), BlobError> {
    let bytes = Bytes::from(format!("retouch doctor {}", uuid::Uuid::now_v7()));
    let kept = blobs.put(bytes.clone(), "text/plain").await?;
    let read = blobs.get(kept.hash).await;
    let deleted = blobs.delete(kept.hash).await;
    read?;
    deleted?;
    match blobs.exists(kept.hash, None).await? {
        true => Err(BlobError::Unavailable("a blob is still there after it was deleted".to_owned())),
        false => Ok(()),
    }
}

fn reason(error: &BlobError) -> String {
    let text = error.to_string();
    text.strip_prefix("the blob store cannot be used: ").unwrap_or(&text).to_owned()
}

fn failed(location: &BlobsLocation, why: &str) -> Check {
    let fix = match location {
        BlobsLocation::Folder(_) => {
            "give the user that runs the worker the right to write there, or correct RETOUCH_BLOBS"
        }
        BlobsLocation::S3 { .. } => {
            "correct RETOUCH_BLOBS, AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_ALLOW_HTTP=true for http://), or start the store"
        }
        BlobsLocation::Memory => "give a folder or s3://bucket/prefix in RETOUCH_BLOBS",
    };
    let place = location.to_string();
    let detail = if why.starts_with(&place) { why.to_owned() } else { format!("{place}: {why}") };
    Check::failed(NAME, detail, fix)
}

fn good(location: &BlobsLocation, parts: &Parts) -> String {
    let done = format!("{location}: a blob was written, read and deleted");
    let many = matches!(parts.broker, Ok(BrokerChoice::RabbitMq { .. }));
    match location {
        BlobsLocation::Folder(_) if many => {
            format!("{done}; whether all machines share this folder cannot be known from one of them")
        }
        BlobsLocation::Folder(_) | BlobsLocation::S3 { .. } | BlobsLocation::Memory => done,
    }
}

/// Whether the other workers of this database keep their results in this store.
pub(super) async fn results(store: Option<&Store>, blobs: Option<&Blobs>) -> Check {
    let (Some(store), Some(blobs)) = (store, blobs) else {
        return Check::skipped(RESULTS, "skipped: it needs the database, its schema and the blobs");
    };
    let looked = within(async {
        let newest = store.newest_results(LOOKED_FOR).await.map_err(|error| error.to_string())?;
        let mut there = 0;
        for hash in &newest {
            there += usize::from(blobs.exists(*hash, None).await.map_err(|error| error.to_string())?);
        }
        Ok::<_, String>((there, newest.len()))
    });
    let fix = "point RETOUCH_BLOBS at the store of the other workers, or mount their folder: what is missing is paid for again";
    match looked.await {
        None => Check::failed(RESULTS, no_answer(), "look at the blob store's load"),
        Some(Err(why)) => Check::failed(RESULTS, why, "look at the database and the blob store"),
        Some(Ok((_, 0))) => Check::skipped(RESULTS, "there are none yet to look for"),
        Some(Ok((there, all))) if there == all => {
            Check::good(RESULTS, format!("the newest {all} of the database are in this blob store"))
        }
        Some(Ok((0, all))) => Check::failed(
            RESULTS,
            format!("none of the newest {all} of the database is in this blob store"),
            fix,
        ),
        Some(Ok((there, all))) => Check::warning(
            RESULTS,
            format!("{} of the newest {all} are not in this blob store", all - there),
            fix,
        ),
    }
}
