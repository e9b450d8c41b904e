//! The protocol of calls, waits and leases as a small model, of which every state is checked: with deaths,
//! stalls and lost answers at every step, and every fate of the messages. `docs/reliability.md`, "The model",
//! lists its omissions.
//!
//! Invariant: a step that changes a call, a wait or a task carries the name of the store's function, and has
//! the effect of its statement.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

mod effects;
mod promises;
mod protocol;
mod world;

use protocol::{Editor, FUNCTIONS, OnAmbiguous, Protocol, Seed};
use world::{Left, World};

/// Functions of the store outside of the model, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("fail_edit_kept", "as `fail_edit`, and names a blob"),
    ("result_type", "reads"),
    ("installation", "makes the database's id once; no call depends on it"),
    ("find_installation", "reads"),
    ("renew_installation", "changes the database's id; no call depends on it"),
    ("spending", "reads"),
    ("tasks", "reads"),
    ("open_waits", "reads"),
    ("left_over", "reads"),
    ("sent_calls", "reads"),
    ("call_standing", "reads"),
    ("claim_submitted", "`claim_call` of a call that is submitted, and of no other"),
    ("spent_by_open", "reads"),
    ("in_flight", "reads"),
    ("note_unfetched", "says that a submitted call takes no place; a next owner polls it on all the same"),
    ("reopen_fetched", "opens a lane; which calls may be sent is decided by `begin_submit`"),
    ("find_task", "reads; `register` decides again under its lock"),
    ("look_up", "reads; `register` decides again under its lock"),
    ("redirect_reply", "changes where an event goes, not whether"),
    ("archive", "writes a dead letter, which nothing waits for"),
    ("letter_groups", "reads"),
    ("letter_ids", "reads"),
    ("letters", "reads"),
    ("letter_payloads", "reads"),
    ("letter_history", "reads"),
    ("calls_of_letters", "reads"),
    ("tasks_of_letters", "reads"),
    ("retry_goes_on", "reads; `reopen_images` looks again at every image under its lock"),
    ("claim_letters", "moves a letter, which nothing waits for; its message is one more that comes again"),
    ("letters_sent", "the same"),
    ("give_letters_back", "the same"),
    ("discard_letters", "the same"),
    ("forget_letters", "deletes letters that a person has decided about"),
    (
        "reopen_images",
        "to calls and waits it is `register` for a task that is there; a person takes it, at rest. store_conformance/retries",
    ),
    ("answered", "reads"),
    ("answered_today", "reads"),
    ("cache_shares", "reads"),
    ("entries_of_result", "reads"),
    ("known_of_edit", "reads"),
    ("known_of_image", "reads"),
    ("most_served", "reads"),
    ("recent_of_edit", "reads"),
    ("import_standing", "reads"),
    (
        "import_entries",
        "puts cache rows beside ours, as a finish of another task's call does; store_conformance/imports",
    ),
    ("drop_dead_links", "takes cache rows out, which a look-up finds no more, before or after it; the same"),
    ("readings", "reads"),
    ("facts", "reads"),
    ("newest_results", "reads"),
    ("try_write", "writes a row and takes it back"),
    ("declare_lane", "lanes decide when a call is sent, not whether it may be"),
    ("throttle_lane", "the same; what the worker does around it is `retract_submit`"),
    ("block_lane", "the same"),
    ("probe_lane", "the same"),
    ("lane_probes", "reads"),
    ("postpone_probe", "the same as `block_lane`"),
    ("note_stuck", "tells people what holds a place; nothing is decided by it"),
    ("count_unanswered", "the same as `block_lane`"),
    ("reset_unanswered", "the same"),
    ("reopen_lane", "the same"),
    ("pause_lane", "the same"),
    ("resume_lane", "the same"),
    ("lanes", "reads"),
    (
        "store_and_finish",
        "`record_stored` and `finish_edit` with nothing in between, which the model has too",
    ),
    ("suspect_starts", "reads"),
    ("start_suspect", "counts what a process may have died of; the model's workers die of nothing"),
    ("end_suspect", "the same"),
    ("clear_suspect", "the same"),
    ("unexplained", "reads; what it answers is what the model's provider lists"),
    ("explain", "notes tasks of other programs, of which the model has none"),
    ("forget_explained", "the same, days later"),
    ("forget_cancels", "drops cancels whose task never came, a day later"),
    ("report_replica", "tells people who works; nothing is decided by it"),
    ("remove_replica", "the same"),
    ("forget_replicas", "the same"),
    ("forget_suspects", "the same"),
    ("replicas", "reads"),
    ("clock", "reads"),
    ("ended_by_minute", "reads"),
    ("ended_lately", "reads"),
    ("lanes_at_a_glance", "reads"),
    ("last_failures", "reads"),
    ("find_edits", "reads"),
    (
        "forget_edits",
        "takes calls, waits and rows away at once, whatever state they are in; a person asks for it. store_conformance/forgetting",
    ),
    ("tasks_that_mention", "reads"),
    ("last_task", "reads"),
    ("scrub_tasks", "changes what ended tasks say, not how they ended"),
    ("prune_gone", "deletes notes about rows that are gone"),
    ("drop_blobs", "marks blobs; the model's blobs are never lost. store_conformance/dropping"),
    ("claim_dropped", "the same"),
    ("named_blobs", "reads"),
    ("blobs_deleted", "the same as `drop_blobs`"),
    ("blobs_not_deleted", "the same"),
    ("still_dropped", "reads"),
    ("forget_dropped", "forgets marks, a day later"),
    ("take_chore", "decides which replica cleans, not what"),
    ("end_chore", "the same"),
    ("cache_bytes", "adds up sizes"),
    ("sample_entries", "reads"),
    ("aged_entries", "reads"),
    (
        "evict",
        "takes a row that no call is alive for: a state that the model begins in. store_conformance/evicting",
    ),
    ("verify_before", "reads"),
    ("count_to_verify", "reads"),
    ("next_to_verify", "reads"),
    ("mark_verified", "notes a time"),
    ("correct_bytes", "corrects a size"),
    ("remove_unusable", "the same as `evict`"),
    ("connect", "opens the database"),
    ("schema_state", "reads"),
    ("migrate", "runs before any work"),
    ("close", "closes connections"),
];

/// Two tasks, one edit of which both need.
const OVERLAPPING: &[&[usize]] = &[&[0, 1], &[0]];
/// Two tasks for the same edit.
const SAME: &[&[usize]] = &[&[0], &[0]];

/// Budgets of faults on one path, in any order and at any step; messages are lost and repeated without limit.
const fn left(crashes: u8, stalls: u8, mishaps: u8) -> Left {
    Left { crashes, stalls, mishaps, cancels: 0, decisions: 0 }
}

/// The same, with this many cancelled tasks.
const fn cancelled(cancels: u8, left: Left) -> Left {
    Left { cancels, ..left }
}

/// The same, with this many retries of held calls by a person.
const fn decided(decisions: u8, left: Left) -> Left {
    Left { decisions, ..left }
}

fn protocol(workers: usize, needs: &'static [&'static [usize]], editor: Editor, left: Left) -> Protocol {
    let fired = Arc::new([const { AtomicBool::new(false) }; FUNCTIONS.len()]);
    Protocol {
        workers,
        needs,
        editor,
        on_ambiguous: OnAmbiguous::Retry,
        left,
        seed: None,
        alike: true,
        fired,
    }
}

/// Checks every state; prints their number. Returns the functions of the store that took effect.
fn holds(name: &str, model: Protocol) -> BTreeSet<&'static str> {
    holds_by(1, name, model)
}

/// The same, with this many threads.
fn holds_by(threads: usize, name: &str, model: Protocol) -> BTreeSet<&'static str> {
    let (began, left, fired) = (Instant::now(), model.left, Arc::clone(&model.fired));
    let (workers, properties) = (model.workers, model.properties().len());
    let checker = model.checker().threads(threads).spawn_bfs().join();
    println!(
        "| {name} | {workers} | {} | {} | {} | {} | {} | {properties} | {:.1} s |",
        left.crashes,
        left.stalls,
        left.mishaps,
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {property}:\n{}", told(&path.into_actions()));
    }
    FUNCTIONS
        .into_iter()
        .zip(&*fired)
        .filter(|(_, fired)| fired.load(Ordering::Relaxed))
        .map(|(name, _)| name)
        .collect()
}

/// Searches a short path that breaks a promise, and prints it.
fn breaks(name: &str, model: Protocol, property: &'static str) -> Vec<protocol::Step> {
    let began = Instant::now();
    // A path reads better where every worker keeps its number.
    let model = Protocol { alike: false, ..model };
    let finish = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().finish_when(finish).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{name}: not found: {property}"));
    let steps = path.into_actions();
    println!(
        "{name}: after {} states and {:.1} s, {} steps break “{property}”:\n{}",
        checker.unique_state_count(),
        began.elapsed().as_secs_f64(),
        steps.len(),
        told(&steps)
    );
    steps
}

fn told(steps: &[protocol::Step]) -> String {
    steps.iter().zip(1..).map(|(step, number)| format!("{number:4}  {step:?}\n")).collect()
}

fn seeded(seed: Seed, needs: &'static [&'static [usize]], left: Left) -> Protocol {
    Protocol { seed: Some(seed), ..protocol(2, needs, Editor::Async, left) }
}

#[test]
fn every_promise_holds_with_two_tasks_that_share_an_edit() {
    for left in [left(2, 0, 0), left(0, 1, 0), left(0, 0, 1)] {
        holds("async, A+B and A", protocol(2, OVERLAPPING, Editor::Async, left));
    }
}

#[test]
fn every_promise_holds_with_two_and_three_workers_on_one_edit() {
    holds("async, A and A", protocol(3, SAME, Editor::Async, left(1, 1, 0)));
    holds("async, A and A", protocol(3, SAME, Editor::Async, left(1, 0, 1)));
    let mut fired = holds("async, A and A", protocol(2, SAME, Editor::Async, left(1, 1, 1)));
    let back = cancelled(1, left(0, 0, 0));
    fired.extend(holds("async, A and A, 1 cancelled", protocol(2, SAME, Editor::Async, back)));
    let again = decided(1, left(0, 0, 2));
    fired.extend(holds("async, A and A, 1 decision", protocol(2, SAME, Editor::Async, again)));
    assert_eq!(fired, BTreeSet::from(FUNCTIONS), "steps that are named and never happen");
}

#[test]
fn every_promise_holds_whenever_tasks_are_cancelled() {
    let one = cancelled(1, left(0, 1, 0));
    holds("async, A+B and A, 1 cancelled", protocol(2, OVERLAPPING, Editor::Async, one));
    let both = cancelled(2, left(1, 0, 1));
    holds("async, A and A, 2 cancelled", protocol(2, SAME, Editor::Async, both));
    holds("sync, A and A, 2 cancelled", protocol(2, SAME, Editor::Sync, cancelled(2, left(0, 1, 1))));
}

#[test]
fn every_promise_holds_where_the_picture_comes_with_the_answer() {
    holds("sync, A and A", protocol(2, SAME, Editor::Sync, left(1, 1, 2)));
}

#[test]
fn every_promise_holds_where_a_person_decides_about_ambiguous_calls() {
    let model = protocol(2, SAME, Editor::Async, left(1, 1, 1));
    holds("async + hold, A and A", Protocol { on_ambiguous: OnAmbiguous::Hold, ..model });
    let model = protocol(2, SAME, Editor::Async, decided(1, left(0, 0, 2)));
    holds("async + hold, A and A, 1 decision", Protocol { on_ambiguous: OnAmbiguous::Hold, ..model });
}

#[test]
fn the_checker_finds_a_reset_of_the_submit_count() {
    let model = seeded(Seed::OwnerForgets, SAME, left(2, 0, 0));
    breaks("a new owner resets the counter", model, promises::AT_MOST);
    let model = seeded(Seed::TaskForgets, SAME, left(0, 0, 2));
    breaks("a new task resets the counter", model, promises::AT_MOST);
}

#[test]
fn with_the_providers_list_no_death_pays_twice() {
    for left in [left(2, 0, 0), left(1, 0, 1)] {
        holds("async + list, A+B and A", protocol(2, OVERLAPPING, Editor::List, left));
    }
}

#[test]
#[ignore = "minutes"]
fn every_promise_holds_in_every_state_with_more_faults_on_one_path() {
    holds_by(2, "async, A and A", protocol(3, SAME, Editor::Async, left(2, 1, 1)));
    holds_by(2, "async, A+B and A", protocol(2, OVERLAPPING, Editor::Async, left(1, 1, 1)));
    holds_by(2, "async + list, A+B and A", protocol(2, OVERLAPPING, Editor::List, left(2, 0, 2)));
    holds_by(2, "sync, A and A", protocol(3, SAME, Editor::Sync, left(2, 1, 2)));
    let model = protocol(2, SAME, Editor::Async, left(2, 1, 2));
    holds_by(2, "async + hold, A and A", Protocol { on_ambiguous: OnAmbiguous::Hold, ..model });
}

/// So that a state at rest is where all work ends up: see [`promises::ENDS`].
#[test]
fn work_that_nothing_disturbs_never_runs_in_circles() {
    let model = protocol(2, SAME, Editor::Async, left(1, 0, 1));
    let mut reached: HashMap<World, usize> =
        model.init_states().into_iter().map(|world| (world, 0)).collect();
    let mut open: Vec<World> = reached.keys().cloned().collect();
    while let Some(world) = open.pop() {
        for next in model.next_states(&world) {
            if !reached.contains_key(&next) {
                reached.insert(next.clone(), 0);
                open.push(next);
            }
        }
    }
    let states: Vec<World> = reached.keys().cloned().collect();
    for next in states.iter().flat_map(|world| model.undisturbed(world)) {
        *reached.get_mut(&next).unwrap() += 1;
    }
    // States without a predecessor are removed repeatedly; a circle would remain.
    let mut open: Vec<World> = states.into_iter().filter(|world| reached[world] == 0).collect();
    let mut taken = 0;
    while let Some(world) = open.pop() {
        taken += 1;
        for next in model.undisturbed(&world) {
            let before = reached.get_mut(&next).unwrap();
            *before -= 1;
            if *before == 0 {
                open.push(next);
            }
        }
    }
    assert_eq!(taken, reached.len(), "states in circles");
}

/// Our side cannot tell a late request from one that was never sent.
#[test]
fn the_list_does_not_help_against_a_stall_before_sending() {
    for property in [promises::COUNTED, promises::OWN] {
        breaks("async + list, stalled", protocol(2, OVERLAPPING, Editor::List, left(0, 1, 1)), property);
    }
}

#[test]
fn the_checker_finds_a_cache_lookup_before_the_wait() {
    let model = seeded(Seed::CacheBeforeWait, SAME, left(0, 0, 0));
    breaks("the cache before the wait", model, promises::NEVER_AGAIN);
    let model = seeded(Seed::UnlockedWait, SAME, left(0, 0, 0));
    breaks("cache and call before the wait", model.clone(), promises::SOUND);
    breaks("cache and call before the wait", model, promises::ENDS);
}

#[test]
fn the_checker_finds_an_old_owner_whose_steps_still_take_effect() {
    breaks("no fence", seeded(Seed::NoFence, SAME, left(0, 1, 0)), promises::NEVER_AGAIN);
}

#[test]
fn the_checker_finds_a_requeued_call_with_its_old_fence() {
    breaks("the old fence", seeded(Seed::OldFence, SAME, left(0, 0, 2)), promises::OWNER);
}

#[test]
fn the_checker_finds_a_call_sent_without_a_waiting_image() {
    let model = seeded(Seed::SentForNobody, SAME, cancelled(1, left(0, 0, 1)));
    breaks("sent without a waiting image", model, promises::UNWANTED_SUBMIT);
}

/// Every function of the store that other modules can call.
fn functions_of_the_store() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/src/store");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // A dialect's folder holds statements and no functions.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let names = text.lines().filter_map(|line| line.trim_start().split_once("pub async fn "));
        found.extend(names.map(|(_, rest)| rest.split(['(', '<']).next().unwrap().to_owned()));
    }
    found
}

#[test]
fn the_model_takes_every_function_of_the_store_or_says_why_not() {
    let placed: Vec<&str> = FUNCTIONS.into_iter().chain(LEFT_OUT.iter().map(|(name, _)| *name)).collect();
    let placed_once: BTreeSet<String> = placed.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(placed.len(), placed_once.len(), "a function is placed twice");
    assert_eq!(
        functions_of_the_store(),
        placed_once,
        "a function of the store is a step of tests/suite/model/protocol.rs, or in LEFT_OUT with its reason"
    );
}
