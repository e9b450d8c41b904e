//! The frame header (T.81, B.2.2): components, their blocks, and which of their bits were read.

/// Coefficients of a block.
pub(super) const BLOCK: usize = 64;
/// Blocks of one component: [`super::super::MAX_PIXELS`] in blocks, and as many again at the edges.
const MAX_BLOCKS: usize = 2_000_000;

/// One colour component.
pub(super) struct Component {
    pub(super) id: u8,
    pub(super) across: usize,
    pub(super) down: usize,
    /// Blocks of the component: across, down.
    pub(super) blocks: (usize, usize),
    /// Blocks in a row of interleaved units, possibly more.
    pub(super) stride: usize,
    /// Progressive only: which coefficients of each block are not zero, a bit each.
    pub(super) nonzero: Vec<u64>,
    /// Per coefficient: the lowest bit that was read; `None` before any.
    pub(super) read_down_to: [Option<u8>; BLOCK],
}

/// A frame header.
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) components: Vec<Component>,
    /// Units of an interleaved scan: across, down.
    pub(super) units: (usize, usize),
}

impl Frame {
    pub(super) fn read(progressive: bool, body: &[u8]) -> Result<Self, String> {
        let header: &[u8; 6] = body.first_chunk().ok_or("its frame header is cut short")?;
        let [_precision, h1, h2, w1, w2, count] = *header;
        let height = usize::from(u16::from_be_bytes([h1, h2]));
        let width = usize::from(u16::from_be_bytes([w1, w2]));
        let described = body.get(6..6 + 3 * usize::from(count)).ok_or("its frame header is cut short")?;
        let sampling: Vec<(u8, usize, usize)> = described
            .chunks_exact(3)
            .map(|three| (three[0], usize::from(three[1] >> 4), usize::from(three[1] & 0x0f)))
            .collect();
        let in_range = |factor: &usize| (1..=4).contains(factor);
        if width == 0
            || height == 0
            || !(1..=4).contains(&sampling.len())
            || !sampling.iter().all(|(_, across, down)| in_range(across) && in_range(down))
        {
            return Err("its frame header is damaged".to_owned());
        }
        let most_across = sampling.iter().map(|(_, across, _)| *across).max().unwrap_or(1);
        let most_down = sampling.iter().map(|(_, _, down)| *down).max().unwrap_or(1);
        let units = (width.div_ceil(8 * most_across), height.div_ceil(8 * most_down));
        let mut components = Vec::with_capacity(sampling.len());
        for (id, across, down) in sampling {
            let blocks = (
                (width * across).div_ceil(most_across).div_ceil(8),
                (height * down).div_ceil(most_down).div_ceil(8),
            );
            let stride = units.0 * across;
            let all = stride * units.1 * down;
            if all > MAX_BLOCKS {
                return Err("it has more blocks than a picture may have".to_owned());
            }
            let nonzero = if progressive { vec![0; all] } else { Vec::new() };
            let read_down_to = [None; BLOCK];
            components.push(Component { id, across, down, blocks, stride, nonzero, read_down_to });
        }
        Ok(Self { progressive, components, units })
    }

    /// Whether each component was in a scan: required at an end marker.
    pub(super) fn every_component_was_scanned(&self) -> bool {
        self.components.iter().all(|component| component.read_down_to[0].is_some())
    }

    /// Whether every bit of every coefficient was read: without an end marker, only this rules out a missing
    /// scan.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.read_down_to.iter().all(|low| *low == Some(0)))
    }
}
