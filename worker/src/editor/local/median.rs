//! The median of a pixel's neighbours: a histogram slides along each row, so that the cost of a pixel grows with
//! the radius and not with its square.

use image::{ImageBuffer, Pixel};

/// Replaces each sample by the median of the square of side `2 * radius + 1` around it, a channel at a time. The
/// border repeats outwards.
pub(super) fn median<P: Pixel<Subpixel = u8>>(
    image: &ImageBuffer<P, Vec<u8>>,
    radius: u32,
) -> ImageBuffer<P, Vec<u8>> {
    let mut result = ImageBuffer::new(image.width(), image.height());
    let channels = usize::from(P::CHANNEL_COUNT);
    let (width, height, radius) = (image.width() as usize, image.height() as usize, radius as usize);
    let lines: Vec<&[u8]> = image.as_raw().chunks_exact(width * channels).collect();
    let outputs = result.chunks_exact_mut(width * channels);
    for (y, output) in outputs.enumerate() {
        let line = |at: usize| lines[(y + at).saturating_sub(radius).min(height - 1)];
        let window: Vec<&[u8]> = (0..=2 * radius).map(line).collect();
        for channel in 0..channels {
            median_of_row(&window, channel, channels, radius, output);
        }
    }
    result
}

/// One channel of the row in the middle of `window`.
fn median_of_row(window: &[&[u8]], channel: usize, channels: usize, radius: usize, output: &mut [u8]) {
    let width = output.len() / channels;
    let column = |x: usize| {
        let at = x.saturating_sub(radius).min(width - 1) * channels + channel;
        window.iter().map(move |line| line[at])
    };
    let mut histogram = Histogram::new(window.len() * window.len());
    (0..2 * radius).flat_map(column).for_each(|sample| histogram.add(sample));
    for (x, pixel) in output.chunks_exact_mut(channels).enumerate() {
        column(x + 2 * radius).for_each(|sample| histogram.add(sample));
        pixel[channel] = histogram.median();
        column(x).for_each(|sample| histogram.remove(sample));
    }
}

/// How often each value is in the window.
struct Histogram {
    counts: [usize; 256],
    /// The samples up to the median, that one included, in a full window.
    half: usize,
    /// The last median: the next one is near it.
    median: u8,
    /// Samples below `median`.
    below: usize,
}

impl Histogram {
    fn new(samples: usize) -> Self {
        Self { counts: [0; 256], half: samples.div_ceil(2), median: 0, below: 0 }
    }

    fn add(&mut self, sample: u8) {
        self.counts[usize::from(sample)] += 1;
        self.below += usize::from(sample < self.median);
    }

    fn remove(&mut self, sample: u8) {
        self.counts[usize::from(sample)] -= 1;
        self.below -= usize::from(sample < self.median);
    }

    /// Of a full window.
    fn median(&mut self) -> u8 {
        while self.below >= self.half {
            self.median -= 1;
            self.below -= self.counts[usize::from(self.median)];
        }
        while self.below + self.counts[usize::from(self.median)] < self.half {
            self.below += self.counts[usize::from(self.median)];
            self.median += 1;
        }
        self.median
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbImage};

    use super::*;

    /// Sorts every window: what the histogram must agree with.
    fn sorted(image: &RgbImage, radius: i64) -> RgbImage {
        let place = |at: i64, length: u32| u32::try_from(at.clamp(0, i64::from(length) - 1)).unwrap();
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            let channel = |channel: usize| {
                let mut window: Vec<u8> = (-radius..=radius)
                    .flat_map(|dy| (-radius..=radius).map(move |dx| (i64::from(x) + dx, i64::from(y) + dy)))
                    .map(|(x, y)| image.get_pixel(place(x, image.width()), place(y, image.height()))[channel])
                    .collect();
                window.sort_unstable();
                window[window.len() / 2]
            };
            image::Rgb([channel(0), channel(1), channel(2)])
        })
    }

    #[test]
    fn the_sliding_median_is_the_middle_of_each_sorted_window() {
        let mut state = 7_u32;
        let image = RgbImage::from_fn(13, 9, |_, _| {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            image::Rgb([next(), next(), next()])
        });
        for radius in [0, 1, 2, 5, 20] {
            assert_eq!(median(&image, radius), sorted(&image, radius.into()), "radius {radius}");
        }
        let one = GrayImage::from_raw(1, 1, vec![9]).unwrap();
        assert_eq!(median(&one, 3), one);
    }
}
