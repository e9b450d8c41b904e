//! Promises of all local operations: formats, depth, alpha, masks, refusals, the listing.

use std::collections::BTreeSet;
use std::io::Cursor;

use image::{ColorType, DynamicImage, GenericImageView, GrayImage, ImageFormat, Luma, Rgba, RgbaImage};
use retouch_shared::task::Params;
use serde_json::{Map, Value, json};

use super::*;
use crate::media::{MAX_PIXELS, Media, inspect};

/// Runs a picture through an operation, by way of PNG.
pub(super) fn edited(edit_type: &str, params: &str, image: &DynamicImage) -> DynamicImage {
    let bytes = edit(&request(edit_type, params, image, None)).unwrap();
    decoded(&bytes)
}

fn spec(edit_type: &str, params: &str, has_mask: bool) -> EditSpec {
    EditSpec {
        edit_type: edit_type.to_owned(),
        prompt: String::new(),
        model: MODEL.to_owned(),
        params: params.parse().unwrap(),
        mask: has_mask
            .then(|| measure(Media { format: Format::Png, width: 1, height: 1, on_its_side: false })),
    }
}

/// A file of this kind and an arbitrary size.
fn measure(media: Media) -> Measure {
    Measure { media, bytes: 1 }
}

fn request(edit_type: &str, params: &str, image: &DynamicImage, mask: Option<&DynamicImage>) -> EditRequest {
    EditRequest {
        spec: spec(edit_type, params, mask.is_some()),
        image: picture(image, ImageFormat::Png),
        mask: mask.map(|mask| picture(mask, ImageFormat::Png)),
    }
}

fn picture(image: &DynamicImage, format: ImageFormat) -> Picture {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    let bytes = Bytes::from(out.into_inner());
    let media = inspect(&bytes).unwrap();
    Picture { bytes, media }
}

fn decoded(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}

/// A synthetic photograph: every operation changes it, and a part is transparent if possible.
fn scene(width: u32, height: u32, kind: ColorType) -> DynamicImage {
    let image = RgbaImage::from_fn(width, height, |x, y| {
        let sample = |by: u32| u8::try_from((x * by + y * 11 + x * y) % 256).unwrap();
        Rgba([sample(17), sample(5), sample(40), if x % 3 == 0 { 90 } else { 255 }])
    });
    samples::convert(image.into(), kind)
}

/// Minimal sufficient parameters.
fn needed(operation: &Operation) -> &'static str {
    match operation.name {
        "crop" => r#"{"width":1,"height":1}"#,
        "resize" => r#"{"width":9}"#,
        _ => "{}",
    }
}

const KINDS: [ColorType; 8] = [
    ColorType::L8,
    ColorType::La8,
    ColorType::Rgb8,
    ColorType::Rgba8,
    ColorType::L16,
    ColorType::La16,
    ColorType::Rgb16,
    ColorType::Rgba16,
];

#[test]
fn every_operation_takes_every_kind_of_pixel_and_any_size() {
    for operation in operations() {
        for kind in KINDS {
            for (width, height) in [(1, 1), (1, 7), (7, 1), (12, 9)] {
                let before = scene(width, height, kind);
                let name = operation.name;
                let after = edited(name, needed(operation), &before);
                if operation.takes_mask() {
                    assert_eq!(after.dimensions(), (width, height), "{name}");
                    assert_eq!(after.color().has_alpha(), kind.has_alpha(), "{name} {kind:?}");
                }
                if name != "denoise" {
                    let deep = samples::is_deep(kind);
                    assert_eq!(samples::is_deep(after.color()), deep, "{name} {kind:?}");
                }
            }
        }
    }
}

#[test]
fn the_size_from_the_header_is_the_size_of_the_result() {
    let table = [
        ("rotate", r#"{"degrees":33.3}"#),
        ("rotate", r#"{"degrees":90}"#),
        ("rotate", r#"{"degrees":-12,"expand":false}"#),
        ("crop", r#"{"x":2,"width":5,"height":4}"#),
        ("border", r#"{"size":3}"#),
        ("resize", r#"{"width":31}"#),
        ("resize", r#"{"width":31,"height":2,"fit":"inside"}"#),
        ("thumbnail", r#"{"size":7}"#),
        ("upscale", r#"{"factor":1.7}"#),
    ];
    for (name, params) in table {
        let image = scene(20, 13, ColorType::Rgb8);
        let (operation, args) = prepare(&spec(name, params, false)).unwrap();
        let told = result_size(operation, &args, (20, 13), Format::Png).unwrap();
        assert_eq!(edited(name, params, &image).dimensions(), told, "{name} {params}");
    }
}

#[test]
fn alpha_is_unchanged_by_operations_that_keep_the_size() {
    let before = scene(12, 9, ColorType::Rgba8);
    for operation in operations().filter(|operation| operation.takes_mask()) {
        let after = edited(operation.name, "{}", &before);
        let alpha = |image: &DynamicImage| image.pixels().map(|(_, _, p)| p.0[3]).collect::<Vec<_>>();
        let kept = if operation.name == "flip" { before.fliph() } else { before.clone() };
        assert_eq!(alpha(&after), alpha(&kept), "{}", operation.name);
    }
}

#[test]
fn the_extremes_of_every_parameter_work() {
    let image = scene(12, 9, ColorType::Rgba8);
    for operation in operations() {
        for param in operation.params {
            let values = match param.kind {
                Kind::Number { min, max } => vec![json!(min), json!(max)],
                Kind::Integer { min, max } => vec![json!(min), json!(max)],
                Kind::Choice(words) => words.iter().map(|word| json!(word)).collect(),
                Kind::Colour => vec![json!("#00000000"), json!("#ffffff")],
                Kind::Flag => vec![json!(true), json!(false)],
            };
            for value in values {
                let mut params: Map<String, Value> = serde_json::from_str(needed(operation)).unwrap();
                params.insert(param.name.to_owned(), value.clone());
                let mut request = request(operation.name, "{}", &image, None);
                request.spec.params = Params::from(params);
                match edit(&request) {
                    Ok(bytes) => drop(decoded(&bytes)),
                    // A side or an offset may exceed this small picture; nothing else may be wrong.
                    Err(EditError::Rejected { code, message }) => {
                        let beyond = ["crop", "resize", "border"].contains(&operation.name);
                        assert!(beyond, "{} {param} {value}: {code} {message}", operation.name);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn the_same_edit_gives_the_same_bytes_in_every_format() {
    let image = scene(24, 16, ColorType::Rgb8);
    let formats = [
        (ImageFormat::Png, Format::Png),
        (ImageFormat::Jpeg, Format::Jpeg),
        (ImageFormat::WebP, Format::WebP),
        (ImageFormat::Bmp, Format::Bmp),
        (ImageFormat::Tiff, Format::Tiff),
        (ImageFormat::Gif, Format::Png),
    ];
    for (library, expected) in formats {
        for operation in operations() {
            let mut request = request(operation.name, needed(operation), &image, None);
            request.image = picture(&image, library);
            let once = edit(&request).unwrap();
            assert_eq!(inspect(&once).unwrap().format, expected, "{}", operation.name);
            request.spec.prompt = "a prompt changes nothing".to_owned();
            assert_eq!(edit(&request).unwrap(), once, "{}", operation.name);
        }
    }
}

#[test]
fn a_floating_point_tiff_is_worked_on_in_16_bits() {
    let image = image::Rgb32FImage::from_pixel(3, 2, image::Rgb([0.25, 0.5, 1.0]));
    let mut request = request("invert", "{}", &DynamicImage::new(1, 1, ColorType::L8), None);
    request.image = picture(&image.into(), ImageFormat::Tiff);
    let after = decoded(&edit(&request).unwrap());
    let [r, g, b] = after.as_rgb16().unwrap().get_pixel(2, 1).0;
    assert!(r.abs_diff(49_151) < 2 && g.abs_diff(32_767) < 2 && b == 0, "{r} {g} {b}");
}

#[test]
fn conversions_between_grey_and_colour_work_in_srgb() {
    for operation in operations() {
        let before = scene(12, 9, ColorType::Rgb8);
        let after = edited(operation.name, needed(operation), &before);
        assert!(
            after.color().has_color() || operation.colours == operations::Colours::Srgb,
            "{} drops the profile",
            operation.name
        );
    }
}

/// One green pixel in Display P3, as a PNG.
fn green_in_p3() -> (DynamicImage, Vec<u8>) {
    let mut image = image::RgbImage::new(4, 3);
    image.pixels_mut().for_each(|pixel| pixel.0 = [0, 200, 0]);
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let pixels = Pixels { image: image.clone().into(), profile: Some(profile), density: None };
    (image.into(), pixels.encode(Format::Png).unwrap().0)
}

#[test]
fn moved_pixels_keep_a_profile_and_named_colours_apply_it() {
    let (image, file) = green_in_p3();
    let result = |name: &str, params: &str| {
        let mut request = request(name, params, &image, None);
        request.image.bytes = file.clone().into();
        let bytes = edit(&request).unwrap();
        let pixels = Pixels::decode(&bytes, &inspect(&bytes).unwrap()).unwrap();
        (pixels.image.get_pixel(2, 2).0, pixels.profile.is_some())
    };
    assert_eq!(result("flip", "{}"), ([0, 200, 0, 255], true));
    let (inner, has_profile) = result("border", r#"{"size":1}"#);
    assert!(inner[0] == 0 && inner[1] > 200 && !has_profile, "{inner:?}");
}

#[test]
fn dots_per_inch_outlive_an_edit() {
    let mut request = request("invert", "{}", &scene(6, 4, ColorType::Rgb8), None);
    let mut pixels = Pixels::decode(&request.image.bytes, &request.image.media).unwrap();
    pixels.density = Some(crate::media::Density { x: 11_811.0, y: 11_811.0 });
    request.image.bytes = pixels.encode(Format::Png).unwrap().0.into();
    let bytes = edit(&request).unwrap();
    let density = Pixels::decode(&bytes, &inspect(&bytes).unwrap()).unwrap().density;
    assert_eq!(density, Some(crate::media::Density { x: 11_811.0, y: 11_811.0 }));
}

#[test]
fn a_compressed_bmp_of_one_colour_stays_small() {
    // Eight bits with a palette of one colour, RLE8: a picture that ends at once.
    let mut bmp = b"BM".to_vec();
    bmp.extend(58_u32.to_le_bytes().into_iter().chain([0; 4]).chain(58_u32.to_le_bytes()));
    bmp.extend(
        40_u32.to_le_bytes().into_iter().chain(2_000_u32.to_le_bytes()).chain(2_000_u32.to_le_bytes()),
    );
    bmp.extend(b"\x01\0\x08\0\x01\0\0\0".iter().copied().chain([0; 12]).chain(1_u32.to_le_bytes()));
    bmp.extend([0; 4].into_iter().chain([9, 9, 9, 0, 0, 1]));
    let mut request = request("flip", "{}", &scene(6, 4, ColorType::Rgb8), None);
    request.image.media = inspect(&bmp).unwrap();
    request.image.bytes = bmp.into();
    let bytes = edit(&request).unwrap();
    assert_eq!(inspect(&bytes).unwrap().format, Format::Png);
    assert!(bytes.len() < 200_000, "{} bytes", bytes.len());
}

#[test]
fn the_memory_of_an_edit_is_computed_from_its_headers() {
    let need = |name: &str, params: &str, kind| {
        let before = scene(100, 100, kind);
        super::memory::needed(&request(name, params, &before, None))
    };
    let pixels = 10_000;
    assert_eq!(need("invert", "{}", ColorType::Rgb16), 2 * 6 * pixels, "and its result");
    assert_eq!(need("blur", "{}", ColorType::Rgb16), 2 * 6 * pixels);
    assert_eq!(need("sharpen", "{}", ColorType::Rgb16), 2 * 6 * pixels);
    assert_eq!(need("sharpen", "{}", ColorType::Rgba16), (8 + 10 + 8) * pixels);
    assert_eq!(need("upscale", r#"{"factor":2}"#, ColorType::Rgb8), (3 + 4 * 3 + 2 * 16) * pixels);
    let before = scene(100, 100, ColorType::Rgb8);
    let mask = scene(100, 100, ColorType::L8);
    let masked = super::memory::needed(&request("invert", "{}", &before, Some(&mask)));
    assert_eq!(masked, (3 + 3 + 8 + 3) * pixels);
}

#[test]
fn a_mask_applies_the_edit_by_its_brightness() {
    let image = DynamicImage::from(GrayImage::from_raw(4, 1, vec![0, 0, 200, 10]).unwrap());
    let mask = DynamicImage::from(GrayImage::from_raw(4, 1, vec![255, 0, 255, 51]).unwrap());
    let after = edit(&request("invert", "{}", &image, Some(&mask))).unwrap();
    // 10 + (245 - 10) / 5
    assert_eq!(decoded(&after).into_luma8().into_raw(), [255, 0, 55, 57]);
}

#[test]
fn a_white_mask_changes_nothing_and_a_black_or_transparent_one_everything() {
    let white = DynamicImage::from(GrayImage::from_pixel(12, 9, Luma([255])));
    let black = DynamicImage::from(GrayImage::from_pixel(12, 9, Luma([0])));
    let clear = DynamicImage::from(RgbaImage::from_pixel(12, 9, Rgba([255, 255, 255, 0])));
    for kind in [ColorType::L8, ColorType::Rgba8, ColorType::Rgb16] {
        let image = scene(12, 9, kind);
        for operation in operations().filter(|operation| operation.takes_mask()) {
            let through = |mask| decoded(&edit(&request(operation.name, "{}", &image, mask)).unwrap());
            let unmasked = through(None).to_rgba16();
            assert_eq!(through(Some(&white)).to_rgba16(), unmasked, "{}", operation.name);
            for mask in [&black, &clear] {
                assert_eq!(through(Some(mask)).to_rgba16(), image.to_rgba16(), "{}", operation.name);
            }
        }
    }
}

fn rejection(error: EditError) -> (String, String) {
    match error {
        EditError::Rejected { code, message } => (code, message),
        other => panic!("{other:?}"),
    }
}

fn checked(spec: &EditSpec, width: u32, height: u32) -> Result<(), (String, String)> {
    let media = Media { format: Format::Png, width, height, on_its_side: false };
    LocalEditor::new().check(spec, measure(media)).map_err(rejection)
}

#[test]
fn a_mask_is_refused_if_it_makes_no_sense() {
    let (code, message) = checked(&spec("upscale", "{}", true), 10, 10).unwrap_err();
    assert_eq!(code, "mask_not_supported");
    assert_eq!(message, "upscale changes the size of the picture and takes no mask");
    let image = scene(4, 3, ColorType::Rgb8);
    let mask = scene(3, 4, ColorType::L8);
    let (code, message) = rejection(edit(&request("invert", "{}", &image, Some(&mask))).unwrap_err());
    assert_eq!(code, "invalid_mask");
    assert_eq!(message, "mask: has 3 by 4 pixels and the picture 4 by 3; they must be the same");
    let mut cut = request("invert", "{}", &image, Some(&image));
    let mask = cut.mask.as_mut().unwrap();
    mask.bytes.truncate(mask.bytes.len() - 20);
    let (code, message) = rejection(edit(&cut).unwrap_err());
    assert_eq!(code, "undecodable");
    assert!(message.starts_with("mask: the PNG cannot be decoded"), "{message}");
}

#[test]
fn a_wrong_parameter_is_refused_with_name_range_and_value() {
    let table = [
        ("blur", r#"{"sigma":-3}"#, "params.sigma: must be 0.1 to 100, not -3"),
        ("blur", r#"{"sigma":"3"}"#, "params.sigma: must be 0.1 to 100, not \"3\""),
        ("blur", r#"{"sigma":null}"#, "params.sigma: must be 0.1 to 100, not null"),
        ("blur", r#"{"radius":3}"#, "params.radius: is not known; known are sigma"),
        ("invert", r#"{"sigma":3}"#, "params.sigma: is not known; this edit type takes none"),
        ("sharpen", r#"{"how":1}"#, "params.how: is not known; known are sigma, amount, threshold"),
        ("posterize", r#"{"levels":1}"#, "params.levels: must be a whole number from 2 to 256, not 1"),
        ("posterize", r#"{"levels":2.5}"#, "params.levels: must be a whole number from 2 to 256, not 2.5"),
        (
            "posterize",
            r#"{"levels":1e300}"#,
            "params.levels: must be a whole number from 2 to 256, not 1e+300",
        ),
        (
            "flip",
            r#"{"direction":"up"}"#,
            "params.direction: must be one of horizontal, vertical, not \"up\"",
        ),
        ("border", r#"{"colour":"red"}"#, "params.colour: must be #rrggbb or #rrggbbaa, not \"red\""),
        ("border", r##"{"colour":"#ééé"}"##, "params.colour: must be #rrggbb or #rrggbbaa, not \"#ééé\""),
        ("rotate", r#"{"expand":1}"#, "params.expand: must be true or false, not 1"),
        ("crop", r#"{"width":5}"#, "params.height: is required, a whole number from 1 to 65535"),
        ("crop", r#"{"width":0,"height":1}"#, "params.width: must be a whole number from 1 to 65535, not 0"),
        (
            "crop",
            r#"{"x":60,"width":50,"height":1}"#,
            "params.x + params.width: must be at most 100, the picture's width, not 60 + 50",
        ),
        ("resize", "{}", "params: give width, height or both"),
    ];
    for (edit_type, params, expected) in table {
        let (code, message) = checked(&spec(edit_type, params, false), 100, 100).unwrap_err();
        assert_eq!((code.as_str(), message.as_str()), ("invalid_params", expected));
    }
    assert_eq!(
        checked(&spec("posterize", r#"{"levels":3.0}"#, false), 9, 9),
        Ok(()),
        "whole, if oddly written"
    );
}

#[test]
fn an_unknown_edit_type_is_answered_with_the_whole_list() {
    let (code, message) = checked(&spec("remove_watermark", "{}", false), 9, 9).unwrap_err();
    assert_eq!(code, "unknown_edit_type");
    assert!(message.contains("\"remove_watermark\""));
    for operation in operations() {
        assert!(message.contains(operation.name));
    }
}

#[test]
fn another_model_is_refused_because_its_name_is_in_the_key() {
    let mut spec = spec("invert", "{}", false);
    spec.model = "local-0".to_owned();
    let (code, message) = checked(&spec, 9, 9).unwrap_err();
    assert_eq!(code, "unknown_model");
    assert_eq!(message, "the local editor has the model \"local-2\", not \"local-0\"");
}

#[test]
fn a_result_beyond_the_limits_is_refused_from_the_header_alone() {
    let factor = r#"{"factor":4}"#;
    assert_eq!(checked(&spec("upscale", factor, false), 2_000, 2_000), Ok(()));
    let (code, message) = checked(&spec("upscale", factor, false), 2_001, 2_000).unwrap_err();
    assert_eq!(code, "too_many_pixels");
    assert_eq!(
        message,
        format!("the result has 8004 by 8000 pixels; the limit is {MAX_PIXELS} pixels in all")
    );
    let params = spec("resize", r#"{"width":20000,"height":10}"#, false);
    let webp = Media { format: Format::WebP, width: 100, height: 100, on_its_side: false };
    let (code, message) = rejection(LocalEditor::new().check(&params, measure(webp)).unwrap_err());
    assert_eq!(code, "invalid_params");
    assert!(message.contains("a WebP can have at most 16383 on a side"), "{message}");
}

#[test]
fn a_crop_is_measured_on_the_upright_picture() {
    let params = spec("crop", r#"{"width":10,"height":100}"#, false);
    assert_eq!(checked(&params, 50, 100), Ok(()));
    assert!(checked(&params, 100, 50).is_err(), "sizes are those of the upright picture");
    assert!(checked(&params, 90, 90).is_err());
    let image = scene(100, 50, ColorType::Rgb8);
    let request = request("crop", r#"{"width":10,"height":100}"#, &image, None);
    let (code, _) = rejection(edit(&request).unwrap_err());
    assert_eq!(code, "invalid_params", "nothing turned it");
}

#[tokio::test]
async fn a_submit_answers_with_the_picture_and_a_broken_one_is_final() {
    let editor = LocalEditor::new();
    assert_eq!(editor.kind(), "local");
    let image = scene(8, 8, ColorType::Rgb8);
    let whole = request("invert", "{}", &image, None);
    let Submitted::Done(bytes) = editor.submit(whole.clone()).await.unwrap() else {
        panic!("local edits are done at once");
    };
    assert_eq!(decoded(&bytes).get_pixel(3, 3).0[0], 255 - image.get_pixel(3, 3).0[0]);
    let mut cut = whole;
    cut.image.bytes.truncate(cut.image.bytes.len() - 30);
    assert_eq!(rejection(editor.submit(cut).await.unwrap_err()).0, "undecodable");
    assert_eq!(rejection(editor.poll("x", Duration::ZERO).await.unwrap_err()).0, "unknown_task");
}

#[test]
fn names_are_edit_types_without_duplicates() {
    let names: BTreeSet<_> = operations().map(|operation| operation.name).collect();
    assert_eq!(names.len(), operations().count());
    for name in names {
        assert!(name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        assert_eq!(operation(name).unwrap().name, name);
    }
}

#[test]
fn the_page_about_local_edits_lists_every_operation() {
    let page = include_str!("../../../../docs/local-edits.md");
    let mut table = String::new();
    for operation in operations() {
        let (name, description) = (operation.name, operation.description);
        let mask = if operation.takes_mask() { "yes" } else { "no" };
        if operation.params.is_empty() {
            table += &format!("| `{name}` | {description} | {mask} | | | | |\n");
        }
        for (at, param) in operation.params.iter().enumerate() {
            let first = if at == 0 { format!("`{name}` | {description} | {mask}") } else { "| |".to_owned() };
            let Param { name, kind, absent, description } = param;
            table += &format!("| {first} | `{name}` | {kind} | {absent} | {description} |\n");
        }
    }
    let found: String =
        page.lines().filter(|line| line.starts_with('|')).skip(2).map(|line| format!("{line}\n")).collect();
    assert_eq!(found, table, "docs/local-edits.md must have this table:\n{table}");
    assert!(page.contains(MODEL));
}
