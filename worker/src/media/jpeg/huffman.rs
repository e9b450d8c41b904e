//! Huffman tables (T.81, annex C) and the bits of a scan.

/// The longest code.
const MAX_CODE: usize = 16;
/// Codes up to this length are decoded by one table lookup.
const LOOK: u32 = 9;

/// One table, ready to decode.
pub(super) struct Table {
    /// By the next [`LOOK`] bits: length and symbol; length 0 where the code is longer.
    short: Vec<(u8, u8)>,
    /// By length: one more than the largest code, left-aligned to 16 bits; codes of a length are contiguous.
    limit: [u32; MAX_CODE + 1],
    /// By length: what is added to a code to find its symbol.
    offset: [i32; MAX_CODE + 1],
    symbols: Vec<u8>,
}

impl Table {
    /// From a DHT segment, after the byte of class and id; and what follows it there.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (counts, rest) = bytes.split_at_checked(MAX_CODE)?;
        let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
        let (symbols, rest) = rest.split_at_checked(total)?;
        if total > 256 {
            return None;
        }
        let mut table = Self {
            short: vec![(0, 0); 1 << LOOK],
            limit: [0; MAX_CODE + 1],
            offset: [0; MAX_CODE + 1],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut at) = (0_u32, 0_usize);
        for length in 1..=MAX_CODE {
            let count = usize::from(counts[length - 1]);
            table.offset[length] = i32::try_from(at).ok()? - i32::try_from(code).ok()?;
            for symbol in &symbols[at..at + count] {
                table.enter(code, u32::try_from(length).ok()?, *symbol);
                code += 1;
            }
            at += count;
            // More codes than this length allows.
            if code > 1 << length {
                return None;
            }
            table.limit[length] = code << (MAX_CODE - length);
            code <<= 1;
        }
        Some((table, rest))
    }

    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        if length > LOOK {
            return;
        }
        let first = (code << (LOOK - length)) as usize;
        let entries = self.short.iter_mut().skip(first).take(1 << (LOOK - length));
        // A length is 9 at most here.
        entries.for_each(|entry| *entry = (length.to_le_bytes()[0], symbol));
    }
}

/// Why a scan cannot be decoded further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A marker or the end of the file precedes the last block.
    CutShort,
    /// Bits that are not a code, or that lead outside of a block.
    Corrupt,
}

/// The bits of entropy-coded data without stuffed zeros, up to a marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte outside the buffer.
    at: usize,
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48 {
            let Some((byte, next)) = data_byte(self.bytes, self.at) else { return };
            self.buffer = (self.buffer << 8) | u64::from(byte);
            self.count += 8;
            self.at = next;
        }
    }

    /// The next `wanted` bits, at most 16; zeros follow the end.
    fn peek(&mut self, wanted: u32) -> u32 {
        if self.count < wanted {
            self.fill();
        }
        let bits = match self.count.checked_sub(wanted) {
            Some(more) => self.buffer >> more,
            None => self.buffer << (wanted - self.count),
        };
        // Masked to 16 bits at most.
        u32::try_from(bits & ((1 << wanted) - 1)).unwrap_or_default()
    }

    pub(super) fn skip(&mut self, bits: u32) -> Result<(), Damage> {
        if self.count < bits {
            self.fill();
        }
        self.count = self.count.checked_sub(bits).ok_or(Damage::CutShort)?;
        Ok(())
    }

    pub(super) fn take(&mut self, bits: u32) -> Result<u32, Damage> {
        let value = self.peek(bits);
        self.skip(bits)?;
        Ok(value)
    }

    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Damage> {
        let next = self.peek(16);
        let (length, symbol) = table.short[(next >> (16 - LOOK)) as usize];
        if length > 0 {
            self.skip(u32::from(length))?;
            return Ok(symbol);
        }
        for length in LOOK as usize + 1..=MAX_CODE {
            if next < table.limit[length] {
                let code = i32::try_from(next >> (MAX_CODE - length)).map_err(|_| Damage::Corrupt)?;
                let symbol = usize::try_from(code + table.offset[length]).map_err(|_| Damage::Corrupt)?;
                self.skip(u32::try_from(length).map_err(|_| Damage::Corrupt)?)?;
                return table.symbols.get(symbol).copied().ok_or(Damage::Corrupt);
            }
        }
        // After the end of the data, peeked bits may be padding.
        if self.count < 16 && data_byte(self.bytes, self.at).is_none() {
            return Err(Damage::CutShort);
        }
        Err(Damage::Corrupt)
    }

    /// Ends an interval: the rest of its last byte is padding. Returns the bytes up to a marker or the end,
    /// and the offset after them; reading resumes after the marker.
    pub(super) fn align(&mut self) -> Rest<'a> {
        let begin = self.begin_of_unread();
        let mut end = begin;
        while let Some((_, next)) = data_byte(self.bytes, end) {
            end = next;
        }
        (self.buffer, self.count, self.at) = (0, 0, end);
        Rest { extra: &self.bytes[begin..end], begin }
    }

    /// The offset of the first unused byte; buffered bytes are stepped back over.
    fn begin_of_unread(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count / 8 {
            let stuffed = at >= 2 && self.bytes[at - 1] == 0 && self.bytes[at - 2] == 0xff;
            at -= if stuffed { 2 } else { 1 };
        }
        at
    }

    /// Skips a restart marker with this number, if it is next.
    pub(super) fn restart(&mut self, number: u8) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let fill = rest.iter().take_while(|byte| **byte == 0xff).count();
        if fill == 0 || rest.get(fill) != Some(&(0xd0 + number)) {
            return false;
        }
        self.at += fill + 1;
        true
    }
}

/// The bytes after an interval's last block.
pub(super) struct Rest<'a> {
    /// Bytes before the next marker.
    pub(super) extra: &'a [u8],
    /// The offset of the first of them.
    pub(super) begin: usize,
}

/// The data byte at `at`, and the offset of the next; `None` at a marker or the end.
fn data_byte(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    match *bytes.get(at)? {
        0xff if bytes.get(at + 1) == Some(&0) => Some((0xff, at + 2)),
        0xff => None,
        byte => Some((byte, at + 1)),
    }
}
