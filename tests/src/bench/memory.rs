//! Memory of a worker: with a thousand edits in flight at once, and idle.

use std::time::{Duration, Instant};

use super::costs::{Moment, resident};
use super::paid_site::{Mode, PaidSite};
use super::plan::Plan;
use super::report::{Cell, Check, Report, Section};
use super::run::{LONG, settled};
use crate::wait;

/// At the provider, by its own clock, which is moved on once all are in flight.
const TAKES: Duration = Duration::from_secs(3600);

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    let mut section = Section::new("memory", "Resident memory and processor time of one worker");
    let (edits, idle_for) = (plan.pick(1000, 10), plan.pick(Duration::from_secs(30), Duration::from_secs(1)));
    let site = PaidSite::new(TAKES).await;
    let worker = site.worker(Some(u16::try_from(edits).unwrap())).await;
    let idle = idle(worker.pid(), idle_for).await;
    section.rows.push(row("idle", idle.0, Some(idle.1)));

    for seed in 0..edits {
        site.publish(&Mode::Async.task(seed)).await;
    }
    let all = async || (site.most_in_flight(Mode::Async) >= edits).then_some(());
    assert!(
        wait::poll(LONG, all).await.is_some(),
        "only {} edits are in flight",
        site.most_in_flight(Mode::Async)
    );
    let mut most = resident(worker.pid());
    section.rows.push(row(&format!("{edits} edits in flight"), most, None));
    site.provider.advance(TAKES);
    let ended = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
    let watched = async {
        loop {
            most = most.max(resident(worker.pid()));
            // A look, not a wait: it ends with the other branch.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = site.counts(ended, i64::try_from(edits).unwrap()) => {}
        () = watched => {}
    }
    section.rows.push(row("the most while they end", most, None));
    settled(&site.env).await;
    site.right(Mode::Async, (0..edits).step_by(plan.pick(10, 1))).await;
    section.note(format!(
        "Idle: over {:.0} s, of one core. Edits are of one picture of 512 × 512 pixels each.",
        idle_for.as_secs_f64()
    ));
    report.sections.push(section);
    if !plan.quick {
        report.checks.push(Check::at_most(
            "memory: MiB with 1,000 edits in flight, and while they end",
            most,
            150.0,
        ));
        report.checks.push(Check::at_most("memory: MiB of an idle worker", idle.0, 30.0));
        report.checks.push(Check::at_most("memory: per cent of a core of an idle worker", idle.1, 1.0));
    }
}

/// Memory in MiB and per cent of a core of a process that has nothing to do.
async fn idle(pid: i32, length: Duration) -> (f64, f64) {
    let (before, began) = (Moment::now().tree(pid), Instant::now());
    // The measurement itself takes this long.
    tokio::time::sleep(length).await;
    let used = Moment::now().tree(pid).saturating_sub(before);
    (resident(pid), used.as_secs_f64() * 100.0 / began.elapsed().as_secs_f64())
}

fn row(what: &str, resident: f64, cpu: Option<f64>) -> super::report::Row {
    vec![
        ("worker", Cell::Text(what.to_owned())),
        ("resident_mib", Cell::Number(resident)),
        ("cpu_per_cent", cpu.map_or(Cell::None("busy"), Cell::Number)),
    ]
}
