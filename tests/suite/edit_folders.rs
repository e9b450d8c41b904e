//! Folders of pictures as they really are: hidden files, pictures under wrong names, what cannot be read,
//! results inside.

use std::os::unix::fs::symlink;

use image::ImageFormat;
use retouch_tests::laptop::{Laptop, counts, images};
use retouch_tests::picture_server::PictureServer;
use retouch_tests::pictures::picture_as;
use serde_json::json;

/// A folder as phones and systems leave it: three pictures, and what is beside them.
fn phone() -> Laptop {
    let laptop = Laptop::new();
    let jpeg = |seed| picture_as(seed, 64, 48, ImageFormat::Jpeg);
    laptop.write("in/IMG_1.HEIC", jpeg(1));
    laptop.write("in/IMG_2", jpeg(2));
    laptop.write("in/IMG_3.MPO", jpeg(3));
    laptop.write("in/IMG_4.heic", [&b"\0\0\0\x18ftypheic"[..], &[0; 64]].concat());
    laptop.write("in/IMG_5.NEF", picture_as(5, 64, 48, ImageFormat::Tiff));
    for hidden in [".hidden.jpg", "._IMG_1.jpg", "Thumbs.db", "desktop.ini", ".DS_Store"] {
        laptop.write(&format!("in/{hidden}"), jpeg(6));
    }
    laptop.write("in/notes.txt", "no picture");
    laptop.picture("in/trip/sea/deep.png", 7);
    laptop
}

#[tokio::test]
async fn a_folder_is_read_by_content_and_what_is_left_out_is_named() {
    let laptop = phone();
    let report = laptop.report(&["edit", "in", "-t", "invert"]).await;
    assert_eq!(images(&report, "input"), ["in/IMG_1.HEIC", "in/IMG_2", "in/IMG_3.MPO"]);
    let left_out = json!({
        "hidden": [".DS_Store", "._IMG_1.jpg", ".hidden.jpg", "Thumbs.db", "desktop.ini"], "folders": ["trip"],
        "not_pictures": ["notes.txt"], "to_convert": ["IMG_4.heic: HEIC", "IMG_5.NEF: camera raw"], "others": []
    });
    assert_eq!(report["left_out"], left_out);
    let done = laptop.retouch(&["edit", "in", "-t", "invert"]).run().await;
    assert_eq!(
        done.stderr,
        "left out: 5 hidden (.DS_Store, ._IMG_1.jpg, .hidden.jpg, Thumbs.db, desktop.ini), 1 not a picture \
         (notes.txt), 2 to be converted first, to JPEG or PNG (IMG_4.heic: HEIC, IMG_5.NEF: camera raw), \
         1 folder not read without --recursive (trip)\n"
    );
    assert!(done.status.success());
}

#[tokio::test]
async fn folders_below_keep_their_structure_in_spite_of_links_that_loop() {
    let laptop = phone();
    symlink("..", laptop.path("in/trip/back")).unwrap();
    let report = laptop.report(&["edit", "in", "-t", "invert", "-r", "-o", "out"]).await;
    let outputs = images(&report, "output");
    assert_eq!(outputs.last().unwrap(), "out/trip/sea/deep-invert.png", "{outputs:?}");
    assert_eq!((counts(&report)[2], &report["left_out"]["others"]), (4, &json!(["back"])), "{report}");
    assert_eq!(laptop.list("out/trip/sea"), ["deep-invert.png"]);
}

#[tokio::test]
async fn results_inside_a_folder_that_is_read_are_refused() {
    let laptop = Laptop::new();
    laptop.picture("in/cat.png", 1);
    laptop.picture("top.png", 2);
    symlink("in", laptop.path("link")).unwrap();
    for (edit, says) in [
        (&["in", "-o", "in"][..], "--out in is the input folder in, "),
        (&["in", "-o", "in/out"], "--out in/out is inside the input folder in, "),
        (&["link", "-o", "in/out"], "--out in/out is inside the input folder link, "),
        (&["in", "-o", "link/new/deep"], "--out link/new/deep is inside the input folder in, "),
        (&["."], "--out retouched is inside the input folder ., "),
    ] {
        let done = laptop.retouch(&[&["edit", "-t", "double"], edit].concat()).run().await;
        assert_eq!(done.status.code(), Some(2), "{edit:?}");
        assert!(done.stderr.starts_with(&format!("retouch: {says}")), "{edit:?}: {}", done.stderr);
        assert!(done.stderr.contains("choose a folder outside of it"), "{}", done.stderr);
    }
    assert_eq!((laptop.list("in"), laptop.calls().len()), (vec!["cat.png".to_owned()], 0));
    // Above it, twice: the results are no input of the second run.
    for expected in [[0, 0, 1, 0], [1, 0, 0, 0]] {
        assert_eq!(counts(&laptop.report(&["edit", "in", "-t", "double", "-o", "."]).await), expected);
    }
}

#[tokio::test]
async fn results_beside_a_file_that_is_named_are_refused() {
    let laptop = Laptop::new();
    laptop.picture("in/cat.png", 1);
    laptop.picture("top.png", 2);
    symlink("in", laptop.path("link")).unwrap();
    for (edit, says) in [
        (&["in/cat.png", "-o", "in"][..], "--out in is the folder of in/cat.png, "),
        (&["in/cat.png", "-o", "link"], "--out link is the folder of in/cat.png, "),
        (&["top.png", "-o", "."], "--out . is the folder of top.png, "),
    ] {
        let done = laptop.retouch(&[&["edit", "-t", "invert"], edit].concat()).run().await;
        assert_eq!(done.status.code(), Some(2), "{edit:?}");
        assert!(done.stderr.starts_with(&format!("retouch: {says}")), "{edit:?}: {}", done.stderr);
        let advice = format!("choose another one, e.g. --out {}/retouched\n", edit[2]);
        assert!(done.stderr.ends_with(&advice), "{}", done.stderr);
    }
    assert_eq!(laptop.list("in"), ["cat.png"]);
    // As advised: the folder is left as it was found.
    let report = laptop.report(&["edit", "in/cat.png", "-t", "invert", "-o", "in/retouched"]).await;
    assert_eq!(images(&report, "output"), ["in/retouched/cat-invert.png"]);
    assert_eq!(counts(&laptop.report(&["edit", "in", "-t", "double"]).await), [0, 0, 1, 0]);
}

#[tokio::test]
async fn what_cannot_be_read_fails_alone_with_its_name() {
    let laptop = Laptop::new();
    laptop.picture("in/cat.png", 1);
    symlink("loop.png", laptop.path("in/loop.png")).unwrap();
    symlink("gone.png", laptop.path("in/nowhere.png")).unwrap();
    laptop.write("fake.png", "no picture at all");
    let (code, report) = laptop.ended(&["edit", "in", "fake.png", "-t", "double"]).await;
    assert_eq!((code, counts(&report)), (1, [0, 0, 1, 3]), "{report}");
    let codes: Vec<_> =
        report["images"].as_array().unwrap().iter().map(|image| &image["error"]["code"]).collect();
    assert_eq!(codes, [&json!(null), &json!("unreadable"), &json!("unreadable"), &json!("not_an_image")]);
    assert_eq!(images(&report, "input")[1], "in/loop.png");
    // Nothing of it was kept, and no letter stays open.
    assert_eq!(laptop.retouch(&["dead", "list"]).run().await.stdout, "no dead letters\n");
    let (code, report) = laptop.ended(&["edit", "fake.png", "-t", "double"]).await;
    assert_eq!((code, &report["task_id"], &report["status"]), (1, &json!(null), &json!("failed")));
}

#[tokio::test]
async fn a_pipe_under_the_name_of_a_result_is_kept_and_not_waited_for() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    std::fs::create_dir_all(laptop.path("out")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(laptop.path("out/cat-invert.png")).status();
    assert!(pipe.unwrap().success());
    symlink("/dev/tty", laptop.path("out/cat-invert-2.png")).unwrap();
    symlink("nowhere", laptop.path("out/cat-invert-3.png")).unwrap();
    let report = laptop.report(&["edit", "cat.png", "-t", "invert", "-o", "out"]).await;
    assert_eq!(images(&report, "output"), ["out/cat-invert-4.png"]);
}

#[tokio::test]
async fn a_url_is_one_also_in_capitals() {
    let laptop = Laptop::new();
    let server = PictureServer::start().await;
    let url = server.picture(1).replacen("http", "HTTP", 1);
    let done =
        laptop.retouch(&["edit", &url, "-t", "invert"]).env("RETOUCH_ALLOW_HOSTS", "127.0.0.1").run().await;
    assert!(done.status.success(), "{}", done.stderr);
}
