//! Each limit, at the limit and one beyond; each refusal with the field, the value and the limit.

use super::*;
use crate::media::Media;

const WANX: &str = "wanx2.1-imageedit";

fn spec(edit_type: &str, params: &str) -> EditSpec {
    EditSpec {
        edit_type: edit_type.to_owned(),
        prompt: "make it snow".to_owned(),
        model: WANX.to_owned(),
        params: params.parse().unwrap(),
        mask: None,
    }
}

fn measure(format: Format, width: u32, height: u32, bytes: usize) -> Measure {
    Measure { media: Media { format, width, height, on_its_side: false }, bytes }
}

fn photo() -> Measure {
    measure(Format::Jpeg, 1024, 768, 300_000)
}

/// The refusal's text, code first; empty if accepted.
fn refusal(style: Style, input: Input, spec: &EditSpec, image: Measure) -> String {
    match super::check(style, input, spec, image) {
        Ok(_) => String::new(),
        Err(error) => {
            assert!(matches!(error, EditError::Rejected { .. }), "{error:?}");
            error.to_string()
        }
    }
}

#[track_caller]
fn holds(refusal: &str, parts: &[&str]) {
    for part in parts {
        assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
    }
    assert_eq!(refusal.is_empty(), parts.is_empty(), "{refusal:?}");
}

#[test]
fn the_function_is_the_parameter_or_else_the_edit_type() {
    for (edit_type, params, expected) in [
        ("remove_watermark", "{}", Ok("remove_watermark")),
        ("sharpen_up", r#"{"function":"super_resolution"}"#, Ok("super_resolution")),
        ("expand", r#"{"function":"doodle"}"#, Ok("doodle")),
        ("sharpen_up", "{}", Err("set params = { function = ")),
        ("expand", r#"{"function":"doddle"}"#, Err("not \"doddle\"")),
        ("expand", r#"{"function":7}"#, Err("not 7")),
    ] {
        let found = super::check(Style::ImageEdit, Input::Data, &spec(edit_type, params), photo());
        match expected {
            Ok(name) => assert_eq!(found.unwrap().unwrap().name, name),
            Err(part) => {
                holds(&found.unwrap_err().to_string(), &["invalid_params: params.function", part, "doodle"])
            }
        }
    }
    let messages = super::check(Style::Messages, Input::Data, &spec("anything", "{}"), photo());
    assert_eq!(messages, Ok(None));
}

#[test]
fn a_prompt_beyond_the_models_limit_is_refused() {
    for (style, model, most) in [
        (Style::ImageEdit, WANX, 800),
        (Style::I2i, "wan2.5-i2i-preview", 2000),
        (Style::Messages, "qwen-image-2.0", 800),
        (Style::MessagesAsync, "wan2.7-image", 5000),
    ] {
        let mut spec = spec("description_edit", "{}");
        spec.model = model.to_owned();
        // Characters, not bytes.
        spec.prompt = "雪".repeat(most);
        holds(&refusal(style, Input::Data, &spec, photo()), &[]);
        spec.prompt.push('雪');
        let parts = ["invalid_prompt: prompt has", &(most + 1).to_string(), &format!("{model} takes {most}")];
        holds(&refusal(style, Input::Data, &spec, photo()), &parts);
    }
    let mut spec = spec("description_edit", "{}");
    spec.prompt = "a".repeat(900);
    let parts = ["prompt has 900 characters", "takes 800", "shorten it"];
    holds(&refusal(Style::ImageEdit, Input::Data, &spec, photo()), &parts);
}

#[test]
fn an_empty_prompt_is_refused_by_functions_that_need_one() {
    for function in FUNCTIONS {
        let mut spec = spec(function.name, "{}");
        spec.prompt.clear();
        spec.mask = function.needs_mask.then(photo);
        let refused = refusal(Style::ImageEdit, Input::Data, &spec, photo());
        let parts = ["invalid_prompt: prompt is empty", function.name];
        holds(&refused, if function.needs_prompt { &parts } else { &[] });
    }
    for style in [Style::I2i, Style::Messages, Style::MessagesAsync] {
        let mut spec = spec("x", "{}");
        spec.prompt.clear();
        holds(&refusal(style, Input::Data, &spec, photo()), &["invalid_prompt"]);
    }
}

#[test]
fn a_parameter_out_of_its_range_is_refused_with_the_range() {
    for (function, name, good, bad) in [
        (
            "stylization_all",
            "strength",
            ["0", "1.0"].as_slice(),
            ["-0.01", "1.01", "\"0.5\"", "null"].as_slice(),
        ),
        ("description_edit", "strength", &["0.5"], &["2"]),
        ("expand", "top_scale", &["1", "2.0"], &["0.99", "2.01"]),
        ("expand", "bottom_scale", &["1.5"], &["3"]),
        ("expand", "left_scale", &["1.5"], &["true"]),
        ("expand", "right_scale", &["1.5"], &["[]"]),
        ("super_resolution", "upscale_factor", &["1", "4", "4.0"], &["0", "5", "1.5", "\"2\""]),
        ("doodle", "is_sketch", &["true", "false"], &["1", "\"true\""]),
        ("colorization", "seed", &["0", "2147483647"], &["-1", "2147483648", "1.5", "\"7\""]),
        ("colorization", "watermark", &["true"], &["\"no\""]),
        ("colorization", "n", &["1", "1.0"], &["2", "4", "0", "\"1\""]),
        // Another function's parameters, and unknown ones, are passed on.
        ("colorization", "strength", &["7"], &[]),
        ("colorization", "moon", &["\"full\""], &[]),
    ] {
        let of = |value: &str| {
            let spec = spec(function, &format!("{{\"{name}\":{value}}}"));
            refusal(Style::ImageEdit, Input::Data, &spec, photo())
        };
        for value in good {
            holds(&of(value), &[]);
        }
        for value in bad {
            holds(&of(value), &["invalid_params: params.", name, "must be", &format!("not {value}")]);
        }
    }
    let many = refusal(Style::ImageEdit, Input::Data, &spec("colorization", r#"{"n":4}"#), photo());
    holds(&many, &["params.n", "4", "variant"]);
}

#[test]
fn the_other_styles_have_parameters_of_their_own() {
    let of = |style: Style, params: &str| refusal(style, Input::Data, &spec("x", params), photo());
    for style in [Style::I2i, Style::Messages, Style::MessagesAsync] {
        for size in ["1024*1024", "900*1200"] {
            holds(&of(style, &format!("{{\"size\":\"{size}\"}}")), &[]);
        }
        for size in
            ["\"1024x1024\"", "\"1024*\"", "\"*\"", "\"0*10\"", "\"+1*5\"", "1024", "\"big\"", "\"1*2*3\""]
        {
            let refused = of(style, &format!("{{\"size\":{size}}}"));
            holds(&refused, &["params.size", "WIDTH*HEIGHT", &format!("not {size}")]);
        }
        let negative = |count: usize| format!("{{\"negative_prompt\":\"{}\"}}", "雪".repeat(count));
        holds(&of(style, &negative(500)), &[]);
        holds(&of(style, &negative(501)), &["params.negative_prompt has 501", "500"]);
        holds(&of(style, r#"{"negative_prompt":7}"#), &["params.negative_prompt", "not 7"]);
        holds(&of(style, r#"{"prompt_extend":"no"}"#), &["params.prompt_extend", "true or false"]);
        holds(&of(style, r#"{"seed":-1}"#), &["params.seed"]);
        holds(&of(style, r#"{"n":2}"#), &["params.n", "variant"]);
    }
    holds(&of(Style::MessagesAsync, r#"{"size":"2K"}"#), &[]);
    holds(&of(Style::I2i, r#"{"size":"2K"}"#), &["params.size"]);
    for (size, good) in [
        ("768*768", true),
        ("1280*1280", true),
        ("768*767", false),
        ("1280*1281", false),
        ("400*1600", true),
        ("400*1601", false),
    ] {
        let refused = of(Style::I2i, &format!("{{\"size\":\"{size}\"}}"));
        let parts = ["invalid_params: params.size", size];
        holds(&refused, if good { &[] } else { &parts });
    }
}

#[test]
fn a_picture_with_a_side_beyond_the_models_limits_is_refused() {
    for (style, least, most) in [(Style::ImageEdit, 512, 4096), (Style::I2i, 384, 5000)] {
        for (width, height, good) in [
            (least, most, true),
            (most, least, true),
            (least - 1, 1000, false),
            (1000, least - 1, false),
            (most + 1, 1000, false),
            (1000, most + 1, false),
        ] {
            let image = measure(Format::Png, width, height, 1000);
            let refused = refusal(style, Input::Data, &spec("description_edit", "{}"), image);
            let has = format!("image: has {width} by {height} pixels");
            let limits = format!("{least} to {most}");
            let parts = ["invalid_image", &has, &limits];
            holds(&refused, if good { &[] } else { &parts });
        }
    }
    let tiny = measure(Format::Png, 10, 10, 100);
    holds(&refusal(Style::Messages, Input::Data, &spec("x", "{}"), tiny), &[]);
}

#[test]
fn a_gif_is_refused_by_the_function_style_alone() {
    for format in Format::ALL {
        let image = measure(format, 800, 800, 1000);
        let wanx = refusal(Style::ImageEdit, Input::Data, &spec("colorization", "{}"), image);
        holds(&wanx, if format == Format::Gif { &["invalid_image: image: is a GIF", "PNG"] } else { &[] });
        holds(&refusal(Style::Messages, Input::Data, &spec("x", "{}"), image), &[]);
    }
}

#[test]
fn the_size_limit_of_a_file_depends_on_its_input() {
    let raw = raw_bytes_within("image/png", MAX_DATA_URI);
    assert_eq!(raw, 7_864_302);
    assert!(
        data_uri_len("image/png", raw) <= MAX_DATA_URI && data_uri_len("image/png", raw + 1) > MAX_DATA_URI
    );
    for (input, most) in [(Input::Data, raw), (Input::Url, MAX_BYTES), (Input::Oss, MAX_BYTES)] {
        let of = |bytes| {
            refusal(
                Style::ImageEdit,
                input,
                &spec("colorization", "{}"),
                measure(Format::Png, 800, 800, bytes),
            )
        };
        holds(&of(most), &[]);
        holds(&of(most + 1), &["invalid_image: image: has", &(most + 1).to_string(), &most.to_string()]);
    }
    let data =
        refusal(Style::Messages, Input::Data, &spec("x", "{}"), measure(Format::Png, 800, 800, raw + 1));
    holds(&data, &["10485760", "input = \"oss\""]);
}

#[test]
fn one_function_needs_a_mask_and_all_others_refuse_it() {
    for function in FUNCTIONS {
        let mut spec = spec(function.name, "{}");
        let without = refusal(Style::ImageEdit, Input::Data, &spec, photo());
        spec.mask = Some(measure(Format::Png, 1024, 768, 1000));
        let with = refusal(Style::ImageEdit, Input::Data, &spec, photo());
        if function.needs_mask {
            holds(&without, &["invalid_mask: mask is missing"]);
            holds(&with, &[]);
        } else {
            holds(&without, &[]);
            holds(&with, &["mask_not_supported: mask: ", function.name, "takes none"]);
        }
    }
    let mut spec = spec("x", "{}");
    spec.mask = Some(photo());
    for style in [Style::I2i, Style::Messages, Style::MessagesAsync] {
        holds(&refusal(style, Input::Data, &spec, photo()), &["mask_not_supported"]);
    }
}

#[test]
fn a_mask_has_the_size_of_the_picture_and_its_limits() {
    for (mask, parts) in [
        (measure(Format::Png, 1024, 768, 1000), [].as_slice()),
        (measure(Format::Png, 1024, 767, 1000), &["1024 by 767", "1024 by 768"]),
        (measure(Format::Png, 768, 1024, 1000), &["768 by 1024"]),
        (measure(Format::Gif, 1024, 768, 1000), &["mask: is a GIF"]),
        (measure(Format::Png, 1024, 768, MAX_BYTES), &["mask: has 10485760 bytes"]),
    ] {
        let mut spec = spec("description_edit_with_mask", "{}");
        spec.mask = Some(mask);
        let refused = refusal(Style::ImageEdit, Input::Data, &spec, photo());
        holds(&refused, parts);
        assert!(refused.is_empty() || refused.starts_with("invalid_mask: "), "{refused}");
    }
}
