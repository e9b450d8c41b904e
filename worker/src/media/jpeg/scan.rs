//! One scan, read block by block (T.81, F.2 and G.2).

use super::frame::{BLOCK, Component, Frame};
use super::huffman::{Bits, Damage, Rest, Table};

/// Bytes between the last block of an interval and the next marker that are tolerated: some cameras write one
/// or two. Damage leaves more, or bytes that are not padding.
const UNTIDY: usize = 8;

type Tables<'a> = [&'a [Option<Table>; 4]; 2];

/// A component of a scan: its place in the frame and its tables.
struct Member {
    at: usize,
    dc: usize,
    ac: usize,
}

/// A scan header.
pub(super) struct Scan {
    members: Vec<Member>,
    first: usize,
    last: usize,
    /// The lowest bit of earlier scans; 0 for the first scan of these coefficients.
    high: u8,
    low: u8,
}

impl Scan {
    pub(super) fn read(header: &[u8], frame: &Frame) -> Result<Self, String> {
        let damaged = || "a scan header is damaged".to_owned();
        let count = usize::from(*header.first().ok_or_else(damaged)?);
        let named = header.get(1..1 + 2 * count).ok_or_else(damaged)?;
        let rest = header.get(1 + 2 * count..4 + 2 * count).ok_or_else(damaged)?;
        let mut members = Vec::with_capacity(count);
        for pair in named.chunks_exact(2) {
            let at = frame.components.iter().position(|component| component.id == pair[0]);
            let at = at.ok_or_else(damaged)?;
            if members.iter().any(|member: &Member| member.at == at) {
                return Err(damaged());
            }
            members.push(Member { at, dc: usize::from(pair[1] >> 4), ac: usize::from(pair[1] & 0x0f) });
        }
        if members.is_empty() {
            return Err(damaged());
        }
        if !frame.progressive {
            return Ok(Self { members, first: 0, last: BLOCK - 1, high: 0, low: 0 });
        }
        let (first, last) = (usize::from(rest[0]), usize::from(rest[1]));
        let (high, low) = (rest[2] >> 4, rest[2] & 0x0f);
        let alone = members.len() == 1;
        if last >= BLOCK || first > last || (first == 0 && last > 0) || (first > 0 && !alone) || low > 13 {
            return Err(damaged());
        }
        Ok(Self { members, first, last, high, low })
    }

    /// Reads every block; returns the bytes of the scan.
    pub(super) fn walk(
        &self,
        frame: &mut Frame,
        tables: Tables<'_>,
        restart_interval: u32,
        data: &[u8],
    ) -> Result<usize, String> {
        self.check_tables(frame.progressive, tables)?;
        let mut reader = Reader { scan: self, tables, bits: Bits::new(data), end_of_band_run: 0 };
        let (across, down) = match self.members.as_slice() {
            [one] => frame.components[one.at].blocks,
            _ => frame.units,
        };
        let (mut left, mut number) = (restart_interval, 0);
        for y in 0..down {
            for x in 0..across {
                if restart_interval > 0 && left == 0 {
                    reader.next_interval(number)?;
                    (left, number) = (restart_interval, (number + 1) % 8);
                }
                left = left.saturating_sub(1);
                reader.unit(frame, x, y).map_err(|damage| describe(damage, (across, down), (x, y)))?;
            }
        }
        let rest = reader.bits.align();
        check_rest(&rest)?;
        for member in &self.members {
            let component = &mut frame.components[member.at];
            component.read_down_to[self.first..=self.last].fill(Some(self.low));
        }
        Ok(rest.begin)
    }

    fn check_tables(&self, progressive: bool, [dc, ac]: Tables<'_>) -> Result<(), String> {
        let needs_dc = self.first == 0 && self.high == 0;
        let needs_ac = !progressive || self.first > 0;
        let is_there = |tables: &[Option<Table>; 4], id: usize| tables.get(id).is_some_and(Option::is_some);
        let all = self
            .members
            .iter()
            .all(|member| (!needs_dc || is_there(dc, member.dc)) && (!needs_ac || is_there(ac, member.ac)));
        if all { Ok(()) } else { Err("a Huffman table is missing".to_owned()) }
    }
}

fn describe(damage: Damage, (across, down): (usize, usize), (x, y): (usize, usize)) -> String {
    let percent = (y * across + x) * 100 / (across * down);
    match damage {
        Damage::CutShort => format!("its data ends after {percent} % of a scan"),
        Damage::Corrupt => format!("its data is damaged after {percent} % of a scan"),
    }
}

fn check_rest(rest: &Rest<'_>) -> Result<(), String> {
    let is_padding = |byte: u8| rest.extra.iter().all(|extra| *extra == byte);
    if rest.extra.len() <= UNTIDY || is_padding(0) || rest.extra.chunks(2).all(|pair| pair == [0xff, 0]) {
        return Ok(());
    }
    Err(format!("its data is damaged: {} bytes are left over after the last block", rest.extra.len()))
}

struct Reader<'a> {
    scan: &'a Scan,
    tables: Tables<'a>,
    bits: Bits<'a>,
    /// Following blocks without a new coefficient in this scan.
    end_of_band_run: u32,
}

impl Reader<'_> {
    fn next_interval(&mut self, number: u8) -> Result<(), String> {
        let rest = self.bits.align();
        check_rest(&rest)?;
        self.end_of_band_run = 0;
        if self.bits.restart(number) {
            return Ok(());
        }
        Err("a restart marker is missing or out of order".to_owned())
    }

    /// One unit: one block for a single component, otherwise each component's share.
    fn unit(&mut self, frame: &mut Frame, x: usize, y: usize) -> Result<(), Damage> {
        let scan = self.scan;
        if let [one] = scan.members.as_slice() {
            return self.block(frame.progressive, one, &mut frame.components[one.at], x, y);
        }
        for member in &scan.members {
            let component = &mut frame.components[member.at];
            let (across, down) = (component.across, component.down);
            for row in 0..down {
                for column in 0..across {
                    self.block(frame.progressive, member, component, x * across + column, y * down + row)?;
                }
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        progressive: bool,
        member: &Member,
        component: &mut Component,
        x: usize,
        y: usize,
    ) -> Result<(), Damage> {
        // `check_tables` has checked the required ones.
        let [dc, ac] = self.tables;
        let (dc, ac) =
            (dc.get(member.dc).and_then(Option::as_ref), ac.get(member.ac).and_then(Option::as_ref));
        if !progressive {
            return self.sequential(dc.ok_or(Damage::Corrupt)?, ac.ok_or(Damage::Corrupt)?);
        }
        if self.scan.first == 0 {
            return match self.scan.high {
                0 => self.dc(dc.ok_or(Damage::Corrupt)?),
                _ => self.bits.skip(1),
            };
        }
        let nonzero = component.nonzero.get_mut(y * component.stride + x).ok_or(Damage::Corrupt)?;
        let ac = ac.ok_or(Damage::Corrupt)?;
        if self.scan.high == 0 { self.ac_first(ac, nonzero) } else { self.ac_refine(ac, nonzero) }
    }

    fn dc(&mut self, table: &Table) -> Result<(), Damage> {
        let size = self.bits.symbol(table)?;
        if size > 15 {
            return Err(Damage::Corrupt);
        }
        self.bits.skip(u32::from(size))
    }

    fn sequential(&mut self, dc: &Table, ac: &Table) -> Result<(), Damage> {
        self.dc(dc)?;
        let mut at = 1;
        while at < BLOCK {
            let symbol = self.bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 0x0f));
            if size == 0 {
                if run != 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += run;
            if at >= BLOCK {
                return Err(Damage::Corrupt);
            }
            self.bits.skip(size)?;
            at += 1;
        }
        Ok(())
    }

    fn ac_first(&mut self, table: &Table, nonzero: &mut u64) -> Result<(), Damage> {
        if self.end_of_band_run > 0 {
            self.end_of_band_run -= 1;
            return Ok(());
        }
        let mut at = self.scan.first;
        while at <= self.scan.last {
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (symbol >> 4, u32::from(symbol & 0x0f));
            if size == 0 {
                if run != 15 {
                    self.end_of_band_run = (1 << run) - 1 + self.bits.take(u32::from(run))?;
                    break;
                }
                at += 16;
                continue;
            }
            at += usize::from(run);
            if at > self.scan.last {
                return Err(Damage::Corrupt);
            }
            self.bits.skip(size)?;
            *nonzero |= 1 << at;
            at += 1;
        }
        Ok(())
    }

    /// One bit per nonzero coefficient, and codes for newly nonzero ones.
    fn ac_refine(&mut self, table: &Table, nonzero: &mut u64) -> Result<(), Damage> {
        let mut at = self.scan.first;
        if self.end_of_band_run == 0 {
            while at <= self.scan.last {
                let symbol = self.bits.symbol(table)?;
                let (mut run, size) = (symbol >> 4, symbol & 0x0f);
                match size {
                    0 if run != 15 => {
                        self.end_of_band_run = (1 << run) + self.bits.take(u32::from(run))?;
                        break;
                    }
                    0 => {}
                    1 => self.bits.skip(1)?,
                    _ => return Err(Damage::Corrupt),
                }
                while at <= self.scan.last {
                    if *nonzero >> at & 1 == 1 {
                        self.bits.skip(1)?;
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    at += 1;
                }
                if size == 1 {
                    if at > self.scan.last {
                        return Err(Damage::Corrupt);
                    }
                    *nonzero |= 1 << at;
                }
                at += 1;
            }
        }
        if self.end_of_band_run > 0 {
            self.end_of_band_run -= 1;
            while at <= self.scan.last {
                if *nonzero >> at & 1 == 1 {
                    self.bits.skip(1)?;
                }
                at += 1;
            }
        }
        Ok(())
    }
}
