//! Operations that look at a pixel's neighbours. The size and alpha stay as they were.

use image::DynamicImage;
use serde::Deserialize;

use super::alpha::filtered;
use super::blur::gaussian;
use super::median::median;
use super::samples::{Layout, Sample, Work, colour_type, convert, in_grey, luma, map_pixels, run, settle};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sigma {
    sigma: f32,
}

pub(super) fn blur(image: DynamicImage, params: &Sigma) -> DynamicImage {
    filtered(image, |image| blurred(image, params.sigma))
}

fn blurred(mut image: DynamicImage, sigma: f32) -> DynamicImage {
    gaussian(&mut image, sigma);
    image
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sharpen {
    sigma: f32,
    amount: f32,
    threshold: f32,
}

/// Unsharp masking: adds the difference to a blurred copy once more.
pub(super) fn sharpen(image: DynamicImage, params: &Sharpen) -> DynamicImage {
    let Sharpen { sigma, amount, threshold } = *params;
    combine(
        image,
        |image| filtered(image, |image| blurred(image, sigma)),
        |value, blurred| {
            let detail = value - blurred;
            if detail.abs() * 255.0 > threshold { value + detail * amount } else { value }
        },
    )
}

/// Each colour sample of `image` together with the one of `work(image)` in the same place.
fn combine(
    mut image: DynamicImage,
    work: impl FnOnce(DynamicImage) -> DynamicImage,
    with: impl Fn(f32, f32) -> f32,
) -> DynamicImage {
    settle(&mut image);
    let other = work(image.clone());
    let other = other.as_bytes();
    run(&mut image, Combine { other, with });
    image
}

struct Combine<'a, F> {
    other: &'a [u8],
    with: F,
}

impl<F: Fn(f32, f32) -> f32> Work for Combine<'_, F> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let others = self.other.chunks_exact(size_of::<S>()).map(S::stored);
        for (at, (sample, other)) in samples.iter_mut().zip(others).enumerate() {
            if at % layout.channels < layout.colours {
                *sample = S::from_unit((self.with)(sample.unit(), other.unit()));
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Radius {
    radius: u32,
}

/// The median keeps edges, which a blur does not. 8 bits: the filter counts values, and noise has no use for more.
pub(super) fn denoise(image: DynamicImage, params: &Radius) -> DynamicImage {
    let radius = params.radius;
    filtered(image, |image| match shallow(image) {
        DynamicImage::ImageLuma8(pixels) => median(&pixels, radius).into(),
        DynamicImage::ImageLumaA8(pixels) => median(&pixels, radius).into(),
        DynamicImage::ImageRgb8(pixels) => median(&pixels, radius).into(),
        other => median(&other.into_rgba8(), radius).into(),
    })
}

/// The same picture in 8 bits.
fn shallow(image: DynamicImage) -> DynamicImage {
    let kind = image.color();
    convert(image, colour_type(kind.has_color(), kind.has_alpha(), false))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pixelate {
    size: u32,
}

/// Every block gets its average colour; those at the right and the bottom may be smaller.
pub(super) fn pixelate(image: DynamicImage, params: &Pixelate) -> DynamicImage {
    let size = params.size as usize;
    filtered(image, |mut image| {
        run(&mut image, Blocks(size));
        image
    })
}

struct Blocks(usize);

impl Work for Blocks {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let Layout { channels, row, .. } = layout;
        for band in samples.chunks_mut(row * self.0) {
            for left in (0..row).step_by(self.0 * channels) {
                let right = (left + self.0 * channels).min(row);
                for channel in 0..channels {
                    let (mut sum, mut count) = (0.0_f64, 0.0_f64);
                    for line in band.chunks_exact(row) {
                        for sample in line[left + channel..right].iter().step_by(channels) {
                            sum += f64::from(sample.unit());
                            count += 1.0;
                        }
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 1")]
                    let average = S::from_unit((sum / count) as f32);
                    for line in band.chunks_exact_mut(row) {
                        for sample in line[left + channel..right].iter_mut().step_by(channels) {
                            *sample = average;
                        }
                    }
                }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edges {
    strength: f32,
}

/// The length of Sobel's gradient, bright on black; a full step from black to white is 1 at strength 1.
pub(super) fn edges(image: DynamicImage, params: &Edges) -> DynamicImage {
    const ACROSS: [f32; 9] = [-0.25, 0.0, 0.25, -0.5, 0.0, 0.5, -0.25, 0.0, 0.25];
    const DOWN: [f32; 9] = [-0.25, -0.5, -0.25, 0.0, 0.0, 0.0, 0.25, 0.5, 0.25];
    let mut image = in_grey(image);
    let strength = params.strength;
    let plane = Plane::of(&mut image);
    map_pixels(&mut image, |x, y, _| {
        let (dx, dy) = (plane.weigh(x, y, ACROSS), plane.weigh(x, y, DOWN));
        [dx.hypot(dy) * strength; 3]
    });
    image
}

/// A pencil drawing: grey divided by its own blurred surroundings, so that only edges stay dark.
pub(super) fn sketch(image: DynamicImage, params: &Sigma) -> DynamicImage {
    let around = |image| filtered(image, |image| blurred(image, params.sigma));
    combine(in_grey(image), around, |value, around| if around > 0.0 { value / around } else { 1.0 })
}

/// Light from the top left, on a picture that keeps its colours.
pub(super) fn emboss(mut image: DynamicImage) -> DynamicImage {
    const KERNEL: [f32; 9] = [-2.0, -1.0, 0.0, -1.0, 0.0, 1.0, 0.0, 1.0, 2.0];
    // The relief is that of the brightness: per channel it would grow coloured fringes.
    let plane = Plane::of(&mut image);
    map_pixels(&mut image, |x, y, colour| {
        let relief = plane.weigh(x, y, KERNEL);
        colour.map(|value| value + relief)
    });
    image
}

/// Brightness of every pixel.
struct Plane {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Plane {
    fn of(image: &mut DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut values = Vec::with_capacity(width * height);
        map_pixels(image, |_, _, colour| {
            values.push(luma(colour));
            colour
        });
        Self { width, height, values }
    }

    /// The sum of the nine pixels around a place, weighted; the border repeats outwards.
    fn weigh(&self, x: usize, y: usize, kernel: [f32; 9]) -> f32 {
        let columns = [x.saturating_sub(1), x, (x + 1).min(self.width - 1)];
        let rows = [y.saturating_sub(1), y, (y + 1).min(self.height - 1)];
        let mut sum = 0.0;
        for (weights, row) in kernel.chunks_exact(3).zip(rows) {
            for (weight, column) in weights.iter().zip(columns) {
                sum += weight * self.values[row * self.width + column];
            }
        }
        sum
    }
}
