//! The Dockerfile. The tests cannot build it, so they check its text.

use super::{is_pinned, text};

/// The instructions, one a line, with what follows on further lines.
fn instructions() -> Vec<String> {
    let lines = text("Dockerfile").replace("\\\n", " ");
    let lines = lines.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What stands behind an instruction, in the last stage that has it.
fn value(instruction: &str) -> String {
    let all = instructions();
    let found = all.iter().rev().find_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {instruction}")).to_owned()
}

/// The user's and the group's id.
pub(super) fn user() -> u64 {
    let user = value("USER");
    let (user, group) = user.split_once(':').unwrap();
    assert_eq!(user, group);
    user.parse().unwrap()
}

#[test]
fn the_image_is_made_of_pinned_versions() {
    let stages: Vec<_> =
        instructions().iter().filter_map(|line| line.strip_prefix("FROM ").map(str::to_owned)).collect();
    let [build, runtime] = &stages[..] else { panic!("{stages:?}") };
    let build = build.strip_suffix(" AS build").unwrap();
    is_pinned(build);
    is_pinned(runtime);
    let toolchain = text("rust-toolchain.toml");
    let version =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(build.starts_with(&format!("rust:{version}-")), "{build} and {version}");
    // Otherwise the program would need a newer C library than the image has.
    assert!(build.ends_with("bookworm") && runtime.starts_with("debian:12."), "{build}, {runtime}");
    let all = instructions().join("\n");
    assert!(all.contains("cargo build --release --locked"));
    assert!(all.contains("--mount=type=cache,target=/src/target"));
    assert!(all.contains("ca-certificates"));
}

#[test]
fn the_image_runs_unprivileged_with_health_and_orderly_stop() {
    assert!(user() >= 10_000);
    assert_eq!(value("STOPSIGNAL"), "SIGTERM");
    assert_eq!(
        (value("ENTRYPOINT"), value("CMD")),
        (r#"["retouch"]"#.to_owned(), r#"["worker"]"#.to_owned())
    );
    assert_eq!(value("ENV"), "RETOUCH_HTTP=0.0.0.0:8080");
    assert_eq!(value("EXPOSE"), "8080");
    assert!(value("HEALTHCHECK").ends_with(r#"CMD ["retouch", "health"]"#));
}

#[test]
fn nothing_secret_gets_into_the_image() {
    let ignored = text(".dockerignore");
    for what in ["**/.env", "retouch.toml", ".git", "**/target"] {
        assert!(ignored.lines().any(|line| line == what), "{what}");
    }
    assert!(text(".gitignore").lines().any(|line| line == "/.env"));
}
