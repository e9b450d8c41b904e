//! Recognises a result by its first bytes: every picture format in use, including those that this program
//! cannot decode.
//!
//! A paid result is kept as it came, so [`identify`] refuses nothing that is a picture: too many pixels, a
//! header that cannot be read and pixels that cannot be decoded are no reason. [`super::inspect`] is for
//! pictures that are worked on.

use super::kinds::looks_like;
use super::{Format, MediaError, inspect, recognise};

mod boxes;
mod svg;

/// A picture format, from the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The media type, e.g. `image/avif`.
    pub content_type: &'static str,
    /// The usual file name extension, without a dot.
    pub extension: &'static str,
    /// Width and height in pixels, if known.
    pub size: Option<(u32, u32)>,
    /// The format, if this program decodes it.
    pub format: Option<Format>,
}

/// Formats with a magic number, and the place of their dimensions.
const BY_MAGIC: &[(&[u8], &str, &str, Sides)] = &[
    (b"8BPS", "image/vnd.adobe.photoshop", "psd", Sides::Be { height: 14, width: 18 }),
    (b"\0\0\x01\0", "image/vnd.microsoft.icon", "ico", Sides::Bytes { width: 6, height: 7 }),
    (b"qoif", "image/qoi", "qoi", Sides::Be { width: 4, height: 8 }),
    (b"DDS ", "image/vnd.ms-dds", "dds", Sides::Le { height: 12, width: 16 }),
    (b"farbfeld", "image/x-farbfeld", "ff", Sides::Be { width: 8, height: 12 }),
    (b"\xff\x4f\xff\x51", "image/j2c", "j2c", Sides::Be { width: 8, height: 12 }),
    (b"v/1\x01", "image/x-exr", "exr", Sides::Unknown),
    (b"#?RADIANCE", "image/vnd.radiance", "hdr", Sides::Unknown),
    (b"#?RGBE", "image/vnd.radiance", "hdr", Sides::Unknown),
    (b"II\xbc\x01", "image/jxr", "jxr", Sides::Unknown),
    (b"II+\0", "image/tiff", "tiff", Sides::Unknown),
    (b"MM\0+", "image/tiff", "tiff", Sides::Unknown),
    (b"gimp xcf ", "image/x-xcf", "xcf", Sides::Be { width: 14, height: 18 }),
    (b"FLIF", "image/flif", "flif", Sides::Unknown),
    (b"BPG\xfb", "image/bpg", "bpg", Sides::Unknown),
];

/// Place of width and height in a header.
#[derive(Debug, Clone, Copy)]
enum Sides {
    /// Four bytes each, big-endian.
    Be { width: usize, height: usize },
    /// Four bytes each, little-endian.
    Le { width: usize, height: usize },
    /// A byte each; 0 is 256.
    Bytes { width: usize, height: usize },
    /// At no fixed place.
    Unknown,
}

/// Recognises a picture by its content. `head` is the file or a part of its beginning. `None`: not a picture
/// (a page, an error, a video, empty).
pub fn identify(head: &[u8]) -> Option<Kind> {
    if let Some(format) = recognise(head) {
        return Some(decodable(format, head));
    }
    if let Some((_, content_type, extension, sides)) =
        BY_MAGIC.iter().find(|(magic, ..)| head.starts_with(magic))
    {
        return Some(Kind { content_type, extension, size: sides.read(head), format: None });
    }
    boxes::identify(head).or_else(|| netpbm(head)).or_else(|| svg::identify(head))
}

/// A description of other content, for people: e.g. `an HTML page`.
#[must_use]
pub fn describe(head: &[u8]) -> &'static str {
    looks_like(head)
}

/// Whether a browser must download this rather than show it: formats that can run scripts in the embedding
/// page, and anything that is not a picture.
#[must_use]
pub fn is_attachment(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("image/svg") || !essence.starts_with("image/")
}

fn decodable(format: Format, head: &[u8]) -> Kind {
    let size = match inspect(head) {
        Ok(media) => Some((media.width, media.height)),
        Err(MediaError::TooManyPixels { width, height, .. }) => Some((width, height)),
        Err(
            MediaError::NotAnImage { .. }
            | MediaError::BadHeader { .. }
            | MediaError::Unsupported { .. }
            | MediaError::Undecodable { .. }
            | MediaError::Unencodable { .. },
        ) => None,
    };
    Kind { content_type: format.content_type(), extension: format.extension(), size, format: Some(format) }
}

impl Sides {
    fn read(self, head: &[u8]) -> Option<(u32, u32)> {
        let four = |at: usize| head.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        match self {
            Self::Be { width, height } => {
                sides(four(width).map(u32::from_be_bytes)?, four(height).map(u32::from_be_bytes)?)
            }
            Self::Le { width, height } => {
                sides(four(width).map(u32::from_le_bytes)?, four(height).map(u32::from_le_bytes)?)
            }
            Self::Bytes { width, height } => {
                let side = |at: usize| head.get(at).map(|side| if *side == 0 { 256 } else { (*side).into() });
                sides(side(width)?, side(height)?)
            }
            Self::Unknown => None,
        }
    }
}

/// A plausible size; an absurd one counts as unknown.
fn sides(width: u32, height: u32) -> Option<(u32, u32)> {
    let plausible = |side: u32| (1..=i32::MAX.unsigned_abs()).contains(&side);
    (plausible(width) && plausible(height)).then_some((width, height))
}

/// `P1` to `P6` with width and height as text (https://netpbm.sourceforge.net/doc/pnm.html). Text that begins
/// so is rare, and two numbers must follow.
fn netpbm(head: &[u8]) -> Option<Kind> {
    let (content_type, extension) = match head.get(..3)? {
        [b'P', b'1' | b'4', space] if space.is_ascii_whitespace() => ("image/x-portable-bitmap", "pbm"),
        [b'P', b'2' | b'5', space] if space.is_ascii_whitespace() => ("image/x-portable-graymap", "pgm"),
        [b'P', b'3' | b'6', space] if space.is_ascii_whitespace() => ("image/x-portable-pixmap", "ppm"),
        _ => return None,
    };
    let text = head.get(2..head.len().min(512))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
    let mut words =
        lines.flat_map(|line| line.split(u8::is_ascii_whitespace)).filter(|word| !word.is_empty());
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u32>().ok();
    let size = sides(number()?, number()?)?;
    Some(Kind { content_type, extension, size: Some(size), format: None })
}

#[cfg(test)]
mod tests;
