//! What a picture is, told from its content and never from its name or a Content-Type header.
//!
//! [`inspect`] reads a header and decodes no pixel, so that a picture beyond [`MAX_PIXELS`] costs nothing.
//! [`decode`] and [`Pixels`] are for those who then want the pixels.

mod pixels;

use std::fmt;
use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};
use thiserror::Error;

pub use pixels::{Pixels, decode};

/// Most pixels in a picture, in or out.
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

    /// The format that a Content-Type names, old spellings and parameters allowed. What a server *says*:
    /// for naming files and comparing, never in place of [`inspect`].
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

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The format of the file.
    pub format: Format,
    /// In pixels, as stored: a JPEG that EXIF asks to be shown turned by 90° has its sides swapped once decoded.
    pub width: u32,
    /// In pixels, as stored.
    pub height: u32,
}

/// Why bytes are not a picture that can be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MediaError {
    /// None of the formats.
    #[error("not a picture but {looks_like}; PNG, JPEG, WebP, GIF, BMP and TIFF are understood")]
    NotAnImage {
        /// A guess, for people.
        looks_like: &'static str,
    },
    /// The first bytes of a format, and no sense after them.
    #[error("begins like a {format}, but its header cannot be read: {message}")]
    BadHeader {
        /// What it begins like.
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
    /// A good header, and pixels that cannot be had: cut short, corrupt, or of a kind that is not supported.
    #[error("the {format} cannot be decoded: {message}")]
    Undecodable {
        /// Its format.
        format: Format,
        /// The decoder's words.
        message: String,
    },
    /// A picture that its format cannot hold.
    #[error("cannot be written as {format}: {message}")]
    Unencodable {
        /// The format asked for.
        format: Format,
        /// The encoder's words.
        message: String,
    },
}

impl MediaError {
    /// The code that a producer sees.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnImage { .. } | Self::BadHeader { .. } => "not_an_image",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::Undecodable { .. } => "undecodable",
            Self::Unencodable { .. } => "unencodable",
        }
    }
}

/// Recognises a picture and reads its dimensions from the header, as stored; decodes no pixel.
///
/// # Errors
/// [`MediaError::NotAnImage`], [`MediaError::BadHeader`] or [`MediaError::TooManyPixels`].
pub fn inspect(bytes: &[u8]) -> Result<Media, MediaError> {
    let format = recognise(bytes).ok_or_else(|| MediaError::NotAnImage { looks_like: looks_like(bytes) })?;
    // The PNG reader answers absurd dimensions with "limits exceeded" and does not say which they were.
    if let Some((width, height)) = png_dimensions(format, bytes) {
        check_pixels(width, height)?;
    }
    let bad = |message: String| MediaError::BadHeader { format, message };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.library());
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_HEADER_ALLOC);
    reader.limits(limits);
    let (width, height) = reader.into_dimensions().map_err(|error| bad(error.to_string()))?;
    if width == 0 || height == 0 {
        return Err(bad(format!("it has {width} by {height} pixels")));
    }
    check_pixels(width, height)?;
    Ok(Media { format, width, height })
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

fn recognise(bytes: &[u8]) -> Option<Format> {
    let guessed = image::guess_format(bytes).ok()?;
    Format::ALL.into_iter().find(|format| format.library() == guessed)
}

/// Whether this begins as a picture does, be it one that nothing here decodes: no text and no other kind of file.
pub(crate) fn begins_like_a_picture(bytes: &[u8]) -> bool {
    match recognise(bytes) {
        // Two letters alone are no picture: its header has a size of one byte next.
        Some(Format::Bmp) => bytes.get(15..18) == Some(&[0, 0, 0]),
        Some(_) => true,
        None if bytes.trim_ascii_start().starts_with(b"<") => looks_like(bytes) == "an SVG",
        None => matches!(looks_like(bytes), "an AVIF" | "a HEIC" | "a JPEG XL" | "a JPEG 2000"),
    }
}

/// Width and height as IHDR has them, right after the signature, its length and its name.
fn png_dimensions(format: Format, bytes: &[u8]) -> Option<(u32, u32)> {
    if format != Format::Png || bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    let width = bytes.get(16..20)?.try_into().ok()?;
    let height = bytes.get(20..24)?.try_into().ok()?;
    Some((u32::from_be_bytes(width), u32::from_be_bytes(height)))
}

/// A guess at what somebody sent instead of a picture: mostly an error page, or a format that we cannot read.
fn looks_like(bytes: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 12] = [
        (b"%PDF", "a PDF"),
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"8BPS", "a Photoshop document"),
        (b"\xff\x0a", "a JPEG XL"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
        (b"qoif", "a QOI"),
        (b"v/1\x01", "an OpenEXR"),
        (b"DDS ", "a DDS texture"),
    ];
    if bytes.is_empty() {
        return "an empty file";
    }
    for (magic, name) in MAGIC {
        if bytes.starts_with(magic) {
            return name;
        }
    }
    match bytes.get(4..12) {
        Some(b"ftypavif" | b"ftypavis") => return "an AVIF",
        Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftyphevc") => return "a HEIC",
        Some(box_and_brand) if box_and_brand.starts_with(b"ftyp") => return "a video",
        _ => {}
    }
    looks_like_text(bytes)
}

fn looks_like_text(bytes: &[u8]) -> &'static str {
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    // A character cut by the end of the window is lossy too, so only control characters tell.
    let is_text = !head.iter().any(|&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "an HTML page"
    } else if text.contains("<svg") {
        "an SVG"
    } else if text.starts_with("<?xml") {
        "XML"
    } else if is_text && text.starts_with(['{', '[']) {
        "JSON"
    } else if is_text {
        "text"
    } else {
        "unknown binary data"
    }
}

#[cfg(test)]
mod tests;
