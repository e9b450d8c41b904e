//! Transparency and masks: the parts that an operation must leave alone.
//!
//! Filters that mix neighbours run on premultiplied pixels, since the colour that lies under full transparency
//! is often black and would bleed into the edges.

use image::{ColorType, DynamicImage, Rgba};

use super::samples::{Deep, Layout, Sample, Work, colour_type, convert, is_deep, run, settle};

/// Runs `work`, which mixes neighbouring pixels or resamples, so that transparent pixels lend no colour.
pub(super) fn premultiplied(
    mut image: DynamicImage,
    work: impl FnOnce(DynamicImage) -> DynamicImage,
) -> DynamicImage {
    settle(&mut image);
    if !is_transparent(&mut image) {
        return work(image);
    }
    let colour = image.color();
    let multiplied = multiply(image.into_rgba16()).into();
    let done = divide(work(multiplied).into_rgba16());
    convert(done.into(), colour)
}

/// Colours weighted by their alpha; 16 bits keep enough of them under a small alpha.
pub(super) fn multiply(mut image: Deep) -> Deep {
    for Rgba([r, g, b, alpha]) in image.pixels_mut() {
        for sample in [r, g, b] {
            let product = (u64::from(*sample) * u64::from(*alpha) + 32_767) / 65_535;
            *sample = u16::try_from(product).unwrap_or(u16::MAX);
        }
    }
    image
}

/// The reverse of [`multiply`].
pub(super) fn divide(mut image: Deep) -> Deep {
    for Rgba([r, g, b, alpha]) in image.pixels_mut() {
        let alpha = u64::from(*alpha);
        for sample in [r, g, b] {
            let scaled = u64::from(*sample) * 65_535 + alpha / 2;
            let quotient = scaled.checked_div(alpha).unwrap_or(0);
            *sample = u16::try_from(quotient).unwrap_or(u16::MAX);
        }
    }
    image
}

/// Runs a filter on the colours alone: alpha is afterwards what it was.
pub(super) fn filtered(
    mut image: DynamicImage,
    work: impl FnOnce(DynamicImage) -> DynamicImage,
) -> DynamicImage {
    let mut alpha = Vec::new();
    run(&mut image, SaveAlpha(&mut alpha));
    let mut done = premultiplied(image, work);
    run(&mut done, RestoreAlpha(&alpha));
    done
}

/// Whether a pixel lets anything through.
fn is_transparent(image: &mut DynamicImage) -> bool {
    let mut found = false;
    run(image, AnyTransparent(&mut found));
    found
}

struct AnyTransparent<'a>(&'a mut bool);

impl Work for AnyTransparent<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        if let Some(at) = layout.alpha() {
            let mut pixels = samples.chunks_exact(layout.channels);
            *self.0 = pixels.any(|pixel| pixel[at].index() + 1 < S::VALUES);
        }
    }
}

/// Alpha in 16 bits, which hold 8 exactly; nothing for an opaque layout.
struct SaveAlpha<'a>(&'a mut Vec<u16>);

impl Work for SaveAlpha<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        if let Some(at) = layout.alpha() {
            let pixels = samples.chunks_exact(layout.channels);
            let alpha = pixels.map(|pixel| u16::from_unit(pixel[at].unit()));
            self.0.extend(alpha);
        }
    }
}

struct RestoreAlpha<'a>(&'a [u16]);

impl Work for RestoreAlpha<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        if let Some(at) = layout.alpha() {
            let pixels = samples.chunks_exact_mut(layout.channels);
            for (pixel, alpha) in pixels.zip(self.0) {
                pixel[at] = S::from_unit(alpha.unit());
            }
        }
    }
}

/// The weight of the edit for each pixel, from 0 to 1: a mask's brightness, and 0 where it is transparent.
pub(super) fn weights(mask: DynamicImage) -> Vec<f32> {
    let mask = mask.into_luma_alpha16();
    let weight = |pixel: &image::LumaA<u16>| pixel.0[0].unit() * pixel.0[1].unit();
    mask.pixels().map(weight).collect()
}

/// The edit where the mask is white, the original where it is black, a mixture between. Both have the same size.
pub(super) fn masked(mut original: DynamicImage, mut edited: DynamicImage, weights: &[f32]) -> DynamicImage {
    settle(&mut original);
    settle(&mut edited);
    let kinds = [original.color(), edited.color()];
    let any = |has: fn(ColorType) -> bool| kinds.into_iter().any(has);
    let colour = colour_type(any(|kind| kind.has_color()), any(|kind| kind.has_alpha()), any(is_deep));
    let original = convert(original, colour);
    let mut edited = convert(edited, colour);
    let original = original.as_bytes();
    run(&mut edited, Mix { weights, original });
    edited
}

struct Mix<'a> {
    weights: &'a [f32],
    original: &'a [u8],
}

impl Work for Mix<'_> {
    fn run<S: Sample>(self, samples: &mut [S], layout: Layout) {
        let pixels = samples.chunks_exact_mut(layout.channels);
        let before = self.original.chunks_exact(layout.channels * size_of::<S>());
        for ((pixel, before), weight) in pixels.zip(before).zip(self.weights) {
            let before = before.chunks_exact(size_of::<S>()).map(S::stored);
            for (sample, before) in pixel.iter_mut().zip(before) {
                // Exact at both ends: where the mask is black, the original bit for bit.
                let (before, after) = (before.unit(), sample.unit());
                *sample = S::from_unit(before + (after - before) * weight);
            }
        }
    }
}
