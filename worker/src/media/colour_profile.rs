//! Colour management: decodes pictures for a local edit with their colours, and converts them to sRGB.
//!
//! Invariant: colour information (an ICC profile, the chunks of a PNG) is applied or travels with the pixels,
//! and is never dropped silently. An unreadable profile counts as none, as in a browser.

use std::io::Cursor;
use std::sync::Arc;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use moxcms::{
    ColorProfile, DataColorSpace, InterpolationMethod, Layout, ParsingOptions, RenderingIntent,
    TransformExecutor, TransformOptions,
};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use super::inks::Press;
use super::png_chunks::Chunks;
use super::{Format, Media, MediaError, Pixels};

/// Most bytes of a profile; those of printing presses have up to three million.
pub(super) const MAX_PROFILE_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes of CMYK samples: 64 megapixels of 16 bits.
const MAX_INK_BYTES: usize = 512 * 1024 * 1024;

impl Pixels {
    /// As [`Pixels::decode`], with managed colours: CMYK is converted through its profile to sRGB, and so is
    /// a PNG whose chunks declare another colour space. Profiles of RGB and grey stay beside the pixels.
    ///
    /// # Errors
    /// [`MediaError::Undecodable`] or [`MediaError::Unsupported`].
    pub fn decode_managed(bytes: &[u8], media: &Media) -> Result<Self, MediaError> {
        let mut pixels = Self::decode(bytes, media)?;
        if media.format == Format::Png {
            let chunks = Chunks::read(bytes);
            if let Some(profile) = chunks.profile(!pixels.image.color().has_color())? {
                pixels.profile = None;
                convert(&mut pixels.image, &profile);
            }
            return Ok(pixels);
        }
        let ink = pixels.profile.as_deref().and_then(|profile| parse(profile, DataColorSpace::Cmyk));
        let Some(profile) = ink else { return Ok(pixels) };
        // Never both at once: the pixels decoded without the profile are freed for the inks.
        pixels.image = DynamicImage::new(1, 1, pixels.image.color());
        pixels.profile = None;
        match from_inks(bytes, media, &profile) {
            Some(image) => pixels.image = image,
            None => pixels.image = Self::decode(bytes, media)?.image,
        }
        Ok(pixels)
    }

    /// The same picture in sRGB, without a profile. A picture with an unusable profile stays as it is.
    pub fn into_srgb(mut self) -> Self {
        let space = if self.image.color().has_color() { DataColorSpace::Rgb } else { DataColorSpace::Gray };
        let profile = self.profile.as_deref().and_then(|profile| parse(profile, space));
        if profile.is_some_and(|profile| convert(&mut self.image, &profile)) {
            self.profile = None;
        }
        self
    }
}

fn parse(profile: &[u8], space: DataColorSpace) -> Option<ColorProfile> {
    let options = ParsingOptions { max_profile_size: MAX_PROFILE_BYTES + 1, ..ParsingOptions::default() };
    let profile = ColorProfile::new_from_slice_with_options(profile, options).ok()?;
    (profile.color_space == space).then_some(profile)
}

/// The defaults of littleCMS.
fn options() -> TransformOptions {
    TransformOptions {
        rendering_intent: RenderingIntent::Perceptual,
        interpolation_method: InterpolationMethod::Tetrahedral,
        barycentric_weight_scale: moxcms::BarycentricWeightScale::High,
        prefer_fixed_point: false,
        ..TransformOptions::default()
    }
}

/// Converts pixels in place to sRGB; returns whether it could.
fn convert(image: &mut DynamicImage, profile: &ColorProfile) -> bool {
    match image {
        DynamicImage::ImageRgb32F(_) => *image = image.to_rgb16().into(),
        DynamicImage::ImageRgba32F(_) => *image = image.to_rgba16().into(),
        _ => {}
    }
    let (width, colour) = (image.width() as usize, image.color());
    let row = width * usize::from(colour.channel_count());
    let layout = match (colour.has_color(), colour.has_alpha()) {
        (false, false) => Layout::Gray,
        (false, true) => Layout::GrayAlpha,
        (true, false) => Layout::Rgb,
        (true, true) => Layout::Rgba,
    };
    let mut srgb = ColorProfile::new_srgb();
    if !colour.has_color() {
        let curve = srgb.red_trc.clone();
        srgb = ColorProfile::new_gray_with_gamma(1.0);
        srgb.gray_trc = curve;
    }
    let shallow = || profile.create_transform_8bit(layout, &srgb, layout, options());
    let deep = || profile.create_transform_16bit(layout, &srgb, layout, options());
    let converted = match image {
        DynamicImage::ImageLuma8(pixels) => shallow().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageLumaA8(pixels) => shallow().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageRgb8(pixels) => shallow().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageRgba8(pixels) => shallow().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageLuma16(pixels) => deep().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageLumaA16(pixels) => deep().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageRgb16(pixels) => deep().map(|by| rows(pixels, row, &*by)),
        DynamicImage::ImageRgba16(pixels) => deep().map(|by| rows(pixels, row, &*by)),
        // Floating point is handled above; the library's enum is open.
        _ => return false,
    };
    converted.is_ok_and(|converted| converted)
}

/// One row at a time: beside the picture there is memory for one row.
fn rows<S: Copy + Default>(samples: &mut [S], row: usize, by: &dyn TransformExecutor<S>) -> bool {
    let mut before = vec![S::default(); row];
    samples.chunks_exact_mut(row).all(|line| {
        before.copy_from_slice(line);
        by.transform(&before, line).is_ok()
    })
}

/// Four inks a pixel; 0 is no ink.
enum Inks {
    Shallow(Vec<u8>),
    Deep(Vec<u16>),
}

fn from_inks(bytes: &[u8], media: &Media, profile: &ColorProfile) -> Option<DynamicImage> {
    let inks = match media.format {
        Format::Jpeg => jpeg_inks(bytes)?,
        Format::Tiff => tiff_inks(bytes)?,
        Format::Png | Format::WebP | Format::Gif | Format::Bmp => return None,
    };
    let mut image = match inks {
        Inks::Shallow(inks) => {
            let by = || {
                profile.create_transform_8bit(Layout::Rgba, &ColorProfile::new_srgb(), Layout::Rgb, options())
            };
            let colours = colours(&inks, profile, u8::MAX, to_byte, || by().ok())?;
            DynamicImage::from(RgbImage::from_raw(media.width, media.height, colours)?)
        }
        Inks::Deep(inks) => {
            let by = || {
                profile.create_transform_16bit(
                    Layout::Rgba,
                    &ColorProfile::new_srgb(),
                    Layout::Rgb,
                    options(),
                )
            };
            let colours = colours(&inks, profile, u16::MAX, to_word, || by().ok())?;
            image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(media.width, media.height, colours)?.into()
        }
    };
    let reader = ImageReader::with_format(Cursor::new(bytes), media.format.library());
    let orientation = reader.into_decoder().ok().and_then(|mut decoder| decoder.orientation().ok());
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Some(image)
}

/// Converts through the table of the press; for a profile with another kind of table, `by` converts.
fn colours<S: Copy + Default + Into<f32>>(
    inks: &[S],
    profile: &ColorProfile,
    full: S,
    nearest: impl Fn(f32) -> S,
    by: impl Fn() -> Option<Arc<dyn TransformExecutor<S> + Send + Sync>>,
) -> Option<Vec<S>> {
    let mut colours = vec![S::default(); inks.len() / 4 * 3];
    let Some(press) = Press::new(profile) else {
        by()?.transform(inks, &mut colours).ok()?;
        return Some(colours);
    };
    let full = full.into();
    for (colour, inks) in colours.as_chunks_mut::<3>().0.iter_mut().zip(inks.as_chunks::<4>().0) {
        let found = press.srgb(inks.map(|ink| ink.into() / full));
        *colour = found.map(|value| nearest(value * full));
    }
    Some(colours)
}

/// The inks of a JPEG. All programs write them inverted, as Adobe's did first.
fn jpeg_inks(bytes: &[u8]) -> Option<Inks> {
    let options =
        DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let space = decoder.input_colorspace()?;
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut samples = decoder.decode().ok()?;
    match space {
        ColorSpace::CMYK => samples.iter_mut().for_each(|sample| *sample = 255 - *sample),
        ColorSpace::YCCK => {
            for pixel in samples.as_chunks_mut::<4>().0 {
                let [y, cb, cr, black] = pixel.map(f32::from);
                let (cb, cr) = (cb - 128.0, cr - 128.0);
                // Decoding gives the inverted inks in YCbCr: this reverses both.
                let inks = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
                let [c, m, y] = inks.map(to_byte);
                *pixel = [c, m, y, 255 - to_byte(black)];
            }
        }
        _ => return None,
    }
    Some(Inks::Shallow(samples))
}

fn tiff_inks(bytes: &[u8]) -> Option<Inks> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_INK_BYTES;
    limits.intermediate_buffer_size = MAX_INK_BYTES;
    let readable = super::tiff_kinds::readable(bytes, Format::Tiff).ok()?;
    let mut decoder = Decoder::new(Cursor::new(readable.bytes())).ok()?.with_limits(limits);
    match decoder.read_image().ok()? {
        DecodingResult::U8(inks) => Some(Inks::Shallow(inks)),
        DecodingResult::U16(inks) => Some(Inks::Deep(inks)),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded; the cast saturates")]
fn to_byte(value: f32) -> u8 {
    value.round() as u8
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded; the cast saturates")]
fn to_word(value: f32) -> u16 {
    value.round() as u16
}
