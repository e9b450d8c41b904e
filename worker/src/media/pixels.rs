//! From the bytes of a picture to its pixels and back.
//!
//! What must stay true: the pixels are upright (EXIF orientation applied), the colour profile travels with
//! them, and the same pixels are always written as the same bytes.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::tiff::{TiffDecoder, TiffEncoder};
use image::codecs::webp::WebPEncoder;
use image::{
    DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageReader, ImageResult, Limits, Pixel, Rgba,
};

use super::{Format, Media, MediaError, jpeg, orientation, tiff, unsupported_by_decoder};

/// Most bytes that decoding one picture may allocate, its pixels included.
const MAX_DECODE_ALLOC: u64 = 512 * 1024 * 1024;

/// Good enough that an edit of a photograph shows no new blocks.
const JPEG_QUALITY: u8 = 92;

/// Decoded pixels and what they need in order to look right.
#[derive(Debug, Clone)]
pub struct Pixels {
    /// Upright, whatever the file's EXIF orientation was.
    pub image: DynamicImage,
    /// The ICC profile, if the file had one.
    pub profile: Option<Vec<u8>>,
}

/// The pixels of a picture, upright; of an animation, the first frame.
///
/// # Errors
/// [`MediaError::Undecodable`].
pub fn decode(bytes: &[u8], media: &Media) -> Result<DynamicImage, MediaError> {
    Pixels::decode(bytes, media).map(|pixels| pixels.image)
}

impl Pixels {
    /// Like [`decode`], with the colour profile.
    ///
    /// # Errors
    /// [`MediaError::Undecodable`].
    pub fn decode(bytes: &[u8], media: &Media) -> Result<Self, MediaError> {
        let format = media.format;
        let failed = |message: String| MediaError::Undecodable { format, message };
        // The JPEG decoder fills in what is missing with grey; no other format is so lenient.
        let whole = match format {
            Format::Jpeg => Cow::Owned(jpeg::canonical(bytes).map_err(failed)?),
            _ => Cow::Borrowed(bytes),
        };
        if format == Format::Tiff {
            tiff::check_jpeg_strips(bytes).map_err(failed)?;
        }
        let mut reader = ImageReader::with_format(Cursor::new(&*whole), format.library());
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODE_ALLOC);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|error| failed(error.to_string()))?;
        if decoder.total_bytes() > MAX_DECODE_ALLOC {
            let mib = MAX_DECODE_ALLOC / (1024 * 1024);
            return Err(failed(format!("its pixels need more than the {mib} MiB allowed")));
        }
        // Damaged metadata is no reason to refuse sound pixels.
        let profile = match format {
            Format::Tiff => tiff_profile(bytes),
            _ => decoder.icc_profile().ok().flatten(),
        };
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| match error {
            ImageError::Unsupported(_) => unsupported_by_decoder(format, &error),
            _ => failed(error.to_string()),
        })?;
        image.apply_orientation(orientation::orientation(bytes, format));
        Ok(Self { image, profile })
    }

    /// Writes the picture: PNG, WebP, BMP and TIFF without loss, JPEG at quality 92. GIF is written as PNG,
    /// since a palette of 256 would throw colours away. The format written is returned.
    ///
    /// # Errors
    /// [`MediaError::Unencodable`].
    pub fn encode(self, format: Format) -> Result<(Vec<u8>, Format), MediaError> {
        self.encode_at(format, JPEG_QUALITY)
    }

    /// As [`Pixels::encode`], with another quality for JPEG.
    pub(super) fn encode_at(self, format: Format, quality: u8) -> Result<(Vec<u8>, Format), MediaError> {
        let format = Self::output_format(format);
        let Self { image, profile } = self;
        let profile = profile.filter(|profile| describes(profile, &image));
        let mut out = Cursor::new(Vec::new());
        let written = match format {
            Format::Png | Format::Gif => write(&image, profile, PngEncoder::new(&mut out)),
            Format::Jpeg => {
                let image = on_white(image);
                let encoder = JpegEncoder::new_with_quality(&mut out, quality);
                write(&image, profile, encoder)
            }
            Format::WebP => write(&image, profile, WebPEncoder::new_lossless(&mut out)),
            Format::Bmp => write(&no_grey_alpha(image), None, BmpEncoder::new(&mut out)),
            Format::Tiff => write(&no_grey_alpha(image), profile, TiffEncoder::new(&mut out)),
        };
        written.map_err(|error| MediaError::Unencodable { format, message: error.to_string() })?;
        Ok((out.into_inner(), format))
    }

    /// The format that [`Pixels::encode`] writes for pixels that came as `format`.
    pub const fn output_format(format: Format) -> Format {
        match format {
            Format::Gif => Format::Png,
            other => other,
        }
    }
}

fn write(image: &DynamicImage, profile: Option<Vec<u8>>, mut encoder: impl ImageEncoder) -> ImageResult<()> {
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile).map_err(ImageError::Unsupported)?;
    }
    image.write_with_encoder(encoder)
}

/// With limits set, the TIFF decoder refuses a tag that has more values than the picture has bytes to spare, and
/// so loses the profile of a small one. Without, its own limit on a tag holds: 1 MiB.
fn tiff_profile(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = TiffDecoder::new(Cursor::new(bytes)).ok()?;
    decoder.icc_profile().ok().flatten()
}

/// A JPEG has no alpha; left to itself the encoder would show the colours that lie under it.
fn on_white(image: DynamicImage) -> DynamicImage {
    if !image.color().has_alpha() {
        return image;
    }
    let mut pixels = image.into_rgba8();
    for pixel in pixels.pixels_mut() {
        let mut below = Rgba([u8::MAX; 4]);
        below.blend(pixel);
        *pixel = below;
    }
    pixels.into()
}

/// The TIFF encoder refuses grey with alpha, and the BMP encoder drops the alpha.
fn no_grey_alpha(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageLumaA8(_) => image.into_rgba8().into(),
        DynamicImage::ImageLumaA16(_) => image.into_rgba16().into(),
        other => other,
    }
}

/// Whether a profile is for pixels like these: a CMYK JPEG is decoded to RGB, and an edit may turn grey to
/// colour or colour to grey. The colour space is in bytes 16-19 of the profile (ICC.1:2022, 7.2).
fn describes(profile: &[u8], image: &DynamicImage) -> bool {
    match profile.get(16..20) {
        Some(b"RGB ") => image.color().has_color(),
        Some(b"GRAY") => !image.color().has_color(),
        _ => false,
    }
}
