//! Settings: from the environment, then `retouch.toml`, then defaults. A choice of backend is an enum that
//! carries its own fields, so that an impossible combination is refused here, in one sentence, and nowhere
//! else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use retouch_shared::amqp::Link;
use retouch_shared::topology::Topology;
use serde::Deserialize;
use url::Url;

use self::editors::keys;
pub use self::editors::{DashscopeSettings, EditorSettings, OpenaiSettings};
pub use self::lanes::{Lane, LaneLimits, Lanes};
pub use self::offer::Offer;
pub use self::parts::Parts;
use self::read::{Raw, variable};
use crate::blobs::BlobsLocation;
use crate::sources::guard::AllowHosts;
use crate::store::DatabaseLocation;

mod editors;
mod lanes;
mod offer;
mod parts;
mod read;

/// Which broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerChoice {
    /// In the SQLite file, for one machine.
    Embedded,
    /// RabbitMQ at this URL.
    RabbitMq {
        /// `amqp://…` or `amqps://…`, with its password: never logged.
        url: String,
    },
}

impl BrokerChoice {
    /// Host, port and virtual host, for people: never with a password.
    pub fn place(&self) -> String {
        match self {
            Self::Embedded => "embedded in the SQLite file".to_owned(),
            Self::RabbitMq { url } => Link::new(url, Duration::ZERO).map_or_else(
                |_unusable| "RabbitMQ".to_owned(),
                |link| format!("{}, virtual host {}", link.address(), link.vhost()),
            ),
        }
    }
}

/// Policy for a call that may or may not have been accepted, if the provider's list cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAmbiguous {
    /// Once more, counted in `possible_duplicates`; then as `Hold`.
    #[default]
    Retry,
    /// Dead letter `ambiguous`: a person decides.
    Hold,
}

impl OnAmbiguous {
    /// Submits without an answer that a paid call may have over its whole life before a person decides.
    pub const fn most_unanswered(self) -> u32 {
        match self {
            Self::Retry => 2,
            Self::Hold => 1,
        }
    }
}

/// Timings and limits of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rhythm {
    /// Task messages in intake at once, in one process.
    pub intake: u16,
    /// Bytes of their pictures in memory at once.
    pub intake_memory: usize,
    /// Bytes of decoded pictures in memory at once.
    pub decode_memory: usize,
    /// Bytes of the largest result that is kept.
    pub result_max: u64,
    /// How long a broken result (no picture) is downloaded again before it is given up.
    pub result_doubt: Duration,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// Interval of the sweep.
    pub sweep: Duration,
    /// Age at which the sweep takes a message for lost.
    pub patience: Duration,
    /// Time for the work under way, after the first signal.
    pub grace: Duration,
    /// Delay before a blocked lane is tried again; doubled after each failed probe, up to twenty times.
    pub probe: Duration,
    /// Deaths of a process by one message or edit before it counts as poison.
    pub poison_kills: u32,
    /// Days until retried or discarded letters are deleted; `None`: never. Open ones are never deleted.
    pub dead_retention_days: Option<u32>,
}

/// Limits of the workers' automatic cache cleaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all results.
    pub max_bytes: Option<u64>,
    /// Age at which entries are evicted.
    pub max_age: Option<Duration>,
    /// Time without a hit after which entries are evicted.
    pub max_idle: Option<Duration>,
    /// Entries served more recently than this stay, whatever the limits: tasks refer to them.
    pub keep: Duration,
    /// Age at which blobs without a row are deleted.
    pub sweep_blobs: Option<Duration>,
}

/// All settings: docs/operations.md lists them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATABASE_URL`.
    pub database: DatabaseLocation,
    /// Whether it was set, not defaulted.
    pub database_given: bool,
    /// `AMQP_URL`.
    pub broker: BrokerChoice,
    /// `RETOUCH_BLOBS`.
    pub blobs: BlobsLocation,
    /// `RETOUCH_PUBLIC_URL`: base of relative result URLs.
    pub public_url: Url,
    /// Whether it was set, not derived.
    pub public_url_given: bool,
    /// `RETOUCH_HTTP`.
    pub http: Option<SocketAddr>,
    /// `RETOUCH_ALLOW_HOSTS`.
    pub allow_hosts: AllowHosts,
    /// `RETOUCH_NAMESPACE`.
    pub topology: Topology,
    /// `RETOUCH_NAME`.
    pub name: String,
    /// `RETOUCH_ON_AMBIGUOUS`.
    pub on_ambiguous: OnAmbiguous,
    /// Editors, models, routes and lanes.
    pub offer: Offer,
    /// Timings and limits.
    pub rhythm: Rhythm,
    /// Limits of the cache.
    pub cache: CacheLimits,
}

impl Settings {
    /// Reads the environment and the file.
    ///
    /// # Errors
    /// One sentence that names the setting and the fix; never a secret.
    pub fn load() -> Result<Self> {
        Parts::load()?.together()
    }

    /// Only the database setting, which is all that some commands need.
    ///
    /// # Errors
    /// As for [`Settings::load`].
    pub fn load_database() -> Result<DatabaseLocation> {
        database(Raw::read()?.database_url.as_deref())
    }

    /// Only editors, models, routes and lanes.
    ///
    /// # Errors
    /// As for [`Settings::load`].
    pub fn load_offer() -> Result<Offer> {
        Offer::decide(&mut Raw::read()?, keys(variable)?)
    }

    /// Only the HTTP address; `None` if it is off.
    ///
    /// # Errors
    /// As for [`Settings::load`].
    pub fn load_http() -> Result<Option<SocketAddr>> {
        http(Raw::read()?.http.as_deref())
    }

    /// The name of every environment variable that is a setting of this build.
    pub fn variables() -> Vec<String> {
        read::variables().map(str::to_owned).chain(editors::key_names()).collect()
    }
}

/// Workers of one queue share one database: replicas with a file each would pay for the same edit once a
/// replica.
///
/// # Errors
/// RabbitMQ without a database setting.
pub fn shares_a_database(broker: &BrokerChoice, database_given: bool) -> Result<()> {
    let alone = matches!(broker, BrokerChoice::RabbitMq { .. }) && !database_given;
    ensure!(!alone, "DATABASE_URL must be set when AMQP_URL is: all workers of a queue share one database");
    Ok(())
}

fn seconds(name: &str, given: Option<u64>, default: u64) -> Result<Duration> {
    let seconds = given.unwrap_or(default);
    // A week: longer than any sensible value, and far from an overflow.
    ensure!((1..=604_800).contains(&seconds), "RETOUCH_{name}_SECONDS must be 1 to 604800");
    Ok(Duration::from_secs(seconds))
}

fn database(url: Option<&str>) -> Result<DatabaseLocation> {
    let Some(url) = url else {
        let folders = directories::ProjectDirs::from("", "", "retouch");
        let folders = folders.context("DATABASE_URL: no home folder for the default SQLite file; set it")?;
        return Ok(DatabaseLocation::Sqlite(folders.data_dir().join("retouch.sqlite")));
    };
    database_at("DATABASE_URL", url)
}

/// Parses a database URL; `name` is the setting or argument that holds it.
///
/// # Errors
/// One sentence that names it and the fix.
pub(crate) fn database_at(name: &str, url: &str) -> Result<DatabaseLocation> {
    if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        let path = path.split('?').next().unwrap_or(path);
        ensure!(
            !path.is_empty() && path != ":memory:",
            "{name}: sqlite: needs a file, e.g. sqlite:///var/lib/retouch.sqlite"
        );
        return Ok(DatabaseLocation::Sqlite(PathBuf::from(path)));
    }
    // `mariadb://` is what people type for MariaDB.
    let url = url.strip_prefix("mariadb://").map_or_else(|| url.to_owned(), |rest| format!("mysql://{rest}"));
    ensure!(
        url.starts_with("mysql://"),
        "{name} must start with mysql://, mariadb:// or sqlite:// (postgres is not supported)"
    );
    let parsed = Url::parse(&url).map_err(|error| anyhow::anyhow!("{name} cannot be understood: {error}"))?;
    ensure!(parsed.path().len() > 1, "{name} must name a database: mysql://user:password@host/database");
    Ok(DatabaseLocation::MySql(url))
}

/// `database`: `None` if its own setting is wrong.
fn broker(url: Option<String>, database: Option<&DatabaseLocation>) -> Result<BrokerChoice> {
    match (url, database) {
        (Some(url), _) => {
            ensure!(
                url.starts_with("amqp://") || url.starts_with("amqps://"),
                "AMQP_URL must start with amqp:// or amqps://"
            );
            Ok(BrokerChoice::RabbitMq { url })
        }
        (None, Some(DatabaseLocation::Sqlite(_))) => Ok(BrokerChoice::Embedded),
        (None, Some(DatabaseLocation::MySql(_))) => {
            bail!(
                "AMQP_URL must be set when DATABASE_URL is not SQLite: the embedded broker lives in the SQLite file"
            )
        }
        (None, None) => bail!("AMQP_URL is not set, and DATABASE_URL, where the broker would be, is wrong"),
    }
}

fn blobs(location: Option<&str>, database: Option<&DatabaseLocation>) -> Result<BlobsLocation> {
    match (location, database) {
        (Some(location), _) => {
            let blobs: BlobsLocation = location.parse().context("RETOUCH_BLOBS")?;
            let shared = !matches!(blobs, BlobsLocation::Memory);
            ensure!(
                shared,
                "RETOUCH_BLOBS: memory: is for tests inside one process; give a folder or s3://bucket/prefix"
            );
            Ok(blobs)
        }
        (None, Some(DatabaseLocation::Sqlite(file))) => Ok(BlobsLocation::Folder(beside(file, "blobs")?)),
        (None, Some(DatabaseLocation::MySql(_))) => bail!(
            "RETOUCH_BLOBS must be set when DATABASE_URL is not SQLite: file:///folder shared by the replicas, or s3://bucket/prefix"
        ),
        (None, None) => {
            bail!("RETOUCH_BLOBS is not set, and DATABASE_URL, beside which they would be, is wrong")
        }
    }
}

fn beside(file: &Path, name: &str) -> Result<PathBuf> {
    let file = std::path::absolute(file).context("DATABASE_URL")?;
    Ok(file.parent().unwrap_or(Path::new("/")).join(name))
}

fn http(address: Option<&str>) -> Result<Option<SocketAddr>> {
    match address.unwrap_or("127.0.0.1:8080") {
        "off" => Ok(None),
        address => {
            let parsed = address.parse();
            Ok(Some(
                parsed
                    .with_context(|| format!("RETOUCH_HTTP must be ADDRESS:PORT or off, not {address:?}"))?,
            ))
        }
    }
}

fn public_url(
    given: Option<&str>,
    http: Option<SocketAddr>,
    blobs: Option<&BlobsLocation>,
) -> Result<(Url, bool)> {
    if let Some(given) = given {
        let url = Url::parse(given)
            .context("RETOUCH_PUBLIC_URL cannot be understood: it must be an absolute URL, as https://cdn.example.com/edits/")?;
        ensure!(
            !url.cannot_be_a_base() && url.query().is_none() && url.fragment().is_none(),
            "RETOUCH_PUBLIC_URL must be a URL that paths can be added to"
        );
        // It becomes part of every answer.
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "RETOUCH_PUBLIC_URL must not hold a user or a password: every recipient of a result sees it"
        );
        return Ok((url, true));
    }
    let url = match (http, blobs) {
        (Some(address), _) => Url::parse(&format!("http://{address}/blobs/"))?,
        (None, Some(blobs)) => blobs_url(blobs)?,
        (None, None) => {
            bail!("RETOUCH_PUBLIC_URL is not set, and RETOUCH_BLOBS, from which it follows, is wrong")
        }
    };
    Ok((url, false))
}

/// Base URL of blobs without a server: for `retouch edit`, and a worker without HTTP.
///
/// # Errors
/// A folder that is not absolute.
pub fn blobs_url(blobs: &BlobsLocation) -> Result<Url> {
    match blobs {
        BlobsLocation::Folder(folder) => {
            let folder = std::path::absolute(folder)?;
            Url::from_directory_path(&folder)
                .map_err(|()| anyhow::anyhow!("{} is not absolute", folder.display()))
        }
        BlobsLocation::S3 { bucket, prefix } => Ok(Url::parse(&format!("s3://{bucket}/{prefix}"))?),
        BlobsLocation::Memory => Ok(Url::parse("memory:///")?),
    }
}
