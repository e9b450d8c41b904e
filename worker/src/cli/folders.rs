//! The pictures in a folder: told by their content, whatever they are called. What is left out is counted and
//! named.
//!
//! What must stay true: nothing that a command wrote into `--out` is read by it again.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::inputs::{Input, Picture};
use crate::media::{self, Format, Sniffed};
use crate::words::{self, counted};

/// Names in a message; the others are counted.
const NAMED: usize = 10;
/// What cameras call their raw files; most of them begin like a TIFF.
const RAW: [&str; 16] = [
    "3fr", "arw", "cr2", "cr3", "crw", "dng", "erf", "kdc", "mrw", "nef", "nrw", "orf", "pef", "raf", "rw2",
    "srw",
];

/// What of the folders was not edited, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    /// Hidden files and folders, and those that systems put beside pictures.
    pub hidden: Vec<String>,
    /// Subfolders, without --recursive.
    pub folders: Vec<String>,
    /// Files that are no pictures.
    pub not_pictures: Vec<String>,
    /// Pictures of a kind that has to be converted first, with that kind.
    pub to_convert: Vec<String>,
    /// Pipes, sockets, devices; folders that were read already, or are the one of the results.
    pub others: Vec<String>,
}

impl LeftOut {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One line, without `left out: ` before it.
    pub(super) fn in_words(&self) -> String {
        let Self { hidden, folders, not_pictures, to_convert, others } = self;
        let count = |all: &[String]| all.len() as u64;
        let parts = [
            (hidden, format!("{} hidden", count(hidden))),
            (not_pictures, format!("{} not a picture", count(not_pictures))),
            (to_convert, format!("{} to be converted first, to JPEG or PNG", count(to_convert))),
            (folders, format!("{} not read without --recursive", counted(count(folders), "folder"))),
            (others, format!("{} not a file, or a folder read already", count(others))),
        ];
        let parts = parts.into_iter().filter(|(all, _)| !all.is_empty());
        parts.map(|(all, what)| format!("{what} ({})", names(all))).collect::<Vec<_>>().join(", ")
    }
}

/// As many names as a person reads, and how many more there are.
fn names(all: &[String]) -> String {
    let named = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Reads folders.
pub(super) struct Folders {
    recursive: bool,
    /// The folder of the results, if there is one yet.
    out: Option<PathBuf>,
    /// Folders that were read, for links that lead back.
    seen: BTreeSet<PathBuf>,
    pub(super) pictures: Vec<Picture>,
    pub(super) left_out: LeftOut,
}

impl Folders {
    pub(super) fn new(recursive: bool, out: Option<&Path>) -> Self {
        let out = out.map(real);
        Self { recursive, out, seen: BTreeSet::new(), pictures: Vec::new(), left_out: LeftOut::default() }
    }

    /// The pictures in a folder that was named, in the order of their names. One without any fails alone.
    pub(super) fn read(&mut self, folder: &Path) {
        self.seen.clear();
        let before = self.pictures.len();
        self.walk(folder, Path::new(""));
        if self.pictures.len() == before {
            let what = self.left_out.in_words();
            let left_out = if what.is_empty() { String::new() } else { format!("; left out: {what}") };
            let why = format!("the folder holds no pictures (PNG, JPEG, WebP, GIF, BMP, TIFF){left_out}");
            self.failed(folder, why);
        }
    }

    /// What was named and is nothing that can be edited: it fails alone.
    pub(super) fn failed(&mut self, path: &Path, why: String) {
        self.add(Input::Unreadable { path: path.to_owned(), why }, Path::new(""));
    }

    /// `under` is the folder below the one that was named.
    fn walk(&mut self, folder: &Path, under: &Path) {
        self.seen.insert(real(folder));
        let mut entries = Vec::new();
        let listed = std::fs::read_dir(folder).and_then(|listed| {
            for entry in listed {
                entries.push(entry?.file_name());
            }
            Ok(())
        });
        if let Err(error) = listed {
            self.unreadable(folder, under, &error);
        }
        entries.sort();
        for name in entries {
            let path = folder.join(&name);
            let text = name.to_string_lossy();
            if is_hidden(&text) {
                self.left_out.hidden.push(text.into_owned());
                continue;
            }
            match std::fs::metadata(&path) {
                Err(error) => self.unreadable(&path, under, &error),
                Ok(found) if found.is_dir() => self.subfolder(&path, &under.join(&name)),
                Ok(found) if found.is_file() => self.file(&path, under),
                Ok(_) => self.left_out.others.push(text.into_owned()),
            }
        }
    }

    fn subfolder(&mut self, folder: &Path, under: &Path) {
        let place = real(folder);
        let name = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if self.out.as_ref() == Some(&place) || self.seen.contains(&place) {
            self.left_out.others.push(name());
        } else if self.recursive {
            self.walk(folder, under);
        } else {
            self.left_out.folders.push(name());
        }
    }

    fn file(&mut self, path: &Path, under: &Path) {
        let mut head = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut head));
        if let Err(error) = read {
            return self.unreadable(path, under, &error);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match kind(path, &head) {
            Kind::Picture => self.add(Input::File(path.to_owned()), under),
            Kind::ToConvert(what) => self.left_out.to_convert.push(format!("{name}: {what}")),
            Kind::Other => self.left_out.not_pictures.push(name),
        }
    }

    /// It fails by itself, with its name.
    fn unreadable(&mut self, path: &Path, under: &Path, error: &std::io::Error) {
        self.add(Input::Unreadable { path: path.to_owned(), why: words::of_io(error) }, under);
    }

    fn add(&mut self, input: Input, under: &Path) {
        self.pictures.push(Picture { input, under: under.to_owned() });
    }
}

enum Kind {
    Picture,
    ToConvert(String),
    Other,
}

fn kind(path: &Path, head: &[u8]) -> Kind {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let raw = ending.is_some_and(|ending| RAW.contains(&ending.as_str()));
    match media::sniff(head) {
        Sniffed::Picture(Format::Tiff) | Sniffed::Other("a video" | "unknown binary data") if raw => {
            Kind::ToConvert("camera raw".to_owned())
        }
        Sniffed::Picture(_) => Kind::Picture,
        Sniffed::Unread(what) => Kind::ToConvert(what),
        Sniffed::Other(what @ ("a QOI" | "an OpenEXR" | "a DDS texture")) => Kind::ToConvert(what.to_owned()),
        Sniffed::Other(_) => Kind::Other,
    }
}

/// Also what systems put beside pictures.
fn is_hidden(name: &str) -> bool {
    let beside = ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"];
    name.starts_with('.') || beside.contains(&name.to_lowercase().as_str())
}

/// Refuses what is no folder, and a folder of results whose pictures would be edited again by a later run.
///
/// # Errors
/// Says what to do.
pub(super) fn refuse_out(out: &Path, folders: &[PathBuf], pictures: &[Picture]) -> Result<()> {
    if std::fs::metadata(out).is_ok_and(|found| !found.is_dir()) {
        bail!("--out {}: is not a folder: name a folder for the results", out.display());
    }
    let place = real(out);
    let unders: BTreeSet<&Path> = pictures.iter().map(|picture| picture.under.as_path()).collect();
    for folder in folders {
        let input = real(folder);
        let how = if place == input {
            "is"
        } else if place.starts_with(&input) {
            "is inside"
        } else if unders.iter().any(|under| place.join(under).starts_with(&input)) {
            "would write into"
        } else {
            continue;
        };
        bail!(
            "--out {} {how} the input folder {}, so that a later run would edit its results again: choose a folder outside of it",
            out.display(),
            folder.display()
        );
    }
    let files = pictures.iter().filter_map(|picture| match &picture.input {
        Input::File(path) => Some(path),
        Input::Url(_) | Input::Unreadable { .. } => None,
    });
    let beside =
        |path: &&PathBuf| path.parent().is_some_and(|parent| real(&Path::new(".").join(parent)) == place);
    if let Some(beside) = files.into_iter().find(beside) {
        bail!(
            "--out {} is the folder of {}, so that a run over that folder would edit the results again: choose another \
             one, e.g. --out {}",
            out.display(),
            beside.display(),
            out.join("retouched").display()
        );
    }
    Ok(())
}

/// Where a path leads, links resolved as far as it exists.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut there = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                there.pop();
            }
            Component::CurDir => {}
            other => there.push(other),
        }
        // From the top down: `..` behind a link leads to where the link leads.
        if let Ok(found) = there.canonicalize() {
            there = found;
        }
    }
    there
}

/// What is under a name that a person gave; in words, why nothing is.
pub(super) fn metadata_of(named: &str) -> Result<std::fs::Metadata, String> {
    std::fs::metadata(named).map_err(|error| {
        let why = words::of_io(&error);
        match named.contains("://") {
            true => format!("pictures are fetched over http:// and https:// only: {why}"),
            false => why,
        }
    })
}

/// What a file that is none is called.
pub(super) fn no_file(found: &std::fs::Metadata) -> String {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = found.file_type();
    let (what, fix) = match () {
        () if kind.is_fifo() => ("a pipe", "; read it into a file first"),
        () if kind.is_socket() => ("a socket", ""),
        () if kind.is_char_device() || kind.is_block_device() => ("a device", ""),
        () => ("of an unknown kind", ""),
    };
    format!("is not a file but {what}{fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_said_in_one_line() {
        let name = |name: &str| name.to_owned();
        let left_out = LeftOut {
            hidden: [".a", ".b"].map(name).to_vec(),
            folders: vec![name("trip")],
            not_pictures: (0..12).map(|nth| nth.to_string()).collect(),
            to_convert: vec![name("IMG_1.HEIC: a HEIC")],
            others: vec![name("fifo")],
        };
        assert_eq!(
            left_out.in_words(),
            "2 hidden (.a, .b), 12 not a picture (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more), 1 to be converted \
             first, to JPEG or PNG (IMG_1.HEIC: a HEIC), 1 folder not read without --recursive (trip), \
             1 not a file, or a folder read already (fifo)"
        );
        assert!(LeftOut::default().is_empty() && !left_out.is_empty());
    }

    #[test]
    fn a_folder_of_results_inside_the_input_is_found_through_links_and_dots() {
        let home = std::env::temp_dir().join(format!("retouch-folders-{}", uuid::Uuid::now_v7()));
        let path = |name: &str| home.join(name);
        std::fs::create_dir_all(path("in/deep")).unwrap();
        std::fs::create_dir_all(path("out")).unwrap();
        std::os::unix::fs::symlink(path("in"), path("link")).unwrap();
        let refused = |out: &str, folder: &str| refuse_out(&path(out), &[path(folder)], &[]).is_err();
        for out in ["in", "in/new", "in/new/../other", "link", "link/new", "link/deep/..", "out/../in"] {
            assert!(refused(out, "in"), "{out}");
        }
        assert!(refused("in/x", "link") && refused("in", "in/deep/.."));
        for out in ["out", "inner", "in/../new", "link/../new", "."] {
            assert!(!refused(out, "in"), "{out}");
        }
        // Above the input, and the folders below it lead back into it.
        let picture =
            Picture { input: Input::Url("http://host/a.png".to_owned()), under: PathBuf::from("in") };
        assert!(refuse_out(&home, &[path("in")], &[picture]).is_err());
        std::fs::remove_dir_all(&home).unwrap();
    }
}
