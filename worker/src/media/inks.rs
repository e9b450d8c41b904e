//! CMYK to sRGB through the table of a printing press's profile, as littleCMS does it by default: the
//! perceptual table, black point compensation, out-of-gamut values clipped, all on a grid of 17 steps an ink
//! with interpolation in between (linear over the first ink, tetrahedral over the other three).
//!
//! `moxcms` converts CMYK too, but without the compensation: nine of ten pixels are off by more than two.
//! ICC.1:2022, 10.10 and 10.11 (tables), 6.3.4.2 (Lab).

use moxcms::{ColorProfile, DataColorSpace, LutStore, LutWarehouse};

/// D50.
const WHITE: [f32; 3] = [0.9642, 1.0, 0.8249];

/// From XYZ at D50 to linear sRGB.
const TO_SRGB: [[f32; 3]; 3] = [
    [3.134_136, -1.617_386, -0.490_662],
    [-0.978_795, 1.916_254, 0.033_442],
    [0.071_955, -0.228_977, 1.405_386],
];

/// Steps of an ink on the lookup grid.
const STEPS: usize = 17;

/// Colours over four inks.
struct Grid {
    nodes: Vec<[f32; 3]>,
    /// Steps of an ink.
    size: usize,
}

impl Grid {
    /// Inks from 0 to 1.
    fn look_up(&self, inks: [f32; 4]) -> [f32; 3] {
        let places = inks.map(|ink| ink.clamp(0.0, 1.0) * (self.size - 1) as f32);
        let steps = [self.size.pow(3), self.size.pow(2), self.size, 1];
        let lower = places.map(|place| whole(place).min(self.size - 2));
        let parts = [0, 1, 2, 3].map(|ink: usize| places[ink] - lower[ink] as f32);
        let base: usize = lower.iter().zip(steps).map(|(lower, step)| lower * step).sum();
        let rest = [(parts[1], steps[1]), (parts[2], steps[2]), (parts[3], steps[3])];
        let (near, far) = (self.tetrahedral(base, rest), self.tetrahedral(base + steps[0], rest));
        [0, 1, 2].map(|at: usize| near[at] + (far[at] - near[at]) * parts[0])
    }

    /// Along the edges of the cube, the largest fraction first.
    fn tetrahedral(&self, base: usize, mut ways: [(f32, usize); 3]) -> [f32; 3] {
        ways.sort_by(|one, other| other.0.total_cmp(&one.0));
        let (mut at, mut sum) = (base, self.nodes[base]);
        for (part, step) in ways {
            let (from, to) = (self.nodes[at], self.nodes[at + step]);
            sum = [0, 1, 2].map(|index: usize| sum[index] + (to[index] - from[index]) * part);
            at += step;
        }
        sum
    }
}

/// sRGB as a function of the inks of a press.
pub(super) struct Press(Grid);

impl Press {
    /// `None` if the profile has another kind of table.
    pub(super) fn new(profile: &ColorProfile) -> Option<Self> {
        let table = Table::new(profile)?;
        // Full inks, without their tint.
        let [lightness, ..] = table.lab([1.0; 4]);
        let black = xyz([lightness.min(50.0), 0.0, 0.0]);
        let node = |at: usize| {
            let ink = |step: usize| (at / step % STEPS) as f32 / (STEPS - 1) as f32;
            let light = xyz(table.lab([ink(STEPS.pow(3)), ink(STEPS.pow(2)), ink(STEPS), ink(1)]));
            // Black becomes 0, white stays.
            let scale = |at: usize| (light[at] - black[at]) * WHITE[at] / (WHITE[at] - black[at]);
            to_srgb([scale(0), scale(1), scale(2)])
        };
        Some(Self(Grid { nodes: (0..STEPS.pow(4)).map(node).collect(), size: STEPS }))
    }

    /// One pixel, inks and colours from 0 to 1.
    pub(super) fn srgb(&self, inks: [f32; 4]) -> [f32; 3] {
        self.0.look_up(inks)
    }
}

/// The table of the profile: a curve an ink, a grid, a curve for each of Lab.
struct Table {
    inputs: Vec<Vec<f32>>,
    grid: Grid,
    outputs: Vec<Vec<f32>>,
    /// Full scale of Lab in 16 bits is 0xff00 in this kind of table.
    lab_scale: f32,
}

impl Table {
    fn new(profile: &ColorProfile) -> Option<Self> {
        let Some(LutWarehouse::Lut(lut)) = &profile.lut_a_to_b_perceptual else { return None };
        let size = usize::from(lut.num_clut_grid_points);
        let nodes = units(&lut.clut_table).as_chunks::<3>().0.to_vec();
        let is_ours = profile.pcs == DataColorSpace::Lab
            && (lut.num_input_channels, lut.num_output_channels) == (4, 3)
            && size >= 2
            && nodes.len() == size.pow(4);
        let split = |store: &LutStore, entries: u16, curves: usize| -> Option<Vec<Vec<f32>>> {
            let all = units(store);
            let fits = entries >= 2 && all.len() == usize::from(entries) * curves;
            fits.then(|| all.chunks_exact(usize::from(entries)).map(<[f32]>::to_vec).collect())
        };
        Some(Self {
            inputs: split(&lut.input_table, lut.num_input_table_entries, 4)?,
            outputs: split(&lut.output_table, lut.num_output_table_entries, 3)?,
            grid: Grid { nodes, size },
            lab_scale: if matches!(lut.clut_table, LutStore::Store16(_)) { 65_535.0 / 65_280.0 } else { 1.0 },
        })
        .filter(|_| is_ours)
    }

    fn lab(&self, inks: [f32; 4]) -> [f32; 3] {
        let mixed = self.grid.look_up([0, 1, 2, 3].map(|ink: usize| curve(&self.inputs[ink], inks[ink])));
        let [l, a, b] = [0, 1, 2].map(|at: usize| curve(&self.outputs[at], mixed[at]) * self.lab_scale);
        [l * 100.0, a * 255.0 - 128.0, b * 255.0 - 128.0]
    }
}

fn to_srgb(light: [f32; 3]) -> [f32; 3] {
    TO_SRGB.map(|row| {
        let value = row[0] * light[0] + row[1] * light[1] + row[2] * light[2];
        let value = value.clamp(0.0, 1.0);
        if value <= 0.003_130_8 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
    })
}

fn units(store: &LutStore) -> Vec<f32> {
    match store {
        LutStore::Store8(values) => values.iter().map(|value| f32::from(*value) / 255.0).collect(),
        LutStore::Store16(values) => values.iter().map(|value| f32::from(*value) / 65_535.0).collect(),
    }
}

/// Linear between the entries.
fn curve(entries: &[f32], value: f32) -> f32 {
    let place = value.clamp(0.0, 1.0) * (entries.len() - 1) as f32;
    let lower = whole(place).min(entries.len() - 2);
    entries[lower] + (entries[lower + 1] - entries[lower]) * (place - lower as f32)
}

fn xyz([lightness, a, b]: [f32; 3]) -> [f32; 3] {
    let y = (lightness + 16.0) / 116.0;
    let unbent = [y + a / 500.0, y, y - b / 200.0]
        .map(|t| if t > 24.0 / 116.0 { t * t * t } else { (108.0 / 841.0) * (t - 16.0 / 116.0) });
    [0, 1, 2].map(|index| unbent[index] * WHITE[index])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
fn whole(place: f32) -> usize {
    place as usize
}
