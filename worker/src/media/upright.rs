//! Prepares a picture for a provider: decoded in full, and upright.
//!
//! Invariant: an upright picture is sent exactly as it came; another one is rotated in the pixels and loses
//! its orientation tag, so that no reader rotates it twice.

use bytes::Bytes;
use image::metadata::Orientation;

use super::{Format, Media, MediaError, Pixels, inspect, orientation};

/// Qualities for a rotated JPEG until it is small enough. It was lossy before; at the first quality another
/// loss is invisible.
const JPEG_QUALITIES: [u8; 4] = [96, 92, 88, 80];

/// Decodes the picture in full, and returns it upright. `fits` tells whether the provider accepts a file: if
/// rotation makes the file too large, other encodings are tried, lossless ones first. If none fits, the first
/// is returned. As slow as decoding: not for an async thread.
///
/// # Errors
/// [`MediaError::Undecodable`], and other faults of the pixels.
pub fn upright(
    bytes: &Bytes,
    media: Media,
    fits: impl Fn(Media, usize) -> bool,
) -> Result<(Bytes, Media), MediaError> {
    let pixels = Pixels::decode(bytes, &media)?;
    if orientation::orientation(bytes, media.format) == Orientation::NoTransforms {
        return Ok((bytes.clone(), media));
    }
    let mut first = None;
    for (format, quality) in ways(media.format, &pixels) {
        let (written, format) = pixels.clone().encode_at(format, quality)?;
        let media = Media { format, ..inspect(&written)? };
        let written = Bytes::from(written);
        if fits(media, written.len()) {
            return Ok((written, media));
        }
        first.get_or_insert((written, media));
    }
    first.map_or_else(|| Ok((bytes.clone(), media)), Ok)
}

/// Its own format first; lossless unless it is lossy already.
fn ways(format: Format, pixels: &Pixels) -> Vec<(Format, u8)> {
    let best = JPEG_QUALITIES[0];
    let jpegs = JPEG_QUALITIES.map(|quality| (Format::Jpeg, quality));
    let mut ways = match format {
        Format::Jpeg => Vec::new(),
        Format::Png | Format::Gif => vec![(Format::Png, best)],
        Format::WebP => vec![(Format::WebP, best)],
        Format::Bmp | Format::Tiff => vec![(format, best), (Format::Png, best)],
    };
    // A JPEG would lose transparency.
    if !pixels.image.color().has_alpha() {
        ways.extend(jpegs);
    }
    ways
}

#[cfg(test)]
mod tests;
