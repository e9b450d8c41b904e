use super::*;

/// One box: its length, its name, its content.
fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 8).unwrap();
    [&length.to_be_bytes()[..], name, content].concat()
}

/// A file of the brand, with the sizes of its items.
fn heif(brands: &[&[u8; 4]], sizes: &[(u32, u32)]) -> Vec<u8> {
    let ispe = |(width, height): &(u32, u32)| {
        boxed(b"ispe", &[&[0; 4][..], &width.to_be_bytes(), &height.to_be_bytes()].concat())
    };
    let ipco = boxed(b"ipco", &sizes.iter().flat_map(ispe).collect::<Vec<_>>());
    let meta = [&[0; 4][..], &boxed(b"hdlr", &[0; 24]), &boxed(b"iprp", &ipco)].concat();
    let (major, others) = brands.split_first().unwrap();
    let brands: Vec<u8> = others.iter().flat_map(|brand| brand.iter().copied()).collect();
    [boxed(b"ftyp", &[&major[..], &[0; 4], &brands].concat()), boxed(b"meta", &meta)].concat()
}

#[test]
fn a_picture_is_recognised_by_its_first_bytes_with_its_size() {
    let jp2 = [
        &b"\0\0\0\x0cjP  \r\n\x87\n"[..],
        &boxed(b"jp2h", &boxed(b"ihdr", &[0, 0, 0, 5, 0, 0, 0, 7, 0, 3, 7, 7, 0, 0])),
    ]
    .concat();
    let jxl_boxes = [&b"\0\0\0\x0cJXL \r\n\x87\n"[..], &boxed(b"jxlc", b"\xff\x0a\xf8\x1f")].concat();
    let psd = [&b"8BPS\0\x01\0\0\0\0\0\0\0\x03"[..], &5u32.to_be_bytes(), &7u32.to_be_bytes()].concat();
    let qoi = [&b"qoif"[..], &7u32.to_be_bytes(), &5u32.to_be_bytes()].concat();
    for (bytes, content_type, extension, size) in [
        (heif(&[b"avif"], &[(512, 384)]), "image/avif", "avif", Some((512, 384))),
        (heif(&[b"heic"], &[(512, 512), (4032, 3024), (320, 240)]), "image/heic", "heic", Some((4032, 3024))),
        (heif(&[b"mif1", b"miaf", b"heic"], &[]), "image/heic", "heic", None),
        (heif(&[b"mif1", b"avif"], &[]), "image/avif", "avif", None),
        (b"\xff\x0a\xf8\x1f".to_vec(), "image/jxl", "jxl", Some((512, 512))),
        (jxl_boxes, "image/jxl", "jxl", Some((512, 512))),
        (jp2, "image/jp2", "jp2", Some((7, 5))),
        (psd, "image/vnd.adobe.photoshop", "psd", Some((7, 5))),
        (qoi, "image/qoi", "qoi", Some((7, 5))),
        (b"P6\n# by hand\n7 5\n255\n".to_vec(), "image/x-portable-pixmap", "ppm", Some((7, 5))),
        (b"II+\0\x08\0\0\0".to_vec(), "image/tiff", "tiff", None),
        (b"\x89PNG\r\n\x1a\n".to_vec(), "image/png", "png", None),
    ] {
        let kind = identify(&bytes).unwrap_or_else(|| panic!("{content_type}"));
        assert_eq!((kind.content_type, kind.extension, kind.size), (content_type, extension, size));
        assert!(!is_attachment(content_type), "{content_type}");
        // Truncated anywhere, it is the same or unrecognised, and never a panic.
        for end in 0..bytes.len() {
            let cut = identify(&bytes[..end]).map(|kind| kind.content_type);
            assert!(cut.is_none_or(|cut| cut.starts_with("image/")), "{content_type} up to {end}");
        }
    }
}

#[test]
fn an_svg_is_a_picture_and_a_page_with_one_is_not() {
    for (text, size) in [
        ("<svg width=\"7\" height='5px'/>", Some((7, 5))),
        ("\u{feff}<?xml version=\"1.0\"?>\n<!-- <html> -->\n<svg:svg viewBox=\"0 0 7.2 5\">", Some((8, 5))),
        (
            "<!DOCTYPE svg [ <!ENTITY a \">\"> ]>\n<svg stroke-width=\"3\" width=\"100%\" height=\"1em\">",
            None,
        ),
        ("<svg>", None),
    ] {
        let kind = identify(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((kind.content_type, kind.size), ("image/svg+xml", size), "{text}");
        assert!(is_attachment(kind.content_type));
    }
    for text in [
        "",
        "<html><svg></svg>",
        "<!doctype html><svg/>",
        "<div><svg/></div>",
        "<svgx/>",
        "{\"error\": \"<svg>\"}",
        "P6 is a film",
    ] {
        assert_eq!(identify(text.as_bytes()), None, "{text}");
    }
    assert!(
        is_attachment("text/html; charset=utf-8")
            && is_attachment("application/octet-stream")
            && is_attachment("")
    );
}

#[test]
fn other_files_are_not_taken_for_pictures() {
    for bytes in [
        &b"%PDF-1.7"[..],
        b"PK\x03\x04",
        b"\x1aE\xdf\xa3",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42",
        b"\x1f\x8b\x08\0",
    ] {
        assert_eq!(identify(bytes), None, "{bytes:?}");
    }
}
