//! One run: tasks flow while workers die; then deaths stop, and all work must come to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agree::{self, Told};
use super::books::Books;
use super::feed::{self, Mode};
use super::fleet::{Fate, Fleet};
use super::plain::Plain;
use crate::paid::Paid;
use crate::stand_in::{Chaos, Limits};
use crate::wait;
use crate::watched::Watched;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How the provider is spoken to.
    pub mode: Mode,
    /// Processes at a time.
    pub slots: usize,
    /// How they die, in this order.
    pub fates: VecDeque<Fate>,
    /// No more deaths after this.
    pub most: Duration,
    /// Of the provider's misfortunes.
    pub seed: u64,
    /// The provider's misfortunes.
    pub chaos: Chaos,
    /// How long an edit takes there.
    pub takes: Duration,
    /// Tasks under way at a time.
    pub open: u64,
    /// Whether plain workers do the same beside.
    pub plain: bool,
}

/// Everything must end within this after the last death.
const END: Duration = Duration::from_secs(150);
const ENDED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status NOT IN ('pending', 'processing')";

/// Runs it.
pub async fn run(plan: Plan) -> Books {
    let paid = Arc::new(Paid::on_servers().await);
    paid.provider.set(|settings| settings.task_duration = plan.takes);
    if plan.mode != Mode::AsyncList {
        paid.provider.set(|settings| settings.limits = Limits::Off);
    }
    let struck = paid.provider.chaos(plan.seed, plan.chaos.clone());
    // The first worker has declared the queues before producers publish.
    drop(paid.worker("").await);
    let told = Told::listen(paid.site.events().await);
    let begun = Instant::now();
    let fleet = Fleet::start(&paid, &plan.mode.toml(), plan.slots, plan.fates.clone());
    let plain = match plan.plain {
        true => Some(Plain::start(&paid, plan.mode, plan.slots, plan.takes, fleet.died()).await),
        false => None,
    };
    let mut sent = 0;
    while fleet.deaths().met() < plan.fates.len() && begun.elapsed() < plan.most {
        let ended = u64::try_from(paid.site.number(ENDED).await).unwrap();
        while sent < ended + plan.open {
            let (_, edits, message) = feed::nth(plan.mode, sent);
            paid.site.publish(&message).await;
            if let Some(plain) = &plain {
                plain.send(&edits);
            }
            sent += 1;
            if sent.is_multiple_of(8) {
                // A cancel of a task that never comes is remembered, and must not change how the others end.
                paid.site.publish(&serde_json::json!({"v": 1, "cancel": format!("unknown-{sent}")})).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fleet.spare();
    let plain_paid = plain.as_ref().map(Plain::paid);
    let all_ended = async || (u64::try_from(paid.site.number(ENDED).await).unwrap() >= sent).then_some(());
    wait::poll(END, all_ended).await;
    let took = begun.elapsed();
    paid.provider.clear_faults();
    let left = leftovers(&paid).await;
    let deaths = fleet.deaths();
    if let Some(plain) = plain {
        plain.end().await;
    }
    fleet.end().await;
    let watched = Watched::start(&paid, "", &[]).await;
    let disagree = agree::disagreements(&paid, &watched, &told, sent).await;
    let books = Books::read(&paid, plan.mode, sent).await;
    Books { deaths, took, left, disagree, faults: struck.fired() as u64, plain: plain_paid, ..books }
}

async fn leftovers(paid: &Paid) -> String {
    let mut left = String::new();
    let clean = wait::poll(Duration::from_secs(40), async || {
        left = paid.site.env.leftovers().await;
        left.is_empty().then_some(())
    });
    clean.await;
    left
}
