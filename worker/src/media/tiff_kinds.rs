//! Kinds of TIFF that the decoder lacks: refused by name, or converted to a form that it supports.
//!
//! TIFF 6.0; FillOrder, ExtraSamples, palette and YCbCr are its sections 8, 18, 5 and 21.

use std::borrow::Cow;

use image::{ColorType, DynamicImage, RgbImage};

use super::tags::Tags;
use super::{Format, MediaError};

const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES: u16 = 277;
const STRIP_BYTES: u16 = 279;
const PLANAR: u16 = 284;
const COLOUR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;

const JPEG: u64 = 7;

/// Values of PhotometricInterpretation.
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;

/// A file in the decoder's form, and the conversion of its pixels afterwards.
#[derive(Debug)]
pub(super) struct Readable<'a> {
    bytes: Cow<'a, [u8]>,
    fix: Fix,
    premultiplied: bool,
}

#[derive(Debug)]
enum Fix {
    Nothing,
    /// Grey values are indices into this palette.
    Palette(Vec<[u8; 3]>),
    /// The three channels are YCbCr.
    YCbCr,
}

/// The file in the decoder's form; unchanged for every other format.
///
/// # Errors
/// [`MediaError::Unsupported`].
pub(super) fn readable(bytes: &[u8], format: Format) -> Result<Readable<'_>, MediaError> {
    let mut readable = Readable { bytes: Cow::Borrowed(bytes), fix: Fix::Nothing, premultiplied: false };
    let Some(tags) = Some(format).filter(|format| *format == Format::Tiff).and_then(|_| Tags::first(bytes))
    else {
        return Ok(readable);
    };
    if let Some((kind, instead)) = unsupported(&tags) {
        let what = format!("a {format} with {kind} is not supported");
        return Err(MediaError::Unsupported { what, fix: format!("save it as {instead}") });
    }
    readable.premultiplied = tags.first_number(EXTRA_SAMPLES) == Some(1);
    if tags.first_number(FILL_ORDER) == Some(2) && tags.first_number(COMPRESSION) != Some(JPEG) {
        reverse_bits(&tags, readable.bytes.to_mut());
    }
    match tags.first_number(PHOTOMETRIC) {
        Some(3) => {
            readable.fix = Fix::Palette(palette(&tags));
            tags.patch(readable.bytes.to_mut(), PHOTOMETRIC, BLACK_IS_ZERO);
        }
        Some(6) => {
            readable.fix = Fix::YCbCr;
            tags.patch(readable.bytes.to_mut(), PHOTOMETRIC, RGB);
        }
        _ => {}
    }
    Ok(readable)
}

impl Readable<'_> {
    /// Input for the decoder.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pixel type after [`Readable::finish`] if the decoder gives `decoded`.
    pub(super) fn colour(&self, decoded: ColorType) -> ColorType {
        if matches!(self.fix, Fix::Palette(_)) { ColorType::Rgb8 } else { decoded }
    }

    /// Converts the decoder's pixels.
    pub(super) fn finish(&self, image: DynamicImage) -> DynamicImage {
        let mut image = match &self.fix {
            Fix::Nothing => image,
            Fix::Palette(colours) => look_up(&image, colours),
            Fix::YCbCr => from_ycbcr(image),
        };
        if self.premultiplied {
            divide_by_alpha(&mut image);
        }
        image
    }
}

/// The unsupported feature, and a format to save instead.
fn unsupported(tags: &Tags<'_>) -> Option<(String, &'static str)> {
    let named = |name: &str| Some((name.to_owned(), "RGB"));
    let compression = tags.first_number(COMPRESSION).unwrap_or(1);
    let name = match compression {
        1 | 4 | 5 | 8 | 32_946 | 32_773 => None,
        JPEG => None,
        2 => Some("CCITT Huffman compression".to_owned()),
        3 => Some("CCITT Group 3 compression".to_owned()),
        6 => Some("old-style JPEG compression".to_owned()),
        34_712 => Some("JPEG 2000 compression".to_owned()),
        34_925 => Some("LZMA compression".to_owned()),
        50_000 => Some("Zstandard compression".to_owned()),
        50_001 => Some("WebP compression".to_owned()),
        other => Some(format!("compression {other}")),
    };
    if let Some(name) = name {
        return Some((name, "Deflate or LZW"));
    }
    let bits = tags.first_number(BITS).unwrap_or(1);
    let float = tags.numbers(SAMPLE_FORMAT).contains(&3);
    let tiled = tags.has(TILE_WIDTH);
    let planar = tags.first_number(PLANAR) == Some(2) && tags.first_number(SAMPLES).unwrap_or(1) > 1;
    if tags.numbers(SAMPLE_FORMAT).contains(&2) {
        return named("signed samples");
    }
    if planar && tiled {
        return named("separate colour planes in tiles");
    }
    let (colours, depths): (u64, &[u64]) = match tags.first_number(PHOTOMETRIC).unwrap_or(1) {
        0 | 1 => (1, if float { &[] } else { &[1, 8, 16] }),
        2 => (3, if float { &[32] } else { &[8, 16] }),
        3 if bits == 8 && !tiled_or_more(tags) => return None,
        3 => return Some((format!("a palette of {bits} bits"), "RGB")),
        5 if planar => return named("CMYK in separate planes"),
        5 => (4, &[8, 16]),
        6 if compression == JPEG && !planar => (3, &[8]),
        6 => return named("YCbCr that is not compressed as JPEG"),
        8..=10 => return named("Lab colours"),
        4 => return named("a transparency mask alone"),
        32_844 | 32_845 => return named("LogLuv colours"),
        other => return Some((format!("colour space {other}"), "RGB")),
    };
    if !depths.contains(&bits) {
        let float = if float { " floating point" } else { "" };
        return Some((format!("{bits}-bit{float} samples"), "8 or 16 bits"));
    }
    let samples = tags.first_number(SAMPLES).unwrap_or(1);
    // The decoder gives no alpha for grey or CMYK.
    ((colours == 1 || colours == 4) && samples > colours)
        .then(|| (format!("{samples} samples a pixel in this colour space"), "RGB"))
}

/// A palette needs one sample a pixel.
fn tiled_or_more(tags: &Tags<'_>) -> bool {
    tags.first_number(SAMPLES).unwrap_or(1) != 1
}

/// Reverses the bits of every strip or tile, and updates the tag.
fn reverse_bits(tags: &Tags<'_>, file: &mut [u8]) {
    let (offsets, lengths) =
        if tags.has(TILE_WIDTH) { (TILE_OFFSETS, TILE_BYTES) } else { (STRIP_OFFSETS, STRIP_BYTES) };
    // Overlapping strips are reversed once, and the total is bounded by the file.
    let mut done = 0;
    let mut parts: Vec<_> = tags.numbers(offsets).into_iter().zip(tags.numbers(lengths)).collect();
    parts.sort_unstable();
    for (offset, length) in parts {
        let (Ok(from), Ok(length)) = (usize::try_from(offset), usize::try_from(length)) else { continue };
        let from = from.max(done);
        let to = from.saturating_add(length).min(file.len());
        if let Some(part) = file.get_mut(from..to) {
            part.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            done = to;
        }
    }
    tags.patch(file, FILL_ORDER, 1);
}

/// All reds, then all greens, then all blues, in 16 bits.
fn palette(tags: &Tags<'_>) -> Vec<[u8; 3]> {
    let map = tags.numbers(COLOUR_MAP);
    let size = map.len() / 3;
    // Some programs write 8 bits.
    let shift = if map.iter().any(|value| *value > 255) { 8 } else { 0 };
    let sample = |at: usize| u8::try_from(map[at] >> shift).unwrap_or(u8::MAX);
    (0..size).map(|at| [sample(at), sample(at + size), sample(at + 2 * size)]).collect()
}

fn look_up(image: &DynamicImage, colours: &[[u8; 3]]) -> DynamicImage {
    let places = image.to_luma8();
    RgbImage::from_fn(places.width(), places.height(), |x, y| {
        let place = usize::from(places.get_pixel(x, y).0[0]);
        image::Rgb(colours.get(place).copied().unwrap_or_default())
    })
    .into()
}

/// The JFIF weights, which libtiff uses unless a tag overrides them.
fn from_ycbcr(image: DynamicImage) -> DynamicImage {
    let mut image = image.into_rgb8();
    for pixel in image.pixels_mut() {
        let [y, cb, cr] = pixel.0.map(f32::from);
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        pixel.0 = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(to_byte);
    }
    image.into()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded; the cast saturates")]
fn to_byte(value: f32) -> u8 {
    value.round() as u8
}

/// Converts premultiplied colours back.
fn divide_by_alpha(image: &mut DynamicImage) {
    match image {
        DynamicImage::ImageRgba8(pixels) => {
            for pixel in pixels.pixels_mut() {
                let [r, g, b, alpha] = pixel.0.map(u32::from);
                let divide =
                    |sample: u32| (sample * 255 + alpha / 2).checked_div(alpha).unwrap_or(0).min(255);
                pixel.0 =
                    [divide(r), divide(g), divide(b), alpha].map(|v| u8::try_from(v).unwrap_or(u8::MAX));
            }
        }
        DynamicImage::ImageRgba16(pixels) => {
            for pixel in pixels.pixels_mut() {
                let [r, g, b, alpha] = pixel.0.map(u64::from);
                let divide =
                    |sample: u64| (sample * 65_535 + alpha / 2).checked_div(alpha).unwrap_or(0).min(65_535);
                pixel.0 =
                    [divide(r), divide(g), divide(b), alpha].map(|v| u16::try_from(v).unwrap_or(u16::MAX));
            }
        }
        DynamicImage::ImageRgba32F(pixels) => {
            for pixel in pixels.pixels_mut() {
                let [r, g, b, alpha] = pixel.0;
                if alpha > 0.0 {
                    pixel.0 = [r / alpha, g / alpha, b / alpha, alpha];
                }
            }
        }
        _ => {}
    }
}
