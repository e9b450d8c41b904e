//! Recognises pictures by their content, never by name or Content-Type header.
//!
//! [`inspect`] reads a header and decodes no pixel, so that a picture beyond [`MAX_PIXELS`] costs nothing.
//! [`decode`] and [`Pixels`] decode the pixels.

mod colour_profile;
mod density;
mod identify;
mod inks;
mod jpeg;
mod kinds;
pub mod memory;
mod orientation;
mod pixels;
mod png_chunks;
mod tags;
mod tiff;
mod tiff_kinds;
mod upright;
mod whole;
mod write;

use std::fmt;
use std::io::Cursor;

use image::{ImageError, ImageFormat, ImageReader, Limits};
use thiserror::Error;

pub use density::Density;
pub use identify::{Kind, describe, identify, is_attachment};
pub use pixels::{Pixels, decode};
pub use upright::upright;
pub use whole::is_cut_short;

use kinds::{Unread, looks_like};

use crate::words::one_line;

/// Most pixels in a picture, input or result.
pub const MAX_PIXELS: u64 = 64_000_000;

/// Most bytes that reading a header may allocate: colour profiles and text chunks can be bombs too.
const MAX_HEADER_ALLOC: u64 = 64 * 1024 * 1024;

/// The picture formats that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
    /// GIF; only its first frame counts.
    Gif,
    /// BMP.
    Bmp,
    /// TIFF.
    Tiff,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::Png, Self::Jpeg, Self::WebP, Self::Gif, Self::Bmp, Self::Tiff];

    /// The media type, e.g. `image/png`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }

    /// The usual file name extension, without a dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }

    /// The format that a Content-Type names; old spellings and parameters are allowed. It is the server's
    /// claim: for file names and comparison, never a replacement for [`inspect`].
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "image/png" | "image/apng" | "image/x-png" => Some(Self::Png),
            "image/jpeg" | "image/jpg" | "image/pjpeg" => Some(Self::Jpeg),
            "image/webp" => Some(Self::WebP),
            "image/gif" => Some(Self::Gif),
            "image/bmp" | "image/x-bmp" | "image/x-ms-bmp" => Some(Self::Bmp),
            "image/tiff" | "image/tif" | "image/x-tiff" => Some(Self::Tiff),
            _ => None,
        }
    }

    /// Most pixels on one side that the format can hold.
    pub const fn max_side(self) -> u32 {
        match self {
            Self::WebP => 16_383,
            Self::Jpeg | Self::Gif => 65_535,
            Self::Png | Self::Bmp | Self::Tiff => i32::MAX as u32,
        }
    }

    const fn library(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
            Self::Gif => ImageFormat::Gif,
            Self::Bmp => ImageFormat::Bmp,
            Self::Tiff => ImageFormat::Tiff,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// Metadata from a picture's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The format of the file.
    pub format: Format,
    /// In pixels, upright: as the picture is shown, with its EXIF orientation applied.
    pub width: u32,
    /// In pixels, upright.
    pub height: u32,
    /// The file stores the picture on its side, with width and height swapped.
    pub on_its_side: bool,
}

/// Why bytes cannot be used as a picture.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MediaError {
    /// None of the formats.
    #[error("not a picture but {looks_like}; PNG, JPEG, WebP, GIF, BMP and TIFF are understood")]
    NotAnImage {
        /// A guess, for people.
        looks_like: &'static str,
    },
    /// A kind of picture that is not supported, or would be decoded wrongly.
    #[error("{what}: {fix}")]
    Unsupported {
        /// The kind, e.g. `HEIC`.
        what: String,
        /// What to do, e.g. `convert it first`.
        fix: String,
    },
    /// A known magic number, followed by nonsense.
    #[error("begins like a {format}, but its header cannot be read: {message}")]
    BadHeader {
        /// The recognised format.
        format: Format,
        /// The decoder's words.
        message: String,
    },
    /// Refused from the header, before any decoding.
    #[error("has {width} by {height} pixels; the limit is {limit} pixels in all")]
    TooManyPixels {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// [`MAX_PIXELS`].
        limit: u64,
    },
    /// A good header, but undecodable pixels: truncated, corrupt, or of an unsupported kind.
    #[error("the {format} cannot be decoded: {message}")]
    Undecodable {
        /// Its format.
        format: Format,
        /// The decoder's words.
        message: String,
    },
    /// A picture that the target format cannot hold.
    #[error("cannot be written as {format}: {message}")]
    Unencodable {
        /// The format asked for.
        format: Format,
        /// The encoder's words.
        message: String,
    },
}

impl MediaError {
    /// A decoder that panicked: a bug in it, which this picture triggers every time.
    pub fn undecodable_for_a_bug(format: Format) -> Self {
        Self::Undecodable { format, message: "the decoder failed unexpectedly".to_owned() }
    }

    /// The error code in a producer's event.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnImage { .. } | Self::BadHeader { .. } => "not_an_image",
            Self::Unsupported { .. } => "unsupported",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::Undecodable { .. } => "undecodable",
            Self::Unencodable { .. } => "unencodable",
        }
    }
}

/// Recognises a picture and reads its upright dimensions from the header; decodes no pixel.
///
/// # Errors
/// [`MediaError::NotAnImage`], [`MediaError::Unsupported`], [`MediaError::BadHeader`] or
/// [`MediaError::TooManyPixels`].
pub fn inspect(bytes: &[u8]) -> Result<Media, MediaError> {
    if let Some(Unread { what, fix }) = kinds::unread(bytes) {
        return Err(MediaError::Unsupported { what, fix: fix.to_owned() });
    }
    let format = recognise(bytes).ok_or_else(|| MediaError::NotAnImage { looks_like: looks_like(bytes) })?;
    // The PNG reader answers absurd dimensions with "limits exceeded" and does not report them.
    if let Some((width, height)) = png_dimensions(format, bytes) {
        check_pixels(width, height)?;
    }
    if let Some(error) = unsupported(bytes, format) {
        return Err(error);
    }
    let bad = |message: String| MediaError::BadHeader { format, message: one_line(&message) };
    let not_read = |error: ImageError| match error {
        // The other decoders call nonsense after the magic number unsupported, too.
        ImageError::Unsupported(_) if format == Format::Tiff => unsupported_by_decoder(format, &error),
        _ => bad(error.to_string()),
    };
    let readable = tiff_kinds::readable(bytes, format)?;
    let mut reader = ImageReader::with_format(Cursor::new(readable.bytes()), format.library());
    reader.limits(header_limits(bytes, format));
    let (width, height) = reader.into_dimensions().map_err(not_read)?;
    if width == 0 || height == 0 {
        return Err(bad(format!("it has {width} by {height} pixels")));
    }
    check_pixels(width, height)?;
    let on_its_side = orientation::swaps_sides(orientation::orientation(bytes, format));
    let (width, height) = if on_its_side { (height, width) } else { (width, height) };
    Ok(Media { format, width, height, on_its_side })
}

/// JPEG kinds that the decoder lacks; `tiff_kinds` recognises those of TIFF.
fn unsupported(bytes: &[u8], format: Format) -> Option<MediaError> {
    let what = Some(bytes).filter(|_| format == Format::Jpeg).and_then(jpeg::unsupported)?.to_owned();
    Some(MediaError::Unsupported { what, fix: "convert it to an ordinary JPEG first".to_owned() })
}

/// As [`unsupported`], for kinds that only the decoder recognises.
fn unsupported_by_decoder(format: Format, error: &ImageError) -> MediaError {
    MediaError::Unsupported {
        what: format!("a kind of {format} that is not read ({error})"),
        fix: kinds::CONVERT.to_owned(),
    }
}

/// The kind of a file, by its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// A supported picture.
    Picture(Format),
    /// An unsupported picture format, or similar: its name.
    Unread(String),
    /// Anything else: a guess, for people.
    Other(&'static str),
}

/// Recognises a file by its first bytes.
pub fn sniff(head: &[u8]) -> Sniffed {
    if let Some(Unread { what, .. }) = kinds::unread(head) {
        return Sniffed::Unread(what);
    }
    recognise(head).map_or_else(|| Sniffed::Other(looks_like(head)), Sniffed::Picture)
}

/// Refuses dimensions beyond [`MAX_PIXELS`].
///
/// # Errors
/// [`MediaError::TooManyPixels`].
pub fn check_pixels(width: u32, height: u32) -> Result<(), MediaError> {
    if u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    Err(MediaError::TooManyPixels { width, height, limit: MAX_PIXELS })
}

/// Allocation limits for reading a header. For a PNG that is its metadata and three rows: a profile or a text
/// of a few bytes can decompress to hundreds of megabytes.
fn header_limits(bytes: &[u8], format: Format) -> Limits {
    let mut limits = Limits::no_limits();
    let rows = png_dimensions(format, bytes).map(|(width, _)| u64::from(width) * 8 * 3);
    let most = rows.map_or(MAX_HEADER_ALLOC, |rows| {
        bytes.len() as u64 + colour_profile::MAX_PROFILE_BYTES as u64 + 64 * 1024 + rows
    });
    limits.max_alloc = Some(most.min(MAX_HEADER_ALLOC));
    limits
}

fn recognise(bytes: &[u8]) -> Option<Format> {
    // BigTIFF, which the library decodes but does not recognise.
    if bytes.starts_with(b"II+\0\x08\0\0\0") || bytes.starts_with(b"MM\0+\0\x08\0\0") {
        return Some(Format::Tiff);
    }
    let guessed = image::guess_format(bytes).ok()?;
    Format::ALL.into_iter().find(|format| format.library() == guessed)
}

/// Whether this begins like a picture, supported or not: not text and not another kind of file.
pub(crate) fn begins_like_a_picture(bytes: &[u8]) -> bool {
    match recognise(bytes) {
        // Two letters are too few: the header's size comes next, in one byte.
        Some(Format::Bmp) => bytes.get(15..18) == Some(&[0, 0, 0]),
        Some(_) => true,
        None if bytes.trim_ascii_start().starts_with(b"<") => looks_like(bytes) == "an SVG",
        None => matches!(looks_like(bytes), "an AVIF" | "a HEIC" | "a JPEG XL" | "a JPEG 2000"),
    }
}

/// Width and height from IHDR, right after the signature, its length and its name.
fn png_dimensions(format: Format, bytes: &[u8]) -> Option<(u32, u32)> {
    if format != Format::Png || bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    let width = bytes.get(16..20)?.try_into().ok()?;
    let height = bytes.get(20..24)?.try_into().ok()?;
    Some((u32::from_be_bytes(width), u32::from_be_bytes(height)))
}

#[cfg(test)]
mod colour_tests;
#[cfg(test)]
mod tests;
