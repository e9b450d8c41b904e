//! The location of the blobs, as written in `RETOUCH_BLOBS`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

/// One of the three kinds of blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobsLocation {
    /// A local folder, or a network folder that every replica mounts. Absolute.
    Folder(PathBuf),
    /// An S3-compatible bucket; endpoint, region and credentials come from `AWS_*`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without slashes at either end; empty for the bucket's root.
        prefix: String,
    },
    /// In this process, lost with it: for tests and demonstrations.
    Memory,
}

/// Why a text is not a location of blobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no place for blobs: {reason}; give an absolute folder, file:///folder, s3://bucket/prefix or memory:"
)]
pub struct BadLocation {
    text: String,
    reason: &'static str,
}

impl FromStr for BlobsLocation {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| BadLocation { text: redact(text), reason };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if Path::new(text).is_absolute() {
            return folder(text.into()).map_err(refuse);
        }
        // A relative path would change with the working directory.
        let Ok(url) = Url::parse(text) else {
            return Err(refuse("it is neither a URL nor an absolute path"));
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it has a query or a fragment"));
        }
        match url.scheme() {
            "file" => {
                let no_host = "a file: URL names no host, so it has three slashes";
                let path = url.to_file_path().map_err(|()| refuse(no_host))?;
                folder(path).map_err(refuse)
            }
            "s3" => s3(&url).map_err(refuse),
            "memory" => Err(refuse("memory: takes nothing after the colon")),
            _ => Err(refuse("its scheme is not known")),
        }
    }
}

fn folder(path: PathBuf) -> Result<BlobsLocation, &'static str> {
    if path.parent().is_none() {
        return Err("it names the root of the file system");
    }
    Ok(BlobsLocation::Folder(path))
}

fn s3(url: &Url) -> Result<BlobsLocation, &'static str> {
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err("credentials and endpoint belong in AWS_* variables");
    }
    let bucket = url.host_str().unwrap_or_default();
    if bucket.is_empty() {
        return Err("it names no bucket");
    }
    let prefix = url.path().trim_matches('/');
    // object_store percent-encodes all other bytes, and the public URL would then not match the key.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=".contains(&b);
    if !prefix.bytes().all(plain) || prefix.contains("//") {
        return Err("a prefix is made of letters, digits and any of - _ . = between single slashes");
    }
    Ok(BlobsLocation::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// Credentials in the URL must not reach the log.
fn redact(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, after)) => format!("…@{after}"),
        None => text.to_owned(),
    }
}

impl fmt::Display for BlobsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> BlobsLocation {
        BlobsLocation::S3 { bucket: bucket.into(), prefix: prefix.into() }
    }

    #[test]
    fn every_spelling_of_a_location_is_parsed_and_written_back() {
        let folder = || BlobsLocation::Folder("/srv/blobs".into());
        for (text, expected, shown) in [
            ("/srv/blobs", folder(), "/srv/blobs"),
            ("file:///srv/blobs", folder(), "/srv/blobs"),
            ("file:/srv/blobs", folder(), "/srv/blobs"),
            ("memory:", BlobsLocation::Memory, "memory:"),
            ("s3://pictures", s3("pictures", ""), "s3://pictures"),
            ("s3://pictures/", s3("pictures", ""), "s3://pictures"),
            ("s3://pictures/a/b/", s3("pictures", "a/b"), "s3://pictures/a/b"),
        ] {
            let location: BlobsLocation = text.parse().expect(text);
            assert_eq!(location, expected, "{text}");
            assert_eq!(location.to_string(), shown);
            assert_eq!(location.to_string().parse(), Ok(expected));
        }
        let spaced: BlobsLocation = "file:///srv/my%20blobs".parse().expect("decoded");
        assert_eq!(spaced, BlobsLocation::Folder("/srv/my blobs".into()));
    }

    #[test]
    fn impossible_locations_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("blobs", "neither a URL nor an absolute path"),
            ("./blobs", "neither a URL nor an absolute path"),
            ("file://host/blobs", "names no host"),
            ("file:///", "root"),
            ("/", "root"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("s3://bucket/a?versionId=1", "query"),
            ("s3://bucket/a b", "a prefix is made of"),
            ("s3://bucket:9000/a", "AWS_*"),
            ("memory:cache", "nothing after the colon"),
            ("ftp://host/a", "scheme"),
        ] {
            let refused = text.parse::<BlobsLocation>().expect_err(text).to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn credentials_in_the_location_are_not_repeated() {
        let refused = "s3://AKIA1:hunter2@bucket/a".parse::<BlobsLocation>();
        let refused = refused.expect_err("credentials").to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        assert!(!refused.contains("AKIA1"), "{refused}");
    }
}
