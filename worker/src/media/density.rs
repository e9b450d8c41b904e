//! The print size of a picture: pixels per metre, read from a file and written into its edit.

use super::png_chunks::Chunks;
use super::tags::Tags;
use super::{Format, pixels::jpeg_segments};

/// Pixels per metre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Density {
    /// Across.
    pub x: f64,
    /// Down.
    pub y: f64,
}

const METRES_PER_INCH: f64 = 0.0254;

const X_RESOLUTION: u16 = 282;
const Y_RESOLUTION: u16 = 283;
const RESOLUTION_UNIT: u16 = 296;

impl Density {
    fn per(x: f64, y: f64, metres: f64) -> Option<Self> {
        // A value beyond this is damage.
        let fits = |value: f64| (1.0..1e9).contains(&value);
        Some(Self { x: x / metres, y: y / metres }).filter(|found| fits(found.x) && fits(found.y))
    }

    /// Dots per inch, across and down.
    pub fn per_inch(self) -> (f64, f64) {
        (self.x * METRES_PER_INCH, self.y * METRES_PER_INCH)
    }

    /// The density after a quarter turn.
    pub(super) fn turned(self) -> Self {
        Self { x: self.y, y: self.x }
    }

    /// The file's density; WebP and GIF cannot store it.
    pub(super) fn read(bytes: &[u8], format: Format) -> Option<Self> {
        match format {
            Format::Png => {
                let (x, y) = Chunks::read(bytes).density?;
                Self::per(f64::from(x), f64::from(y), 1.0)
            }
            Format::Jpeg => jpeg(bytes),
            Format::Bmp => {
                let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
                Self::per(f64::from(number(38)?), f64::from(number(42)?), 1.0)
            }
            Format::Tiff => of_tags(&Tags::first(bytes)?),
            Format::WebP | Format::Gif => None,
        }
    }
}

/// From JFIF; a camera's file has it in EXIF alone.
fn jpeg(bytes: &[u8]) -> Option<Density> {
    let mut of_exif = None;
    for (marker, data) in jpeg_segments(bytes) {
        match (marker, data) {
            (0xe0, &[b'J', b'F', b'I', b'F', 0, _, _, unit @ (1 | 2), x1, x0, y1, y0, ..]) => {
                let (x, y) = (u16::from_be_bytes([x1, x0]), u16::from_be_bytes([y1, y0]));
                let metres = if unit == 1 { METRES_PER_INCH } else { 0.01 };
                let found = Density::per(f64::from(x), f64::from(y), metres);
                if found.is_some() {
                    return found;
                }
            }
            (0xe1, data) if of_exif.is_none() => {
                let tags = data.strip_prefix(b"Exif\0\0").and_then(Tags::first);
                of_exif = tags.and_then(|tags| of_tags(&tags));
            }
            _ => {}
        }
    }
    of_exif
}

fn of_tags(tags: &Tags<'_>) -> Option<Density> {
    let metres = match tags.first_number(RESOLUTION_UNIT) {
        None | Some(2) => METRES_PER_INCH,
        Some(3) => 0.01,
        Some(_) => return None,
    };
    Density::per(tags.fraction(X_RESOLUTION)?, tags.fraction(Y_RESOLUTION)?, metres)
}
