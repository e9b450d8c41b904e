//! Files that `edit` writes: sensible names, whole pictures, and nobody's picture overwritten.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::words;

/// Longest name before its number and ending, in bytes: file systems take 255 in all.
const MAX_NAME: usize = 200;

/// The folder of the results.
pub(super) struct OutputFolder {
    folder: PathBuf,
    /// What this run has written.
    taken: HashSet<PathBuf>,
}

impl OutputFolder {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let wrong = |error: std::io::Error| {
            let (folder, why) = (folder.display(), words::of_io(&error));
            anyhow!("--out {folder}: {why}: name a folder that can be made and written to")
        };
        std::fs::create_dir_all(folder).map_err(wrong)?;
        // Now rather than when everything has been paid for.
        tempfile(folder).map_err(wrong)?;
        Ok(Self { folder: folder.to_owned(), taken: HashSet::new() })
    }

    /// Writes a picture into the folder `under` that of the results as `name.ending`, or with a number behind
    /// the name where a file of that name holds something else: the same command run again writes the same
    /// files, and another picture of that name is kept.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&mut self, under: &Path, name: &str, ending: &str, bytes: &[u8]) -> Result<PathBuf> {
        let (name, folder) = (shortened(name), self.folder.join(under));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for number in 1.. {
            let file = match number {
                1 => format!("{name}.{ending}"),
                _ => format!("{name}-{number}.{ending}"),
            };
            let path = folder.join(file);
            if self.taken.contains(&path) {
                continue;
            }
            if place(&path, bytes).with_context(|| path.display().to_string())? {
                self.taken.insert(path.clone());
                return Ok(path);
            }
        }
        anyhow::bail!("no name is free for {name}")
    }
}

/// Puts a file under this name, unless another has it. Says whether the name now holds these bytes.
fn place(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    if let Some(same) = holds(path, bytes)? {
        return Ok(same);
    }
    // Nobody ever finds half a picture under the final name, and two processes never share the other one.
    let (beside, mut file) = tempfile(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    drop(file);
    // Unlike a rename, a link never replaces what has come meanwhile.
    match std::fs::hard_link(&beside.0, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(holds(path, bytes)?.unwrap_or(false)),
        // Some file systems have no links.
        Err(_) => std::fs::rename(&beside.0, path).map(|()| true),
    }
}

/// Whether the file holds these bytes; `None` where there is no file. What is no file is not opened: a pipe
/// that has no writer would never be.
fn holds(path: &Path, bytes: &[u8]) -> std::io::Result<Option<bool>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // Of another user, or a link that leads nowhere: the name is taken.
        Err(_) => return Ok(Some(false)),
    };
    if !metadata.is_file() || metadata.len() != bytes.len() as u64 {
        return Ok(Some(false));
    }
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Some(false)),
        Err(error) => return Err(error),
    };
    let mut found = Vec::with_capacity(bytes.len());
    file.take(bytes.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(Some(found == bytes))
}

/// A file of our own that goes when it is dropped.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have its final name by now.
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn tempfile(folder: &Path) -> std::io::Result<(Beside, std::fs::File)> {
    let path = folder.join(format!(".retouch-{}", uuid::Uuid::now_v7().simple()));
    let file = std::fs::File::create_new(&path)?;
    Ok((Beside(path), file))
}

/// The name of a file or the last part of a URL, without its ending: what its result is called after.
pub(super) fn stem(path: &Path) -> String {
    let stem = path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default();
    // A name that starts with a point would be hidden, and control characters have no place in a name.
    let stem: String = stem.trim_start_matches('.').chars().filter(|char| !char.is_control()).collect();
    if stem.is_empty() { "image".to_owned() } else { stem }
}

fn shortened(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_called_after_its_input() {
        for (input, name) in [
            ("photos/cat.jpg", "cat"),
            ("https://example.com/a/b.c.png", "b.c"),
            ("https://example.com/", "example"),
            ("Çà va ☕.png", "Çà va ☕"),
            (".hidden", "hidden"),
            ("a\nb.png", "ab"),
            ("..", "image"),
        ] {
            assert_eq!(stem(Path::new(input)), name);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "é".repeat(150);
        assert_eq!(shortened(&long).chars().count(), 100);
        assert_eq!(shortened("cat"), "cat");
    }
}
