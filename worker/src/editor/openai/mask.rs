//! Converts our mask to OpenAI's: ours marks the edited part by white, theirs by transparency.
//!
//! Invariant: the same mask always gives the same bytes, and the kept part is fully opaque.

use bytes::Bytes;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, LumaA};

use super::check::{MAX_FILE_BYTES, invalid_mask};
use crate::editor::{EditError, Picture};
use crate::media;

/// An RGBA PNG that is transparent where the mask is white and opaque where it is black or transparent; grey
/// is in between. As slow as decoding: not for an async thread.
pub(super) fn transparent(mask: &Picture) -> Result<Bytes, EditError> {
    let pixels = media::decode(&mask.bytes, &mask.media)
        .map_err(|error| EditError::rejected(error.code(), format!("mask: {error}")))?
        .into_luma_alpha8();
    let (width, height) = pixels.dimensions();
    let rgba: Vec<u8> = pixels.pixels().flat_map(|pixel| [0, 0, 0, u8::MAX - weight(*pixel)]).collect();
    let mut out = Vec::new();
    PngEncoder::new(&mut out)
        .write_image(&rgba, width, height, ExtendedColorType::Rgba8)
        .map_err(|error| EditError::rejected("unencodable", format!("mask: {error}")))?;
    if out.len() >= MAX_FILE_BYTES {
        return Err(invalid_mask(format!(
            "the mask with its transparency has {} bytes; the provider takes less than {MAX_FILE_BYTES}: use \
             fewer shades of grey",
            out.len()
        )));
    }
    Ok(out.into())
}

/// The weight of the edit: brightness, and 0 where the mask is transparent, as everywhere in this program.
fn weight(LumaA([luma, alpha]): LumaA<u8>) -> u8 {
    let product = (u16::from(luma) * u16::from(alpha) + 127) / 255;
    u8::try_from(product).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, Luma, RgbaImage};
    use std::io::Cursor;

    use super::*;

    fn picture(image: &DynamicImage) -> Picture {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let bytes = Bytes::from(bytes.into_inner());
        let media = media::inspect(&bytes).unwrap();
        Picture { bytes, media }
    }

    fn alphas(mask: &DynamicImage) -> Vec<u8> {
        let png = transparent(&picture(mask)).unwrap();
        let rgba = image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap();
        assert_eq!(rgba.color(), image::ColorType::Rgba8);
        rgba.into_rgba8().pixels().map(|pixel| pixel[3]).collect()
    }

    #[test]
    fn white_becomes_transparent_black_opaque_and_grey_translucent() {
        let mut mask = GrayImage::new(4, 1);
        for (x, value) in [0, 255, 64, 254].into_iter().enumerate() {
            mask.put_pixel(u32::try_from(x).unwrap(), 0, Luma([value]));
        }
        assert_eq!(alphas(&mask.into()), [255, 0, 191, 1]);
    }

    #[test]
    fn a_transparent_part_of_the_mask_counts_as_black() {
        let mut mask = GrayAlphaImage::new(3, 1);
        for (x, alpha) in [0, 128, 255].into_iter().enumerate() {
            mask.put_pixel(u32::try_from(x).unwrap(), 0, LumaA([255, alpha]));
        }
        assert_eq!(alphas(&mask.into()), [255, 127, 0]);
    }

    #[test]
    fn white_is_white_in_every_kind_of_png() {
        let white = DynamicImage::from(RgbaImage::from_pixel(2, 2, image::Rgba([255; 4])));
        for mask in [
            white.clone().into_rgb8().into(),
            white.clone().into_rgb16().into(),
            white.clone().into_rgba16().into(),
            white.clone().into_luma8().into(),
            white.clone().into_luma16().into(),
            DynamicImage::from(white.into_luma_alpha16()),
        ] {
            assert_eq!(alphas(&mask), [0; 4], "{:?}", mask.color());
        }
    }

    #[test]
    fn the_same_mask_gives_the_same_bytes() {
        let mask = picture(&GrayImage::from_fn(9, 5, |x, y| Luma([u8::try_from(x * y * 7).unwrap()])).into());
        assert_eq!(transparent(&mask), transparent(&mask));
    }

    #[test]
    fn a_mask_that_is_cut_short_is_refused_before_anything_is_sent() {
        let mut mask = picture(&GrayImage::new(64, 64).into());
        mask.bytes = mask.bytes.slice(..mask.bytes.len() - 20);
        let refused = transparent(&mask).unwrap_err().to_string();
        assert!(refused.starts_with("undecodable: mask:"), "{refused}");
    }
}
