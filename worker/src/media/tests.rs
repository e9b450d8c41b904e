//! Recognising, decoding and encoding pictures, on files made here byte by byte.

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ColorType, DynamicImage, Frame, GenericImageView, ImageEncoder, Rgba, RgbaImage};

use super::*;

/// Left half red, right half blue.
fn red_and_blue(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, _| {
        if x < width / 2 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 255]) }
    })
}

fn file(image: &DynamicImage, format: Format) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let image = if format == Format::Jpeg { image.to_rgb8().into() } else { image.clone() };
    image.write_to(&mut out, format.library()).unwrap();
    out.into_inner()
}

/// Different values in every sample, in this pixel type.
fn gradient(width: u32, height: u32, kind: ColorType) -> DynamicImage {
    let mut image = DynamicImage::new(width, height, kind);
    if let Some(samples) = image.as_mut_rgba16() {
        fill(samples, |at| u16::try_from(at * 997 % 65_536).unwrap());
    } else if let Some(samples) = image.as_mut_rgb16() {
        fill(samples, |at| u16::try_from(at * 997 % 65_536).unwrap());
    } else if let Some(samples) = image.as_mut_luma_alpha16() {
        fill(samples, |at| u16::try_from(at * 997 % 65_536).unwrap());
    } else if let Some(samples) = image.as_mut_luma16() {
        fill(samples, |at| u16::try_from(at * 997 % 65_536).unwrap());
    } else if let Some(samples) = image.as_mut_rgba8() {
        fill(samples, |at| u8::try_from(at * 37 % 256).unwrap());
    } else if let Some(samples) = image.as_mut_rgb8() {
        fill(samples, |at| u8::try_from(at * 37 % 256).unwrap());
    } else if let Some(samples) = image.as_mut_luma_alpha8() {
        fill(samples, |at| u8::try_from(at * 37 % 256).unwrap());
    } else if let Some(samples) = image.as_mut_luma8() {
        fill(samples, |at| u8::try_from(at * 37 % 256).unwrap());
    }
    image
}

fn fill<S>(samples: &mut [S], value: impl Fn(usize) -> S) {
    for (at, sample) in samples.iter_mut().enumerate() {
        *sample = value(at);
    }
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let step =
        |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            })
        };
    !bytes.iter().fold(u32::MAX, step)
}

/// A small sound PNG whose header claims these dimensions.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = file(&DynamicImage::new(1, 1, ColorType::L8), Format::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

#[test]
fn every_format_is_recognised_by_its_content_with_its_dimensions() {
    let image = red_and_blue(6, 4).into();
    for format in Format::ALL {
        let media = inspect(&file(&image, format)).unwrap();
        assert_eq!((media.format, media.width, media.height), (format, 6, 4));
    }
}

#[test]
fn other_files_are_refused_with_a_guess_at_their_kind() {
    let table: [(&[u8], &str); 10] = [
        (b"", "an empty file"),
        (b"hello, this is text in a file named cat.png", "text"),
        ("ein höflicher Gruß".as_bytes(), "text"),
        (b"\r\n<!DOCTYPE html><title>404</title><svg>", "an HTML page"),
        (b"<html><body>Access denied", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "XML"),
        (b"{\"code\":\"InvalidApiKey\"}", "JSON"),
        (b"PK\x03\x04\x14\0", "a ZIP archive or an office document"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0mp41mp42", "a video"),
        (b"\x01\x02\x03\x04\x05\x06", "unknown binary data"),
    ];
    for (bytes, looks_like) in table {
        let error = inspect(bytes).unwrap_err();
        assert_eq!(error, MediaError::NotAnImage { looks_like });
        assert_eq!(error.code(), "not_an_image");
        assert!(error.to_string().contains(looks_like));
    }
}

#[test]
fn a_magic_number_alone_is_not_a_picture() {
    let table: [(&[u8], Format); 6] = [
        (b"\x89PNG\r\n\x1a\nand then text", Format::Png),
        (b"\xff\xd8\xff\xe0 and then text", Format::Jpeg),
        (b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0text", Format::WebP),
        (b"GIF89a", Format::Gif),
        (b"BMW is a maker of cars", Format::Bmp),
        (b"II*\0\x08\0\0\0", Format::Tiff),
    ];
    for (bytes, expected) in table {
        let error = inspect(bytes).unwrap_err();
        assert_eq!(error.code(), "not_an_image");
        assert!(matches!(&error, MediaError::BadHeader { format, .. } if *format == expected), "{error:?}");
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}

#[test]
fn a_picture_without_pixels_is_refused() {
    let mut gif = file(&red_and_blue(2, 2).into(), Format::Gif);
    gif[6..8].copy_from_slice(&[0, 0]);
    assert_eq!(inspect(&gif).unwrap_err().code(), "not_an_image");
}

#[test]
fn more_than_64_megapixels_are_refused_from_the_header_without_decoding() {
    let mut gif = file(&red_and_blue(2, 2).into(), Format::Gif);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let mut bmp = file(&red_and_blue(2, 2).into(), Format::Bmp);
    bmp[18..22].copy_from_slice(&30_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&30_000_u32.to_le_bytes());
    let signature_and_header_only = png_claiming(100_000, 100_000)[..33].to_vec();
    let table = [
        (png_claiming(8_001, 8_000), 8_001, 8_000),
        (png_claiming(i32::MAX as u32, i32::MAX as u32), i32::MAX as u32, i32::MAX as u32),
        (signature_and_header_only, 100_000, 100_000),
        (gif, 65_535, 65_535),
        (bmp, 30_000, 30_000),
    ];
    for (bytes, width, height) in table {
        let limit = MAX_PIXELS;
        let error = inspect(&bytes).unwrap_err();
        assert_eq!(error, MediaError::TooManyPixels { width, height, limit });
        assert_eq!(error.code(), "too_many_pixels");
    }
    let most = inspect(&png_claiming(8_000, 8_000)).unwrap();
    assert_eq!((most.width, most.height), (8_000, 8_000));
}

#[test]
fn a_picture_cut_short_is_undecodable_in_every_format() {
    for format in Format::ALL {
        let image = gradient(64, 64, ColorType::Rgb8);
        let whole = file(&image, format);
        for part in [whole.len() / 2, whole.len() - 64] {
            let cut = &whole[..part];
            // A TIFF has its directory at the end: a truncated one lacks the header already.
            let outcome = inspect(cut).and_then(|media| decode(cut, &media));
            let code = outcome.unwrap_err().code();
            assert!(code == "undecodable" || format == Format::Tiff, "{format}: {code}");
        }
        let media = inspect(&whole).unwrap();
        decode(&whole, &media).unwrap();
    }
}

#[test]
fn a_truncated_jpeg_is_noticed_despite_its_exif_thumbnail() {
    let thumbnail = file(&red_and_blue(8, 8).into(), Format::Jpeg);
    let mut whole = Vec::new();
    let mut encoder = JpegEncoder::new(&mut whole);
    encoder.set_exif_metadata(thumbnail).unwrap();
    let image = gradient(64, 64, ColorType::Rgb8);
    image.write_with_encoder(encoder).unwrap();
    let cut = &whole[..whole.len() - 100];
    let media = inspect(cut).unwrap();
    assert_eq!(decode(cut, &media).unwrap_err().code(), "undecodable");
    decode(&whole, &media).unwrap();
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for colour in [[255, 0, 0, 255], [0, 255, 0, 255]] {
        let image = RgbaImage::from_pixel(4, 3, Rgba(colour));
        encoder.encode_frame(Frame::new(image)).unwrap();
    }
    drop(encoder);
    let media = inspect(&gif).unwrap();
    let image = decode(&gif, &media).unwrap();
    assert_eq!(image.dimensions(), (4, 3));
    assert!(image.pixels().all(|(_, _, pixel)| pixel == Rgba([255, 0, 0, 255])));
}

/// The smallest EXIF block with an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

#[test]
fn exif_orientation_is_applied_to_dimensions_and_pixels_alike() {
    let stored = red_and_blue(16, 8);
    // 6: stored left side belongs at the top. 3: upside down.
    for (orientation, size, red_at, blue_at) in
        [(1, (16, 8), (1, 4), (14, 4)), (6, (8, 16), (4, 1), (4, 14)), (3, (16, 8), (14, 4), (1, 4))]
    {
        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        DynamicImage::from(stored.clone()).write_with_encoder(encoder).unwrap();
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        DynamicImage::from(stored.clone()).write_with_encoder(encoder).unwrap();
        for bytes in [png, jpeg] {
            let media = inspect(&bytes).unwrap();
            assert_eq!((media.width, media.height), size, "upright");
            assert_eq!(media.on_its_side, orientation == 6);
            let image = decode(&bytes, &media).unwrap().to_rgb8();
            assert_eq!(image.dimensions(), size);
            let [r, _, b] = image.get_pixel(red_at.0, red_at.1).0;
            assert!(r > 200 && b < 50, "{orientation}: red where it belongs");
            let [r, _, b] = image.get_pixel(blue_at.0, blue_at.1).0;
            assert!(r < 50 && b > 200, "{orientation}: blue where it belongs");
            let (again, _) = Pixels::decode(&bytes, &media).unwrap().encode(media.format).unwrap();
            let again_media = inspect(&again).unwrap();
            assert_eq!((again_media.width, again_media.height), size, "nothing turns it twice");
        }
    }
}

#[test]
fn lossless_formats_keep_every_pixel() {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    let shallow = [L8, La8, Rgb8, Rgba8];
    let all = [L8, La8, Rgb8, Rgba8, L16, La16, Rgb16, Rgba16];
    let table: [(Format, &[ColorType]); 5] = [
        (Format::Png, &all),
        (Format::Tiff, &all),
        (Format::WebP, &shallow),
        (Format::Bmp, &shallow),
        (Format::Gif, &all), // written as PNG
    ];
    for (format, kinds) in table {
        for &kind in kinds {
            let image = gradient(13, 7, kind);
            let pixels = Pixels { image: image.clone(), profile: None, density: None };
            let (bytes, written) = pixels.clone().encode(format).unwrap();
            assert_eq!(written, if format == Format::Gif { Format::Png } else { format });
            let media = inspect(&bytes).unwrap();
            assert_eq!((media.format, media.width, media.height), (written, 13, 7));
            let again = decode(&bytes, &media).unwrap();
            assert_eq!(again.to_rgba16(), image.to_rgba16(), "{format} {kind:?}");
            assert_eq!(pixels.encode(format).unwrap().0, bytes, "the same bytes every time");
        }
    }
}

#[test]
fn a_jpeg_comes_close_and_shows_white_where_it_was_transparent() {
    let mut image = RgbaImage::from_pixel(16, 16, Rgba([200, 100, 50, 255]));
    for x in 0..8 {
        for y in 0..16 {
            image.put_pixel(x, y, Rgba([0, 0, 0, 0]));
        }
    }
    let pixels = Pixels { image: image.into(), profile: None, density: None };
    let (bytes, _) = pixels.encode(Format::Jpeg).unwrap();
    let image = decode(&bytes, &inspect(&bytes).unwrap()).unwrap().to_rgb8();
    for (x, expected) in [(2, [255, 255, 255]), (13, [200, 100, 50])] {
        for (sample, expected) in image.get_pixel(x, 8).0.into_iter().zip(expected) {
            assert!(sample.abs_diff(expected) < 12, "{sample} for {expected}");
        }
    }
}

#[test]
fn a_colour_profile_travels_only_with_pixels_that_it_describes() {
    let mut profile = vec![7; 128];
    profile[16..20].copy_from_slice(b"RGB ");
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff] {
        let of = |image: DynamicImage| {
            let pixels = Pixels { image, profile: Some(profile.clone()), density: None };
            let (bytes, _) = pixels.encode(format).unwrap();
            Pixels::decode(&bytes, &inspect(&bytes).unwrap()).unwrap().profile
        };
        assert_eq!(of(gradient(8, 8, ColorType::Rgb8)), Some(profile.clone()), "{format}");
        if format != Format::WebP {
            assert_eq!(of(gradient(8, 8, ColorType::L8)), None, "{format}");
        }
    }
}

#[test]
fn a_content_type_names_its_format_in_every_spelling() {
    for format in Format::ALL {
        assert_eq!(Format::from_content_type(format.content_type()), Some(format));
    }
    assert_eq!(Format::from_content_type("IMAGE/JPG; q=1"), Some(Format::Jpeg));
    assert_eq!(Format::from_content_type("text/html"), None);
    assert_eq!(Format::from_content_type(""), None);
}
