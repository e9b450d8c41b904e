//! Formats made of boxes (ISO/IEC 14496-12): AVIF, HEIC, JPEG 2000 and JPEG XL, and JPEG XL without its boxes.
//!
//! Invariant: lengths are untrusted, so no box reaches beyond the available bytes, and nesting is bounded.

use super::{Kind, sides};

/// Nesting of boxes that are searched: meta, iprp, ipco.
const MAX_DEPTH: usize = 4;

pub(super) fn identify(head: &[u8]) -> Option<Kind> {
    let kind = |content_type, extension, size| Some(Kind { content_type, extension, size, format: None });
    if head.starts_with(b"\xff\x0a") {
        return kind("image/jxl", "jxl", jxl_size(&head[2..]));
    }
    if head.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n") {
        return kind("image/jxl", "jxl", boxed_jxl_size(head));
    }
    if head.starts_with(b"\0\0\0\x0cjP  \r\n\x87\n") {
        let size = find(head, &[b"jp2h", b"ihdr"]).and_then(|ihdr| {
            let four = |at: usize| ihdr.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
            sides(four(4)?, four(0)?)
        });
        return kind("image/jp2", "jp2", size);
    }
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    let (content_type, extension) = heif(head)?;
    kind(content_type, extension, heif_size(head))
}

/// By its brands: the first is the file's own, the others are compatible ones.
fn heif(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let ftyp = find(head, &[b"ftyp"])?;
    let (major, rest) = ftyp.split_at_checked(4)?;
    // The minor version stands between them.
    let mut brands = rest.get(4..).unwrap_or_default().chunks_exact(4);
    match major {
        b"avif" | b"avis" => Some(("image/avif", "avif")),
        b"heic" | b"heix" | b"heim" | b"heis" => Some(("image/heic", "heic")),
        b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some(("image/heic-sequence", "heics")),
        b"mif1" | b"msf1" | b"miaf" => {
            Some(match brands.find(|brand| brand.starts_with(b"avi") || brand.starts_with(b"hei")) {
                Some(brand) if brand.starts_with(b"avi") => ("image/avif", "avif"),
                Some(_) => ("image/heic", "heic"),
                None => ("image/heif", "heif"),
            })
        }
        _ => None,
    }
}

/// The largest of the sizes of the file's items: a tiled picture has the whole size beside those of its
/// tiles, and a thumbnail is smaller.
fn heif_size(head: &[u8]) -> Option<(u32, u32)> {
    // `meta` is a full box: its version and flags precede its content.
    let meta = find(head, &[b"meta"])?.get(4..)?;
    let properties = find(meta, &[b"iprp", b"ipco"])?;
    let four = |content: &[u8], at: usize| content.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let sizes = Boxes(properties).filter(|(name, _)| *name == b"ispe");
    let sizes = sizes.filter_map(|(_, ispe)| sides(four(ispe, 4)?, four(ispe, 8)?));
    sizes.max_by_key(|(width, height)| u64::from(*width) * u64::from(*height))
}

/// The content of the first box at this path.
fn find<'a>(mut within: &'a [u8], path: &[&[u8]]) -> Option<&'a [u8]> {
    for wanted in path.iter().take(MAX_DEPTH) {
        within = Boxes(within).find(|(name, _)| name == wanted)?.1;
    }
    Some(within)
}

/// Name and content of consecutive boxes; the content of the last may be truncated.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let short = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        let name = rest.get(4..8)?;
        let (header, length) = match short {
            // Extends to the end of the file.
            0 => (8, rest.len()),
            1 => {
                let long = u64::from_be_bytes(rest.get(8..16)?.try_into().ok()?);
                (16, usize::try_from(long).unwrap_or(usize::MAX))
            }
            short => (8, usize::try_from(short).unwrap_or(usize::MAX)),
        };
        if length < header {
            return None;
        }
        let end = length.min(rest.len());
        self.0 = &rest[end..];
        Some((name, rest.get(header..end)?))
    }
}

/// In a container the codestream is in `jxlc`, or its first part in `jxlp`, after a part number of four
/// bytes.
fn boxed_jxl_size(head: &[u8]) -> Option<(u32, u32)> {
    let (name, content) = Boxes(head).find(|(name, _)| *name == b"jxlc" || *name == b"jxlp")?;
    let stream = if name == b"jxlp" { content.get(4..)? } else { content };
    jxl_size(stream.strip_prefix(b"\xff\x0a")?)
}

/// `SizeHeader` of ISO/IEC 18181-1.
fn jxl_size(stream: &[u8]) -> Option<(u32, u32)> {
    /// Width over height, by the ratio number in the header.
    const RATIOS: [(u64, u64); 7] = [(1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)];
    let mut bits = Bits { stream, at: 0 };
    let small = bits.take(1)? == 1;
    let height = bits.side(small)?;
    let width = match usize::try_from(bits.take(3)?).ok()? {
        0 => bits.side(small)?,
        ratio => {
            let (over, under) = RATIOS[ratio - 1];
            height * over / under
        }
    };
    sides(u32::try_from(width).ok()?, u32::try_from(height).ok()?)
}

/// Bits, from the lowest of each byte on.
struct Bits<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u64> {
        let mut value = 0;
        for nth in 0..count {
            let byte = self.stream.get(self.at / 8)?;
            value |= u64::from(byte >> (self.at % 8) & 1) << nth;
            self.at += 1;
        }
        Some(value)
    }

    fn side(&mut self, small: bool) -> Option<u64> {
        if small {
            return Some((self.take(5)? + 1) * 8);
        }
        let length = [9, 13, 18, 30][usize::try_from(self.take(2)?).ok()?];
        Some(self.take(length)? + 1)
    }
}
