//! Writes PNG and TIFF straight from the pixels, without a second copy of them, and their density.

use std::borrow::Cow;
use std::io::{Cursor, Write};

use image::DynamicImage;
use image::codecs::jpeg::PixelDensity;
use tiff::encoder::colortype::{ColorType as TiffColour, Gray8, Gray16, RGB8, RGB16, RGBA8, RGBA16};
use tiff::encoder::{Compression, DeflateLevel, Predictor, Rational, TiffEncoder, TiffValue};
use tiff::tags::{ResolutionUnit, Tag};

use super::density::Density;

type Written = Result<Vec<u8>, String>;

/// 8 or 16 bits a sample, as in the pixels.
pub(super) fn png(image: &DynamicImage, profile: Option<Vec<u8>>, density: Option<Density>) -> Written {
    let failed = |error: png::EncodingError| error.to_string();
    let colour = image.color();
    let deep = colour.bytes_per_pixel() > colour.channel_count();
    let mut info = png::Info::with_size(image.width(), image.height());
    info.color_type = match (colour.has_color(), colour.has_alpha()) {
        (false, false) => png::ColorType::Grayscale,
        (false, true) => png::ColorType::GrayscaleAlpha,
        (true, false) => png::ColorType::Rgb,
        (true, true) => png::ColorType::Rgba,
    };
    info.bit_depth = if deep { png::BitDepth::Sixteen } else { png::BitDepth::Eight };
    info.icc_profile = profile.map(Cow::Owned);
    info.pixel_dims = density.map(|density| png::PixelDimensions {
        xppu: whole(density.x),
        yppu: whole(density.y),
        unit: png::Unit::Meter,
    });
    let mut out = Vec::new();
    let mut encoder = png::Encoder::with_info(&mut out, info).map_err(failed)?;
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    let mut writer = encoder.write_header().map_err(failed)?;
    let mut rows = writer.stream_writer().map_err(failed)?;
    let row = image.width() as usize * usize::from(colour.bytes_per_pixel());
    let mut turned = Vec::with_capacity(row);
    for line in image.as_bytes().chunks(row) {
        turned.clear();
        turned.extend_from_slice(line);
        if deep {
            // In a PNG the high byte comes first.
            for sample in turned.as_chunks_mut::<2>().0 {
                *sample = u16::from_ne_bytes(*sample).to_be_bytes();
            }
        }
        rows.write_all(&turned).map_err(|error| error.to_string())?;
    }
    rows.finish().map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// Compressed: otherwise pixels of one colour would become hundreds of megabytes.
pub(super) fn tiff(image: &DynamicImage, profile: Option<&[u8]>, density: Option<Density>) -> Written {
    let (size, beside) = ((image.width(), image.height()), (profile, density));
    match image {
        DynamicImage::ImageLuma8(pixels) => write_tiff::<Gray8>(pixels, size, beside),
        DynamicImage::ImageLuma16(pixels) => write_tiff::<Gray16>(pixels, size, beside),
        DynamicImage::ImageRgb8(pixels) => write_tiff::<RGB8>(pixels, size, beside),
        DynamicImage::ImageRgb16(pixels) => write_tiff::<RGB16>(pixels, size, beside),
        DynamicImage::ImageRgba8(pixels) => write_tiff::<RGBA8>(pixels, size, beside),
        DynamicImage::ImageRgba16(pixels) => write_tiff::<RGBA16>(pixels, size, beside),
        other => Err(format!("{:?} has no place in it", other.color())),
    }
}

fn write_tiff<C: TiffColour>(
    samples: &[C::Inner],
    (width, height): (u32, u32),
    (profile, density): (Option<&[u8]>, Option<Density>),
) -> Written
where
    [C::Inner]: TiffValue,
{
    let failed = |error: tiff::TiffError| error.to_string();
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out)
        .map_err(failed)?
        .with_compression(Compression::Deflate(DeflateLevel::Fast))
        .with_predictor(Predictor::Horizontal);
    let mut image = encoder.new_image::<C>(width, height).map_err(failed)?;
    if let Some(profile) = profile {
        image.encoder().write_tag(Tag::IccProfile, profile).map_err(failed)?;
    }
    if let Some(density) = density {
        let (x, y) = density.per_inch();
        let thousandths = |value: f64| Rational { n: whole(value * 1000.0), d: 1000 };
        image.resolution_unit(ResolutionUnit::Inch);
        image.x_resolution(thousandths(x));
        image.y_resolution(thousandths(y));
    }
    image.write_data(samples).map_err(failed)?;
    Ok(out.into_inner())
}

/// Dots per inch for a JPEG, as integers.
pub(super) fn jpeg_density(density: Density) -> PixelDensity {
    let (x, y) = density.per_inch();
    let whole = |value: f64| u16::try_from(whole(value)).unwrap_or(u16::MAX);
    PixelDensity { density: (whole(x), whole(y)), unit: image::codecs::jpeg::PixelDensityUnit::Inches }
}

/// Pixels per metre in a BMP: bytes 38 to 45 of every header that the encoder writes.
pub(super) fn patch_bmp_density(bmp: &mut [u8], density: Density) {
    for (at, value) in [(38, density.x), (42, density.y)] {
        if let Some(place) = bmp.get_mut(at..at + 4) {
            place.copy_from_slice(&whole(value).to_le_bytes());
        }
    }
}

/// The nearest whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded; the cast saturates")]
fn whole(value: f64) -> u32 {
    value.round() as u32
}
