//! Operations that move pixels or make more or fewer of them.
//!
//! Each one that changes the size has a `…_size` beside it, so that a result beyond the limits is refused
//! from the header alone, before anything is decoded.

use image::imageops::{FilterType, replace};
use image::{ColorType, DynamicImage, Rgba, RgbaImage};
use serde::Deserialize;

use super::alpha::{divide, multiply, premultiplied};
use super::params::{Colour, invalid};
use super::samples::{Deep, colour_type, convert, is_deep, settle};
use super::warp::warp;
use crate::editor::EditError;
use crate::media::MAX_PIXELS;

/// Width and height.
pub(super) type Size = (u32, u32);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Horizontal,
    Vertical,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flip {
    direction: Direction,
}

pub(super) fn flip(image: &DynamicImage, params: &Flip) -> DynamicImage {
    match params.direction {
        Direction::Horizontal => image.fliph(),
        Direction::Vertical => image.flipv(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    degrees: f32,
    fill: Colour,
    expand: bool,
}

impl Rotate {
    /// The number of clockwise quarter turns, if the angle is a multiple of 90°.
    fn quarters(&self) -> Option<u8> {
        let turns = self.degrees.rem_euclid(360.0) / 90.0;
        [(0.0, 0), (1.0, 1), (2.0, 2), (3.0, 3)]
            .into_iter()
            .find_map(|(exact, quarters)| (turns == exact).then_some(quarters))
    }
}

pub(super) fn rotate_size(params: &Rotate, (width, height): Size) -> Size {
    match params.quarters() {
        _ if !params.expand => (width, height),
        Some(0 | 2) => (width, height),
        Some(_) => (height, width),
        None => {
            let (sin, cos) = f64::from(params.degrees).to_radians().sin_cos();
            let (w, h) = (f64::from(width), f64::from(height));
            let across = h * sin.abs() + w * cos.abs();
            let down = h * cos.abs() + w * sin.abs();
            // A thousandth of a pixel is an error of rounding and deserves no row of its own.
            (pixels((across - 0.001).ceil()), pixels((down - 0.001).ceil()))
        }
    }
}

pub(super) fn rotate(image: DynamicImage, params: &Rotate) -> DynamicImage {
    match params.quarters() {
        Some(0) => image,
        Some(2) => image.rotate180(),
        Some(1) if params.expand => image.rotate90(),
        Some(3) if params.expand => image.rotate270(),
        _ => rotate_freely(image, params),
    }
}

fn rotate_freely(mut image: DynamicImage, params: &Rotate) -> DynamicImage {
    settle(&mut image);
    let Colour(fill) = params.fill;
    let before = image.color();
    let size = rotate_size(params, (image.width(), image.height()));
    let source = halve(multiply(image.into_rgba16()));
    let border = halve(multiply(Deep::from_pixel(1, 1, Rgba(fill.map(deepen)))));
    let mut turned = Deep::new(size.0, size.1);
    let back = back_turn(source.dimensions(), size, params.degrees);
    warp(&source, back, *border.get_pixel(0, 0), &mut turned);
    convert(double(divide(turned)).into(), holding(before, fill))
}

/// Makes room above white: bicubic interpolation overshoots at the rim, and alpha must not be clipped before
/// the colours are divided by it.
fn halve(mut image: Deep) -> Deep {
    for sample in image.iter_mut() {
        *sample /= 2;
    }
    image
}

/// Restores the range of alpha; the colours have theirs since they were divided.
fn double(mut image: Deep) -> Deep {
    for Rgba([_, _, _, alpha]) in image.pixels_mut() {
        // 65535 / 2 is 32767: full stays full.
        *alpha = if *alpha >= 32_767 { u16::MAX } else { *alpha * 2 };
    }
    image
}

/// The source position of a pixel of the turned picture. Pixels are counted by their centres, hence size - 1.
fn back_turn(from: Size, to: Size, degrees: f32) -> impl Fn(f32, f32) -> (f32, f32) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let centre = |(width, height): Size| ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
    let ((from_x, from_y), (to_x, to_y)) = (centre(from), centre(to));
    move |x, y| {
        let (dx, dy) = (x - to_x, y - to_y);
        (from_x + cos * dx + sin * dy, from_y - sin * dx + cos * dy)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Crop {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

pub(super) fn crop_size(params: &Crop, (width, height): Size) -> Result<Size, EditError> {
    let sides =
        [("x", params.x, "width", params.width, width), ("y", params.y, "height", params.height, height)];
    for (start, from, side, length, available) in sides {
        if u64::from(from) + u64::from(length) > u64::from(available) {
            return Err(invalid(format!(
                "params.{start} + params.{side}: must be at most {available}, the picture's {side}, \
                 not {from} + {length}"
            )));
        }
    }
    Ok((params.width, params.height))
}

pub(super) fn crop(image: &DynamicImage, params: &Crop) -> DynamicImage {
    image.crop_imm(params.x, params.y, params.width, params.height)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frame {
    size: u32,
    colour: Colour,
}

pub(super) fn border_size(params: &Frame, (width, height): Size) -> Size {
    let both = params.size * 2;
    (width.saturating_add(both), height.saturating_add(both))
}

pub(super) fn border(mut image: DynamicImage, params: &Frame) -> DynamicImage {
    settle(&mut image);
    let Colour(colour) = params.colour;
    let (width, height) = border_size(params, (image.width(), image.height()));
    let at = i64::from(params.size);
    let kind = holding(image.color(), colour);
    if is_deep(kind) {
        let mut canvas = Deep::from_pixel(width, height, Rgba(colour.map(deepen)));
        replace(&mut canvas, &image.into_rgba16(), at, at);
        convert(canvas.into(), kind)
    } else {
        let mut canvas = RgbaImage::from_pixel(width, height, Rgba(colour));
        replace(&mut canvas, &image.into_rgba8(), at, at);
        convert(canvas.into(), kind)
    }
}

/// The pixel type that holds the picture and a fill.
fn holding(kind: ColorType, [r, g, b, alpha]: [u8; 4]) -> ColorType {
    colour_type(kind.has_color() || r != g || g != b, kind.has_alpha() || alpha < u8::MAX, is_deep(kind))
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filter {
    Nearest,
    Triangle,
    CatmullRom,
    Gaussian,
    Lanczos3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fit {
    Exact,
    Inside,
    Cover,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    width: Option<u32>,
    height: Option<u32>,
    fit: Fit,
    filter: Filter,
}

pub(super) fn resize_size(params: &Resize, size: Size) -> Result<Size, EditError> {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    match (params.width, params.height) {
        (None, None) => Err(invalid("params: give width, height or both")),
        (Some(to), None) => Ok(scaled(size, f64::from(to) / width)),
        (None, Some(to)) => Ok(scaled(size, f64::from(to) / height)),
        (Some(w), Some(h)) if params.fit == Fit::Inside => {
            let factor = (f64::from(w) / width).min(f64::from(h) / height);
            Ok(scaled(size, factor))
        }
        (Some(w), Some(h)) => Ok((w, h)),
    }
}

pub(super) fn resize(image: DynamicImage, params: &Resize) -> Result<DynamicImage, EditError> {
    let (width, height) = resize_size(params, (image.width(), image.height()))?;
    let filter = match params.filter {
        Filter::Nearest => FilterType::Nearest,
        Filter::Triangle => FilterType::Triangle,
        Filter::CatmullRom => FilterType::CatmullRom,
        Filter::Gaussian => FilterType::Gaussian,
        Filter::Lanczos3 => FilterType::Lanczos3,
    };
    let image = match params.fit {
        Fit::Exact | Fit::Inside => image,
        Fit::Cover => middle(&image, (width, height)),
    };
    Ok(resample(image, (width, height), filter))
}

/// The largest central part with the aspect ratio of `to`. It is cropped before scaling: the other order
/// would first enlarge a strip to a picture that no memory holds.
fn middle(image: &DynamicImage, to: Size) -> DynamicImage {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (width / f64::from(to.0)).min(height / f64::from(to.1));
    let part = scaled(to, scale);
    let (across, down) = (part.0.min(image.width()), part.1.min(image.height()));
    let (x, y) = ((image.width() - across) / 2, (image.height() - down) / 2);
    image.crop_imm(x, y, across, down)
}

fn resample(image: DynamicImage, (width, height): Size, filter: FilterType) -> DynamicImage {
    premultiplied(image, |image| {
        // The library scales the height first. If the intermediate picture would be too large, the width goes
        // first: one of the two orders is always within the limit that both ends are within.
        let between = u64::from(image.width()) * u64::from(height);
        if between > MAX_PIXELS {
            image.resize_exact(width, image.height(), filter).resize_exact(width, height, filter)
        } else {
            image.resize_exact(width, height, filter)
        }
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upscale {
    factor: f64,
}

pub(super) fn upscale_size(params: &Upscale, size: Size) -> Size {
    scaled(size, params.factor)
}

pub(super) fn upscale(image: DynamicImage, params: &Upscale) -> DynamicImage {
    let size = upscale_size(params, (image.width(), image.height()));
    resample(image, size, FilterType::Lanczos3)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thumbnail {
    size: u32,
}

/// Never larger than the picture.
pub(super) fn thumbnail_size(params: &Thumbnail, size: Size) -> Size {
    let longest = size.0.max(size.1);
    if longest <= params.size {
        return size;
    }
    scaled(size, f64::from(params.size) / f64::from(longest))
}

pub(super) fn thumbnail(image: DynamicImage, params: &Thumbnail) -> DynamicImage {
    let before = (image.width(), image.height());
    let (width, height) = thumbnail_size(params, before);
    if before == (width, height) {
        return image;
    }
    premultiplied(image, |image| image.thumbnail_exact(width, height))
}

fn scaled((width, height): Size, factor: f64) -> Size {
    let side = |length: u32| pixels((f64::from(length) * factor).round());
    (side(width), side(height))
}

/// At least one; a float cast saturates, so that too many are refused by the limit and do not wrap.
#[expect(clippy::cast_possible_truncation, reason = "rounded; the cast saturates")]
fn pixels(length: f64) -> u32 {
    (length as u32).max(1)
}

fn deepen(sample: u8) -> u16 {
    u16::from(sample) * 257
}
