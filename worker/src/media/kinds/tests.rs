//! Unsupported picture formats are refused by name; ordinary files that resemble them pass.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

use super::super::{MediaError, Pixels, decode, inspect};

/// A little-endian TIFF: directories of short and long entries, `Next` and `Child` being another directory.
struct Made(Vec<u8>);

#[derive(Clone, Copy)]
enum Value<'a> {
    Short(u16),
    Long(u32),
    Text(&'a [u8]),
}

impl Made {
    fn new() -> Self {
        Self(b"II*\0\0\0\0\0".to_vec())
    }

    /// Adds a directory and returns its offset.
    fn directory(&mut self, entries: &[(u16, Value<'_>)], next: u32) -> u32 {
        let at = u32::try_from(self.0.len()).unwrap();
        let mut after = at + 2 + 12 * u32::try_from(entries.len()).unwrap() + 4;
        let mut texts = Vec::new();
        self.0.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
        for (tag, value) in entries {
            self.0.extend(tag.to_le_bytes());
            match value {
                Value::Short(number) => {
                    self.0.extend([3, 0, 1, 0, 0, 0, number.to_le_bytes()[0], number.to_le_bytes()[1], 0, 0])
                }
                Value::Long(number) => {
                    self.0.extend([4, 0, 1, 0, 0, 0]);
                    self.0.extend(number.to_le_bytes());
                }
                Value::Text(text) => {
                    let length = u32::try_from(text.len()).unwrap();
                    self.0.extend([2, 0]);
                    self.0.extend(length.to_le_bytes());
                    self.0.extend(after.to_le_bytes());
                    after += length;
                    texts.extend_from_slice(text);
                }
            }
        }
        self.0.extend(next.to_le_bytes());
        self.0.extend(texts);
        at
    }

    fn beginning_at(mut self, first: u32) -> Vec<u8> {
        self.0[4..8].copy_from_slice(&first.to_le_bytes());
        self.0
    }
}

fn preview(more: &[(u16, Value<'static>)]) -> Vec<(u16, Value<'static>)> {
    let mut entries = vec![
        (254, Value::Long(1)),
        (256, Value::Long(160)),
        (257, Value::Long(120)),
        (258, Value::Short(8)),
        (262, Value::Short(2)),
    ];
    entries.extend(more);
    entries
}

fn refusal(bytes: &[u8]) -> String {
    let error = inspect(bytes).unwrap_err();
    assert_eq!(error.code(), "unsupported", "{error}");
    error.to_string()
}

#[test]
fn a_camera_raw_in_tiffs_clothing_is_refused_by_its_name() {
    for (make, name) in [
        (&b"NIKON CORPORATION\0"[..], "NEF"),
        (b"SONY\0", "ARW"),
        (b"PENTAX Corporation\0", "PEF"),
        (b"Canon\0", "CR2"),
        (b"SAMSUNG\0", "SRW"),
        (b"Unheard of\0", "TIFF"),
    ] {
        let mut made = Made::new();
        // The sensor's samples, and a page of 160 by 120 before them.
        let sensor =
            made.directory(&[(254, Value::Long(0)), (256, Value::Long(6000)), (262, Value::Short(32803))], 0);
        let mut entries = preview(&[]);
        entries.extend([(271, Value::Text(make)), (330, Value::Long(sensor))]);
        let first = made.directory(&entries, 0);
        assert_eq!(refusal(&made.beginning_at(first)), format!("camera raw ({name}): convert it first"));
    }
}

#[test]
fn a_raw_is_recognised_by_version_compression_directory_or_magic() {
    let dng = |made: &mut Made| made.directory(&preview(&[(50706, Value::Long(0x0401))]), 0);
    let mut made = Made::new();
    let first = dng(&mut made);
    assert_eq!(refusal(&made.beginning_at(first)), "camera raw (DNG): convert it first");
    // Sensor samples in the first directory; in the second; under a maker's compression.
    for (first, next) in [
        (vec![(256, Value::Long(4000)), (262, Value::Short(32803))], None),
        (preview(&[]), Some(vec![(256, Value::Long(4000)), (262, Value::Short(34892))])),
        (preview(&[]), Some(vec![(256, Value::Long(4000)), (259, Value::Short(34713))])),
    ] {
        let mut made = Made::new();
        let next = next.map_or(0, |entries| made.directory(&entries, 0));
        let first = made.directory(&first, next);
        assert_eq!(refusal(&made.beginning_at(first)), "camera raw (TIFF): convert it first");
    }
    for (head, name) in [
        (&b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0"[..], "CR2"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "CR3"),
        (b"II\x1a\0\0\0HEAPCCDR\x02\0\x01\0", "CRW"),
    ] {
        assert_eq!(refusal(head), format!("camera raw ({name}): convert it first"));
    }
}

#[test]
fn a_preview_is_never_edited_instead_of_its_picture() {
    let mut made = Made::new();
    let large = made.directory(&[(256, Value::Long(4000)), (262, Value::Short(2))], 0);
    let first = made.directory(&preview(&[]), large);
    let refused = refusal(&made.beginning_at(first));
    assert_eq!(refused, "a TIFF whose first page is a preview of another: convert it first");
}

#[test]
fn ordinary_tiffs_with_thumbnails_and_pages_pass() {
    let mut tiff = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(20, 10).write_to(&mut tiff, ImageFormat::Tiff).unwrap();
    let mut tiff = tiff.into_inner();
    // A thumbnail after the picture: the directory's last four bytes are the offset of the next one.
    let first = usize::try_from(u32::from_le_bytes(*tiff[4..8].first_chunk().unwrap())).unwrap();
    let entries = usize::from(u16::from_le_bytes([tiff[first], tiff[first + 1]]));
    let mut made = Made(tiff.clone());
    let thumbnail = made.directory(&preview(&[]), 0);
    tiff = made.0;
    tiff[first + 2 + 12 * entries..][..4].copy_from_slice(&thumbnail.to_le_bytes());
    // It is larger than this picture, but still only a thumbnail of it.
    let media = inspect(&tiff).unwrap();
    assert_eq!((media.width, media.height), (20, 10));
    decode(&tiff, &media).unwrap();
    let pages = include_bytes!("../testdata/pages.tiff");
    let media = inspect(pages).unwrap();
    decode(pages, &media).unwrap();
}

#[test]
fn phone_formats_and_other_pictures_are_named_with_a_fix() {
    for brand in [
        "heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1", "miaf", "MiHE",
        "MiHB",
    ] {
        let bytes = [b"\0\0\0\x10ftyp", brand.as_bytes(), b"\0\0\0\0"].concat();
        assert_eq!(refusal(&bytes), "HEIC: convert it first (`heif-convert a.heic a.jpg`)", "{brand}");
        let compatible = [b"\0\0\0\x18ftypisom\0\0\0\0mp41", brand.as_bytes()].concat();
        assert!(refusal(&compatible).starts_with("HEIC"), "{brand} among the compatible ones");
    }
    for brand in ["avif", "avis"] {
        let bytes = [b"\0\0\0\x14ftyp", brand.as_bytes(), b"\0\0\0\0mif1"].concat();
        assert!(refusal(&bytes).starts_with("AVIF: convert it first (`avifdec"), "{brand}");
        let compatible = [b"\0\0\0\x14ftypmif1\0\0\0\0", brand.as_bytes()].concat();
        assert!(refusal(&compatible).starts_with("AVIF"), "{brand} among the compatible ones");
    }
    for (bytes, name) in [
        (&b"\xff\x0a\xfa\x1f"[..], "JPEG XL"),
        (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a", "JPEG 2000"),
        (b"8BPS\0\x01", "Photoshop document (PSD)"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG"),
        (b"\xef\xbb\xbf  <svg width='1'/>", "SVG"),
    ] {
        let refused = refusal(bytes);
        assert!(refused.starts_with(&format!("{name}: convert ")), "{refused}");
    }
}

#[test]
fn a_tiff_that_would_be_decoded_wrongly_is_refused_by_kind() {
    for (bytes, kind) in [
        (&include_bytes!("../testdata/lab.tiff")[..], "Lab"),
        (include_bytes!("../testdata/zstd.tiff"), "Zstandard"),
        (include_bytes!("../testdata/g3.tiff"), "CCITT Group 3"),
        (include_bytes!("../testdata/grey-alpha.tiff"), "2 samples a pixel"),
        (include_bytes!("../testdata/grey-float.tiff"), "floating point"),
    ] {
        let refused = refusal(bytes);
        assert!(refused.contains(kind) && refused.contains("is not supported: save it as"), "{refused}");
    }
}

#[test]
fn a_tiff_with_damaged_jpeg_strips_is_undecodable() {
    let whole = include_bytes!("../testdata/jpeg-in.tiff");
    let media = inspect(whole).unwrap();
    let plain = include_bytes!("../testdata/pages.tiff");
    let plain = decode(plain, &inspect(plain).unwrap()).unwrap().into_rgb8();
    let decoded = decode(whole, &media).unwrap().into_rgb8();
    let sum: u64 = decoded.iter().zip(plain.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(sum / (decoded.len() as u64) < 30, "the colours are those of the picture: {sum}");
    // Strips are most of the file: zeros in the middle of one.
    let strip = whole.windows(2).rposition(|two| two == [0xff, 0xda]).unwrap();
    let mut damaged = whole.to_vec();
    damaged[strip + 20] = 0xff;
    damaged[strip + 21] = 0xd9;
    let refused = Pixels::decode(&damaged, &media).unwrap_err();
    assert!(matches!(refused, MediaError::Undecodable { .. }), "{refused}");
}

#[test]
fn a_lossless_or_arithmetic_jpeg_is_named() {
    for (marker, name) in [(0xc3, "a lossless JPEG"), (0xc9, "an arithmetic-coded JPEG"), (0xf7, "a JPEG-LS")]
    {
        let bytes = [b"\xff\xd8\xff", &[marker][..], b"\0\x0b\x08\0\x10\0\x10\x01\x01\x11\0"].concat();
        assert_eq!(refusal(&bytes), format!("{name}: convert it to an ordinary JPEG first"));
    }
}
