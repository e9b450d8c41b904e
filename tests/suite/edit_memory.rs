//! The bound on decoded pictures of a process, as the system counts its memory.

use std::io::Cursor;
use std::time::Duration;

use image::{DynamicImage, ImageFormat};
use retouch_tests::laptop::Laptop;
use retouch_tests::memory::peak_mib_while_running;
use retouch_tests::program::{Program, Running};

/// A picture of one colour but for a pixel, 16 bits a channel: a small file, whatever its size.
fn deep(at: u32, width: u32, height: u32) -> Vec<u8> {
    let mut image = DynamicImage::new_rgb16(width, height);
    image.as_mut_rgb16().unwrap().put_pixel(at, 0, image::Rgb([u16::MAX; 3]));
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// The most that the program has had in memory until it ended, in MiB.
async fn most_of(running: &Running) -> u64 {
    let mut most = 0;
    while running.status().is_none() {
        most = most.max(peak_mib_while_running(running.pid()).unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    most
}

async fn most_while(command: Program) -> u64 {
    let running = command.start();
    let most = most_of(&running).await;
    assert!(running.exit().await.success(), "{}", running.stderr());
    most
}

#[tokio::test]
async fn many_large_pictures_at_once_stay_within_the_bound_on_decoded_memory() {
    let laptop = Laptop::new();
    laptop.write("retouch.toml", "[lanes.local]\nconcurrency = 8\n");
    for at in 0..8 {
        // 43 MiB of pixels in a file of a few KiB.
        laptop.write(&format!("photos/{at}.png"), deep(at, 2_700, 2_800));
    }
    let command = laptop.retouch(&["edit", "photos", "--type", "flip", "--out", "out"]);
    let most = most_while(command.env("RETOUCH_DECODE_MEMORY_MIB", "100")).await;
    assert_eq!(laptop.list("out").len(), 8);
    // One picture and its copy at a time, and the program itself; all of them would be 690 MiB.
    assert!(most > 80 && most < 220, "{most} MiB");
}

/// Six at once with the settings that users have. `RETOUCH_TEST_MEGAPIXELS=64` takes the largest that are
/// allowed, which takes minutes.
#[tokio::test]
async fn the_largest_pictures_of_16_bits_stay_within_2_gib() {
    let megapixels: u32 =
        std::env::var("RETOUCH_TEST_MEGAPIXELS").map_or(4, |megapixels| megapixels.parse().unwrap());
    let laptop = Laptop::new();
    laptop.write("retouch.toml", "[lanes.local]\nconcurrency = 6\n");
    for at in 0..6 {
        laptop.write(&format!("photos/{at}.png"), deep(at, 1_000 * megapixels / 8, 8_000));
    }
    for edit_type in ["invert", "blur", "sharpen"] {
        let out = format!("out-{edit_type}");
        let most = most_while(laptop.retouch(&["edit", "photos", "--type", edit_type, "--out", &out])).await;
        println!("memory | six pictures of {megapixels} megapixels, 16 bits | {edit_type} | {most} MiB");
        assert_eq!(laptop.list(&out).len(), 6);
        assert!(most < 2 * 1024, "{edit_type}: {most} MiB");
    }
}
