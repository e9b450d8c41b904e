//! A Python with what the example producers need, one with the providers' official SDKs, and one with the tools that check the
//! packaging, each installed once under the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use retouch_shared::key::Digest32;

use crate::program::Program;

/// A program of `examples/producers/python`, ready for its arguments.
pub async fn producer(script: &str, arguments: &[&str]) -> Program {
    program("test-python", "../examples/producers/python", script, arguments).await
}

/// A program of `tests/sdk`, which drives an official SDK, ready for its arguments.
pub async fn sdk(script: &str, arguments: &[&str]) -> Program {
    program("test-sdk", "sdk", script, arguments).await
}

/// A tool of `tests/packaging/requirements.txt`, ready for its arguments.
pub async fn packaging_tool(tool: &str, arguments: &[&str]) -> Program {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/requirements.txt");
    let install = move || interpreter("test-packaging", &requirements);
    let interpreter = tokio::task::spawn_blocking(install).await.unwrap();
    Program::other(interpreter.with_file_name(tool), arguments)
}

/// A contender of the benchmark in `tests/bench-python`, ready for its arguments.
pub async fn bench_script(script: &str, arguments: &[&str]) -> Program {
    program("test-bench", "bench-python", script, arguments).await
}

/// A tool among the benchmark's packages, which finds the modules of `tests/bench-python`.
pub async fn bench_tool(tool: &str, arguments: &[&str]) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-python").canonicalize().unwrap();
    let requirements = folder.join("requirements.txt");
    let install = move || interpreter("test-bench", &requirements);
    let interpreter = tokio::task::spawn_blocking(install).await.unwrap();
    Program::other(interpreter.with_file_name(tool), arguments)
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

async fn program(name: &'static str, folder: &str, script: &str, arguments: &[&str]) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).canonicalize().unwrap();
    let requirements = folder.join("requirements.txt");
    let interpreter = tokio::task::spawn_blocking(move || interpreter(name, &requirements)).await.unwrap();
    let script = folder.join(script);
    let mut all = vec![script.to_str().unwrap()];
    all.extend(arguments);
    // No caches beside the scripts.
    Program::other(interpreter, &all).env("PYTHONDONTWRITEBYTECODE", "1")
}

fn interpreter(name: &str, requirements: &Path) -> PathBuf {
    let folder = installed_once(name, requirements, |folder| {
        let venv = folder.join("venv");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--requirement"])
            .arg(requirements));
    });
    folder.join("venv/bin/python3")
}

/// A folder under the target folder into which `install` has put the packages in `wanted`. Another list gets
/// another folder, and concurrent test processes wait for the installation.
pub(crate) fn installed_once(name: &str, wanted: &Path, install: impl FnOnce(&Path)) -> PathBuf {
    let version = Digest32::of(&fs::read(wanted).unwrap()).to_hex();
    let folder = target().join(name).join(&version[..12]);
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let ready = folder.join("ready");
    if !ready.exists() {
        install(&folder);
        File::create(&ready).unwrap();
    }
    folder
}

fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // Tests are in a folder below the profile's, programs in the profile's own.
    let is_test = program.parent().is_some_and(|folder| folder.ends_with("deps"));
    program.ancestors().nth(if is_test { 3 } else { 2 }).unwrap().to_owned()
}

pub(crate) fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(done.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&done.stderr));
}
