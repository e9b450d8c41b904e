//! One person's laptop: a home folder with pictures, and the program with no server at all: the SQLite file and the
//! blobs are where they are by default, in the data folder of this home.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{pictures, program::Program, wait};

/// A home of its own for one test; removed with this value.
#[derive(Debug)]
pub struct Laptop {
    home: TempDir,
}

impl Default for Laptop {
    fn default() -> Self {
        Self::new()
    }
}

impl Laptop {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { home: tempfile::Builder::new().prefix("retouch-laptop-").tempdir().unwrap() }
    }

    /// The home folder, in which the program also works.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path in the home folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// Writes a file, and the folders that lead to it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes the PNG of this seed, and returns it.
    pub fn picture(&self, name: &str, seed: u64) -> Vec<u8> {
        let picture = pictures::picture(seed);
        self.write(name, &picture);
        picture
    }

    /// A file's bytes.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names in a folder, sorted; none where there is no folder.
    #[must_use]
    pub fn list(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return Vec::new() };
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// The program, at home here. The edit types `double` and `double_async` note what they are asked. A worker's HTTP server
    /// is off, because its port is one for all tests.
    #[must_use]
    pub fn retouch(&self, arguments: &[&str]) -> Program {
        let program = Program::new(arguments).within(self.home()).env("RETOUCH_HTTP", "off");
        program.env("RETOUCH_DOUBLE", self.path("double"))
    }

    /// Runs a command with `--json` that must succeed, and returns what it prints: one JSON object and nothing else.
    pub async fn report(&self, arguments: &[&str]) -> Value {
        let (code, report) = self.ended(arguments).await;
        assert_eq!(code, 0, "{report}");
        report
    }

    /// As [`Laptop::report`] for a command that may fail: with its exit code.
    pub async fn ended(&self, arguments: &[&str]) -> (i32, Value) {
        let done = self.retouch(arguments).arg("--json").run().await;
        let report = serde_json::from_str(&done.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
        assert_eq!(done.stderr, "");
        (done.status.code().unwrap(), report)
    }

    /// What the double was asked, a line each.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.path("double/calls.jsonl")).unwrap_or_default();
        // The last line may still be on its way.
        lines.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the double was asked so many times.
    pub async fn called(&self, times: usize) {
        wait::until(&format!("{times} calls"), async || (self.calls().len() >= times).then_some(())).await;
    }

    /// Opens a gate of the double for good.
    pub fn open_gate(&self, name: &str) {
        self.write(&format!("double/{name}"), "");
    }
}

/// The counts of a report: hit, joined, paid, failed.
#[must_use]
pub fn counts(report: &Value) -> [u64; 4] {
    ["hit", "joined", "paid", "failed"].map(|count| report[count].as_u64().unwrap())
}

/// One field of every image of a report, as text; empty where it is null.
#[must_use]
pub fn images(report: &Value, field: &str) -> Vec<String> {
    let images = report["images"].as_array().unwrap().iter();
    images.map(|image| image[field].as_str().unwrap_or_default().to_owned()).collect()
}
