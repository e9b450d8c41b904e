//! Each operation on a few known pixels.

use image::{DynamicImage, GenericImageView, GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};

use super::tests::edited;

fn grey(width: u32, samples: &[u8]) -> DynamicImage {
    let height = u32::try_from(samples.len()).unwrap() / width;
    GrayImage::from_raw(width, height, samples.to_vec()).unwrap().into()
}

fn row(pixels: &[[u8; 3]]) -> DynamicImage {
    let samples = pixels.concat();
    let width = u32::try_from(pixels.len()).unwrap();
    RgbImage::from_raw(width, 1, samples).unwrap().into()
}

/// One row of grey through an operation.
fn greys(edit_type: &str, params: &str, samples: &[u8]) -> Vec<u8> {
    let width = u32::try_from(samples.len()).unwrap();
    edited(edit_type, params, &grey(width, samples)).into_luma8().into_raw()
}

/// One row of colours through an operation.
fn colours(edit_type: &str, params: &str, pixels: &[[u8; 3]]) -> Vec<[u8; 3]> {
    let image = edited(edit_type, params, &row(pixels)).into_rgb8();
    image.pixels().map(|pixel| pixel.0).collect()
}

/// Black on the left, white on the right.
fn step(width: u32, height: u32) -> DynamicImage {
    GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 0 } else { 255 }])).into()
}

fn luma_at(image: &DynamicImage, x: u32, y: u32) -> u8 {
    image.to_luma8().get_pixel(x, y).0[0]
}

#[test]
fn grayscale_weighs_the_colours_as_the_eye_does() {
    let pixels = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]];
    let image = edited("grayscale", "{}", &row(&pixels));
    assert_eq!(image.as_luma8().unwrap().as_raw(), &[54, 182, 18, 9]);
}

#[test]
fn invert_gives_the_negative() {
    assert_eq!(colours("invert", "{}", &[[0, 10, 255]]), [[255, 245, 0]]);
}

#[test]
fn sepia_gives_even_a_grey_picture_its_brown() {
    let image = edited("sepia", "{}", &grey(3, &[0, 100, 255]));
    assert_eq!(image.as_rgb8().unwrap().as_raw(), &[0, 0, 0, 135, 120, 94, 255, 255, 239]);
}

#[test]
fn duotone_runs_from_the_shadows_to_the_highlights() {
    let params = r##"{"shadows":"#ff0000","highlights":"#0000ff"}"##;
    let image = edited("duotone", params, &grey(3, &[0, 51, 255]));
    assert_eq!(image.as_rgb8().unwrap().as_raw(), &[255, 0, 0, 204, 0, 51, 0, 0, 255]);
}

#[test]
fn posterize_leaves_so_many_shades() {
    let samples = [0, 60, 70, 127, 128, 190, 195, 255];
    assert_eq!(greys("posterize", r#"{"levels":2}"#, &samples), [0, 0, 0, 0, 255, 255, 255, 255]);
    assert_eq!(greys("posterize", r#"{"levels":3}"#, &samples), [0, 0, 128, 128, 128, 128, 255, 255]);
    assert_eq!(greys("posterize", r#"{"levels":256}"#, &samples), samples);
}

#[test]
fn solarize_inverts_the_bright_parts_only() {
    let params = r#"{"level":128}"#;
    assert_eq!(greys("solarize", params, &[0, 127, 128, 255]), [0, 127, 127, 0]);
}

#[test]
fn threshold_leaves_black_and_white() {
    assert_eq!(greys("threshold", r#"{"level":100}"#, &[0, 99, 100, 255]), [0, 0, 255, 255]);
    assert_eq!(greys("threshold", r#"{"level":0}"#, &[0, 255]), [255, 255]);
}

#[test]
fn brighten_adds_and_stops_at_white_and_black() {
    assert_eq!(greys("brighten", r#"{"amount":20}"#, &[0, 100, 250]), [51, 151, 255]);
    assert_eq!(greys("brighten", r#"{"amount":-40}"#, &[0, 102, 250]), [0, 0, 148]);
}

#[test]
fn contrast_turns_around_middle_grey() {
    assert_eq!(greys("contrast", r#"{"amount":-100}"#, &[0, 100, 255]), [128, 128, 128]);
    assert_eq!(greys("contrast", r#"{"amount":0}"#, &[0, 100, 255]), [0, 100, 255]);
    assert_eq!(greys("contrast", r#"{"amount":50}"#, &[0, 100, 200]), [0, 66, 255]);
}

#[test]
fn saturate_moves_colours_away_from_grey_and_towards_it() {
    let pixels = [[255, 0, 0], [200, 100, 100], [7, 7, 7]];
    assert_eq!(colours("saturate", r#"{"factor":1}"#, &pixels), pixels);
    let grey = [[54, 54, 54], [121, 121, 121], [7, 7, 7]];
    assert_eq!(colours("saturate", r#"{"factor":0}"#, &pixels), grey);
    let strong = [[255, 0, 0], [255, 79, 79], [7, 7, 7]];
    assert_eq!(colours("saturate", r#"{"factor":2}"#, &pixels), strong);
}

#[test]
fn hue_rotate_goes_round_the_circle_and_leaves_grey_alone() {
    let pixels = [[255, 0, 0], [80, 160, 240], [9, 9, 9]];
    assert_eq!(colours("hue_rotate", r#"{"degrees":360}"#, &pixels), pixels);
    let [red, _, grey] = colours("hue_rotate", r#"{"degrees":120}"#, &pixels)[..] else {
        panic!("three pixels");
    };
    assert_eq!((red, grey), ([0, 113, 0], [9, 9, 9]));
}

#[test]
fn gamma_lifts_the_midtones_and_leaves_black_and_white() {
    assert_eq!(greys("gamma", r#"{"gamma":2}"#, &[0, 64, 255]), [0, 128, 255]);
    assert_eq!(greys("gamma", r#"{"gamma":0.5}"#, &[0, 128, 255]), [0, 64, 255]);
}

#[test]
fn autocontrast_stretches_to_black_and_white() {
    let params = r#"{"cutoff":0}"#;
    assert_eq!(greys("autocontrast", params, &[50, 90, 150]), [0, 102, 255]);
    assert_eq!(greys("autocontrast", params, &[70, 70, 70]), [70, 70, 70], "nothing to stretch");
    let colour = colours("autocontrast", params, &[[50, 90, 150]]);
    assert_eq!(colour, [[0, 102, 255]], "all channels alike");
    // One speck of black and one of white in a hundred grey pixels are ignored.
    let mut samples = vec![100; 50];
    samples.extend(vec![200; 48]);
    samples.extend([0, 255]);
    let stretched = greys("autocontrast", r#"{"cutoff":1}"#, &samples);
    assert_eq!((stretched[0], stretched[50], stretched[98]), (0, 255, 0));
}

#[test]
fn autocontrast_ignores_transparent_pixels() {
    let pixels = vec![50, 50, 50, 255, 150, 150, 150, 255, 0, 0, 0, 0];
    let image = RgbaImage::from_raw(3, 1, pixels).unwrap().into();
    let image = edited("autocontrast", r#"{"cutoff":0}"#, &image);
    assert_eq!(image.get_pixel(0, 0), Rgba([0, 0, 0, 255]));
    assert_eq!(image.get_pixel(1, 0), Rgba([255, 255, 255, 255]));
}

#[test]
fn vignette_darkens_the_corners_and_not_the_centre() {
    let white = DynamicImage::from(GrayImage::from_pixel(101, 101, Luma([255])));
    let image = edited("vignette", r#"{"strength":1}"#, &white);
    assert_eq!(luma_at(&image, 50, 50), 255);
    assert!(luma_at(&image, 0, 0) < 8 && luma_at(&image, 100, 100) < 8);
    assert_eq!(luma_at(&image, 0, 50), luma_at(&image, 100, 50));
    let image = edited("vignette", r#"{"strength":0}"#, &white);
    assert_eq!(luma_at(&image, 0, 0), 255);
}

#[test]
fn noise_has_the_requested_deviation_and_repeats_with_its_seed() {
    let flat = DynamicImage::from(GrayImage::from_pixel(200, 200, Luma([128])));
    let noisy = |params: &str| edited("noise", params, &flat).into_luma8().into_raw();
    let one = noisy(r#"{"amount":10,"seed":1}"#);
    assert_eq!(one, noisy(r#"{"amount":10,"seed":1}"#));
    assert_ne!(one, noisy(r#"{"amount":10,"seed":2}"#));
    assert_eq!(noisy(r#"{"amount":0}"#), vec![128; 40_000]);
    let mean = one.iter().map(|&v| f64::from(v)).sum::<f64>() / 40_000.0;
    let variance = one.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 40_000.0;
    assert!((mean - 128.0).abs() < 0.3, "{mean}");
    assert!((variance.sqrt() - 10.0).abs() < 0.3, "{}", variance.sqrt());
    // The generator's numbers are fixed: the cache holds pictures made with them.
    assert_eq!(one[..6], [122, 140, 143, 128, 127, 126]);
}

#[test]
fn blur_spreads_a_step_by_sigma_in_both_algorithms() {
    // A step under a Gaussian, `sigma` pixels on: the edge itself is half a pixel nearer.
    let table = [(1, 21, 238, 4), (3, 61, 224, 2), (10, 161, 218, 2), (11, 161, 217, 6), (60, 801, 215, 6)];
    for (sigma, width, expected, tolerance) in table {
        let middle = width / 2;
        let params = format!(r#"{{"sigma":{sigma}}}"#);
        let image = edited("blur", &params, &step(width, 3));
        let at = |x| luma_at(&image, x, 1);
        assert!((0..width - 1).all(|x| at(x) <= at(x + 1)), "it only rises");
        assert!(at(0) < 3 && at(width - 1) > 252, "far away nothing changes");
        let (before, beyond) = (at(middle - 1 - sigma), at(middle + sigma));
        assert!(beyond.abs_diff(expected) <= tolerance, "sigma {sigma}: {beyond}");
        assert!(before.abs_diff(255 - expected) <= tolerance, "sigma {sigma}: {before}");
    }
}

#[test]
fn blur_draws_no_colour_out_of_transparent_pixels() {
    // A red square on transparent black: its edge must not darken.
    let image = RgbaImage::from_fn(21, 21, |x, y| {
        let inside = (5..16).contains(&x) && (5..16).contains(&y);
        if inside { Rgba([200, 30, 10, 255]) } else { Rgba([0, 0, 0, 0]) }
    });
    for (edit_type, params) in
        [("blur", r#"{"sigma":3}"#), ("blur", r#"{"sigma":12}"#), ("pixelate", r#"{"size":8}"#)]
    {
        let after = edited(edit_type, params, &image.clone().into()).into_rgba8();
        for (before, after) in image.pixels().zip(after.pixels()) {
            assert_eq!(before.0[3], after.0[3], "alpha stays");
            if before.0[3] == 255 {
                let off = before.0.iter().zip(after.0).map(|(b, a)| b.abs_diff(a)).max().unwrap();
                assert!(off <= 1, "{edit_type} {params}: {before:?} {after:?}");
            }
        }
    }
}

#[test]
fn sharpen_steepens_an_edge_and_leaves_flat_areas() {
    let image = DynamicImage::from(GrayImage::from_fn(40, 3, |x, _| Luma([if x < 20 { 100 } else { 150 }])));
    let sharp = edited("sharpen", r#"{"sigma":2,"amount":1,"threshold":0}"#, &image);
    assert!(luma_at(&sharp, 19, 1) < 90 && luma_at(&sharp, 20, 1) > 160);
    assert_eq!((luma_at(&sharp, 2, 1), luma_at(&sharp, 37, 1)), (100, 150));
    for params in [r#"{"amount":0}"#, r#"{"threshold":255}"#] {
        assert_eq!(edited("sharpen", params, &image), image);
    }
}

#[test]
fn denoise_removes_a_speck_and_keeps_an_edge() {
    let mut image = step(12, 9).into_luma8();
    let clean = image.clone();
    image.put_pixel(2, 4, Luma([255]));
    image.put_pixel(9, 4, Luma([0]));
    let after = edited("denoise", r#"{"radius":1}"#, &image.into());
    assert_eq!(after.into_luma8(), clean);
}

#[test]
fn pixelate_averages_each_block_and_the_smaller_ones_at_the_edge() {
    let image = grey(3, &[0, 100, 7, 100, 200, 9, 50, 70, 30]);
    let after = edited("pixelate", r#"{"size":2}"#, &image).into_luma8();
    assert_eq!(after.as_raw(), &[100, 100, 8, 100, 100, 8, 60, 60, 30]);
}

#[test]
fn edges_are_bright_where_the_brightness_changes_and_only_there() {
    let image = edited("edges", r#"{"strength":1}"#, &step(6, 3));
    assert_eq!(image.as_luma8().unwrap().as_raw(), &[0, 0, 255, 255, 0, 0].repeat(3));
    let half = greys("edges", r#"{"strength":0.5}"#, &[0, 0, 255, 255]);
    assert_eq!(half, [0, 128, 128, 0]);
}

#[test]
fn sketch_is_paper_white_but_for_the_dark_side_of_an_edge() {
    let paper = greys("sketch", r#"{"sigma":2}"#, &[90; 30]);
    assert_eq!(paper, [255; 30]);
    let image = DynamicImage::from(GrayImage::from_fn(40, 3, |x, _| Luma([if x < 20 { 50 } else { 200 }])));
    let drawing = edited("sketch", r#"{"sigma":2}"#, &image);
    assert!(luma_at(&drawing, 19, 1) < 128);
    assert!(luma_at(&drawing, 20, 1) == 255 && luma_at(&drawing, 2, 1) > 250);
}

#[test]
fn emboss_leaves_flat_areas_and_lifts_one_side_of_an_edge() {
    assert_eq!(colours("emboss", "{}", &[[90, 20, 30]; 5]), [[90, 20, 30]; 5]);
    let image = DynamicImage::from(GrayImage::from_fn(6, 3, |x, _| Luma([if x < 3 { 100 } else { 110 }])));
    let relief = edited("emboss", "{}", &image);
    assert_eq!(relief.as_luma8().unwrap().as_raw()[6..12], [100, 100, 130, 140, 110, 110]);
}

#[test]
fn flip_mirrors_in_either_direction() {
    let image = grey(2, &[1, 2, 3, 4]);
    let flipped = |direction: &str| {
        let params = format!(r#"{{"direction":"{direction}"}}"#);
        edited("flip", &params, &image).into_luma8().into_raw()
    };
    assert_eq!(flipped("horizontal"), [2, 1, 4, 3]);
    assert_eq!(flipped("vertical"), [3, 4, 1, 2]);
}

#[test]
fn rotate_is_exact_for_quarter_turns_in_every_spelling() {
    let image = grey(3, &[1, 2, 3, 4, 5, 6]);
    let table: [(&[&str], u32, [u8; 6]); 4] = [
        (&["0", "360", "-360"], 3, [1, 2, 3, 4, 5, 6]),
        (&["90", "-270", "90.0"], 2, [4, 1, 5, 2, 6, 3]),
        (&["180", "-180"], 3, [6, 5, 4, 3, 2, 1]),
        (&["270", "-90"], 2, [3, 6, 2, 5, 1, 4]),
    ];
    for (spellings, width, expected) in table {
        for degrees in spellings {
            let turned = edited("rotate", &format!(r#"{{"degrees":{degrees}}}"#), &image);
            assert_eq!(turned, grey(width, &expected), "{degrees}");
        }
    }
}

#[test]
fn rotate_by_any_angle_grows_and_fills_the_corners() {
    let image = DynamicImage::from(RgbImage::from_pixel(20, 20, Rgb([200, 30, 10])));
    let turned = edited("rotate", r#"{"degrees":45}"#, &image);
    assert_eq!(turned.dimensions(), (29, 29));
    assert_eq!(turned.get_pixel(0, 0), Rgba([0, 0, 0, 0]), "transparent unless told otherwise");
    assert_eq!(turned.get_pixel(14, 14), Rgba([200, 30, 10, 255]));
    // Half covered at the rim: less alpha, never a darker red.
    for (_, _, Rgba([r, g, b, alpha])) in turned.pixels() {
        assert!(alpha < 64 || (r.abs_diff(200) < 4 && g.abs_diff(30) < 4 && b.abs_diff(10) < 4));
    }
    let green = edited("rotate", r##"{"degrees":45,"fill":"#00ff00"}"##, &image);
    assert_eq!(green.as_rgb8().unwrap().get_pixel(0, 0), &Rgb([0, 255, 0]), "still opaque");
    let kept = edited("rotate", r#"{"degrees":45,"expand":false}"#, &image);
    assert_eq!(kept.dimensions(), (20, 20));
    assert_eq!(kept.get_pixel(10, 10), Rgba([200, 30, 10, 255]));
}

#[test]
fn rotate_in_place_by_a_quarter_turns_around_the_exact_centre() {
    let image = grey(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let params = r##"{"degrees":90,"expand":false,"fill":"#000000"}"##;
    assert_eq!(edited("rotate", params, &image), grey(3, &[7, 4, 1, 8, 5, 2, 9, 6, 3]));
}

#[test]
fn crop_takes_exactly_the_part_asked_for() {
    let image = grey(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let params = r#"{"x":1,"y":1,"width":2,"height":1}"#;
    assert_eq!(edited("crop", params, &image), grey(2, &[5, 6]));
}

#[test]
fn border_frames_the_picture() {
    let params = r##"{"size":1,"colour":"#000000"}"##;
    assert_eq!(edited("border", params, &grey(1, &[9])), grey(3, &[0, 0, 0, 0, 9, 0, 0, 0, 0]));
    let red = edited("border", r##"{"size":1,"colour":"#ff000080"}"##, &grey(1, &[9]));
    assert_eq!(red.get_pixel(0, 0), Rgba([255, 0, 0, 128]));
    assert_eq!(red.get_pixel(1, 1), Rgba([9, 9, 9, 255]));
}

#[test]
fn resize_makes_the_size_asked_for() {
    let image = DynamicImage::from(GrayImage::from_pixel(40, 20, Luma([77])));
    let table = [
        (r#"{"width":10}"#, (10, 5)),
        (r#"{"height":10}"#, (20, 10)),
        (r#"{"width":10,"height":10}"#, (10, 10)),
        (r#"{"width":10,"height":10,"fit":"inside"}"#, (10, 5)),
        (r#"{"width":10,"height":10,"fit":"cover"}"#, (10, 10)),
        (r#"{"width":1}"#, (1, 1)),
        (r#"{"width":80,"filter":"nearest"}"#, (80, 40)),
    ];
    for (params, size) in table {
        let resized = edited("resize", params, &image);
        assert_eq!(resized.dimensions(), size, "{params}");
        assert!(resized.to_luma8().pixels().all(|pixel| pixel.0[0] == 77), "{params}");
    }
    let nearest = r#"{"width":4,"height":1,"filter":"nearest"}"#;
    assert_eq!(edited("resize", nearest, &grey(2, &[1, 9])), grey(4, &[1, 1, 9, 9]));
}

#[test]
fn resize_to_cover_cuts_both_sides_alike() {
    let image = grey(4, &[1, 2, 3, 4]);
    let params = r#"{"width":2,"height":1,"fit":"cover","filter":"nearest"}"#;
    assert_eq!(edited("resize", params, &image), grey(2, &[2, 3]));
}

#[test]
fn resize_between_opposite_strips_needs_no_huge_intermediate_picture() {
    let strip = DynamicImage::from(GrayImage::from_pixel(60_000, 1, Luma([5])));
    for fit in ["exact", "cover"] {
        let params = format!(r#"{{"width":1,"height":60000,"fit":"{fit}"}}"#);
        let resized = edited("resize", &params, &strip);
        assert_eq!(resized.dimensions(), (1, 60_000));
        assert_eq!(luma_at(&resized, 0, 30_000), 5);
    }
}

#[test]
fn thumbnail_fits_the_longer_side_and_never_enlarges() {
    let image = DynamicImage::from(GrayImage::from_pixel(100, 50, Luma([77])));
    let small = edited("thumbnail", r#"{"size":20}"#, &image);
    assert_eq!(small, GrayImage::from_pixel(20, 10, Luma([77])).into());
    assert_eq!(edited("thumbnail", r#"{"size":100}"#, &image), image);
}

#[test]
fn upscale_multiplies_the_size_and_keeps_flat_areas() {
    let image = DynamicImage::from(GrayImage::from_pixel(10, 5, Luma([77])));
    for (factor, size) in [("1", (10, 5)), ("1.5", (15, 8)), ("2", (20, 10)), ("4", (40, 20))] {
        let large = edited("upscale", &format!(r#"{{"factor":{factor}}}"#), &image);
        assert_eq!(large, GrayImage::from_pixel(size.0, size.1, Luma([77])).into());
    }
}
