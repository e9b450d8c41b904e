//! The EXIF orientation of a file, in every format that stores it.
//!
//! Invariant: the header's dimensions ([`super::inspect`]) and the pixels ([`super::Pixels`]) use this
//! function alone, so that they never disagree.

use image::metadata::Orientation;

use super::tiff::Tiff;
use super::{Format, jpeg};

const ORIENTATION: u16 = 0x0112;

/// The orientation of a file; none if it is missing or invalid.
pub(super) fn orientation(bytes: &[u8], format: Format) -> Orientation {
    let exif = match format {
        Format::Jpeg => jpeg::exif(bytes),
        Format::Png => png_exif(bytes),
        Format::WebP => webp_exif(bytes),
        Format::Tiff => Some(bytes),
        Format::Gif | Format::Bmp => None,
    };
    exif.and_then(of_exif).unwrap_or(Orientation::NoTransforms)
}

/// Whether the orientation swaps width and height.
pub(super) const fn swaps_sides(orientation: Orientation) -> bool {
    match orientation {
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => true,
    }
}

/// From an EXIF block, which is a TIFF file; some writers put JPEG's prefix before it in other formats too.
fn of_exif(exif: &[u8]) -> Option<Orientation> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let (tiff, first) = Tiff::open(exif)?;
    let directory = tiff.directory(first)?;
    let value = tiff.numbers(directory.entry(ORIENTATION)?, 1).first().copied()?;
    Orientation::from_exif(u8::try_from(value).ok()?)
}

fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        match rest.get(4..8)? {
            b"eXIf" => return rest.get(8..length.checked_add(8)?),
            b"IEND" => return None,
            // The checksum follows the data.
            _ => rest = rest.get(length.checked_add(12)?..)?,
        }
    }
}

fn webp_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let length = usize::try_from(u32::from_le_bytes(*rest.get(4..8)?.first_chunk()?)).ok()?;
        if rest.starts_with(b"EXIF") {
            return rest.get(8..length.checked_add(8)?);
        }
        // Chunks begin at even offsets.
        rest = rest.get(length.checked_add(8 + length % 2)?..)?;
    }
}
