//! The example producer for Node; its packages are installed once under the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Program;
use crate::python::{installed_once, run};

/// `examples/producers/node/publish.mjs`, ready for its arguments.
pub async fn producer(arguments: &[&str]) -> Program {
    let script = tokio::task::spawn_blocking(installed).await.unwrap();
    let mut all = vec![script.to_str().unwrap()];
    all.extend(arguments);
    Program::other("node", &all)
}

/// A copy: no modules are left beside the examples. The modules are those of its `package.json`; the program is the
/// one that is there now.
fn installed() -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/producers/node");
    let package = example.join("package.json");
    let folder = installed_once("test-node", &package, |folder| {
        fs::copy(&package, folder.join("package.json")).unwrap();
        let quietly = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(quietly).current_dir(folder));
    });
    let script = folder.join("publish.mjs");
    fs::copy(example.join("publish.mjs"), &script).unwrap();
    script
}
