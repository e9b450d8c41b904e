//! The bound on decoded pictures of a process, as the system counts its memory.

use std::time::Duration;

use image::{DynamicImage, ImageFormat};
use retouch_tests::laptop::Laptop;

const MIB: u64 = 1024 * 1024;

/// The most that a process has had in memory, in bytes; none once it has ended.
fn high_water(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
}

#[tokio::test]
async fn many_large_pictures_at_once_stay_within_the_bound_on_decoded_memory() {
    let laptop = Laptop::new();
    laptop.write("retouch.toml", "[lanes.local]\nconcurrency = 8\n");
    for at in 0..8 {
        // 43 MiB of pixels in a file of a few KiB.
        let mut image = DynamicImage::new_rgb16(2_700, 2_800);
        image.as_mut_rgb16().unwrap().put_pixel(at, 0, image::Rgb([u16::MAX; 3]));
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        laptop.write(&format!("photos/{at}.png"), file.into_inner());
    }
    let command = laptop.retouch(&["edit", "photos", "--type", "flip", "--out", "out"]);
    let running = command.env("RETOUCH_DECODE_MEMORY_MIB", "100").start();
    let mut most = 0;
    while running.status().is_none() {
        most = most.max(high_water(running.pid()).unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.exit().await.success(), "{}", running.stderr());
    assert_eq!(laptop.list("out").len(), 8);
    // One picture and its copy at a time, and the program itself; all of them would be 690 MiB.
    assert!(most > 80 * MIB && most < 220 * MIB, "{} MiB", most / MIB);
}
