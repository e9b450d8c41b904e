//! Unsupported input, by name: pictures of unsupported formats, each with the way to convert it, and files
//! that are not pictures.

use super::tiff;

/// An unsupported format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// For people, e.g. `HEIC`.
    pub(super) what: String,
    /// What to do, e.g. `convert it first`.
    pub(super) fix: &'static str,
}

pub(super) const CONVERT: &str = "convert it first";
const CONVERT_HEIC: &str = "convert it first (`heif-convert a.heic a.jpg`)";
const CONVERT_AVIF: &str = "convert it first (`avifdec a.avif a.png`)";
const CONVERT_JXL: &str = "convert it first (`djxl a.jxl a.png`)";
const CONVERT_PDF: &str = "convert a page of it first (`pdftoppm -png -r 150 a.pdf page`)";
const CONVERT_SVG: &str = "convert it first (`rsvg-convert -o a.png a.svg`)";

/// By magic number.
const UNREAD: [(&[u8], &str, &str); 22] = [
    (b"%PDF", "PDF", CONVERT_PDF),
    (b"8BPS", "Photoshop document (PSD)", CONVERT),
    (b"\xff\x0a", "JPEG XL", CONVERT_JXL),
    (b"\0\0\0\x0cJXL ", "JPEG XL", CONVERT_JXL),
    (b"\0\0\0\x0cjP  ", "JPEG 2000", CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", CONVERT),
    (b"II\xbc\x01", "JPEG XR", CONVERT),
    (b"\0\0\x01\0", "icon (ICO)", CONVERT),
    (b"qoif", "QOI", CONVERT),
    (b"v/1\x01", "OpenEXR", CONVERT),
    (b"#?RADIANCE", "Radiance HDR", CONVERT),
    (b"DDS ", "DDS texture", CONVERT),
    (b"gimp xcf", "GIMP document (XCF)", CONVERT),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)", CONVERT),
    (b"IIRO", "camera raw (ORF)", CONVERT),
    (b"IIRS", "camera raw (ORF)", CONVERT),
    (b"MMOR", "camera raw (ORF)", CONVERT),
    (b"IIU\0", "camera raw (RW2)", CONVERT),
    (b"\0MRM", "camera raw (MRW)", CONVERT),
    (b"FOVb", "camera raw (X3F)", CONVERT),
    (b"ARRI", "camera raw (ARI)", CONVERT),
    (b"\x97JB2", "JBIG2", CONVERT),
];

/// The unsupported picture format of `bytes`, if it is a known one.
pub(super) fn unread(bytes: &[u8]) -> Option<Unread> {
    if let Some((_, what, fix)) = UNREAD.into_iter().find(|(magic, _, _)| bytes.starts_with(magic)) {
        return Some(Unread { what: what.to_owned(), fix });
    }
    let named = |what: &str, fix| Some(Unread { what: what.to_owned(), fix });
    // TIFF's magic number, followed by a maker's own.
    match bytes.get(..16) {
        Some(head) if head.starts_with(b"II*\0") && &head[8..10] == b"CR" => {
            return named("camera raw (CR2)", CONVERT);
        }
        Some(head) if head.starts_with(b"II*\0") && &head[8..12] == b"IIII" => {
            return named("camera raw (IIQ)", CONVERT);
        }
        Some(head) if &head[6..14] == b"HEAPCCDR" => return named("camera raw (CRW)", CONVERT),
        Some(_) | None => {}
    }
    if let Some(what) = tiff::camera_raw(bytes) {
        return Some(Unread { what, fix: CONVERT });
    }
    match iso_brand(bytes) {
        Some(Brand::Avif) => named("AVIF", CONVERT_AVIF),
        Some(Brand::Heic) => named("HEIC", CONVERT_HEIC),
        Some(Brand::Cr3) => named("camera raw (CR3)", CONVERT),
        Some(Brand::Other) | None if is_svg(bytes) => named("SVG", CONVERT_SVG),
        Some(Brand::Other) | None => None,
    }
}

/// The kind of an ISO base media file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brand {
    Avif,
    Heic,
    Cr3,
    Other,
}

/// From the first box (ISO/IEC 14496-12, 4.3; 23008-12): the major brand, a version, and compatible brands.
fn iso_brand(bytes: &[u8]) -> Option<Brand> {
    const HEIF: [&[u8]; 14] = [
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1",
        b"miaf", b"MiHE", b"MiHB",
    ];
    if bytes.get(4..8)? != b"ftyp" {
        return None;
    }
    let length = u32::from_be_bytes(*bytes.first_chunk()?);
    let end = usize::try_from(length).ok()?.clamp(12, 512).min(bytes.len());
    let brands: Vec<&[u8]> = bytes[8..end]
        .chunks_exact(4)
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .map(|(_, brand)| brand)
        .collect();
    let has = |wanted: &[&[u8]]| brands.iter().any(|brand| wanted.contains(brand));
    Some(if has(&[b"crx "]) {
        Brand::Cr3
    } else if has(&[b"avif", b"avis"]) {
        Brand::Avif
    } else if has(&HEIF) {
        Brand::Heic
    } else {
        Brand::Other
    })
}

fn head_text(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(1024)];
    String::from_utf8_lossy(head).to_ascii_lowercase().trim_start_matches('\u{feff}').trim_start().to_owned()
}

/// Not a page of HTML that contains one.
fn is_svg(bytes: &[u8]) -> bool {
    let text = head_text(bytes);
    text.starts_with('<')
        && text.contains("<svg")
        && !text.starts_with("<!doctype html")
        && !text.starts_with("<html")
}

/// A guess at what was sent instead of a picture: mostly an error page.
pub(super) fn looks_like(bytes: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 4] = [
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"\0\x05\x16\x07", "the metadata of a Mac (AppleDouble)"),
    ];
    if bytes.is_empty() {
        return "an empty file";
    }
    if let Some((_, name)) = MAGIC.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    if iso_brand(bytes).is_some() {
        return "a video";
    }
    looks_like_text(bytes)
}

fn looks_like_text(bytes: &[u8]) -> &'static str {
    let head = &bytes[..bytes.len().min(512)];
    let text = head_text(bytes);
    // The window may cut a character, so invalid UTF-8 proves nothing: only control characters do.
    let is_text = !head.iter().any(|&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "an HTML page"
    } else if text.starts_with("<?xml") {
        "XML"
    } else if is_text && text.starts_with(['{', '[']) {
        "JSON"
    } else if is_text {
        "text"
    } else {
        "unknown binary data"
    }
}

#[cfg(test)]
mod tests;
