//! Checks for the end of a picture file without decoding it: for a result whose decoding may have killed a
//! process.

use super::Format;
use super::pixels::jpeg_segments;

/// Whether the end of the file is certainly missing. A format without an end mark counts as whole.
pub fn is_cut_short(bytes: &[u8], format: Format) -> bool {
    match format {
        Format::Png => !png_has_end(bytes),
        Format::Jpeg => !jpeg_has_end(bytes),
        // RIFF: the size of the content after its first 8 bytes.
        Format::WebP => declared(bytes, 4).is_none_or(|size| size + 8 > bytes.len()),
        Format::Gif => bytes.last() != Some(&0x3b),
        Format::Bmp => declared(bytes, 2).is_none_or(|size| size > bytes.len()),
        Format::Tiff => false,
    }
}

fn declared(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

/// Follows the chunks to IEND. <https://www.w3.org/TR/png-3/#5Chunk-layout>
fn png_has_end(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(next) = at.checked_add(length).and_then(|at| at.checked_add(12)) else { return false };
        if next > bytes.len() {
            return false;
        }
        if &head[4..] == b"IEND" {
            return true;
        }
        at = next;
    }
    false
}

/// An end marker after the first segments: a thumbnail in EXIF has its own.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let header = 2 + jpeg_segments(bytes).map(|(_, data)| 4 + data.len()).sum::<usize>();
    let scans = bytes.get(header..).unwrap_or_default();
    scans.windows(2).any(|pair| pair == [0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat};

    use super::*;

    #[test]
    fn a_truncated_file_is_recognised_without_decoding() {
        for (format, library) in [
            (Format::Png, ImageFormat::Png),
            (Format::Jpeg, ImageFormat::Jpeg),
            (Format::WebP, ImageFormat::WebP),
            (Format::Gif, ImageFormat::Gif),
            (Format::Bmp, ImageFormat::Bmp),
        ] {
            let mut bytes = Cursor::new(Vec::new());
            DynamicImage::new_rgb8(40, 30).write_to(&mut bytes, library).unwrap();
            let bytes = bytes.into_inner();
            assert!(!is_cut_short(&bytes, format), "{format:?}");
            for cut in [bytes.len() / 2, bytes.len() - 3] {
                assert!(is_cut_short(&bytes[..cut], format), "{format:?} at {cut}");
            }
        }
    }
}
