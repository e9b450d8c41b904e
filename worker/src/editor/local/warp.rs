//! Pixels taken from places between the pixels of another picture.

use image::Rgba;

use super::samples::Deep;

/// Fills `out`: each of its pixels comes from the place in `source` that `back` names, by bicubic interpolation
/// (Catmull-Rom). Outside of `source` all is `border`.
pub(super) fn warp(source: &Deep, back: impl Fn(f32, f32) -> (f32, f32), border: Rgba<u16>, out: &mut Deep) {
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let (from_x, from_y) = back(x as f32, y as f32);
        *pixel = bicubic(source, from_x, from_y, border);
    }
}

/// The sixteen pixels around a place, weighted: along their four rows first, then across them.
#[expect(clippy::cast_possible_truncation, reason = "rounded down; the cast saturates")]
fn bicubic(source: &Deep, x: f32, y: f32, border: Rgba<u16>) -> Rgba<u16> {
    let (left, top) = (x.floor() as i64 - 1, y.floor() as i64 - 1);
    let rows = [0, 1, 2, 3].map(|row| {
        let pixels = [0, 1, 2, 3].map(|column| pixel_or(source, left + column, top + row, border));
        cubic(pixels, x - x.floor())
    });
    cubic(rows, y - y.floor())
}

fn pixel_or(source: &Deep, x: i64, y: i64, border: Rgba<u16>) -> Rgba<u16> {
    let place = (u32::try_from(x).ok()).zip(u32::try_from(y).ok());
    place.and_then(|(x, y)| source.get_pixel_checked(x, y)).copied().unwrap_or(border)
}

/// Between the second and the third of four pixels, at `t` from 0 to 1.
fn cubic(pixels: [Rgba<u16>; 4], t: f32) -> Rgba<u16> {
    Rgba([0, 1, 2, 3].map(|channel| {
        let [p0, p1, p2, p3] = pixels.map(|Rgba(samples)| f32::from(samples[channel]));
        let slope = p2 - p0;
        let bend = 2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3;
        let twist = 3.0 * (p1 - p2) + p3 - p0;
        #[expect(clippy::cast_possible_truncation, reason = "what overshoots is cut off")]
        #[expect(clippy::cast_sign_loss, reason = "what overshoots is cut off")]
        let sample = (p1 + 0.5 * t * (slope + t * (bend + t * twist))) as u16;
        sample
    }))
}
