//! The packaging (Dockerfile, docker-compose.yml, deploy/) fits the program: its settings, paths, ports and
//! times. The files' own tools validate them, and the program validates their settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey;
use retouch_tests::program::Program;
use retouch_worker::config::Settings;
use retouch_worker::editor::{dashscope, openai};
use serde_json::Value;

mod compose;
mod image;
mod kubernetes;
mod settings;
mod systemd;

/// For a synchronous call's result to be downloaded and kept once the call has ended.
const KEEPING: Duration = Duration::from_secs(90);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap().join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a YAML file.
fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// An object's fields that are texts.
fn texts(object: &Value) -> BTreeMap<String, String> {
    let fields = object.as_object().unwrap_or_else(|| panic!("{object}"));
    fields.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The settings of a program that is shipped, the keys in files among them.
fn known() -> BTreeSet<String> {
    let of_tests = ["RETOUCH_DOUBLE"];
    let names = Settings::variables().into_iter().filter(|name| !of_tests.contains(&name.as_str()));
    names.chain(["RUST_LOG".to_owned()]).collect()
}

fn is_a_setting(name: &str) -> bool {
    known().contains(name)
        || (name.starts_with("AWS_") && name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().is_ok())
}

/// Asserts that every name is a setting, and that the program accepts all of them together: it gets as far as
/// the database, which they name and which does not exist.
async fn the_program_takes(settings: &BTreeMap<String, String>) {
    for name in settings.keys() {
        assert!(is_a_setting(name), "{name} is no setting");
    }
    assert!(settings["DATABASE_URL"].starts_with("mysql://"));
    let set = |program: Program, (name, value): (&String, &String)| program.env(name, value);
    let program = settings.iter().fold(Program::new(&["lanes"]), set);
    let done = program.env("DATABASE_URL", "mysql://retouch@127.0.0.1:1/retouch").run().await;
    assert_eq!(done.status.code(), Some(3), "{}", done.stderr);
    assert!(done.stderr.starts_with("retouch: DATABASE_URL ("), "{}", done.stderr);
}

/// A stopping worker is not killed before it ends by itself, and does not end before the longest call.
fn stops_in_peace(settings: &BTreeMap<String, String>, killed_after: Duration) {
    let grace = Duration::from_secs(settings["RETOUCH_GRACE_SECONDS"].parse().unwrap());
    let longest = openai::DEFAULT_TIMEOUT.max(dashscope::DEFAULT_TIMEOUT) + KEEPING;
    assert!(grace > longest, "a grace of {grace:?} cuts off calls of {longest:?}");
    // Afterwards two kinds of connections are closed, 5 s each at most.
    assert!(
        killed_after >= grace + Duration::from_secs(15),
        "killed after {killed_after:?}, grace {grace:?}"
    );
}

/// A third-party image is pinned to a version.
fn is_pinned(image: &str) {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let numbers = version.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
    assert!(numbers >= 2, "{image}: no version");
}
