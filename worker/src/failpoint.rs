//! Fail-points: named places before and after each transition of a call's and a task's life, where a test can
//! kill a worker.
//!
//! Invariant: without the cargo feature `double`, which no release has, a step is awaited and nothing else;
//! every committed, sent or published transition of ARCHITECTURE.md ("A call's life") is named in [`STEPS`].
//!
//! A point is hit before its step begins (`NAME:before`) and after it ended, whether it succeeded or not
//! (`NAME:after`). `RETOUCH_TEST_FAILPOINTS` scripts the points, as a list separated by `;`:
//!
//! - `record_submitted:after=kill@2`: dies at its second hit;
//! - `*=kill:0.01:7`: dies at each point with this probability, by a random generator with this seed.
//!
//! To die is `abort`: like `kill -9` it unwinds nothing, runs no destructor and flushes no buffer, every
//! thread ends at once and the kernel closes the connections; unlike it, it hits an exact place and needs
//! neither `unsafe` nor another process.

/// Every step that has points, in order: intake, call, ends, sweep; then retries by a person.
#[cfg(feature = "double")]
pub const STEPS: &[&str] = &[
    "keep_inputs",
    "register",
    "wake_calls",
    "settle_task",
    "claim_call",
    "renew_lease",
    "begin_submit",
    "send",
    "retract_submit",
    "record_submitted",
    "poll",
    "count_ambiguous",
    "requeue_call",
    "hand_over_call",
    "fetch_result",
    "put_result",
    "record_stored",
    "finish_edit",
    "fail_edit",
    "publish_event",
    "event_sent",
    "settle_edit",
    "take_due_calls",
    "take_due_events",
    "cancel_task",
];

/// Steps of a dead letter's retry: of the command, and of the worker that receives its message.
#[cfg(feature = "double")]
pub const RETRY_STEPS: &[&str] =
    &["claim_letters", "send_letter", "letters_sent", "reopen_edits", "reopen_images"];

/// Steps that clean the cache: of commands, and of the sweep if it is set to.
#[cfg(feature = "double")]
pub const CLEANING_STEPS: &[&str] =
    &["forget_edits", "scrub_tasks", "evict", "remove_unusable", "delete_blobs"];

/// One step between its two points.
#[cfg(not(feature = "double"))]
pub(crate) fn around<F: Future>(_: &'static str, step: F) -> F {
    step
}

#[cfg(feature = "double")]
pub(crate) use self::armed::around;
#[cfg(feature = "double")]
pub use self::armed::{Script, watch_thread};

#[cfg(feature = "double")]
mod armed {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::future::pending;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::{CLEANING_STEPS, RETRY_STEPS, STEPS};

    fn is_listed(step: &str) -> bool {
        STEPS.iter().chain(RETRY_STEPS).chain(CLEANING_STEPS).any(|listed| *listed == step)
    }

    /// The variable of the script.
    const VARIABLE: &str = "RETOUCH_TEST_FAILPOINTS";

    static OF_PROCESS: LazyLock<Option<Mutex<Script>>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        match text.parse() {
            Ok(script) => Some(Mutex::new(script)),
            Err(error) => {
                tracing::error!(error, "{VARIABLE}");
                std::process::abort()
            }
        }
    });

    type Watch = Box<dyn FnMut(&str) -> bool>;

    thread_local! {
        static OF_THREAD: RefCell<Option<Watch>> = const { RefCell::new(None) };
    }

    /// Calls `dies` at every point that is hit on this thread; `true` stops the work there. For many workers
    /// in one process, each with a runtime of one thread, which the test then drops.
    pub fn watch_thread(dies: impl FnMut(&str) -> bool + 'static) {
        OF_THREAD.set(Some(Box::new(dies)));
    }

    /// One step between its two points.
    pub(crate) async fn around<F: Future>(step: &'static str, work: F) -> F::Output {
        debug_assert!(is_listed(step), "{step} is no step that is listed");
        hit(step, "before").await;
        let done = work.await;
        hit(step, "after").await;
        done
    }

    async fn hit(step: &str, when: &str) {
        let point = format!("{step}:{when}");
        if let Some(script) = &*OF_PROCESS
            && script.lock().unwrap_or_else(PoisonError::into_inner).dies(&point)
        {
            tracing::warn!(point, "dying here, as the test asks");
            std::process::abort();
        }
        let dies = OF_THREAD.with_borrow_mut(|watch| watch.as_mut().is_some_and(|dies| dies(&point)));
        if dies {
            pending::<()>().await;
        }
    }

    /// When to die.
    #[derive(Debug, Default)]
    pub struct Script {
        /// Hit count at which a point kills.
        at: HashMap<String, u64>,
        hits: HashMap<String, u64>,
        chance: Option<(f64, StdRng)>,
    }

    impl Script {
        /// Counts a hit; `true` if it kills.
        pub fn dies(&mut self, point: &str) -> bool {
            let hits = self.hits.entry(point.to_owned()).or_default();
            *hits += 1;
            let meant = self.at.get(point) == Some(hits);
            let unlucky =
                self.chance.as_mut().is_some_and(|(probability, dice)| dice.random_bool(*probability));
            meant || unlucky
        }
    }

    impl std::str::FromStr for Script {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let mut script = Self::default();
            for part in text.split(';').filter(|part| !part.is_empty()) {
                let wrong = || format!("{part:?} is neither POINT=kill@COUNT nor *=kill:PROBABILITY:SEED");
                let (point, action) = part.split_once('=').ok_or_else(wrong)?;
                if point == "*" {
                    let dice = action.strip_prefix("kill:").and_then(|dice| dice.split_once(':'));
                    let (probability, seed) = dice.ok_or_else(wrong)?;
                    let probability: f64 = probability.parse().map_err(|_| wrong())?;
                    let seed: u64 = seed.parse().map_err(|_| wrong())?;
                    if !(0.0..=1.0).contains(&probability) {
                        return Err(wrong());
                    }
                    script.chance = Some((probability, StdRng::seed_from_u64(seed)));
                    continue;
                }
                let step = point.strip_suffix(":before").or_else(|| point.strip_suffix(":after"));
                if !step.is_some_and(is_listed) {
                    return Err(format!("there is no point {point:?}"));
                }
                let count = action.strip_prefix("kill@").ok_or_else(wrong)?;
                script.at.insert(point.to_owned(), count.parse().map_err(|_| wrong())?);
            }
            Ok(script)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_script_kills_at_the_named_point_and_hit() {
            let mut script: Script = "send:before=kill@2;poll:after=kill@1".parse().unwrap();
            let points =
                [("send:before", false), ("send:after", false), ("send:before", true), ("poll:after", true)];
            for (point, dies) in points {
                assert_eq!(script.dies(point), dies, "{point}");
            }
        }

        #[test]
        fn a_seed_repeats_the_same_kills() {
            let fatal = |seed| {
                let mut script: Script = format!("*=kill:0.1:{seed}").parse().unwrap();
                (0..1000).filter(|_| script.dies("send:before")).collect::<Vec<u32>>()
            };
            assert_eq!(fatal(7), fatal(7));
            assert_ne!(fatal(7), fatal(8));
            assert!((50..200).contains(&fatal(7).len()));
        }

        #[test]
        fn an_unknown_point_in_a_script_is_refused() {
            for text in
                ["sent:after=kill@1", "send=kill@1", "send:after=kill", "*=kill:2:1", "*=kill:0.1", "x"]
            {
                assert!(text.parse::<Script>().is_err(), "{text}");
            }
        }
    }
}
