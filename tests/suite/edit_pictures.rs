//! A person edits a folder of pictures with no server: the results are right, have sensible names, and the same edit is
//! never made twice.

use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage};
use retouch_tests::laptop::{Laptop, counts, images};
use retouch_tests::pictures::{self, difference, encode, picture, picture_as, same_pixels};
use serde_json::json;

/// The pictures that come with the project.
fn example_photos() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
    let mut photos: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    photos.sort();
    photos
}

/// A laptop with `examples/photos` as in a clone, and how many pictures are there.
fn clone() -> (Laptop, usize) {
    let laptop = Laptop::new();
    let photos = example_photos();
    for (name, bytes) in &photos {
        laptop.write(&format!("examples/photos/{name}"), bytes);
    }
    // What lies beside them is no picture.
    (laptop, photos.iter().filter(|(name, _)| !name.ends_with(".md")).count())
}

/// The negative, by the test's own arithmetic.
fn negative(bytes: &[u8]) -> Vec<u8> {
    let mut pixels = pictures::decode(bytes);
    for pixel in pixels.pixels_mut() {
        let [r, g, b, a] = pixel.0;
        pixel.0 = [255 - r, 255 - g, 255 - b, a];
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(pixels).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn the_readme_command_pays_once_and_then_hits_with_the_same_bytes() {
    let (laptop, photos) = clone();
    let photos = photos as u64;
    let readme = include_str!("../../README.md");
    let command = "edit examples/photos --type sketch --out sketches";
    assert!(
        readme.contains(&format!("cargo run --release --locked -- {command}\n")),
        "the README shows another command"
    );
    let command: Vec<&str> = command.split(' ').collect();
    let first = laptop.report(&command).await;
    assert_eq!(counts(&first), [0, 0, photos, 0]);
    let names = laptop.list("sketches");
    assert_eq!(names.len() as u64, photos);
    let bytes: Vec<_> = names.iter().map(|name| laptop.read(&format!("sketches/{name}"))).collect();
    std::fs::remove_dir_all(laptop.path("sketches")).unwrap();

    let second = laptop.report(&command).await;
    assert_eq!(counts(&second), [photos, 0, 0, 0]);
    assert_eq!(laptop.list("sketches"), names);
    let again: Vec<_> = names.iter().map(|name| laptop.read(&format!("sketches/{name}"))).collect();
    assert!(again == bytes, "a hit is another picture");
    assert_eq!(images(&second, "output"), images(&first, "output"));
}

#[tokio::test]
async fn the_example_photographs_come_out_right_in_their_own_formats() {
    let (laptop, photos) = clone();
    let report = laptop.report(&["edit", "examples/photos", "-t", "invert"]).await;
    assert_eq!(counts(&report)[2], photos as u64);
    for (input, output) in images(&report, "input").iter().zip(images(&report, "output")) {
        let (input_bytes, output_bytes) = (laptop.read(input), laptop.read(&output));
        let format = image::guess_format(&output_bytes).unwrap();
        assert_eq!(format, image::guess_format(&input_bytes).unwrap(), "{output}");
        assert_eq!(Path::new(input).extension(), Path::new(&output).extension());
        let difference = difference(&output_bytes, &negative(&input_bytes)).expect("the same size");
        let most = if format == ImageFormat::Jpeg { 4.0 } else { 0.0 };
        assert!(difference <= most, "{output} differs by {difference}");
    }
}

#[tokio::test]
async fn a_hit_asks_no_editor() {
    let laptop = Laptop::new();
    for seed in 0..3 {
        laptop.picture(&format!("in/{seed}.png"), seed);
    }
    let first = laptop.report(&["edit", "in", "-t", "double"]).await;
    assert_eq!(counts(&first), [0, 0, 3, 0]);
    assert_eq!(first["cost"], json!({"paid": "0.42", "saved": "0", "lost": "0", "currency": "CNY"}));
    let calls = laptop.calls();
    assert_eq!(calls.len(), 3);

    let second = laptop.report(&["edit", "in", "-t", "double"]).await;
    assert_eq!(counts(&second), [3, 0, 0, 0]);
    assert_eq!(second["cost"], json!({"paid": "0", "saved": "0.42", "lost": "0", "currency": "CNY"}));
    assert_eq!(laptop.calls(), calls);
    for (seed, output) in (0..).zip(images(&second, "output")) {
        assert!(same_pixels(&laptop.read(&output), &negative(&picture(seed))), "{output}");
    }
}

#[tokio::test]
async fn the_same_picture_twice_in_one_command_is_paid_once_and_written_twice() {
    let laptop = Laptop::new();
    laptop.picture("a/cat.png", 1);
    laptop.picture("b/cat.png", 1);
    let report = laptop.report(&["edit", "a", "b/cat.png", "-t", "double"]).await;
    assert_eq!(counts(&report), [0, 1, 1, 0]);
    assert_eq!(images(&report, "output"), ["retouched/cat-double.png", "retouched/cat-double-2.png"]);
    assert_eq!(laptop.calls().len(), 1);
}

#[tokio::test]
async fn inputs_of_the_same_name_do_not_overwrite_each_other() {
    let laptop = Laptop::new();
    let cats = [
        laptop.picture("a/cat.png", 1),
        laptop.picture("b/cat.png", 2),
        picture_as(3, 64, 48, ImageFormat::Bmp),
    ];
    laptop.write("cat.bmp", &cats[2]);
    // Gone through twice, because the second time the files are there already.
    for _ in 0..2 {
        let report = laptop.report(&["edit", "a", "b", "cat.bmp", "-t", "invert", "-o", "out"]).await;
        let outputs = images(&report, "output");
        assert_eq!(outputs, ["out/cat-invert.png", "out/cat-invert-2.png", "out/cat-invert.bmp"]);
        for (output, cat) in outputs.iter().zip(&cats) {
            assert!(same_pixels(&laptop.read(output), &negative(cat)), "{output}");
        }
    }
    assert_eq!(laptop.list("out").len(), 3, "nothing else was left there");
}

#[tokio::test]
async fn a_file_that_is_there_is_kept_unless_it_is_the_same() {
    let laptop = Laptop::new();
    laptop.write("out/cat-flip.png", "a person's own work");
    std::fs::create_dir_all(laptop.path("out/cat-flip-2.png")).unwrap();
    laptop.picture("cat.png", 1);
    let flip = ["edit", "cat.png", "-t", "flip", "-o", "out"];
    for _ in 0..2 {
        assert_eq!(images(&laptop.report(&flip).await, "output"), ["out/cat-flip-3.png"]);
    }
    let vertical = [&flip[..], &["--param", "direction=vertical"]].concat();
    assert_eq!(images(&laptop.report(&vertical).await, "output"), ["out/cat-flip-4.png"]);
    assert_eq!(images(&laptop.report(&flip).await, "output"), ["out/cat-flip-3.png"]);
    assert_eq!(laptop.read("out/cat-flip.png"), b"a person's own work");
}

#[tokio::test]
async fn names_in_any_script_and_of_any_length_are_kept_as_far_as_they_fit() {
    let laptop = Laptop::new();
    let long = "ø".repeat(120);
    let names = [
        "Çà va ☕.png",
        "猫 の写真.png",
        "two  blanks 'and' \"quotes\".png",
        "a.b.c.png",
        &format!("{long}.png"),
    ];
    let mut command = vec!["edit", "-t", "invert"];
    for (seed, name) in (0..).zip(names) {
        laptop.picture(name, seed);
        command.push(name);
    }
    let outputs = images(&laptop.report(&command).await, "output");
    let cut = format!("retouched/{}.png", "ø".repeat(100));
    let expected = [
        "retouched/Çà va ☕-invert.png",
        "retouched/猫 の写真-invert.png",
        "retouched/two  blanks 'and' \"quotes\"-invert.png",
        "retouched/a.b.c-invert.png",
        &cut,
    ];
    assert_eq!(outputs, expected);
    for (seed, output) in (0..).zip(&outputs) {
        assert!(same_pixels(&laptop.read(output), &negative(&picture(seed))), "{output}");
    }
}

#[tokio::test]
async fn a_folder_stands_for_its_pictures_by_name_and_more_than_64_are_one_report() {
    const PICTURES: u64 = 70;
    let laptop = Laptop::new();
    for seed in 0..PICTURES {
        laptop.picture(&format!("in/{seed:03}.PNG"), seed);
    }
    laptop.write("in/notes.txt", "no picture");
    laptop.picture("in/deeper/100.png", 100);
    let report = laptop.report(&["edit", "in", "-t", "invert", "-o", "out"]).await;
    assert_eq!(counts(&report), [0, 0, PICTURES, 0]);
    assert_eq!(report["task_ids"].as_array().unwrap().len(), 2, "64 and 6");
    assert_eq!(report["task_id"], report["task_ids"][0]);
    for (position, image) in (0..).zip(report["images"].as_array().unwrap()) {
        assert_eq!(image["position"], position);
        assert_eq!(image["input"], format!("in/{position:03}.PNG"));
        let output = laptop.read(image["output"].as_str().unwrap());
        assert!(same_pixels(&output, &negative(&picture(position))), "{position}");
    }
    assert_eq!(laptop.list("out").len() as u64, PICTURES);
}

#[tokio::test]
async fn a_mask_says_where_to_edit() {
    let laptop = Laptop::new();
    let cat = laptop.picture("cat.png", 1);
    let mask = RgbImage::from_fn(pictures::WIDTH, pictures::HEIGHT, |x, _| {
        image::Rgb([if x < 20 { 255 } else { 0 }; 3])
    });
    laptop.write("mask.png", encode(&mask, ImageFormat::Png));
    let masked = laptop.report(&["edit", "cat.png", "-t", "invert", "--mask", "mask.png"]).await;
    let output = pictures::decode(&laptop.read(&images(&masked, "output")[0]));
    let (before, after) = (pictures::decode(&cat), pictures::decode(&negative(&cat)));
    for (x, y, pixel) in output.enumerate_pixels() {
        let expected = if x < 20 { &after } else { &before }.get_pixel(x, y);
        assert_eq!(pixel, expected, "{x} {y}");
    }
    // Without it, it is another edit.
    let whole = laptop.report(&["edit", "cat.png", "-t", "invert"]).await;
    assert_eq!(counts(&whole), [0, 0, 1, 0]);
}

#[tokio::test]
async fn each_thing_that_changes_the_picture_makes_another_edit_and_its_name_does_not() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.picture("copy of a cat.png", 1);
    let edit = |more: &[&'static str]| [&["edit", "cat.png", "-t", "blur"], more].concat();
    for (more, expected) in [
        (&[][..], [0, 0, 1, 0]),
        (&[], [1, 0, 0, 0]),
        (&["--param", "sigma=2"], [0, 0, 1, 0]),
        (&["--param", "sigma=2.0"], [0, 0, 1, 0]),
        (&["--prompt", "Cat"], [0, 0, 1, 0]),
        (&["--prompt", "cat"], [0, 0, 1, 0]),
        (&["--prompt", " cat\n"], [1, 0, 0, 0]),
        (&["--variant", "b"], [0, 0, 1, 0]),
        (&["--model", "local-2"], [1, 0, 0, 0]),
    ] {
        assert_eq!(counts(&laptop.report(&edit(more)).await), expected, "{more:?}");
    }
    let copy = laptop.report(&["edit", "copy of a cat.png", "-t", "blur"]).await;
    assert_eq!(counts(&copy), [1, 0, 0, 0]);
}
