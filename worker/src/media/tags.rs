//! The first directory of a TIFF or an EXIF block: tags and their numbers, nothing decoded.
//!
//! TIFF 6.0, section 2; BigTIFF has the same shape with 8-byte offsets.

/// Most entries and values that are read; real files stay far below.
const MAX_ENTRIES: usize = 4096;
const MAX_VALUES: u64 = 1 << 22;

/// The first directory.
#[derive(Debug, Clone)]
pub(super) struct Tags<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Offset of its values in the file.
    place: usize,
}

impl<'a> Tags<'a> {
    /// Opens a TIFF, or an EXIF block after its `Exif\0\0`.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let mut tags = Self { bytes, big_endian, entries: Vec::new() };
        let wide = match tags.number(2, 2)? {
            42 => false,
            43 => true,
            _ => return None,
        };
        // Sizes in bytes: the position of the first offset, an offset, the entry count, an entry.
        let (at, offset, counter, size) = if wide { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
        let directory = usize::try_from(tags.number(at, offset)?).ok()?;
        let count = usize::try_from(tags.number(directory, counter)?).ok()?.min(MAX_ENTRIES);
        for entry in 0..count {
            let at = directory.checked_add(counter + entry * size)?;
            let entry = tags.entry(at, offset)?;
            tags.entries.push(entry);
        }
        Some(tags)
    }

    fn entry(&self, at: usize, offset: usize) -> Option<Entry> {
        let tag = u16::try_from(self.number(at, 2)?).ok()?;
        let kind = u16::try_from(self.number(at + 2, 2)?).ok()?;
        let count = self.number(at + 4, offset)?;
        let inline = at + 4 + offset;
        let fits = count.saturating_mul(value_size(kind) as u64) <= offset as u64;
        let place = if fits { inline } else { usize::try_from(self.number(inline, offset)?).ok()? };
        Some(Entry { tag, kind, count, place })
    }

    /// An unsigned integer of `size` bytes.
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    }

    fn find(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.tag == tag)
    }

    /// Whether the tag exists.
    pub(super) fn has(&self, tag: u16) -> bool {
        self.find(tag).is_some()
    }

    /// The integers of a tag; empty if it is missing.
    pub(super) fn numbers(&self, tag: u16) -> Vec<u64> {
        let Some(Entry { kind, count, place, .. }) = self.find(tag) else { return Vec::new() };
        let size = value_size(kind);
        let at = |index: u64| place.checked_add(usize::try_from(index).ok()?.checked_mul(size)?);
        (0..count.min(MAX_VALUES)).map_while(|index| self.number(at(index)?, size)).collect()
    }

    /// The bytes of a byte-valued tag.
    pub(super) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let Entry { kind, count, place, .. } = self.find(tag)?;
        let count = usize::try_from(count).ok()?;
        self.bytes.get(place..place.checked_add(count)?).filter(|_| value_size(kind) == 1)
    }

    /// The first integer of a tag.
    pub(super) fn first_number(&self, tag: u16) -> Option<u64> {
        let Entry { kind, place, .. } = self.find(tag)?;
        self.number(place, value_size(kind))
    }

    /// The first fraction of a tag.
    pub(super) fn fraction(&self, tag: u16) -> Option<f64> {
        let Entry { place, .. } = self.find(tag).filter(|entry| entry.kind == RATIONAL)?;
        let (above, below) = (self.number(place, 4)?, self.number(place + 4, 4)?);
        (below > 0).then(|| above as f64 / below as f64)
    }

    /// Replaces the first value (a SHORT) of a tag in the file.
    pub(super) fn patch(&self, file: &mut [u8], tag: u16, value: u16) {
        let bytes = if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let place = self.find(tag).filter(|entry| entry.kind == SHORT).map(|entry| entry.place);
        if let Some(to) = place.and_then(|place| file.get_mut(place..place + 2)) {
            to.copy_from_slice(&bytes);
        }
    }
}

const SHORT: u16 = 3;
const RATIONAL: u16 = 5;

/// Bytes of one value of a field type.
const fn value_size(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}
