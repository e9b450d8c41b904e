//! The bound on decoded pictures: the bytes of pixels that one process holds at once, over all its lanes,
//! tasks and commands. The need is computed from the header, and the permit is held from before decoding
//! until the pixels are freed.
//!
//! Invariant: work that holds a permit never waits for another one. A picture that needs more than the whole
//! bound takes all of it and runs alone.

use std::io::Cursor;
use std::sync::OnceLock;

use image::{ColorType, ImageDecoder, ImageReader};
use tokio::task::{JoinError, spawn_blocking};

use super::{Format, Media, pixels, tiff_kinds};
use crate::sources::memory::Memory;

const MIB: usize = 1024 * 1024;

/// The bound without a call of [`set_limit`]: about one picture of 64 megapixels and 16 bits.
pub const DEFAULT_MIB: u32 = 768;

static DECODED: OnceLock<Memory> = OnceLock::new();

/// Bounds all decoding of this process; the first call wins.
pub fn set_limit(bytes: usize) {
    DECODED.get_or_init(|| Memory::of(bytes));
}

/// Runs `work`, which decodes a picture, on a blocking thread, once `bytes` are free. They stay reserved
/// until `work` has ended, even if the caller is gone.
///
/// # Errors
/// `work` panicked, or the program is ending.
pub async fn run<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let memory = DECODED.get_or_init(|| Memory::of(DEFAULT_MIB as usize * MIB));
    let share = memory.share(usize::try_from(bytes).unwrap_or(usize::MAX)).await;
    spawn_blocking(move || {
        let result = work();
        drop(share);
        result
    })
    .await
}

/// Memory of a picture's pixels, from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The pixel type after decoding.
    pub colour: ColorType,
    /// Bytes of the decoded pixels.
    pub pixels: u64,
    /// Peak bytes during decoding, including the pixels.
    pub peak: u64,
}

/// Reads the header of a picture that [`super::inspect`] accepted.
pub fn decoded(bytes: &[u8], media: &Media) -> Decoded {
    let count = u64::from(media.width) * u64::from(media.height);
    let (colour, turned) = header(bytes, media).unwrap_or((ColorType::Rgba16, true));
    let pixels = count * u64::from(colour.bytes_per_pixel());
    let beside = match media.format {
        Format::Png | Format::Bmp => 0,
        // Coefficients of a progressive one, 16 bits each, or four inks before their conversion.
        Format::Jpeg if pixels::jpeg_scans(bytes).progressive => {
            2 * count * u64::from(colour.channel_count())
        }
        Format::Jpeg => count * 4,
        // A canvas in colour with alpha, or planes of brightness and colour.
        Format::WebP | Format::Gif => count * 4,
        // As the file has them, four inks included.
        Format::Tiff => pixels + pixels / 3,
    };
    // A rotation copies the picture once more.
    let peak = pixels + beside.max(if turned { pixels } else { 0 });
    Decoded { colour, pixels, peak }
}

/// Peak bytes of decoding.
pub fn decode_bytes(bytes: &[u8], media: &Media) -> u64 {
    decoded(bytes, media).peak
}

/// The pixel type, and whether EXIF turns the picture.
fn header(bytes: &[u8], media: &Media) -> Option<(ColorType, bool)> {
    let readable = tiff_kinds::readable(bytes, media.format).ok()?;
    let mut reader = ImageReader::with_format(Cursor::new(readable.bytes()), media.format.library());
    reader.limits(super::header_limits(bytes, media.format));
    let mut decoder = reader.into_decoder().ok()?;
    let turned = decoder.orientation().is_ok_and(|way| way != image::metadata::Orientation::NoTransforms);
    Some((readable.colour(decoder.color_type()), turned))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Barrier};

    use image::{DynamicImage, ImageFormat};

    use super::*;

    fn file(image: &DynamicImage, format: ImageFormat) -> (Vec<u8>, Media) {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        let bytes = bytes.into_inner();
        let media = super::super::inspect(&bytes).unwrap();
        (bytes, media)
    }

    #[test]
    fn the_memory_of_a_picture_is_computed_from_its_header() {
        let deep = file(&DynamicImage::new_rgb16(30, 20), ImageFormat::Png);
        let need = decoded(&deep.0, &deep.1);
        assert_eq!((need.colour, need.pixels, need.peak), (ColorType::Rgb16, 3_600, 3_600));
        // Bytes after the header are not needed.
        assert_eq!(decoded(&deep.0[..60], &deep.1).pixels, 3_600);
        let tiff = file(&DynamicImage::new_rgba8(30, 20), ImageFormat::Tiff);
        assert_eq!(decoded(&tiff.0, &tiff.1).peak, 2_400 + 3_200);
        let jpeg = file(&DynamicImage::new_rgb8(30, 20), ImageFormat::Jpeg);
        assert_eq!(decoded(&jpeg.0, &jpeg.1).peak, 1_800 + 2_400);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_would_exceed_the_bound_waits_for_room() {
        let half = DEFAULT_MIB as u64 * MIB as u64 / 2;
        let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let pair = Arc::new(Barrier::new(2));
        let all = (0..8).map(|_| {
            let (running, most, pair) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&pair));
            run(half, move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Two at once, or this never ends.
                pair.wait();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_larger_than_the_bound_runs_alone_and_frees_it() {
        let whole = 4 * DEFAULT_MIB as u64 * MIB as u64;
        for _ in 0..3 {
            run(whole, || ()).await.unwrap();
        }
        let panicked = run(whole, || -> () { panic!("a decoder's bug") }).await.unwrap_err();
        assert!(panicked.is_panic());
        run(whole, || ()).await.unwrap();
    }
}
