//! A picture as a provider gets it: decoded in full, and upright.
//!
//! What must stay true: a picture that needs no turning goes out exactly as it came; one that does is turned
//! in the pixels and carries no orientation any more, so that nothing turns it twice.

use bytes::Bytes;
use image::metadata::Orientation;

use super::{Format, Media, MediaError, Pixels, inspect, orientation};

/// Qualities that a turned JPEG is written at until it is small enough. It was lossy before; at the first,
/// another loss can't be seen.
const JPEG_QUALITIES: [u8; 4] = [96, 92, 88, 80];

/// Decodes the picture in full, and gives it upright. `fits` says whether the provider takes a file: where
/// turning makes the file too large, other ways to write it are tried, without loss as far as that is
/// possible. Where none fits, the first is given. Takes as long as decoding does: not for an async thread.
///
/// # Errors
/// [`MediaError::Undecodable`], and what else is wrong with the pixels.
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

/// In its own format first; without loss as long as it is not lossy already.
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
