//! A process whose clock is off, by [libfaketime](https://github.com/wolfcw/libfaketime): what it reads as the time of day
//! is, its timers are not.

use std::path::PathBuf;

use crate::program::Program;

/// The program with a clock that is off by `offset`, e.g. `+1h` or `-1h`.
#[must_use]
pub fn off_by(program: Program, offset: &str) -> Program {
    program
        .env("LD_PRELOAD", library())
        .env("FAKETIME", offset)
        // Two spellings of two versions: timers and deadlines go by the monotonic clock, which no wrong date moves.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
}

/// Debian keeps it in the folder of the architecture.
fn library() -> PathBuf {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().map(PathBuf::from);
    let below = folders.flat_map(|folder| {
        let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.chain([folder]).collect::<Vec<_>>()
    });
    let mut found =
        below.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.is_file());
    found.next().expect("libfaketimeMT.so.1 is not installed; tests/run installs `faketime`, or says how")
}
