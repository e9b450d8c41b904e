//! TIFF directories: recognises camera raw files in TIFF form, and checks whether JPEG strips are whole.
//! `tiff_kinds` handles kinds of pixels. <https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf>, the
//! DNG specification 1.7, and TIFF/EP.

use super::jpeg;

const NEW_SUBFILE_TYPE: u16 = 254;
const WIDTH: u16 = 256;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const MAKE: u16 = 271;
const STRIP_OFFSETS: u16 = 273;
const STRIP_LENGTHS: u16 = 279;
const TILE_OFFSETS: u16 = 324;
const TILE_LENGTHS: u16 = 325;
const SUB_DIRECTORIES: u16 = 330;
const JPEG_TABLES: u16 = 347;
const DNG_VERSION: u16 = 50706;

/// Limits on directories, entries and values, beyond any honest file.
const MAX_DIRECTORIES: usize = 256;
const MAX_ENTRIES: usize = 1024;
const MAX_STRIPS: usize = 100_000;

/// Colour filter arrays, linear raw data, and other samples of a sensor.
const RAW_PHOTOMETRIC: [u64; 2] = [32803, 34892];
/// Compressions of makers' raw files: ARW, Kodak, NEF, lossy DNG, PEF, SRW.
const RAW_COMPRESSION: [u64; 8] = [32767, 32770, 32772, 34713, 34892, 65000, 65001, 65535];

/// Names of makers and of their raw formats.
const MAKERS: [(&str, &str); 14] = [
    ("canon", "CR2"),
    ("epson", "ERF"),
    ("hasselblad", "3FR"),
    ("kodak", "DCR"),
    ("eastman kodak", "DCR"),
    ("leaf", "MOS"),
    ("mamiya", "MEF"),
    ("nikon", "NEF"),
    ("olympus", "ORF"),
    ("panasonic", "RW2"),
    ("pentax", "PEF"),
    ("phase one", "IIQ"),
    ("samsung", "SRW"),
    ("sony", "ARW"),
];

/// A TIFF file or an EXIF block.
pub(super) struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

/// One directory.
pub(super) struct Directory {
    entries: Vec<Entry>,
    next: usize,
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Position of its value, or of the value's offset.
    at: usize,
}

impl Directory {
    pub(super) fn entry(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.tag == tag)
    }
}

impl<'a> Tiff<'a> {
    /// Returns the offset of the first directory, too.
    pub(super) fn open(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let big_endian = match bytes.first_chunk()? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let tiff = Self { bytes, big_endian };
        let first = tiff.long(4)?;
        Some((tiff, first))
    }

    pub(super) fn directory(&self, offset: usize) -> Option<Directory> {
        let count = usize::from(self.short(offset)?);
        if count > MAX_ENTRIES {
            return None;
        }
        let entry = |nth: usize| {
            let at = offset + 2 + 12 * nth;
            let (tag, kind) = (self.short(at)?, self.short(at + 2)?);
            Some(Entry { tag, kind, count: self.long(at + 4)?, at: at + 8 })
        };
        // A truncated directory has the entries that remain.
        let entries: Vec<Entry> = (0..count).map_while(entry).collect();
        let next = self.long(offset + 2 + 12 * count).unwrap_or_default();
        Some(Directory { entries, next })
    }

    /// At most `most` first values of an entry; empty for other types than unsigned integers.
    pub(super) fn numbers(&self, entry: Entry, most: usize) -> Vec<u64> {
        let size = match entry.kind {
            1 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            _ => return Vec::new(),
        };
        let Some(at) = self.value(entry, size) else { return Vec::new() };
        let number = |nth: usize| match size {
            1 => self.bytes.get(at + nth).map(|byte| u64::from(*byte)),
            2 => self.short(at + 2 * nth).map(u64::from),
            _ => self.long(at + 4 * nth).map(|long| long as u64),
        };
        (0..entry.count.min(most)).map_while(number).collect()
    }

    fn bytes_of(&self, entry: Entry) -> Option<&'a [u8]> {
        let at = self.value(entry, 1)?;
        self.bytes.get(at..at.checked_add(entry.count)?)
    }

    /// Values of up to four bytes stand in the entry itself.
    fn value(&self, entry: Entry, size: usize) -> Option<usize> {
        if entry.count.checked_mul(size)? <= 4 { Some(entry.at) } else { self.long(entry.at) }
    }

    fn short(&self, at: usize) -> Option<u16> {
        let two = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let four = *self.bytes.get(at..)?.first_chunk()?;
        let long = if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
        usize::try_from(long).ok()
    }

    fn number(&self, directory: &Directory, tag: u16) -> Option<u64> {
        self.numbers(directory.entry(tag)?, 1).first().copied()
    }

    /// The pages: the chain of directories from `first` on.
    fn pages(&self, first: usize) -> Vec<Directory> {
        let (mut pages, mut seen, mut offset) = (Vec::new(), Vec::new(), first);
        while offset != 0 && !seen.contains(&offset) && pages.len() < MAX_DIRECTORIES {
            seen.push(offset);
            let Some(page) = self.directory(offset) else { break };
            offset = page.next;
            pages.push(page);
        }
        pages
    }

    fn children(&self, parent: &Directory) -> Vec<Directory> {
        let offsets = parent.entry(SUB_DIRECTORIES).map(|entry| self.numbers(entry, 32)).unwrap_or_default();
        offsets
            .into_iter()
            .filter_map(|offset| usize::try_from(offset).ok())
            .filter_map(|offset| self.directory(offset))
            .collect()
    }
}

/// The kind of camera raw, or of a file whose first picture is a preview: a name for people.
pub(super) fn camera_raw(bytes: &[u8]) -> Option<String> {
    let (tiff, first) = Tiff::open(bytes)?;
    let pages = tiff.pages(first);
    let first = pages.first()?;
    if first.entry(DNG_VERSION).is_some() {
        return Some("camera raw (DNG)".to_owned());
    }
    let make = first.entry(MAKE).and_then(|entry| tiff.bytes_of(entry)).unwrap_or_default();
    let make = String::from_utf8_lossy(make).to_ascii_lowercase();
    let maker = MAKERS.into_iter().find(|(maker, _)| make.trim_start().starts_with(maker));
    let children: Vec<Directory> = pages.iter().flat_map(|page| tiff.children(page)).collect();
    let has = |tag: u16, values: &[u64]| {
        let all = pages.iter().chain(&children);
        all.filter_map(|directory| tiff.number(directory, tag)).any(|value| values.contains(&value))
    };
    if has(PHOTOMETRIC, &RAW_PHOTOMETRIC) || has(COMPRESSION, &RAW_COMPRESSION) {
        let name = maker.map_or("TIFF", |(_, name)| name);
        return Some(format!("camera raw ({name})"));
    }
    // An ordinary file's thumbnails come after its picture, or are smaller copies of it.
    let width = |directory: &Directory| tiff.number(directory, WIDTH).unwrap_or_default();
    let is_preview = tiff.number(first, NEW_SUBFILE_TYPE).is_some_and(|kind| kind & 1 == 1);
    let larger = pages.iter().chain(&children).any(|other| width(other) > width(first));
    if !is_preview || !larger {
        return None;
    }
    Some(match maker {
        Some((_, name)) => format!("camera raw ({name})"),
        None => "a TIFF whose first page is a preview of another".to_owned(),
    })
}

/// Whether the JPEG strips or tiles of the first page are whole; see [`jpeg`].
///
/// # Errors
/// The missing or damaged part, for people.
pub(super) fn check_jpeg_strips(bytes: &[u8]) -> Result<(), String> {
    let Some((tiff, first)) = Tiff::open(bytes) else { return Ok(()) };
    let Some(page) = tiff.directory(first) else { return Ok(()) };
    if tiff.number(&page, COMPRESSION) != Some(7) {
        return Ok(());
    }
    let tables = page.entry(JPEG_TABLES).and_then(|entry| tiff.bytes_of(entry)).unwrap_or_default();
    let numbers = |tag: u16| page.entry(tag).map(|entry| tiff.numbers(entry, MAX_STRIPS)).unwrap_or_default();
    let offsets = numbers(STRIP_OFFSETS).into_iter().chain(numbers(TILE_OFFSETS));
    let lengths = numbers(STRIP_LENGTHS).into_iter().chain(numbers(TILE_LENGTHS));
    for (offset, length) in offsets.zip(lengths) {
        let strip = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        let strip = strip.and_then(|(at, length)| bytes.get(at..at.checked_add(length)?));
        jpeg::check_abbreviated(tables, strip.ok_or("the file is cut short")?)?;
    }
    Ok(())
}
