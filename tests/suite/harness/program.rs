//! A program under test gets only the settings it is given, is heard to its last line, and cannot outlive its
//! test.

use std::os::unix::process::ExitStatusExt;

use nix::{sys::signal::kill, unistd::Pid};
use retouch_tests::{program::Program, wait};

fn shell(script: &str) -> Program {
    Program::other("/bin/sh", &["-c", script])
}

#[tokio::test]
async fn the_built_program_is_found() {
    assert!(Program::new(&["--help"]).run().await.status.success());
}

#[tokio::test]
async fn a_program_sees_only_the_settings_it_is_given() {
    let done = shell("env; pwd").env("RETOUCH_NAMESPACE", "mine").run().await;
    let names: Vec<_> = done.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in names {
        let known =
            ["PATH", "TMPDIR", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];
        assert!(known.contains(&name) || name == "RETOUCH_NAMESPACE", "{name} came from outside");
    }
    assert!(done.stdout.contains("RETOUCH_NAMESPACE=mine\n"));
}

#[tokio::test]
async fn lines_are_heard_whenever_they_come_and_to_the_last() {
    let running = shell("echo early; echo wrong >&2; read -r _; echo late; printf last; exit 3").start();
    assert_eq!(running.line("wrong").await, "wrong");
    assert_eq!(running.line("ear").await, "early");
    assert_eq!(running.line("last").await, "last");
    assert_eq!(running.exit().await.code(), Some(3));
    assert_eq!(running.stdout(), "early\nlate\nlast\n");
    assert_eq!(running.stderr(), "wrong\n");
}

#[tokio::test]
async fn waiting_for_a_line_of_an_ended_program_fails_at_once() {
    let waiting = tokio::spawn(async { shell("echo only this").start().line("something else").await });
    let panic = waiting.await.unwrap_err().into_panic();
    let message = panic.downcast::<String>().unwrap();
    assert!(message.contains("the program ended") && message.contains("only this"), "{message}");
}

#[tokio::test]
async fn a_program_ends_by_the_signal_it_is_sent() {
    let polite = shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done").start();
    polite.line("ready").await;
    polite.terminate();
    assert!(polite.exit().await.success());
    polite.line("bye").await;

    let mut stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done").start();
    stubborn.line("ready").await;
    stubborn.terminate();
    stubborn.kill9();
    assert_eq!(stubborn.exit().await.signal(), Some(9));
}

#[tokio::test]
async fn a_dropped_program_is_killed_with_its_children() {
    let running = shell("sleep 1000 & echo child $!; wait").start();
    let line = running.line("child").await;
    let child = Pid::from_raw(line.strip_prefix("child ").unwrap().parse().unwrap());
    assert!(kill(child, None).is_ok());
    drop(running);
    wait::until("the end of the child", async || ended(child).then_some(())).await;
}

/// Gone, or a corpse that the system's first process has yet to bury.
fn ended(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}
