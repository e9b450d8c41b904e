//! What is only seen at a terminal, and what must not be seen anywhere else.

use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::program::Program;
use serde_json::Value;

/// A command line of the shell, at home on the laptop, with `$RETOUCH` for the program.
fn shell(laptop: &Laptop, line: &str) -> Program {
    let program = Program::other("/bin/sh", &["-c", line]).within(laptop.home());
    program.env("RETOUCH", retouch_tests::program::binary()).env("RETOUCH_DOUBLE", laptop.path("double"))
}

#[tokio::test]
async fn progress_is_drawn_on_a_terminal() {
    let laptop = Laptop::new();
    for seed in 0..3 {
        laptop.picture(&format!("in/{seed}.png"), seed);
    }
    // `script` gives the command a terminal of its own, and its picture is what we read.
    let line =
        r#"script -qec 'stty cols 100 rows 30; "$RETOUCH" edit in -t double --param gate=go' /dev/null"#;
    let edit = shell(&laptop, line).env("TERM", "xterm").start();
    laptop.called(3).await;
    laptop.open_gate("go");
    assert!(edit.exit().await.success(), "{}", edit.stdout());
    let drawn = edit.stdout();
    assert!(drawn.contains("double") && drawn.contains("0/3 images"), "{drawn:?}");
    assert!(drawn.contains('█') || drawn.contains('░'), "{drawn:?}");
    assert!(drawn.contains("\u{1b}["), "it is drawn over: {drawn:?}");
    let (bar, summary) = (drawn.rfind("/3 images").unwrap(), drawn.find("saved").unwrap());
    assert!(
        drawn.contains("✓ in/0.png") && bar < summary,
        "the summary takes the place of the bar: {drawn:?}"
    );
}

#[tokio::test]
async fn nothing_is_drawn_where_there_is_no_terminal() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let done = laptop.retouch(&["edit", "cat.png", "-t", "invert"]).run().await;
    assert!(done.status.success());
    assert_eq!(done.stderr, "");
    assert!(!done.stdout.contains(['\r', '\u{1b}']), "{:?}", done.stdout);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let laptop = Laptop::new();
    for seed in 0..20 {
        laptop.picture(&format!("in/{seed:02}.png"), seed);
    }
    let line = r#"exec 3>&1; { "$RETOUCH" edit in -t invert; echo "exit $?" >&3; } | head -n 1"#;
    let done = shell(&laptop, line).run().await;
    assert_eq!(done.stderr, "");
    assert!(done.stdout.contains("✓ in/") && done.stdout.contains("exit 0\n"), "{}", done.stdout);
    assert_eq!(laptop.list("retouched").len(), 20);
}

#[tokio::test]
async fn what_cannot_be_written_is_a_failure() {
    let laptop = Laptop::new();
    let done = shell(&laptop, r#""$RETOUCH" routes > /dev/full"#).run().await;
    assert_eq!(done.status.code(), Some(3));
    assert!(done.stderr.contains("standard output: No space left on device"), "{}", done.stderr);
}

#[tokio::test]
async fn every_command_helps_with_an_example() {
    let laptop = Laptop::new();
    let help = laptop.retouch(&["--help"]).run().await.stdout;
    let commands = commands(&help);
    assert!(commands.len() >= 6, "{help}");
    let mut lines: Vec<Vec<String>> = commands.into_iter().map(|command| vec![command]).collect();
    while let Some(line) = lines.pop() {
        let arguments: Vec<&str> = line.iter().map(String::as_str).chain(["--help"]).collect();
        let done = laptop.retouch(&arguments).run().await;
        assert!(done.status.success() && done.stderr.is_empty(), "{line:?}");
        assert!(done.stdout.contains("Example: "), "`retouch {} --help` has no example", line.join(" "));
        assert!(done.stdout.contains("--json"), "{line:?}");
        lines
            .extend(self::commands(&done.stdout).into_iter().map(|command| [&line[..], &[command]].concat()));
    }
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let list =
        help.split("Commands:\n").nth(1).unwrap_or_default().lines().take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn the_help_of_edit_lists_what_needs_no_provider() {
    let laptop = Laptop::new();
    let long = laptop.retouch(&["edit", "--help"]).run().await.stdout;
    assert!(long.contains("\n  grayscale     Shades of grey\n"), "{long}");
    assert!(
        long.contains("\n  blur          Gaussian blur\n                  sigma: 0.1 to 100 (default 3)\n"),
        "{long}"
    );
    let short = laptop.retouch(&["edit", "-h"]).run().await.stdout;
    assert!(short.contains("\n  blur          Gaussian blur\n  sharpen "), "{short}");
}

#[tokio::test]
async fn the_help_names_every_setting() {
    let laptop = Laptop::new();
    let help = laptop.retouch(&["--help"]).run().await.stdout;
    // A variable that it does not name would be refused as unknown, or nobody would find it.
    for word in help.split(|char: char| !(char.is_ascii_uppercase() || char == '_')) {
        // RETOUCH_ alone is the prefix.
        if word.starts_with("RETOUCH_") && word.len() > 8 {
            let done = laptop.retouch(&["task", "t-1"]).env(word, "").run().await;
            assert!(done.stderr.contains("no task"), "{word}: {}", done.stderr);
        }
    }
    for name in ["DATABASE_URL", "AMQP_URL", "RETOUCH_BLOBS", "RETOUCH_HTTP", "RETOUCH_CONFIG", "RUST_LOG"] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}");
    }
}

#[tokio::test]
async fn commands_log_what_goes_wrong_and_more_only_when_asked() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let edit = |arguments: &[&str]| laptop.retouch(arguments);
    assert_eq!(edit(&["edit", "cat.png", "-t", "double"]).run().await.stderr, "");
    let asked = edit(&["edit", "cat.png", "-t", "double", "--json"])
        .env("RUST_LOG", "retouch_worker=info")
        .run()
        .await;
    assert!(asked.stderr.contains("INFO") && asked.stderr.contains("task taken in"), "{}", asked.stderr);
    let report: Value =
        serde_json::from_str(&asked.stdout).expect("logs stay away from what a command prints");
    assert_eq!(counts(&report), [1, 0, 0, 0]);
}
