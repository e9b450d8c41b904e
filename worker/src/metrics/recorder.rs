//! The recorder of counters and histograms, and figures about this process.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::money::{LOST, PAID, Purse, SAVED};
use super::names::{
    DECLARED, Declared, Kind, LOST_MONEY, PAID_MONEY, PROCESS_MEMORY, PROCESS_START, SAVED_MONEY,
};
use super::text::{Family, units};

/// From the latency of a database to the length of a queue on a paid lane.
const BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
/// Recorded values are sorted into buckets this often, even without scrapes.
const UPKEEP: Duration = Duration::from_secs(10);

static RECORDER: OnceLock<(PrometheusHandle, f64)> = OnceLock::new();

/// Starts counting. Before, all counting functions do nothing.
///
/// # Errors
/// This process has another recorder already.
pub(crate) fn install() -> Result<()> {
    let mut builder = PrometheusBuilder::new();
    for declared in DECLARED.iter().filter(|declared| declared.kind == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(declared.name.to_owned()), BUCKETS)?;
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("metrics: {error}"))?;
    for Declared { name, kind, help, .. } in DECLARED {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    RECORDER.set((handle, start.as_secs_f64())).map_err(|_| anyhow::anyhow!("metrics: begun twice"))
}

/// Compacts recorded values; never returns.
pub(crate) async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        if let Some((handle, _)) = RECORDER.get() {
            handle.run_upkeep();
        }
    }
}

/// The counters of this process as text.
pub(crate) fn render() -> String {
    let Some((handle, start)) = RECORDER.get() else { return String::new() };
    let mut text = handle.render();
    write_money(PAID_MONEY, &PAID, &mut text);
    write_money(SAVED_MONEY, &SAVED, &mut text);
    write_money(LOST_MONEY, &LOST, &mut text);
    let mut family = Family::new(PROCESS_START);
    family.sample([], format!("{start:.3}"));
    family.write_to(&mut text);
    let mut family = Family::new(PROCESS_MEMORY);
    if let Some(bytes) = resident() {
        family.sample([], bytes);
    }
    family.write_to(&mut text);
    text
}

fn write_money<const N: usize>(declared: Declared, purse: &Purse<N>, text: &mut String) {
    let mut family = Family::new(declared);
    for (labels, micros) in purse.sums() {
        family.sample(labels.each_ref().map(String::as_str), units(micros));
    }
    family.write_to(text);
}

/// Resident memory, on Linux.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
