//! A worker dies at every transition of a call's and a task's life, once each, and another carries on:
//! nothing is lost, wrong, or paid again uncounted. `tests/run-faults` does the same at length;
//! docs/reliability.md has its figures.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use retouch_tests::kills::feed::Mode;
use retouch_tests::kills::fleet::{Fate, points};
use retouch_tests::kills::run::{Plan, run};
use retouch_tests::kills::simulated;
use retouch_tests::stand_in::{Chaos, Fault, OnCreate, OnRequest, Refusal};
use retouch_worker::failpoint::{CLEANING_STEPS, RETRY_STEPS, STEPS};

/// A point not reached in this time is a point that the test misses.
const REACHED: Duration = Duration::from_secs(45);

/// Faults that lead to rare transitions, frequent enough for each to occur soon.
fn misfortunes() -> Chaos {
    let refusal = Refusal::new(400, "DataInspectionFailed", "Input data may contain inappropriate content.");
    let refused = Refusal::throttled().retry_after(1);
    // A key without the right to poll: the call is handed over.
    let denied = Refusal::new(403, "AccessDenied", "Access denied.");
    Chaos::new()
        .with(0.08, Fault::Create(OnCreate::Refuse { refusal, created: false }))
        .with(0.10, Fault::Create(OnCreate::Refuse { refusal: refused, created: false }))
        .with(0.05, Fault::Create(OnCreate::Drop { created: true }))
        .with(0.05, Fault::Create(OnCreate::Drop { created: false }))
        // A task is polled once or twice.
        .with(0.04, Fault::Poll(OnRequest::Refuse(denied)))
}

#[tokio::test]
async fn a_death_at_any_transition_loses_and_repays_nothing_uncounted() {
    let fates: VecDeque<_> = points().into_iter().map(|point| Fate::At(point, 1, REACHED)).collect();
    let plan = Plan {
        mode: Mode::Async,
        slots: 4,
        fates,
        most: Duration::from_secs(100),
        seed: 4,
        chaos: misfortunes(),
        takes: Duration::from_millis(500),
        open: 24,
        plain: false,
    };
    let books = run(plan).await;
    println!("{books}");
    assert_eq!(books.broken(), Vec::<String>::new());
    let each: BTreeMap<String, u64> = points().into_iter().map(|point| (point, 1)).collect();
    assert_eq!(books.deaths.at, each, "one death at each point");
    // An edit that was twice sent without an answer, by a death or the provider, is held for a person.
    let known = ["DataInspectionFailed", "ambiguous"];
    assert!(books.errors.keys().all(|code| known.contains(&code.as_str())), "{books}");
    assert!(books.errors.contains_key("DataInspectionFailed"), "{books}");
}

#[test]
fn three_hundred_deaths_lose_and_repay_nothing_uncounted() {
    let books = simulated::run(300, Duration::from_secs(240), 4);
    println!("{books}");
    assert_eq!(books.broken(), Vec::<String>::new());
    assert!(books.kills >= 300);
}

#[test]
fn exactly_the_listed_steps_have_fail_points_in_the_worker() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/src");
    let mut used = BTreeSet::new();
    let mut folders = vec![source];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Sources contain fixtures beside the code.
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let steps = text.split("around(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            used.extend(steps.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    let listed = STEPS.iter().chain(RETRY_STEPS).chain(CLEANING_STEPS);
    let listed: BTreeSet<String> = listed.map(|step| (*step).to_owned()).collect();
    assert_eq!(used, listed);
}
