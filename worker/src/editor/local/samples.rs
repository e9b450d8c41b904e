//! Pixels as numbers, in every pixel type: grey or colour, with alpha or without, 8 or 16 bits.
//!
//! The operations are written once, over values from 0 to 1. An operation on colours never touches alpha.

use image::{ColorType, DynamicImage, ImageBuffer, Rgba};

/// Colour, alpha and 16 bits: holds every other pixel type.
pub(super) type Deep = ImageBuffer<Rgba<u16>, Vec<u16>>;

/// Weights of red, green and blue in brightness (Rec. 709), as in the image library's own conversion.
pub(super) const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

/// The brightness of a colour.
pub(super) fn luma([r, g, b]: [f32; 3]) -> f32 {
    LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
}

/// A stored sample.
pub(super) trait Sample: Copy + Default {
    /// Number of different values.
    const VALUES: usize;

    /// Scaled to 0 to 1.
    fn unit(self) -> f32;

    /// The nearest sample, clamped.
    fn from_unit(unit: f32) -> Self;

    /// Its index among all values.
    fn index(self) -> usize;

    /// From its bytes in native order.
    fn stored(bytes: &[u8]) -> Self;
}

macro_rules! sample {
    ($type:ty) => {
        impl Sample for $type {
            const VALUES: usize = <$type>::MAX as usize + 1;

            fn unit(self) -> f32 {
                f32::from(self) / f32::from(<$type>::MAX)
            }

            fn from_unit(unit: f32) -> Self {
                // A float cast saturates, and makes a NaN zero.
                #[expect(clippy::cast_possible_truncation, reason = "rounded; the cast saturates")]
                let nearest = (unit * f32::from(<$type>::MAX)).round() as $type;
                nearest
            }

            fn index(self) -> usize {
                usize::from(self)
            }

            fn stored(bytes: &[u8]) -> Self {
                bytes.try_into().map(<$type>::from_ne_bytes).unwrap_or_default()
            }
        }
    };
}
sample!(u8);
sample!(u16);

/// Layout of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// 1 for grey, 3 for colour.
    pub(super) colours: usize,
    /// Samples in a pixel, alpha included.
    pub(super) channels: usize,
    /// Samples in a row of pixels.
    pub(super) row: usize,
}

impl Layout {
    /// Index of alpha in a pixel, if there is one.
    pub(super) fn alpha(self) -> Option<usize> {
        (self.channels > self.colours).then_some(self.colours)
    }

    fn of(image: &DynamicImage) -> Self {
        let colour = image.color();
        let channels = usize::from(colour.channel_count());
        Self {
            colours: if colour.has_color() { 3 } else { 1 },
            channels,
            row: image.width() as usize * channels,
        }
    }
}

/// Work over all samples of a picture; a trait because a closure cannot be generic over the depth.
pub(super) trait Work {
    /// Changes the samples in place.
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout);
}

/// Runs `work` over the samples of a picture. Floating point pixels (only a TIFF has them) become 16-bit first.
pub(super) fn run(image: &mut DynamicImage, work: impl Work) {
    settle(image);
    let layout = Layout::of(image);
    match image {
        DynamicImage::ImageLuma8(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageLumaA8(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageRgb8(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageRgba8(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageLuma16(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageLumaA16(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageRgb16(pixels) => work.run(pixels.as_mut(), layout),
        DynamicImage::ImageRgba16(pixels) => work.run(pixels.as_mut(), layout),
        // Unreachable after `settle`; the library's enum is open, so the compiler cannot know.
        _ => {}
    }
}

/// Makes the pixels 8 or 16 bits deep.
pub(super) fn settle(image: &mut DynamicImage) {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    match image.color() {
        L8 | La8 | Rgb8 | Rgba8 | L16 | La16 | Rgb16 | Rgba16 => {}
        other if other.has_alpha() => *image = image.to_rgba16().into(),
        _ => *image = image.to_rgb16().into(),
    }
}

/// The same picture with pixels of type `colour`.
pub(super) fn convert(image: DynamicImage, colour: ColorType) -> DynamicImage {
    match colour {
        ColorType::L8 => image.into_luma8().into(),
        ColorType::La8 => image.into_luma_alpha8().into(),
        ColorType::Rgb8 => image.into_rgb8().into(),
        ColorType::Rgba8 => image.into_rgba8().into(),
        ColorType::L16 => image.into_luma16().into(),
        ColorType::La16 => image.into_luma_alpha16().into(),
        ColorType::Rgb16 => image.into_rgb16().into(),
        _ => image.into_rgba16().into(),
    }
}

/// The pixel type with these properties.
pub(super) fn colour_type(colour: bool, alpha: bool, deep: bool) -> ColorType {
    match (colour, alpha, deep) {
        (false, false, false) => ColorType::L8,
        (false, true, false) => ColorType::La8,
        (true, false, false) => ColorType::Rgb8,
        (true, true, false) => ColorType::Rgba8,
        (false, false, true) => ColorType::L16,
        (false, true, true) => ColorType::La16,
        (true, false, true) => ColorType::Rgb16,
        (true, true, true) => ColorType::Rgba16,
    }
}

/// Whether a sample has more than 8 bits.
pub(super) fn is_deep(colour: ColorType) -> bool {
    colour.bytes_per_pixel() > colour.channel_count()
}

/// The same picture in colour, if it was grey.
pub(super) fn in_colour(mut image: DynamicImage) -> DynamicImage {
    settle(&mut image);
    let kind = image.color();
    convert(image, colour_type(true, kind.has_alpha(), is_deep(kind)))
}

/// The same picture in grey.
pub(super) fn in_grey(mut image: DynamicImage) -> DynamicImage {
    settle(&mut image);
    let kind = image.color();
    convert(image, colour_type(false, kind.has_alpha(), is_deep(kind)))
}

struct EachChannel<F>(F);

impl<F: Fn(f32) -> f32> Work for EachChannel<F> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        // One evaluation per value instead of per sample.
        let mut table = vec![S::default(); S::VALUES];
        for (at, entry) in table.iter_mut().enumerate() {
            *entry = S::from_unit((self.0)(at as f32 / (S::VALUES - 1) as f32));
        }
        for pixel in samples.chunks_exact_mut(layout.channels) {
            for sample in &mut pixel[..layout.colours] {
                *sample = table[sample.index()];
            }
        }
    }
}

/// Maps every colour sample independently.
pub(super) fn map_channels(image: &mut DynamicImage, map: impl Fn(f32) -> f32) {
    run(image, EachChannel(map));
}

struct EachPixel<F>(F);

impl<F: FnMut(usize, usize, [f32; 3]) -> [f32; 3]> Work for EachPixel<F> {
    fn run<S: Sample>(mut self, samples: &mut [S], layout: Layout) {
        for (y, row) in samples.chunks_exact_mut(layout.row).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(layout.channels).enumerate() {
                let colours = &mut pixel[..layout.colours];
                let last = layout.colours - 1;
                let before = [0, 1, 2].map(|at: usize| colours[at.min(last)].unit());
                let after = (self.0)(x, y, before);
                for (sample, value) in colours.iter_mut().zip(after) {
                    *sample = S::from_unit(value);
                }
            }
        }
    }
}

/// Maps every pixel's colour, given its position. Grey is passed as three equal values, and takes the first
/// of the result.
pub(super) fn map_pixels(image: &mut DynamicImage, map: impl FnMut(usize, usize, [f32; 3]) -> [f32; 3]) {
    run(image, EachPixel(map));
}
