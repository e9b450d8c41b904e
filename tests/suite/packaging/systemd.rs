//! deploy/systemd/.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use retouch_tests::program::binary;

use super::{stops_in_peace, text, the_program_takes};

const UNIT: &str = "deploy/systemd/retouch-worker.service";

/// Every value of a key, in order; a line that is a comment is none.
fn values(key: &str) -> Vec<String> {
    let unit = text(UNIT);
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

fn value(key: &str) -> String {
    let mut values = values(key);
    assert_eq!(values.len(), 1, "{key}");
    values.remove(0)
}

fn pairs<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn systemd_itself_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("retouch-worker.service");
    // The program must be there for that.
    let unit = text(UNIT).replace("/usr/local/bin/retouch", binary().to_str().unwrap());
    std::fs::write(&file, unit).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => println!("skipped, there is no systemd-analyze here: {error}"),
    }
}

#[tokio::test]
async fn the_program_takes_its_settings_and_stops_before_it_is_killed() {
    let mut settings = pairs(text("deploy/systemd/retouch.env.example").lines());
    settings.extend(pairs(values("Environment").iter().map(String::as_str)));
    assert_eq!(value("KillSignal"), "SIGTERM");
    stops_in_peace(&settings, Duration::from_secs(value("TimeoutStopSec").parse().unwrap()));

    // systemd hands over the key, and the program reads it from there.
    let (name, _) = value("LoadCredential")
        .split_once(':')
        .map(|(name, file)| (name.to_owned(), file.to_owned()))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(&name), "sk-0\n").unwrap();
    let key = settings["DASHSCOPE_API_KEY_FILE"].replace("%d", folder.path().to_str().unwrap());
    settings.insert("DASHSCOPE_API_KEY_FILE".to_owned(), key);
    the_program_takes(&settings).await;
}

#[test]
fn the_worker_comes_back_and_may_do_little() {
    for (key, expected) in [
        ("Restart", "always"),
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateDevices", "yes"),
        ("CapabilityBoundingSet", ""),
        ("StartLimitIntervalSec", "0"),
    ] {
        assert_eq!(value(key), expected, "{key}");
    }
}
