//! One run: messages at a steady rate for the given time while workers come and go; then all work must come
//! to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::feed::Feed;
use super::fleet::Fleet;
use super::report::Report;
use super::sample::Sample;
use super::story::story;
use crate::paid::Paid;
use crate::stand_in::{Chaos, Fault, Limits, OnCreate, Refusal};
use crate::wait;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long messages come.
    pub length: Duration,
    /// Processes at a time, the one that is never replaced included.
    pub workers: usize,
    /// Messages a second.
    pub rate: f64,
    /// Of the dice.
    pub seed: u64,
    /// How often a worker is replaced.
    pub replace: Duration,
    /// How often everything is sampled.
    pub sample: Duration,
}

/// How long an edit takes at the provider.
const TAKES: Duration = Duration::from_millis(300);
/// Everything must end within this once no message comes any more.
const END: Duration = Duration::from_secs(120);
const ENDED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE task_id LIKE 'load-%' AND status NOT IN ('pending', 'processing')";

/// Runs it.
pub async fn run(plan: Plan) -> Report {
    let paid = Arc::new(Paid::on_servers().await);
    paid.provider.set(|settings| settings.limits = Limits::Off);
    paid.takes(TAKES);
    let refusal = Refusal::new(400, "DataInspectionFailed", "Input data may contain inappropriate content.");
    let chaos = Chaos::new().with(0.05, Fault::Create(OnCreate::Refuse { refusal, created: false }));
    paid.provider.chaos(plan.seed, chaos);
    // A producer meets the queues there: the workers are working.
    let fleet = Arc::new(Fleet::start(&paid, plan.workers).await);
    let begun = Instant::now();
    let (feed, samples, ()) = tokio::join!(
        send(&paid, &plan, begun),
        watch(&paid, &fleet, &plan, begun),
        replace(&fleet, &plan, begun)
    );
    let all_ended =
        async || (u64::try_from(paid.site.number(ENDED).await).unwrap() >= feed.tasks).then_some(());
    wait::poll(END, all_ended).await;
    let left = leftovers(&paid).await;
    let took = begun.elapsed();
    let last = Sample::take(&paid, &fleet, took).await;
    let Some(fleet) = Arc::into_inner(fleet) else { panic!("the fleet is still shared") };
    let (ends, said) = fleet.end().await;
    let mut report = Report { took, left, samples, last: Some(last), ends, ..Report::new(&plan) };
    report.read(&paid, feed).await;
    report.log_bytes = said.iter().map(|said| said.len() as u64).sum();
    report.log_lines = said.iter().map(|said| said.lines().count() as u64).sum();
    report.story = story(&said, &report.new);
    report
}

/// Every so often, for as long as messages come.
async fn every(plan: &Plan, begun: Instant, period: Duration, mut act: impl AsyncFnMut()) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks.tick().await;
    while begun.elapsed() < plan.length {
        ticks.tick().await;
        act().await;
    }
}

async fn send(paid: &Paid, plan: &Plan, begun: Instant) -> Feed {
    let mut feed = Feed::new(plan.seed, paid.site.pictures.url("/gone.png"));
    let period = Duration::from_secs_f64(1.0 / plan.rate);
    every(plan, begun, period, async || paid.site.publish_bytes(&feed.message()).await).await;
    feed
}

async fn watch(paid: &Paid, fleet: &Fleet, plan: &Plan, begun: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    let look = async || samples.push(Sample::take(paid, fleet, begun.elapsed()).await);
    every(plan, begun, plan.sample, look).await;
    samples
}

async fn replace(fleet: &Fleet, plan: &Plan, begun: Instant) {
    let mut nth = 0;
    let next = async || {
        fleet.replace(nth).await;
        nth += 1;
    };
    every(plan, begun, plan.replace, next).await;
}

/// Unfinished work at the end, in words; including dead letters that were not archived.
async fn leftovers(paid: &Paid) -> String {
    let mut left = String::new();
    let clean = wait::poll(END, async || {
        left = paid.site.env.leftovers().await;
        for queue in paid.site.env.queues().await {
            if queue.ready + queue.unacknowledged > 0 && left.is_empty() {
                left = format!("{}: {} messages", queue.name, queue.ready + queue.unacknowledged);
            }
        }
        left.is_empty().then_some(())
    });
    clean.await;
    left
}
