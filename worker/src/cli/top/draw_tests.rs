//! What is on the screen, by its text, in every size.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::activity::Calls;
use crate::overview::{Failures, Images, Since};
use crate::replica::Doing;

fn lane(name: &str, state: &'static str) -> LaneGlance {
    LaneGlance {
        name: name.to_owned(),
        state,
        reason: (state != "open").then(|| "Arrearage: the account is in arrears".to_owned()),
        probe_in_ms: (state != "open").then_some(29_001),
        queued: 1234,
        in_flight: 2,
        max_in_flight: Some(2),
        submit_interval_ms: Some(500),
        spent_today: "1.4".to_owned(),
        daily_budget: Some("50".to_owned()),
        currency: Some("CNY".to_owned()),
    }
}

fn replica(name: &str, draining: bool) -> ReplicaGlance {
    let calls = Calls { waiting: 5, sending: 1, polling: 9, keeping: 0 };
    ReplicaGlance {
        owner: name.to_owned(),
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        up_ms: 4_000_000,
        seen_ms: 900,
        doing: Doing { draining, intake: 3, calls, queues: vec!["tasks".to_owned()] },
    }
}

fn overview() -> Overview {
    let money = MoneyGlance {
        currency: "CNY".into(),
        paid: "0.28".into(),
        saved: "11.2".into(),
        lost: "0.14".into(),
    };
    let answers =
        Answers { hit: 78, joined: 2, paid: 2, failed: 1, hit_percent: Some(95), money: vec![money] };
    let at: DateTime<Utc> = "2026-11-25T10:31:02Z".parse().unwrap();
    let queue = |name: &str, ready, error: Option<&str>| QueueGlance {
        name: name.to_owned(),
        ready,
        consumers: 2,
        error: error.map(str::to_owned),
    };
    let failure = |id, state: &str| FailureGlance {
        id,
        reason: "DataInspectionFailed".to_owned(),
        message: "Input data may contain inappropriate content.".to_owned(),
        queue: "edits.dashscope.wanx2.1-imageedit".to_owned(),
        task_id: Some("order-42.1".to_owned()),
        state: state.to_owned(),
        ago_ms: 125_000,
    };
    Overview {
        version: "0.1.0",
        at,
        queues: vec![
            queue("tasks", Some(12), None),
            queue("edits.dashscope.wanx2.1-imageedit", Some(1232), None),
            queue("dead", None, Some("the broker is unreachable: refused")),
        ],
        lanes: vec![lane("dashscope.wanx2.1-imageedit", "open"), lane("openai.gpt-image-1.5", "blocked")],
        replicas: vec![replica("worker-1", false), replica("worker-2", true)],
        images: Images {
            minute: answers.clone(),
            hour: answers.clone(),
            since: Some(Since { began: at - Duration::from_secs(61), answers }),
        },
        failures: Failures { open: 7, more: false, last: vec![failure(9, "open"), failure(8, "retried")] },
    }
}

fn view() -> View {
    let mut view = View::new("db:3306/retouch");
    view.saw(Ok(overview()));
    view
}

/// The lines of a terminal of this size.
fn lines(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn everything_is_on_a_wide_screen() {
    let shown = lines(&view(), 120, 40).join("\n");
    for part in [
        "Retouch 0.1.0 · 2 replicas · 10:31:02 UTC · db:3306/retouch",
        "last minute",
        "last hour",
        "since 10:30:01",
        "95 %",
        "0.28 CNY",
        "11.2 CNY",
        "edits.dashscope.wanx2.1-imageedit",
        "1232",
        "dead: the broker is unreachable: refused",
        "1.4 of 50 CNY",
        "2/2",
        "2/s",
        "blocked",
        "Arrearage: the account is in arrears (next try in 30 s)",
        "worker-2 (stopping)",
        "66 min",
        "failures (7 open)",
        "DataInspectionFailed (retried): Input data",
        "order-42.1",
        "q end",
    ] {
        assert!(shown.contains(part), "{part} is not there:\n{shown}");
    }
}

#[test]
fn a_small_screen_keeps_the_names_and_numbers_that_matter_and_says_what_it_leaves_out() {
    let shown = lines(&view(), 80, 24);
    let text = shown.join("\n");
    for part in
        ["last minute", "tasks", "dashscope.wanx2.1-imageedit", "worker-1", "failures (7 open)", "q end"]
    {
        assert!(text.contains(part), "{part} is not there:\n{text}");
    }
    assert!(text.contains("  Arrearage: the account is in arrears (next try in 30 s)"), "{text}");
    let smaller = lines(&view(), 60, 14).join("\n");
    assert!(smaller.contains("… 2 more"), "{smaller}");
    assert!(smaller.contains("images") && smaller.contains("failures"), "{smaller}");
}

#[test]
fn no_size_is_too_small_to_be_drawn_and_nothing_is_drawn_beyond_it() {
    let mut view = view();
    for help in [false, true] {
        view.help = help;
        for width in (0..=130).step_by(13) {
            for height in (0..=42).step_by(3) {
                assert_eq!(lines(&view, width, height).len(), usize::from(height));
            }
        }
    }
}

#[test]
fn all_that_there_is_fits_into_the_height_that_it_says() {
    let mut view = view();
    view.interactive = false;
    let shown = lines(&view, 100, view.height()).join("\n");
    assert!(!shown.contains("more"), "{shown}");
    assert!(shown.ends_with("2 min"), "{shown}");
}

#[test]
fn a_look_that_failed_leaves_what_was_seen_and_says_why() {
    let mut view = view();
    view.saw(Err(StoreError::Unavailable("connection refused".to_owned())));
    let shown = lines(&view, 100, 30).join("\n");
    assert!(shown.contains("worker-1") && shown.contains("not up to date: the database is unreachable"));
}

#[test]
fn a_lane_is_switched_only_when_it_was_asked_for_twice() {
    let mut view = view();
    assert_eq!(view.press(Key::Yes), None);
    view.press(Key::Down);
    view.press(Key::Down);
    assert_eq!(view.press(Key::Pause), None);
    let foot = lines(&view, 100, 30).pop().unwrap();
    assert!(foot.starts_with("pause openai.gpt-image-1.5 for all replicas?"), "{foot}");
    assert_eq!(view.press(Key::Yes).as_deref(), Some("openai.gpt-image-1.5"));
    view.press(Key::Pause);
    view.press(Key::Up);
    assert_eq!(view.press(Key::Yes), None, "another key says no");
}

#[test]
fn the_help_says_what_every_key_does() {
    let mut view = view();
    view.press(Key::Help);
    let shown = lines(&view, 80, 24).join("\n");
    assert!(shown.contains("p      pauses the lane") && !shown.contains("worker-1"), "{shown}");
    view.press(Key::Help);
    assert!(lines(&view, 80, 24).join("\n").contains("worker-1"));
}

#[test]
fn spans_read_as_people_say_them() {
    for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")] {
        assert_eq!(span(seconds * 1000), text);
    }
}
