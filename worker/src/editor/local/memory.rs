//! Peak memory of a local edit, computed from the headers of its picture and its mask.

use super::operations::{Operation, Scratch};
use super::{EditRequest, prepare, result_size};
use crate::media::memory::{Decoded, decode_bytes, decoded};

/// Bytes of a pixel with colour, alpha and 16 bits, and in floating point.
const DEEP: u64 = 8;
const FLOAT: u64 = 16;

/// Bytes of pixels. A request that will be refused counts as its picture alone.
pub(super) fn needed(request: &EditRequest) -> u64 {
    let EditRequest { spec, image, mask } = request;
    let Decoded { colour, pixels, peak } = decoded(&image.bytes, &image.media);
    let Ok((operation, args)) = prepare(spec) else { return peak };
    let size = (image.media.width, image.media.height);
    // After an EXIF rotation the result has as many pixels.
    let result = result_size(operation, &args, size, image.media.format).unwrap_or(size);
    let count = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let each = u64::from(colour.bytes_per_pixel());
    let sizes = Sizes {
        before: count(size),
        after: count(result),
        between: u64::from(size.0) * u64::from(result.1),
        // Grey may become colour.
        each: each.max(3),
        deep: if colour.has_alpha() { DEEP } else { 0 },
    };
    // The original, and one weight a pixel; before that, the mask itself.
    let masked = mask.as_ref().map_or(0, |mask| {
        let decoding = decode_bytes(&mask.bytes, &mask.media);
        pixels + (decoding + count(size) * 4).max(count(size) * 8)
    });
    // An encoded incompressible result is as large as its pixels.
    let written = count(result) * each;
    peak.max(pixels + masked + scratch(operation, &sizes).max(written))
}

/// Pixels before and after, and between the two passes of a resampling; bytes of one pixel, and of one in 16
/// bits, with alpha if the picture has alpha.
struct Sizes {
    before: u64,
    after: u64,
    between: u64,
    each: u64,
    deep: u64,
}

fn scratch(operation: &Operation, sizes: &Sizes) -> u64 {
    let Sizes { before, after, between, each, deep } = *sizes;
    let filtered = if deep > 0 { before * (deep + 2) } else { 0 };
    match operation.scratch {
        Scratch::InPlace => 0,
        Scratch::Converted => before * each,
        Scratch::Filtered => filtered,
        Scratch::Copied => filtered + before * each.max(4),
        Scratch::Moved => before * deep + after * each.max(deep),
        Scratch::Turned => (before + after) * DEEP,
        Scratch::Resampled => before * deep + after * each.max(deep) + between * FLOAT,
    }
}
