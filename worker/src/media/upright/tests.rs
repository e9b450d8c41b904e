//! The orientation in every format that stores it, and files that are sent upright.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageEncoder, RgbImage, RgbaImage};

use super::super::decode;
use super::*;

/// Different in every corner.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let part = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap();
        image::Rgb([part(x, width), part(y, height), part(x + y, width + height)])
    })
}

fn exif(orientation: u8, big_endian: bool) -> Vec<u8> {
    if big_endian {
        let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        return exif;
    }
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

fn png(image: &DynamicImage, exif: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif).unwrap();
    image.write_with_encoder(encoder).unwrap();
    bytes
}

fn jpeg(image: &DynamicImage, exif: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.set_exif_metadata(exif).unwrap();
    image.write_with_encoder(encoder).unwrap();
    bytes
}

fn written(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A lossless WebP with an EXIF chunk after its picture.
fn webp(image: &DynamicImage, exif: &[u8]) -> Vec<u8> {
    let mut bytes = written(image, image::ImageFormat::WebP);
    let simple = bytes.split_off(12);
    let mut extended = b"VP8X\x0a\0\0\0\x08\0\0\0".to_vec();
    extended.extend(&(image.width() - 1).to_le_bytes()[..3]);
    extended.extend(&(image.height() - 1).to_le_bytes()[..3]);
    let length = u32::try_from(exif.len()).unwrap();
    bytes.extend([&extended[..], &simple, b"EXIF", &length.to_le_bytes(), exif].concat());
    bytes.resize(bytes.len() + exif.len() % 2, 0);
    let riff = u32::try_from(bytes.len() - 8).unwrap();
    bytes[4..8].copy_from_slice(&riff.to_le_bytes());
    bytes
}

/// A TIFF whose directory has another entry, in place of its first one that pixels do not need.
fn tiff(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let mut bytes = written(image, image::ImageFormat::Tiff);
    let first = usize::try_from(u32::from_le_bytes(*bytes[4..8].first_chunk().unwrap())).unwrap();
    let entries = usize::from(u16::from_le_bytes([bytes[first], bytes[first + 1]]));
    let entry = |nth: usize| first + 2 + 12 * nth;
    let resolution = (0..entries).find(|nth| bytes[entry(*nth)..][..2] == 282_u16.to_le_bytes()).unwrap();
    let mut directory: Vec<[u8; 12]> = (0..entries)
        .filter(|nth| *nth != resolution)
        .map(|nth| *bytes[entry(nth)..].first_chunk().unwrap())
        .collect();
    directory.push([0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    directory.sort_by_key(|entry| u16::from_le_bytes([entry[0], entry[1]]));
    for (nth, value) in directory.iter().enumerate() {
        bytes[entry(nth)..][..12].copy_from_slice(value);
    }
    bytes
}

/// A file for every way to store an orientation.
fn files(image: &DynamicImage, orientation: u8) -> Vec<(&'static str, Vec<u8>)> {
    let (little, big) = (exif(orientation, false), exif(orientation, true));
    let prefixed = [b"Exif\0\0", &little[..]].concat();
    let plain = jpeg(image, little.clone());
    let other_segments = b"\xff\xed\0\x06abcd\xff\xff\xe1\0\x0ahttp://\0stray bytes";
    vec![
        ("JPEG", plain.clone()),
        ("JPEG, big-endian", jpeg(image, big.clone())),
        ("JPEG, after odd segments", [&plain[..2], other_segments, &plain[2..]].concat()),
        ("PNG", png(image, little)),
        ("PNG with JPEG's prefix", png(image, prefixed.clone())),
        ("WebP", webp(image, &big)),
        ("WebP with JPEG's prefix", webp(image, &prefixed)),
        ("TIFF", tiff(image, orientation)),
    ]
}

/// The stored form that `orientation` turns upright.
fn stored(upright: &DynamicImage, orientation: u8) -> DynamicImage {
    let inverse = match orientation {
        6 => 8,
        8 => 6,
        own => own,
    };
    let mut image = upright.clone();
    image.apply_orientation(Orientation::from_exif(inverse).unwrap());
    image
}

fn difference(one: &DynamicImage, other: &DynamicImage) -> u64 {
    assert_eq!((one.width(), one.height()), (other.width(), other.height()));
    let (one, other) = (one.to_rgb8(), other.to_rgb8());
    one.iter().zip(other.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>() / (one.len() as u64)
}

#[test]
fn all_eight_orientations_are_found_in_every_format() {
    let upright = DynamicImage::from(scene(48, 32));
    for orientation in 1..=8 {
        for (kind, bytes) in files(&stored(&upright, orientation), orientation) {
            let media = inspect(&bytes).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(
                (media.width, media.height, media.on_its_side),
                (48, 32, orientation > 4),
                "{kind} {orientation}"
            );
            let decoded = decode(&bytes, &media).unwrap();
            let most = if kind.starts_with("JPEG") { 3 } else { 0 };
            assert!(difference(&decoded, &upright) <= most, "{kind} {orientation}");
        }
    }
}

#[test]
fn a_sent_file_is_upright_and_has_no_orientation() {
    let upright_image = DynamicImage::from(scene(48, 32));
    for orientation in 2..=8 {
        for (kind, bytes) in files(&stored(&upright_image, orientation), orientation) {
            let (bytes, media) = (Bytes::from(bytes.clone()), inspect(&bytes).unwrap());
            let (sent, sent_media) = upright(&bytes, media, |_, _| true).unwrap();
            assert_eq!((sent_media.width, sent_media.height, sent_media.on_its_side), (48, 32, false));
            assert_eq!(sent_media.format, media.format, "{kind}");
            assert_eq!(orientation::orientation(&sent, media.format), Orientation::NoTransforms, "{kind}");
            let decoded = decode(&sent, &sent_media).unwrap();
            let most = if kind.starts_with("JPEG") { 4 } else { 0 };
            assert!(difference(&decoded, &upright_image) <= most, "{kind} {orientation}");
        }
    }
}

#[test]
fn an_upright_file_is_sent_exactly_as_it_came() {
    let image = DynamicImage::from(scene(48, 32));
    let mut all = files(&image, 1);
    // An invalid orientation counts as none.
    all.extend(files(&image, 0));
    all.extend(files(&image, 9));
    all.push(("none", written(&image, image::ImageFormat::Png)));
    for (kind, bytes) in all {
        let bytes = Bytes::from(bytes);
        let media = inspect(&bytes).unwrap();
        let sent = upright(&bytes, media, |_, _| panic!("nothing is written again")).unwrap();
        assert_eq!(sent, (bytes, media), "{kind}");
    }
}

#[test]
fn a_rotated_picture_keeps_its_profile() {
    let mut profile = vec![7; 128];
    profile[16..20].copy_from_slice(b"RGB ");
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(6, false)).unwrap();
    encoder.set_icc_profile(profile.clone()).unwrap();
    DynamicImage::from(scene(8, 6)).write_with_encoder(encoder).unwrap();
    let bytes = Bytes::from(bytes);
    let (sent, media) = upright(&bytes, inspect(&bytes).unwrap(), |_, _| true).unwrap();
    assert_eq!(Pixels::decode(&sent, &media).unwrap().profile, Some(profile));
}

#[test]
fn smaller_encodings_are_tried_for_a_rotated_file() {
    // Noise: it cannot be compressed losslessly.
    let noise = RgbImage::from_fn(64, 64, |x, y| {
        let value = (x * 7919 + y * 104_729 + x * y * 31) % 251;
        image::Rgb([u8::try_from(value).unwrap(); 3])
    });
    let bytes = Bytes::from(png(&noise.into(), exif(6, false)));
    let media = inspect(&bytes).unwrap();
    let (sent, sent_media) = upright(&bytes, media, |_, bytes| bytes < 4_500).unwrap();
    assert!(sent_media.format == Format::Jpeg && sent.len() < 4_500, "{sent_media:?}: {}", sent.len());
    // Every encoding is too large: the first is returned, for the refusal to name.
    let (_, given) = upright(&bytes, media, |_, _| false).unwrap();
    assert_eq!(given.format, Format::Png);
    // Transparency is kept.
    let transparent = RgbaImage::from_pixel(8, 8, image::Rgba([1, 2, 3, 4]));
    let bytes = Bytes::from(png(&transparent.into(), exif(6, false)));
    let (_, given) =
        upright(&bytes, inspect(&bytes).unwrap(), |media, _| media.format == Format::Jpeg).unwrap();
    assert_eq!(given.format, Format::Png);
}

#[test]
fn damaged_pixels_are_refused_even_without_a_rotation() {
    let bytes = Bytes::from_static(include_bytes!("../testdata/progressive.jpg"));
    let media = inspect(&bytes).unwrap();
    upright(&bytes, media, |_, _| true).unwrap();
    let cut = bytes.slice(..bytes.len() * 7 / 10);
    assert_eq!(upright(&cut, media, |_, _| true).unwrap_err().code(), "undecodable");
}
