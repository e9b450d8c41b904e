//! The settings one by one: if one of them is wrong, the others can still be inspected.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use retouch_shared::topology::{DEFAULT_NAMESPACE, Topology};
use url::Url;

use super::editors::keys;
use super::read::{Raw, variable};
use super::{BrokerChoice, CacheLimits, Offer, OnAmbiguous, Rhythm, Settings};
use super::{blobs, broker, database, http, public_url, seconds};
use crate::blobs::BlobsLocation;
use crate::media::memory::DEFAULT_MIB;
use crate::sources::guard::AllowHosts;
use crate::store::{DatabaseLocation, PATIENCE};

/// Each setting, or its fault: one sentence that names it and the fix, never a secret.
pub struct Parts {
    /// Editors, models, routes and lanes.
    pub offer: Result<Offer>,
    /// `DATABASE_URL`.
    pub database: Result<DatabaseLocation>,
    /// Whether it was set.
    pub database_given: bool,
    /// `AMQP_URL`.
    pub broker: Result<BrokerChoice>,
    /// `RETOUCH_BLOBS`.
    pub blobs: Result<BlobsLocation>,
    /// `RETOUCH_HTTP`.
    pub http: Result<Option<SocketAddr>>,
    /// `RETOUCH_PUBLIC_URL`, and whether it was set.
    pub public_url: Result<(Url, bool)>,
    /// `RETOUCH_ALLOW_HOSTS`.
    pub allow_hosts: Result<AllowHosts>,
    /// `RETOUCH_NAMESPACE`.
    pub topology: Result<Topology>,
    /// `RETOUCH_NAME`.
    pub name: Result<String>,
    /// `RETOUCH_ON_AMBIGUOUS`.
    pub on_ambiguous: OnAmbiguous,
    /// Timings and limits.
    pub rhythm: Result<Rhythm>,
    /// Limits of the cache.
    pub cache: Result<CacheLimits>,
}

impl Parts {
    /// Reads the environment and the file.
    ///
    /// # Errors
    /// Faults that make all of it unreadable: a file that is not TOML, an unknown setting.
    pub fn load() -> Result<Self> {
        let mut raw = Raw::read()?;
        let offer = keys(variable).and_then(|keys| Offer::decide(&mut raw, keys));
        let rhythm = rhythm(&raw);
        let cache = cache(&raw);
        let database = database(raw.database_url.as_deref());
        let broker = broker(raw.amqp_url, database.as_ref().ok());
        let blobs = blobs(raw.blobs.as_deref(), database.as_ref().ok());
        let http = http(raw.http.as_deref());
        // A wrong address is reported once, not again for the URL derived from it.
        let public_url =
            public_url(raw.public_url.as_deref(), http.as_ref().ok().copied().flatten(), blobs.as_ref().ok());
        let allow_hosts = raw.allow_hosts.as_deref().unwrap_or_default().parse::<AllowHosts>();
        let topology = Topology::new(raw.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE));
        Ok(Self {
            offer,
            database_given: raw.database_url.is_some(),
            database,
            broker,
            blobs,
            http,
            public_url,
            allow_hosts: allow_hosts.context("RETOUCH_ALLOW_HOSTS"),
            topology: topology.context("RETOUCH_NAMESPACE"),
            name: name(raw.name),
            on_ambiguous: raw.on_ambiguous,
            rhythm,
            cache,
        })
    }

    /// All faults, in the order of validation.
    pub fn faults(&self) -> Vec<&Error> {
        // Destructured: a new setting does not compile until it is checked.
        let Self {
            offer,
            database,
            database_given: _,
            broker,
            blobs,
            http,
            public_url,
            allow_hosts,
            topology,
            name,
            on_ambiguous: _,
            rhythm,
            cache,
        } = self;
        let faults = [
            offer.as_ref().err(),
            database.as_ref().err(),
            broker.as_ref().err(),
            blobs.as_ref().err(),
            http.as_ref().err(),
            public_url.as_ref().err(),
            allow_hosts.as_ref().err(),
            topology.as_ref().err(),
            name.as_ref().err(),
            rhythm.as_ref().err(),
            cache.as_ref().err(),
        ];
        faults.into_iter().flatten().collect()
    }

    /// All settings, or the first fault.
    pub(super) fn together(self) -> Result<Settings> {
        let offer = self.offer?;
        let database = self.database?;
        let broker = self.broker?;
        let blobs = self.blobs?;
        let http = self.http?;
        let (public_url, public_url_given) = self.public_url?;
        Ok(Settings {
            database,
            database_given: self.database_given,
            broker,
            blobs,
            public_url,
            public_url_given,
            http,
            allow_hosts: self.allow_hosts?,
            topology: self.topology?,
            name: self.name?,
            on_ambiguous: self.on_ambiguous,
            offer,
            rhythm: self.rhythm?,
            cache: self.cache?,
        })
    }
}

fn name(given: Option<String>) -> Result<String> {
    let name = given.unwrap_or_else(host_name);
    ensure!(
        (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control),
        "RETOUCH_NAME must be 1 to 128 characters, none of them a control character"
    );
    Ok(name)
}

/// The kernel's host name; in a container, its id.
fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { "unnamed".to_owned() } else { host.to_owned() }
}

const HOUR: u64 = 60 * 60;

/// In days; 0 is `None`. A hundred years are far from an overflow.
fn days(name: &str, given: Option<u32>) -> Result<Option<Duration>> {
    ensure!(given.is_none_or(|days| days <= 36_500), "{name} must be at most 36500; 0 is no limit");
    Ok(given.filter(|days| *days > 0).map(|days| Duration::from_secs(u64::from(days) * 24 * HOUR)))
}

fn cache(raw: &Raw) -> Result<CacheLimits> {
    let sweep = raw.blobs_sweep_days;
    ensure!(
        sweep.is_none_or(|days| days == 0 || days >= 7),
        "RETOUCH_BLOBS_SWEEP_DAYS must be 7 or more, longer than anything waits for its call; 0 sweeps nothing"
    );
    ensure!(
        raw.cache_keep_hours.is_none_or(|hours| hours <= 876_000),
        "RETOUCH_CACHE_KEEP_HOURS must be at most 876000"
    );
    Ok(CacheLimits {
        max_bytes: raw.cache_max_bytes.filter(|bytes| *bytes > 0),
        max_age: days("RETOUCH_CACHE_MAX_AGE_DAYS", raw.cache_max_age_days)?,
        max_idle: days("RETOUCH_CACHE_MAX_IDLE_DAYS", raw.cache_max_idle_days)?,
        keep: Duration::from_secs(u64::from(raw.cache_keep_hours.unwrap_or(24)) * HOUR),
        sweep_blobs: days("RETOUCH_BLOBS_SWEEP_DAYS", sweep)?,
    })
}

/// `RETOUCH_RESULT_MAX_MIB` in bytes.
pub(super) fn result_max(raw: &Raw) -> u64 {
    u64::from(raw.result_max_mib.unwrap_or(256)) * 1024 * 1024
}

fn rhythm(raw: &Raw) -> Result<Rhythm> {
    ensure!(
        raw.poison_kills.is_none_or(|kills| kills >= 2),
        "RETOUCH_POISON_KILLS must be 2 or more: one process may die of anything"
    );
    ensure!(
        raw.dead_retention_days.is_none_or(|days| days <= 36_500),
        "RETOUCH_DEAD_RETENTION_DAYS must be at most 36500; 0 keeps dead letters for ever"
    );
    ensure!(raw.intake_concurrency != Some(0), "RETOUCH_INTAKE_CONCURRENCY must be 1 or more");
    let memory = raw.intake_memory_mib.unwrap_or(256);
    ensure!(
        (32..=1_048_576).contains(&memory),
        "RETOUCH_INTAKE_MEMORY_MIB must be 32 to 1048576: one picture may have 20 MiB"
    );
    let decoded = raw.decode_memory_mib.unwrap_or(DEFAULT_MIB);
    ensure!(
        (64..=1_048_576).contains(&decoded),
        "RETOUCH_DECODE_MEMORY_MIB must be 64 to 1048576; a picture that needs more than all of it runs alone"
    );
    ensure!(
        raw.result_max_mib.is_none_or(|mib| (1..=1_048_576).contains(&mib)),
        "RETOUCH_RESULT_MAX_MIB must be 1 to 1048576: what is larger is paid for and not kept"
    );
    Ok(Rhythm {
        result_max: result_max(raw),
        result_doubt: Duration::from_secs(HOUR),
        intake: raw.intake_concurrency.unwrap_or(256),
        intake_memory: usize::try_from(memory)?.saturating_mul(1024 * 1024),
        decode_memory: usize::try_from(decoded)?.saturating_mul(1024 * 1024),
        lease: seconds("LEASE", raw.lease_seconds, 30)?,
        sweep: seconds("SWEEP", raw.sweep_seconds, 5)?,
        patience: seconds("PATIENCE", raw.patience_seconds, PATIENCE.as_secs())?,
        grace: seconds("GRACE", raw.grace_seconds, 25)?,
        probe: seconds("PROBE", raw.probe_seconds, 30)?,
        poison_kills: raw.poison_kills.unwrap_or(5),
        dead_retention_days: Some(raw.dead_retention_days.unwrap_or(90)).filter(|days| *days > 0),
    })
}
