//! Gaussian blur in place: beside the picture it needs a few rows, not copies of it.

use std::f32::consts::PI;

use image::DynamicImage;

use super::samples::{Layout, Sample, Work, run};

/// Up to here the exact kernel, whose time grows with sigma. Beyond it three boxes, whose time does not;
/// where they are this wide the eye sees no difference.
const EXACT_UP_TO: f32 = 10.0;

/// Samples of a row that are worked on together: their rows around them stay in the processor's cache.
const STRIP: usize = 4096;

/// Blurs every sample, alpha included; the border repeats outwards.
pub(super) fn gaussian(image: &mut DynamicImage, sigma: f32) {
    if sigma <= EXACT_UP_TO {
        run(image, Convolve(&kernel(sigma)));
    } else {
        for radius in box_radii(sigma) {
            run(image, Average(radius));
        }
    }
}

/// Weights from the centre outwards on both sides; their sum is 1.
fn kernel(sigma: f32) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "at most 30; the cast saturates")]
    let radius = (sigma * 3.0).ceil() as i16;
    let scale = 1.0 / ((2.0 * PI).sqrt() * sigma);
    let weigh = |at: i16| scale * (-0.5 * (f32::from(at) / sigma).powi(2)).exp();
    let weights: Vec<f32> = (-radius..=radius).map(weigh).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Three boxes with about the variance of the Gaussian (Kovesi, Fast almost-Gaussian filtering, 2010).
fn box_radii(sigma: f32) -> [usize; 3] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred; the cast saturates"
    )]
    let whole = |value: f32| value.max(0.0) as usize;
    let ideal = (4.0 * sigma * sigma + 1.0).sqrt();
    let lower = whole((ideal - 1.0) / 2.0);
    let width = (2 * lower + 1) as f32;
    let lower_ones = (12.0 * sigma * sigma - 3.0 * width * width - 12.0 * width - 9.0) / (-4.0 * width - 4.0);
    let lower_ones = whole(lower_ones.round());
    [0, 1, 2].map(|at| if at < lower_ones { lower } else { lower + 1 })
}

struct Convolve<'a>(&'a [f32]);

impl Work for Convolve<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let kernel = self.0;
        let mut padded = Vec::new();
        for row in samples.chunks_exact_mut(layout.row) {
            convolve_row(row, layout.channels, kernel, &mut padded);
        }
        for start in (0..layout.row).step_by(STRIP) {
            convolve_columns(samples, layout.row, start..(start + STRIP).min(layout.row), kernel);
        }
    }
}

fn convolve_row<S: Sample>(row: &mut [S], channels: usize, kernel: &[f32], padded: &mut Vec<f32>) {
    let radius = kernel.len() / 2;
    padded.clear();
    let first = row.iter().take(channels).map(|sample| sample.unit());
    let last = row.len() - channels;
    for _ in 0..radius {
        padded.extend(first.clone());
    }
    padded.extend(row.iter().map(|sample| sample.unit()));
    for _ in 0..radius {
        padded.extend(row[last..].iter().map(|sample| sample.unit()));
    }
    let mut sums = [0.0_f32; STRIP];
    for (block, part) in row.chunks_mut(STRIP).enumerate() {
        let sums = &mut sums[..part.len()];
        sums.fill(0.0);
        for (at, weight) in kernel.iter().enumerate() {
            let from = block * STRIP + at * channels;
            add(sums, &padded[from..from + part.len()], *weight);
        }
        store(part, sums);
    }
}

/// A ring holds the rows above and below as they were; those above are already overwritten in the picture.
fn convolve_columns<S: Sample>(
    samples: &mut [S],
    row: usize,
    columns: std::ops::Range<usize>,
    kernel: &[f32],
) {
    let (height, lanes) = (samples.len() / row, columns.len());
    let radius = kernel.len() / 2;
    let mut ring = vec![0.0_f32; kernel.len() * lanes];
    let mut sums = vec![0.0_f32; lanes];
    // Slot of the row `at`, which counts from `radius` above the picture.
    let slot = |at: usize| (at % kernel.len()) * lanes;
    let load = |ring: &mut [f32], samples: &[S], at: usize| {
        let y = at.saturating_sub(radius).min(height - 1);
        let line = &samples[y * row + columns.start..y * row + columns.end];
        for (kept, sample) in ring[slot(at)..slot(at) + lanes].iter_mut().zip(line) {
            *kept = sample.unit();
        }
    };
    for at in 0..kernel.len() - 1 {
        load(&mut ring, samples, at);
    }
    for y in 0..height {
        let next = y + kernel.len() - 1;
        if y > 0 && next - radius >= height {
            // The last row, which may be overwritten by now, once more.
            let previous = slot(next - 1);
            ring.copy_within(previous..previous + lanes, slot(next));
        } else {
            load(&mut ring, samples, next);
        }
        sums.fill(0.0);
        for (at, weight) in kernel.iter().enumerate() {
            let from = slot(y + at);
            add(&mut sums, &ring[from..from + lanes], *weight);
        }
        store(&mut samples[y * row + columns.start..y * row + columns.end], &sums);
    }
}

fn add(sums: &mut [f32], values: &[f32], weight: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value * weight;
    }
}

fn store<S: Sample>(samples: &mut [S], values: &[f32]) {
    for (sample, value) in samples.iter_mut().zip(values) {
        *sample = S::from_unit(*value);
    }
}

/// The average over a box of `2 × radius + 1` in both directions. Sums are whole numbers, so that an even
/// area stays as it is to the bit.
struct Average(usize);

impl Work for Average {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let Layout { row, channels, .. } = layout;
        let width = row / channels;
        for line in samples.chunks_exact_mut(row) {
            average(line, 0..channels, channels, width, self.0);
        }
        let height = samples.len() / row;
        for start in (0..row).step_by(STRIP) {
            average(samples, start..(start + STRIP).min(row), row, height, self.0);
        }
    }
}

/// Averages `length` groups of neighbouring samples, `lanes` the first of them and `step` between two.
fn average<S: Sample>(
    samples: &mut [S],
    lanes: std::ops::Range<usize>,
    step: usize,
    length: usize,
    radius: usize,
) {
    let (size, count) = (2 * radius + 1, lanes.len());
    // As they were, the border repeated: the first is `radius` before the picture.
    let mut ring = vec![S::default(); size * count];
    let mut sums = vec![0_u64; count];
    let scale = 1.0 / (size as f64 * (S::VALUES - 1) as f64);
    let place = |at: usize| at.saturating_sub(radius).min(length - 1) * step + lanes.start;
    for at in 0..size {
        let from = place(at);
        for lane in 0..count {
            let sample = samples[from + lane];
            ring[at * count + lane] = sample;
            sums[lane] += sample.index() as u64;
        }
    }
    let last = samples[place(usize::MAX)..][..count].to_vec();
    for at in 0..length {
        let to = at * step + lanes.start;
        for lane in 0..count {
            #[expect(clippy::cast_possible_truncation, reason = "between 0 and 1")]
            let average = S::from_unit((sums[lane] as f64 * scale) as f32);
            samples[to + lane] = average;
        }
        let (oldest, next) = ((at % size) * count, at + size);
        for lane in 0..count {
            let entering = if next >= length + radius { last[lane] } else { samples[place(next) + lane] };
            let leaving = std::mem::replace(&mut ring[oldest + lane], entering);
            sums[lane] = sums[lane] + entering.index() as u64 - leaving.index() as u64;
        }
    }
}
