//! Operations that look at one pixel at a time. Alpha stays as it was.

use image::DynamicImage;
use serde::Deserialize;

use super::params::Colour;
use super::samples::{Layout, Sample, Work, in_colour, in_grey, luma, map_channels, map_pixels, run};

pub(super) fn grayscale(image: DynamicImage) -> DynamicImage {
    in_grey(image)
}

pub(super) fn invert(mut image: DynamicImage) -> DynamicImage {
    map_channels(&mut image, |value| 1.0 - value);
    image
}

/// The matrix of the W3C's filter effects, which most programs use.
pub(super) fn sepia(image: DynamicImage) -> DynamicImage {
    let mut image = in_colour(image);
    map_pixels(&mut image, |_, _, [r, g, b]| {
        [
            0.393 * r + 0.769 * g + 0.189 * b,
            0.349 * r + 0.686 * g + 0.168 * b,
            0.272 * r + 0.534 * g + 0.131 * b,
        ]
    });
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Duotone {
    shadows: Colour,
    highlights: Colour,
}

pub(super) fn duotone(image: DynamicImage, params: &Duotone) -> DynamicImage {
    let Duotone { shadows: Colour(dark), highlights: Colour(light) } = *params;
    let mut image = in_colour(image);
    map_pixels(&mut image, |_, _, colour| {
        let brightness = luma(colour);
        [0, 1, 2].map(|at: usize| {
            let (dark, light) = (dark[at].unit(), light[at].unit());
            dark + (light - dark) * brightness
        })
    });
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Posterize {
    levels: u16,
}

pub(super) fn posterize(mut image: DynamicImage, params: &Posterize) -> DynamicImage {
    let steps = f32::from(params.levels) - 1.0;
    map_channels(&mut image, |value| (value * steps).round() / steps);
    image
}

/// A level of brightness on the scale of 8 bits, whatever the depth.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Level {
    level: u8,
}

pub(super) fn solarize(mut image: DynamicImage, params: &Level) -> DynamicImage {
    let level = params.level.unit();
    map_channels(&mut image, |value| if value >= level { 1.0 - value } else { value });
    image
}

pub(super) fn threshold(image: DynamicImage, params: &Level) -> DynamicImage {
    let level = params.level.unit();
    let mut image = in_grey(image);
    map_channels(&mut image, |value| if value >= level { 1.0 } else { 0.0 });
    image
}

/// Per cent, from -100 to 100.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Amount {
    amount: f32,
}

pub(super) fn brighten(mut image: DynamicImage, params: &Amount) -> DynamicImage {
    let more = params.amount / 100.0;
    map_channels(&mut image, |value| value + more);
    image
}

pub(super) fn contrast(mut image: DynamicImage, params: &Amount) -> DynamicImage {
    // Squared, so that -100 is flat grey, 0 changes nothing and 100 is four times as steep.
    let slope = ((100.0 + params.amount) / 100.0).powi(2);
    map_channels(&mut image, |value| (value - 0.5) * slope + 0.5);
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saturate {
    factor: f32,
}

pub(super) fn saturate(mut image: DynamicImage, params: &Saturate) -> DynamicImage {
    let factor = params.factor;
    map_pixels(&mut image, |_, _, colour| {
        let grey = luma(colour);
        colour.map(|value| grey + (value - grey) * factor)
    });
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HueRotate {
    degrees: f32,
}

/// The matrix of the W3C's filter effects (`feColorMatrix`, `hueRotate`): brightness stays.
pub(super) fn hue_rotate(mut image: DynamicImage, params: &HueRotate) -> DynamicImage {
    let (sin, cos) = params.degrees.to_radians().sin_cos();
    let row = |base: [f32; 3], of_cos: [f32; 3], of_sin: [f32; 3]| {
        [0, 1, 2].map(|at: usize| base[at] + cos * of_cos[at] + sin * of_sin[at])
    };
    let base = [0.213, 0.715, 0.072];
    let matrix = [
        row(base, [0.787, -0.715, -0.072], [-0.213, -0.715, 0.928]),
        row(base, [-0.213, 0.285, -0.072], [0.143, 0.140, -0.283]),
        row(base, [-0.213, -0.715, 0.928], [-0.787, 0.715, 0.072]),
    ];
    map_pixels(&mut image, |_, _, [r, g, b]| matrix.map(|[of_r, of_g, of_b]| of_r * r + of_g * g + of_b * b));
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gamma {
    gamma: f32,
}

pub(super) fn gamma(mut image: DynamicImage, params: &Gamma) -> DynamicImage {
    let exponent = 1.0 / params.gamma;
    map_channels(&mut image, |value| value.powf(exponent));
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Autocontrast {
    cutoff: f32,
}

/// All colours are stretched alike, so that none gets a cast.
pub(super) fn autocontrast(mut image: DynamicImage, params: &Autocontrast) -> DynamicImage {
    let (mut low, mut high) = (0.0, 1.0);
    let extremes = Extremes { cutoff: f64::from(params.cutoff) / 100.0, low: &mut low, high: &mut high };
    run(&mut image, extremes);
    if low < high {
        map_channels(&mut image, |value| (value - low) / (high - low));
    }
    image
}

struct Extremes<'a> {
    cutoff: f64,
    low: &'a mut f32,
    high: &'a mut f32,
}

impl Work for Extremes<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let mut counts = vec![0_u64; S::VALUES];
        for pixel in samples.chunks_exact(layout.channels) {
            // Fully transparent pixels do not count.
            if layout.alpha().is_some_and(|at| pixel[at].index() == 0) {
                continue;
            }
            for sample in &pixel[..layout.colours] {
                counts[sample.index()] += 1;
            }
        }
        let total: u64 = counts.iter().sum();
        let ignored = total as f64 * self.cutoff;
        let mut seen = 0;
        let mut reaches = |count: &u64| {
            seen += count;
            seen as f64 > ignored
        };
        let low = counts.iter().position(&mut reaches);
        seen = 0;
        let mut reaches = |count: &u64| {
            seen += count;
            seen as f64 > ignored
        };
        let high = counts.iter().rposition(&mut reaches);
        let top = (S::VALUES - 1) as f32;
        if let (Some(low), Some(high)) = (low, high) {
            *self.low = low as f32 / top;
            *self.high = high as f32 / top;
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vignette {
    strength: f32,
}

/// Darker by the square of the distance from the centre; the corners by `strength`.
pub(super) fn vignette(mut image: DynamicImage, params: &Vignette) -> DynamicImage {
    let strength = params.strength;
    let (half_x, half_y) = (image.width() as f32 / 2.0, image.height() as f32 / 2.0);
    let corner = half_x * half_x + half_y * half_y;
    map_pixels(&mut image, |x, y, colour| {
        let (dx, dy) = (x as f32 + 0.5 - half_x, y as f32 + 0.5 - half_y);
        let light = 1.0 - strength * (dx * dx + dy * dy) / corner;
        colour.map(|value| value * light)
    });
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Noise {
    amount: f32,
    seed: u64,
}

/// Gaussian noise from a generator of our own: a library's may give other numbers in its next version, and
/// the same edit would then have another result.
pub(super) fn noise(mut image: DynamicImage, params: &Noise) -> DynamicImage {
    let deviation = params.amount / 255.0;
    let mut state = params.seed;
    map_pixels(&mut image, |_, _, colour| {
        colour.map(|value| value + deviation * gaussian(split_mix(&mut state)))
    });
    image
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Mean 0, deviation 1, from the sum of four uniform numbers: near enough to Gaussian for the eye, and exact
/// on every machine.
fn gaussian(bits: u64) -> f32 {
    let sum: u64 = (0..4).map(|at| (bits >> (16 * at)) & 0xffff).sum();
    // The deviation of one is 1/sqrt(12) of its range, that of the sum twice as much.
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}
