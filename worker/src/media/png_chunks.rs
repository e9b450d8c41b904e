//! The chunks of a PNG about its colours and print size (PNG, third edition, 11.3.2 and 11.3.4.3). The image
//! library passes none of them on.

use std::ops::RangeInclusive;

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, MatrixCoefficients,
    ToneReprCurve, TransferCharacteristics,
};

use super::MediaError;

/// Chunks before the pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Primaries, transfer, matrix, full range.
    cicp: Option<[u8; 4]>,
    icc: bool,
    srgb: bool,
    /// In units of 1/100000.
    gamma: Option<u32>,
    /// x and y of white, red, green and blue, in units of 1/100000.
    primaries: Option<[u32; 8]>,
    /// Pixels per metre, across and down.
    pub(super) density: Option<(u32, u32)>,
}

const SRGB_PRIMARIES: [u32; 8] = [31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000];

/// Gammas that count as sRGB: 1/2.2, with libpng's tolerance.
const SRGB_GAMMA: RangeInclusive<u32> = 43_300..=47_700;

impl Chunks {
    /// Reads a PNG; the default for other files.
    pub(super) fn read(png: &[u8]) -> Self {
        let mut chunks = Self::default();
        let mut at = 8;
        while let Some(length) = number(png, at) {
            let (Ok(length), Some(name)) = (usize::try_from(length), png.get(at + 4..at + 8)) else { break };
            let Some(data) = at.checked_add(8 + length).and_then(|end| png.get(at + 8..end)) else { break };
            match (name, data) {
                (b"IDAT", _) => break,
                (b"cICP", &[primaries, transfer, matrix, range]) => {
                    chunks.cicp = Some([primaries, transfer, matrix, range]);
                }
                (b"iCCP", _) => chunks.icc = true,
                (b"sRGB", _) => chunks.srgb = true,
                (b"gAMA", _) => chunks.gamma = number(data, 0).filter(|gamma| *gamma > 0),
                (b"cHRM", _) => chunks.primaries = eight(data),
                (b"pHYs", &[.., 1]) => chunks.density = number(data, 0).zip(number(data, 4)),
                _ => {}
            }
            at += 12 + length;
        }
        chunks
    }

    /// The colour space if it is not sRGB and no ICC profile defines it. `cICP` has priority over all others,
    /// then `iCCP` and `sRGB`.
    ///
    /// # Errors
    /// [`MediaError::Unsupported`] for HDR and other colours beyond today's screens.
    pub(super) fn profile(&self, grey: bool) -> Result<Option<ColorProfile>, MediaError> {
        if let Some(code) = self.cicp {
            return cicp(code, grey);
        }
        let wide = self.primaries.is_some_and(|at| !near(at, SRGB_PRIMARIES)) && !grey;
        let bent = self.gamma.is_some_and(|gamma| !SRGB_GAMMA.contains(&gamma));
        if self.icc || self.srgb || !(wide || bent) {
            return Ok(None);
        }
        let curve = self.gamma.filter(|_| bent).map(|gamma| 100_000.0 / f64::from(gamma));
        #[expect(clippy::cast_possible_truncation, reason = "an exponent needs no 64 bits")]
        let curve = curve.map(|exponent| ToneReprCurve::Parametric(vec![exponent as f32]));
        let mut profile = ColorProfile::new_srgb();
        profile.cicp = None;
        if let Some([white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y]) =
            self.primaries.filter(|_| wide)
        {
            let point = |x: u32, y: u32| Chromaticity::new(x as f32 / 100_000.0, y as f32 / 100_000.0);
            let (red, green, blue) = (point(red_x, red_y), point(green_x, green_y), point(blue_x, blue_y));
            let primaries = ColorPrimaries { red, green, blue };
            profile.update_rgb_colorimetry(point(white_x, white_y).to_xyyb(), primaries);
        }
        if let Some(curve) = curve {
            profile.red_trc = Some(curve.clone());
            profile.green_trc = Some(curve.clone());
            profile.blue_trc = Some(curve);
        }
        Ok(Some(if grey { as_grey(profile) } else { profile }))
    }
}

/// ITU-T H.273. 1/13 is sRGB, 12/13 Display P3.
fn cicp(
    [primaries, transfer, matrix, range]: [u8; 4],
    grey: bool,
) -> Result<Option<ColorProfile>, MediaError> {
    let refused = |kind: String| MediaError::Unsupported {
        what: format!("a PNG with {kind} is not supported"),
        fix: "save it as sRGB".to_owned(),
    };
    match transfer {
        16 => return Err(refused("HDR colours (PQ)".to_owned())),
        18 => return Err(refused("HDR colours (HLG)".to_owned())),
        _ if matrix != 0 || range != 1 => {
            return Err(refused(format!("colours of matrix {matrix} and range {range} (cICP)")));
        }
        13 if primaries == 1 => return Ok(None),
        _ => {}
    }
    let unknown = || refused(format!("colours of primaries {primaries} and transfer {transfer} (cICP)"));
    let codes =
        CicpColorPrimaries::try_from(primaries).ok().zip(TransferCharacteristics::try_from(transfer).ok());
    let (color_primaries, transfer_characteristics) = codes.ok_or_else(unknown)?;
    let matrix_coefficients = MatrixCoefficients::Identity;
    let code =
        CicpProfile { color_primaries, transfer_characteristics, matrix_coefficients, full_range: true };
    let profile = ColorProfile::new_from_cicp(code);
    // Reserved or unspecified codes leave the profile empty.
    if !profile.is_matrix_shaper() {
        return Err(unknown());
    }
    Ok(Some(if grey { as_grey(profile) } else { profile }))
}

/// For grey only the curve counts.
fn as_grey(profile: ColorProfile) -> ColorProfile {
    let mut grey = ColorProfile::new_gray_with_gamma(1.0);
    grey.gray_trc = profile.red_trc;
    grey
}

fn near(one: [u32; 8], other: [u32; 8]) -> bool {
    one.into_iter().zip(other).all(|(one, other)| one.abs_diff(other) <= 500)
}

fn eight(data: &[u8]) -> Option<[u32; 8]> {
    let mut all = [0; 8];
    for (at, place) in all.iter_mut().enumerate() {
        *place = number(data, at * 4)?;
    }
    // A primary without brightness has no colour.
    all.iter().skip(1).step_by(2).all(|y| *y > 0).then_some(all)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}
