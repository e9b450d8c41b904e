//! Decodes and encodes pictures.
//!
//! Invariant: pixels are upright (EXIF orientation applied), the colour profile travels with them, and the
//! same pixels always give the same bytes.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageReader, ImageResult, Pixel, Rgba};

use super::colour_profile::MAX_PROFILE_BYTES;
use super::density::Density;
use super::tags::Tags;
use super::{Format, Media, MediaError, jpeg, orientation, tiff, tiff_kinds, unsupported_by_decoder, write};
use crate::words::one_line;

/// Most bytes that decoding one picture may allocate, its pixels included.
const MAX_DECODE_ALLOC: u64 = 512 * 1024 * 1024;

/// Scans of a progressive JPEG; programs write about ten. Each one passes over the whole picture, so
/// thousands of tiny ones take minutes.
const MAX_SCANS: usize = 100;

/// High enough that an edited photograph shows no new blocks.
const JPEG_QUALITY: u8 = 92;

/// Decoded pixels with their colour profile and density.
#[derive(Debug, Clone)]
pub struct Pixels {
    /// Upright, after the file's EXIF orientation.
    pub image: DynamicImage,
    /// The ICC profile, if the file had one.
    pub profile: Option<Vec<u8>>,
    /// Print density, if the file has one.
    pub density: Option<Density>,
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
        let failed = |message: String| MediaError::Undecodable { format, message: one_line(&message) };
        let scans = if format == Format::Jpeg { jpeg_scans(bytes).count } else { 0 };
        if scans > MAX_SCANS {
            return Err(failed(format!("it has {scans} scans; {MAX_SCANS} are allowed")));
        }
        // The JPEG decoder fills missing data with grey; the other formats report it.
        let whole = match format {
            Format::Jpeg => Cow::Owned(jpeg::canonical(bytes).map_err(failed)?),
            _ => Cow::Borrowed(bytes),
        };
        if format == Format::Tiff {
            tiff::check_jpeg_strips(bytes).map_err(failed)?;
        }
        let readable = tiff_kinds::readable(&whole, format)?;
        let mut reader = ImageReader::with_format(Cursor::new(readable.bytes()), format.library());
        let mut limits = super::header_limits(bytes, format);
        if format != Format::Png {
            limits.max_alloc = Some(MAX_DECODE_ALLOC);
        }
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
        if profile.as_ref().is_some_and(|profile| profile.len() > MAX_PROFILE_BYTES) {
            let mib = MAX_PROFILE_BYTES / (1024 * 1024);
            return Err(failed(format!("its colour profile has more than the {mib} MiB allowed")));
        }
        let image = DynamicImage::from_decoder(decoder).map_err(|error| match error {
            ImageError::Unsupported(_) => unsupported_by_decoder(format, &error),
            _ => failed(error.to_string()),
        })?;
        let mut image = readable.finish(image);
        let orientation = orientation::orientation(bytes, format);
        image.apply_orientation(orientation);
        let density = Density::read(bytes, format);
        let turned = orientation::swaps_sides(orientation);
        Ok(Self {
            image,
            profile,
            density: density.map(|density| if turned { density.turned() } else { density }),
        })
    }

    /// Encodes the picture: PNG, WebP, BMP and TIFF losslessly, JPEG at quality 92. A GIF becomes a PNG,
    /// since a palette of 256 loses colours. Returns the format written.
    ///
    /// # Errors
    /// [`MediaError::Unencodable`].
    pub fn encode(self, format: Format) -> Result<(Vec<u8>, Format), MediaError> {
        self.encode_at(format, JPEG_QUALITY)
    }

    /// As [`Pixels::encode`], with another quality for JPEG.
    pub(super) fn encode_at(self, format: Format, quality: u8) -> Result<(Vec<u8>, Format), MediaError> {
        let format = Self::output_format(format);
        let failed = |message: String| MediaError::Unencodable { format, message };
        let Self { image, profile, density } = self;
        let image = without_floats(image);
        let profile = profile.filter(|profile| describes(profile, &image));
        let mut out = Cursor::new(Vec::new());
        let written = match format {
            Format::Png | Format::Gif => {
                return Ok((write::png(&image, profile, density).map_err(failed)?, format));
            }
            Format::Tiff => {
                let image = no_grey_alpha(image);
                let bytes = write::tiff(&image, profile.as_deref(), density).map_err(failed)?;
                return Ok((bytes, format));
            }
            Format::Jpeg => {
                let image = on_white(image);
                let mut encoder = JpegEncoder::new_with_quality(&mut out, quality);
                if let Some(density) = density {
                    encoder.set_pixel_density(write::jpeg_density(density));
                }
                write_with(&image, profile, encoder)
            }
            Format::WebP => write_with(&image, profile, WebPEncoder::new_lossless(&mut out)),
            Format::Bmp => write_with(&no_grey_alpha(image), None, BmpEncoder::new(&mut out)),
        };
        written.map_err(|error| failed(error.to_string()))?;
        let mut bytes = out.into_inner();
        if let Some(density) = density.filter(|_| format == Format::Bmp) {
            write::patch_bmp_density(&mut bytes, density);
        }
        Ok((bytes, format))
    }

    /// The format that [`Pixels::encode`] writes for an input in `format`.
    pub const fn output_format(format: Format) -> Format {
        match format {
            Format::Gif => Format::Png,
            other => other,
        }
    }
}

fn write_with(
    image: &DynamicImage,
    profile: Option<Vec<u8>>,
    mut encoder: impl ImageEncoder,
) -> ImageResult<()> {
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile).map_err(ImageError::Unsupported)?;
    }
    image.write_with_encoder(encoder)
}

/// The decoder refuses a tag of more than a mebibyte, and with limits set a tag with more values than a small
/// picture has bytes.
fn tiff_profile(bytes: &[u8]) -> Option<Vec<u8>> {
    const ICC_PROFILE: u16 = 34_675;
    Tags::first(bytes)?.bytes(ICC_PROFILE).map(<[u8]>::to_vec)
}

/// A JPEG has no alpha; by default the encoder would show the hidden colours.
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

/// Floating point pixels converted to 16 bits, which every program opens.
fn without_floats(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageRgb32F(_) => image.into_rgb16().into(),
        DynamicImage::ImageRgba32F(_) => image.into_rgba16().into(),
        other => other,
    }
}

/// The TIFF encoder refuses grey with alpha, and the BMP encoder drops the alpha.
fn no_grey_alpha(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageLumaA8(_) => image.into_rgba8().into(),
        DynamicImage::ImageLumaA16(_) => image.into_rgba16().into(),
        other => other,
    }
}

/// Whether a profile fits these pixels: a CMYK JPEG is decoded to RGB, and an edit may convert between grey
/// and colour. The colour space is in bytes 16-19 of the profile (ICC.1:2022, 7.2).
fn describes(profile: &[u8], image: &DynamicImage) -> bool {
    match profile.get(16..20) {
        Some(b"RGB ") => image.color().has_color(),
        Some(b"GRAY") => !image.color().has_color(),
        _ => false,
    }
}

/// The marker before a scan.
const SOS: u8 = 0xda;

/// The marker segments of a JPEG up to its first scan, each with its marker.
pub(super) fn jpeg_segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else { return None };
            if marker == 0xff {
                at += 1; // a fill byte
                continue;
            }
            if marker == SOS {
                return None;
            }
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let data = bytes.get(at + 4..end)?;
            at = end;
            return Some((marker, data));
        }
    })
}

/// The scans of a JPEG.
pub(super) struct Scans {
    pub(super) count: usize,
    pub(super) progressive: bool,
}

/// Counts the scans after the first marker segments: a thumbnail in EXIF has its own.
pub(super) fn jpeg_scans(bytes: &[u8]) -> Scans {
    let (mut header, mut progressive) = (2, false);
    for (marker, data) in jpeg_segments(bytes) {
        progressive |= matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
        header += 4 + data.len();
    }
    let scans = bytes.get(header..).unwrap_or_default();
    let count = scans.windows(2).filter(|pair| *pair == [0xff, SOS]).count();
    Scans { count, progressive }
}
