//! What `retouch dead show --save` writes: the blob of what was paid for and could not be used.
//!
//! What must stay true: a file that is there is never written over, and what is there under the name is whole.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, anyhow, ensure};

use super::super::Failure;
use crate::app::App;
use crate::blobs::BlobError;
use crate::store::Letter;

/// Writes it; returns how many bytes that were.
pub(super) async fn save(app: &App, letter: &Letter, file: &Path) -> Result<u64, Failure> {
    let Some(kept) = &letter.kept else {
        return Err(Failure::Usage(anyhow!(
            "--save: letter {} has nothing kept: only what was paid for and could not be used is, such as an unreadable_answer",
            letter.id
        )));
    };
    let bytes = app.blobs.get(kept.hash).await.map_err(|error| match error {
        BlobError::Missing(_) | BlobError::Corrupt(_) => Failure::Usage(anyhow!(
            "--save: what letter {} names is gone from the blob store ({error}); restore the blob from a backup",
            letter.id
        )),
        error @ BlobError::Unavailable(_) => Failure::Unreachable(error.into()),
    })?;
    let file = file.to_owned();
    let count = bytes.len() as u64;
    let written = tokio::task::spawn_blocking(move || write_new(&file, &bytes)).await;
    written.map_err(anyhow::Error::from).and_then(|written| written).map_err(Failure::Usage)?;
    Ok(count)
}

/// Beside the file first, then under its name, which must be free.
fn write_new(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let taken = || format!("--save: {} is there already; name another file", file.display());
    ensure!(!file.exists(), taken());
    let name = file.file_name().with_context(|| format!("--save: {} names no file", file.display()))?;
    let beside = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    let part = file.with_file_name(beside);
    let cannot = |error: std::io::Error| anyhow!("--save: cannot write {}: {error}", file.display());
    let written = std::fs::File::create_new(&part).and_then(|mut part| {
        part.write_all(bytes)?;
        part.sync_all()
    });
    // A link is made only where there is nothing, which no rename can promise.
    let linked = written.and_then(|()| match std::fs::hard_link(&part, file) {
        // Some file systems have no links.
        Err(error) if error.kind() != ErrorKind::AlreadyExists && !file.exists() => {
            std::fs::rename(&part, file)
        }
        linked => linked,
    });
    let _ = std::fs::remove_file(&part);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(anyhow!(taken())),
        linked => linked.map_err(cannot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_is_whole_and_never_written_over_another() {
        let folder = std::env::temp_dir().join(format!("retouch-save-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("answer.bin");
        write_new(&file, b"one").unwrap();
        let refused = write_new(&file, b"two").unwrap_err().to_string();
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        let names = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, 1, "nothing else is left there");
        let refused = write_new(&folder.join("no/such/folder"), b"x").unwrap_err().to_string();
        assert!(refused.contains("cannot write"), "{refused}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
