//! Small pictures that differ by their seed, and comparison by what is seen rather than by bytes: an encoder
//! may change its output without changing the picture.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

/// What [`picture`] is wide.
pub const WIDTH: u32 = 64;
/// What [`picture`] is high.
pub const HEIGHT: u32 = 48;

/// A PNG that is the same for the same seed and another for any other.
#[must_use]
pub fn picture(seed: u64) -> Vec<u8> {
    picture_as(seed, WIDTH, HEIGHT, ImageFormat::Png)
}

/// As [`picture`], of another size (8 pixels wide at least) or format.
#[must_use]
pub fn picture_as(seed: u64, width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    encode(&drawing(seed, width, height), format)
}

/// The pixels of [`picture_as`]: a smooth drawing, as photographs are smooth, with the seed written in its
/// first row.
#[must_use]
pub fn drawing(seed: u64, width: u32, height: u32) -> RgbImage {
    let seeds = seed.to_le_bytes();
    let byte = |value: u32| u8::try_from(value % 256).unwrap_or_default();
    RgbImage::from_fn(width, height, |x, y| match seeds.get(x as usize) {
        Some(byte) if y == 0 => Rgb([*byte; 3]),
        _ => Rgb([
            byte(x * 255 / width + u32::from(seeds[0])),
            byte(y * 255 / height + u32::from(seeds[1])),
            seeds[0].wrapping_mul(37),
        ]),
    })
}

/// Encodes pixels.
#[must_use]
pub fn encode(pixels: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The pixels of an encoded picture; panics when it is none.
#[must_use]
pub fn decode(bytes: &[u8]) -> image::RgbaImage {
    image::load_from_memory(bytes).expect("an encoded picture").into_rgba8()
}

/// The mean difference of two pictures' colour values, 0 to 255; `None` when their sizes differ.
#[must_use]
pub fn difference(one: &[u8], other: &[u8]) -> Option<f64> {
    let (one, other) = (decode(one), decode(other));
    if one.dimensions() != other.dimensions() {
        return None;
    }
    let sum: u64 = one.iter().zip(other.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, far more than any picture's sum")]
    Some(sum as f64 / one.len() as f64)
}

/// Whether two encoded pictures show the same, pixel for pixel, whatever their formats.
#[must_use]
pub fn same_pixels(one: &[u8], other: &[u8]) -> bool {
    decode(one) == decode(other)
}
