//! What a result is, by its first bytes: every picture format that is in use, also those that this program
//! cannot decode.
//!
//! A paid result is kept as it came, so [`identify`] refuses nothing that is a picture: too many pixels, a
//! header that cannot be read and pixels that cannot be decoded are no reason. [`super::inspect`] is for
//! pictures that are worked on.

use super::kinds::looks_like;
use super::{Format, MediaError, inspect, recognise};

mod boxes;
mod svg;

/// A picture, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The media type, e.g. `image/avif`.
    pub content_type: &'static str,
    /// The usual file name extension, without a dot.
    pub extension: &'static str,
    /// Width and height in pixels, where they can be known.
    pub size: Option<(u32, u32)>,
    /// The format, where this program decodes it.
    pub format: Option<Format>,
}

/// Formats that are told by their first bytes alone, with where their sizes are.
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

/// Where width and height stand in a header.
#[derive(Debug, Clone, Copy)]
enum Sides {
    /// Four bytes each, the highest first.
    Be { width: usize, height: usize },
    /// Four bytes each, the lowest first.
    Le { width: usize, height: usize },
    /// A byte each; 0 is 256.
    Bytes { width: usize, height: usize },
    /// Not at a fixed place.
    Unknown,
}

/// Recognises a picture by its content. `head` is the file, or as much of its beginning as is at hand.
/// `None`: no picture (a page, an error, a video, nothing at all).
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

/// What these bytes look like where they are no picture, for people: e.g. `an HTML page`.
#[must_use]
pub fn describe(head: &[u8]) -> &'static str {
    looks_like(head)
}

/// Whether a browser must download this rather than show it: what can run scripts in the page that it is
/// opened in, and whatever is no picture.
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

/// A size that a picture can have: what is absurd is not known.
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
