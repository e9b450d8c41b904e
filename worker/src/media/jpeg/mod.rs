//! Checks that a JPEG is whole: reads its entropy-coded data to the last block, without computing a pixel.
//!
//! Invariant: the pixel decoder fills missing data with grey and reports nothing, so it receives a file only
//! after every block was found here, and only in the form that [`canonical`] writes: the known segments, each
//! scan up to its last block, and an end marker. The two cannot disagree about damaged segments then.
//! Specification: ITU-T T.81; for files that break it, libjpeg's behaviour.

mod frame;
mod huffman;
mod scan;

use frame::Frame;
use huffman::Table;
use scan::Scan;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;

/// One marker segment: its marker and its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
    /// The offset after the segment.
    end: usize,
}

/// The segment at or after `at`. Bytes between segments are skipped, as libjpeg does. `None`: the file ends
/// first.
fn next_segment(bytes: &[u8], at: usize) -> Option<Result<Segment<'_>, &'static str>> {
    let mut at = at;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        at += bytes.get(at..)?.iter().position(|byte| *byte != 0xff)?;
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            // Stuffing, restart markers and TEM have no segment.
            0x00 | 0x01 | 0xd0..=0xd7 => {}
            SOI | EOI => return Some(Ok(Segment { marker, body: &[], end: at })),
            _ => break Some(sized_segment(bytes, marker, at)),
        }
    }
}

fn sized_segment(bytes: &[u8], marker: u8, at: usize) -> Result<Segment<'_>, &'static str> {
    let length = bytes.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let length = length.ok_or("the file is cut short within a header")?;
    if length < 2 {
        return Err("a header segment has an impossible length");
    }
    let body = bytes.get(at + 2..at + length).ok_or("the file is cut short within a header")?;
    Ok(Segment { marker, body, end: at + length })
}

/// The EXIF block, if a segment before the first scan has one.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    while let Some(Ok(Segment { marker, body, end })) = next_segment(bytes, at) {
        match marker {
            SOS | EOI | SOI => return None,
            // The second of the two bytes after the name is padding of any value.
            APP1 if body.starts_with(b"Exif\0") && body.len() > 6 => return body.get(6..),
            _ => at = end,
        }
    }
    None
}

/// The kind of a JPEG that the pixel decoder lacks, from its frame header.
pub(super) fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    let mut at = 2;
    while let Some(Ok(Segment { marker, body, end })) = next_segment(bytes, at) {
        match marker {
            0xc3 | 0xc7 | 0xcb | 0xcf => return Some("a lossless JPEG"),
            0xc5 | 0xc6 | 0xcd | 0xce => return Some("a hierarchical JPEG"),
            0xc9 | 0xca => return Some("an arithmetic-coded JPEG"),
            0xc0..=0xc2 if body.first().is_some_and(|bits| *bits != 8) => return Some("a 12-bit JPEG"),
            0xf7 => return Some("a JPEG-LS"),
            SOS | EOI => return None,
            _ => at = end,
        }
    }
    None
}

/// The current tables, and the progress so far.
#[derive(Default)]
struct Walk {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: u32,
    frame: Option<Frame>,
}

/// The picture in `bytes`, whole, in a form that all decoders read alike: without metadata that pixels do not
/// need, without bytes between segments or after the picture (a second picture of an MPO), and with an end
/// marker.
///
/// # Errors
/// The missing or damaged part, for people.
pub(super) fn canonical(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    out.extend([0xff, SOI]);
    walk(&mut Walk::default(), bytes, &mut out)?;
    out.extend([0xff, EOI]);
    Ok(out)
}

/// As [`canonical`] for a picture with its tables in a separate stream, as in TIFF; the picture itself is not
/// written.
///
/// # Errors
/// As [`canonical`].
pub(super) fn check_abbreviated(tables: &[u8], picture: &[u8]) -> Result<(), String> {
    let (mut state, mut out) = (Walk::default(), Vec::new());
    let mut at = 2;
    while let Some(segment) = next_segment(tables, at) {
        let segment = segment?;
        if matches!(segment.marker, SOS | EOI) {
            break;
        }
        state.take(segment, &mut out)?;
        at = segment.end;
    }
    walk(&mut state, picture, &mut out)
}

fn walk(state: &mut Walk, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut at = 2;
    while let Some(segment) = next_segment(bytes, at) {
        let segment = segment?;
        at = match segment.marker {
            EOI => return state.ended(),
            SOI => return Err("another picture begins inside of it".to_owned()),
            SOS => {
                let read = state.scan(segment.body, bytes.get(segment.end..).unwrap_or_default())?;
                let end = segment.end + read;
                write(segment, out);
                out.extend_from_slice(&bytes[segment.end..end]);
                // Bytes after a complete picture are not part of it, with or without an end marker.
                if state.frame.as_ref().is_some_and(Frame::is_complete) {
                    return Ok(());
                }
                end
            }
            _ => {
                state.take(segment, out)?;
                segment.end
            }
        };
    }
    Err("the file is cut short".to_owned())
}

impl Walk {
    fn take(&mut self, segment: Segment<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let Segment { marker, body, end: _ } = segment;
        match marker {
            0xc4 => self.tables(body)?,
            0xc0..=0xc2 => {
                if self.frame.is_some() {
                    return Err("it has two frame headers".to_owned());
                }
                self.frame = Some(Frame::read(marker == 0xc2, body)?);
            }
            0xdd => {
                let interval = body.get(..2).ok_or("its restart interval is cut short")?;
                self.restart_interval = u32::from(u16::from_be_bytes([interval[0], interval[1]]));
            }
            // Quantisation tables are for the pixel decoder.
            0xdb => {}
            // Profiles, and the colour space of the samples.
            APP2 if body.starts_with(b"ICC_PROFILE\0") => {}
            APP0 if body.starts_with(b"JFIF\0") => {}
            APP14 if body.starts_with(b"Adobe") => {}
            // Frames of other kinds: left to the pixel decoder.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err("a kind of JPEG that is not supported".to_owned());
            }
            _ => return Ok(()),
        }
        write(segment, out);
        Ok(())
    }

    fn tables(&mut self, body: &[u8]) -> Result<(), String> {
        let mut rest = body;
        while let Some((class_and_id, after)) = rest.split_first() {
            let id = usize::from(class_and_id & 0x0f);
            let tables = if class_and_id >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(id).ok_or("it has more Huffman tables than there can be")?;
            let (table, remaining) = Table::read(after).ok_or("a Huffman table is damaged")?;
            *slot = Some(table);
            rest = remaining;
        }
        Ok(())
    }

    fn scan(&mut self, header: &[u8], data: &[u8]) -> Result<usize, String> {
        let frame = self.frame.as_mut().ok_or("a scan comes before the frame header")?;
        let scan = Scan::read(header, frame)?;
        scan.walk(frame, [&self.dc, &self.ac], self.restart_interval, data)
    }

    /// At the end marker: components without a scan would be shown as grey.
    fn ended(&self) -> Result<(), String> {
        match &self.frame {
            Some(frame) if frame.every_component_was_scanned() => Ok(()),
            Some(_) | None => Err("it ends before its last scan".to_owned()),
        }
    }
}

fn write(segment: Segment<'_>, out: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(segment.body.len() + 2) else { return };
    out.extend([0xff, segment.marker]);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(segment.body);
}

#[cfg(test)]
mod tests;
