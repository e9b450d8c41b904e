//! Colours, densities and kinds of TIFF, on files by other programs (littleCMS, libtiff, tifffile; see
//! `fixtures/README.md`).

use image::{DynamicImage, ImageFormat, RgbaImage};

use super::tests::crc32;
use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name)).as_slice()
    };
}

fn managed(bytes: &[u8]) -> Pixels {
    Pixels::decode_managed(bytes, &inspect(bytes).unwrap()).unwrap()
}

fn rgb(bytes: &[u8]) -> image::RgbImage {
    decode(bytes, &inspect(bytes).unwrap()).unwrap().to_rgb8()
}

/// Per mille of pixels that differ by more than `most` in a colour.
fn off(found: &image::RgbImage, expected: &image::RgbImage, most: u8) -> usize {
    assert_eq!(found.dimensions(), expected.dimensions());
    let pairs = found.pixels().zip(expected.pixels());
    let wrong = pairs.filter(|(one, other)| one.0.iter().zip(other.0).any(|(a, b)| a.abs_diff(b) > most));
    wrong.count() * 1000 / found.pixels().count()
}

#[test]
fn cmyk_goes_through_its_profile_as_little_cms_does_it() {
    let table =
        [(fixture!("cmyk.jpg"), fixture!("cmyk_jpg.png")), (fixture!("cmyk.tif"), fixture!("cmyk_tif.png"))];
    for (file, expected) in table {
        let pixels = managed(file);
        assert_eq!(pixels.profile, None, "it is sRGB now");
        let wrong = off(&pixels.image.to_rgb8(), &rgb(expected), 2);
        assert!(wrong <= 10, "{wrong} of 1000 pixels are off");
    }
}

#[test]
fn a_linear_png_comes_out_as_srgb() {
    let bytes = fixture!("gama1.png");
    let before = decode(bytes, &inspect(bytes).unwrap()).unwrap().to_rgb8();
    let after = managed(bytes).image.to_rgb8();
    for (before, after) in before.pixels().zip(after.pixels()) {
        for (linear, found) in before.0.into_iter().zip(after.0) {
            let light = f64::from(linear) / 255.0;
            let srgb =
                if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
            assert!((srgb * 255.0 - f64::from(found)).abs() < 1.5, "{linear} is {srgb}, not {found}");
        }
    }
}

/// A PNG of one colour with this chunk before its pixels.
fn png_with(name: &[u8; 4], data: &[u8], pixel: [u8; 4]) -> Vec<u8> {
    let mut png = Vec::new();
    let image = DynamicImage::from(RgbaImage::from_pixel(3, 2, image::Rgba(pixel))).to_rgb8();
    image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
    let mut chunk = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
    chunk.extend_from_slice(name);
    chunk.extend_from_slice(data);
    chunk.extend(crc32(&chunk[4..]).to_be_bytes());
    png.splice(33..33, chunk);
    png
}

#[test]
fn colour_chunks_of_a_png_are_applied_or_refused_by_name() {
    let of = |data: &[u8]| {
        let png = png_with(b"cICP", data, [0, 200, 0, 255]);
        Pixels::decode_managed(&png, &inspect(&png).unwrap())
            .map(|pixels| pixels.image.to_rgb8().get_pixel(0, 0).0)
    };
    assert_eq!(of(&[1, 13, 0, 1]).unwrap(), [0, 200, 0], "sRGB");
    // Display P3's green is outside sRGB: clipped, it has no red and no blue.
    let [r, g, b] = of(&[12, 13, 0, 1]).unwrap();
    assert!(r == 0 && g > 200 && b == 0, "{r} {g} {b}");
    for (data, name) in [([9, 16, 0, 1], "PQ"), ([9, 18, 0, 1], "HLG"), ([3, 13, 0, 1], "primaries 3")] {
        let error = of(&data).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut primaries = Vec::new();
    // Adobe RGB.
    for value in [31_270_u32, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000] {
        primaries.extend(value.to_be_bytes());
    }
    let png = png_with(b"cHRM", &primaries, [100, 200, 50, 255]);
    let [r, g, _] = managed(&png).image.to_rgb8().get_pixel(0, 0).0;
    assert!(r < 60 && g >= 200, "{r} {g}");
}

#[test]
fn a_profile_is_applied_where_it_cannot_travel() {
    let p3 = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let image = DynamicImage::from(RgbaImage::from_pixel(2, 2, image::Rgba([0, 200, 0, 255]))).to_rgb8();
    let pixels = Pixels { image: image.into(), profile: Some(p3), density: None }.into_srgb();
    assert_eq!(pixels.profile, None);
    let [r, g, b] = pixels.image.to_rgb8().get_pixel(1, 1).0;
    assert!(r == 0 && g > 200 && b == 0, "{r} {g} {b}");
    let broken = Some(b"not a profile, whatever its place says".to_vec());
    let kept = Pixels { image: pixels.image, profile: broken.clone(), density: None }.into_srgb();
    assert_eq!(kept.profile, broken);
}

#[test]
fn kinds_of_tiff_have_the_pixels_that_libtiff_gives() {
    let table = [
        (fixture!("fill2.tif"), fixture!("plain.tif"), 0),
        (fixture!("big.tif"), fixture!("plain.tif"), 0),
        (fixture!("planar.tif"), fixture!("plain.tif"), 0),
        (fixture!("rgba_no_extra.tif"), fixture!("straight.tif"), 0),
        (fixture!("palette8.tif"), fixture!("palette8.png"), 0),
        (fixture!("ycbcr.tif"), fixture!("ycbcr.png"), 6),
    ];
    for (at, (file, expected, most)) in table.into_iter().enumerate() {
        assert_eq!(off(&rgb(file), &rgb(expected), most), 0, "{at}");
    }
}

#[test]
fn premultiplied_colours_are_divided_by_their_alpha() {
    let (file, straight) = (fixture!("premultiplied.tif"), fixture!("straight.tif"));
    let pixels = |bytes| decode(bytes, &inspect(bytes).unwrap()).unwrap().to_rgba8();
    let (found, expected) = (pixels(file), pixels(straight));
    for (found, expected) in found.pixels().zip(expected.pixels()) {
        assert_eq!(found.0[3], expected.0[3]);
        // At a small alpha, eight bits hold few levels of a colour.
        let most = 255 / u16::from(found.0[3]) + 1;
        for (found, expected) in found.0.into_iter().zip(expected.0) {
            assert!(u16::from(found.abs_diff(expected)) <= most, "{found} for {expected}");
        }
    }
}

/// A TIFF with one of its tags changed.
fn patched(tag: u16, value: u16) -> Vec<u8> {
    let mut file = fixture!("plain.tif").to_vec();
    let whole = file.clone();
    tags::Tags::first(&whole).unwrap().patch(&mut file, tag, value);
    assert_ne!(file, whole);
    file
}

#[test]
fn kinds_of_tiff_that_the_decoder_lacks_are_refused_by_name() {
    let table = [
        (fixture!("planar_tiled.tif").to_vec(), "separate colour planes in tiles"),
        (patched(259, 3), "CCITT Group 3 compression"),
        (patched(259, 50_000), "Zstandard compression"),
        (patched(262, 8), "Lab colours"),
        (patched(262, 6), "YCbCr that is not compressed as JPEG"),
    ];
    for (file, name) in table {
        let error = inspect(&file).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("a TIFF with {name} is not supported: save it as ")),
            "{message}"
        );
    }
}

#[test]
fn density_is_kept_in_every_format_that_stores_it() {
    let dots = Density { x: 300.0 / 0.0254, y: 150.0 / 0.0254 };
    for format in [Format::Png, Format::Jpeg, Format::Bmp, Format::Tiff] {
        let image = DynamicImage::new_rgb8(4, 3);
        let (bytes, _) = Pixels { image, profile: None, density: Some(dots) }.encode(format).unwrap();
        let found = managed(&bytes).density.unwrap().per_inch();
        assert!((found.0 - 300.0).abs() < 0.1 && (found.1 - 150.0).abs() < 0.1, "{format} {found:?}");
    }
}

#[test]
fn density_is_read_from_exif_without_jfif() {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0".to_vec();
    exif.extend(240_u32.to_le_bytes());
    exif.extend(1_u32.to_le_bytes());
    // The vertical density has its own tag; without it there is no density.
    assert_eq!(density_of(&exif), None);
    let mut both = b"Exif\0\0II*\0\x08\0\0\0\x02\0".to_vec();
    for tag in [282_u16, 283] {
        both.extend(tag.to_le_bytes());
        both.extend(b"\x05\0\x01\0\0\0\x26\0\0\0");
    }
    both.extend([0; 4]);
    both.extend(240_u32.to_le_bytes());
    both.extend(1_u32.to_le_bytes());
    let (x, y) = density_of(&both).unwrap().per_inch();
    assert!((x - 240.0).abs() < 0.1 && (y - 240.0).abs() < 0.1, "{x} {y}");
}

fn density_of(exif: &[u8]) -> Option<Density> {
    let mut jpeg = b"\xff\xd8\xff\xe1".to_vec();
    jpeg.extend(u16::try_from(exif.len() + 2).unwrap().to_be_bytes());
    jpeg.extend_from_slice(exif);
    jpeg.extend(b"\xff\xda\0\x02");
    Density::read(&jpeg, Format::Jpeg)
}

#[test]
fn an_endless_compressed_profile_is_not_inflated() {
    // A zlib stream of 32 MiB of zeros, inside iCCP.
    let mut bomb = b"x\0\0".to_vec();
    let mut png = Vec::new();
    let mut writer = png::Encoder::new(&mut png, 4096, 8192);
    writer.set_color(png::ColorType::Grayscale);
    let zeros = vec![0; 4096 * 8192];
    writer.write_header().unwrap().write_image_data(&zeros).unwrap();
    let mut at = 8;
    while at + 12 <= png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        if &png[at + 4..at + 8] == b"IDAT" {
            bomb.extend_from_slice(&png[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    let file = png_with(b"iCCP", &bomb, [1, 2, 3, 255]);
    let media = inspect(&file).unwrap();
    let pixels = Pixels::decode(&file, &media).unwrap();
    assert_eq!(pixels.profile, None);
    assert_eq!(pixels.image.to_rgb8().get_pixel(0, 0).0, [1, 2, 3]);
}

#[test]
fn a_profile_beyond_four_mebibytes_is_refused() {
    for format in [Format::Tiff, Format::Jpeg] {
        let mut profile = vec![0; colour_profile::MAX_PROFILE_BYTES + 1];
        profile[16..20].copy_from_slice(b"RGB ");
        let image = DynamicImage::new_rgb8(2, 2);
        let (bytes, _) = Pixels { image, profile: Some(profile), density: None }.encode(format).unwrap();
        let decoded = Pixels::decode(&bytes, &inspect(&bytes).unwrap());
        let error = decoded.map(|pixels| pixels.profile).expect_err(&format!("{format}"));
        assert!(error.to_string().contains("more than the 4 MiB allowed"), "{format} {error}");
    }
}

#[test]
fn a_jpeg_of_hundreds_of_scans_is_refused() {
    let mut jpeg = Vec::new();
    DynamicImage::new_rgb8(8, 8).write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
    let end = jpeg.len() - 2;
    let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let scan = jpeg[scan..end].to_vec();
    for _ in 0..100 {
        jpeg.splice(end..end, scan.iter().copied());
    }
    let error = decode(&jpeg, &inspect(&jpeg).unwrap()).unwrap_err();
    assert!(error.to_string().contains("101 scans; 100 are allowed"), "{error}");
}
