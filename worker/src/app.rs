//! The context of every stage: the ports, the settings, and this process's identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::activity::Activity;
use crate::bill::Bill;
use crate::blobs::{self, Blobs, BlobsLocation};
use crate::broker::{Broker, BrokerError, embedded::Embedded, rabbitmq::RabbitMq};
use crate::config::{BrokerChoice, LaneLimits, Settings};
use crate::delay::{Backoff, Pace};
use crate::edit::beside::Beside;
use crate::editor::Editor;
use crate::lanes::Gates;
use crate::media::memory;
use crate::sources::Sources;
use crate::sources::fetch::{FetchLimits, Fetcher};
use crate::store::{DatabaseLocation, LanePolicy, SchemaState, Store, StoreError};
use crate::suspects::Suspects;

mod editors;

pub use editors::editors;
pub(crate) use editors::open_editors;

/// The editors by provider kind.
pub type Editors = HashMap<&'static str, Arc<dyn Editor>>;

/// Tries to declare at start.
const DECLARE_TRIES: u32 = 5;

/// The assembled worker.
pub struct App {
    /// As set.
    pub settings: Settings,
    /// The truth.
    pub store: Store,
    /// Delivers wake-ups.
    pub broker: Arc<dyn Broker>,
    /// Picture bytes.
    pub blobs: Blobs,
    /// Pictures from outside.
    pub sources: Sources,
    /// Results from providers.
    pub results: Fetcher,
    /// By provider kind.
    pub editors: Editors,
    /// Unique to this process: the owner of its leases.
    pub owner: String,
    /// Waiting rooms of the lanes.
    pub(crate) gates: Gates,
    /// Calls whose results are fetched outside the places of their lanes.
    pub(crate) beside: Beside,
    /// Current work of this process.
    pub(crate) activity: Activity,
    /// Cost of its calls, if it keeps account.
    pub(crate) bill: Bill,
    /// Serialises suspects.
    pub(crate) suspects: Suspects,
    /// Cancelled at shutdown.
    pub shutdown: CancellationToken,
}

/// Limits for the links of an older system and for providers' results: larger and slower than producers'
/// pictures may be. The size of a result is not limited here: it is paid for, and has its own setting.
const RESULT_LIMITS: FetchLimits = FetchLimits {
    max_bytes: 64 * 1024 * 1024,
    deadline: Duration::from_secs(90),
    max_redirects: 5,
    retries: 2,
};

impl App {
    /// Opens everything and checks the schema. A SQLite file is migrated here, since it is not shared between
    /// hosts; a server's database is only migrated by `retouch migrate`.
    ///
    /// # Errors
    /// One sentence about the part that is unreachable or does not fit.
    pub async fn open(settings: Settings) -> Result<Arc<Self>> {
        crate::tls::init();
        let store = open_store(&settings).await?;
        let broker = open_broker(&settings, &store).await?;
        let app = Self::assemble(settings, store, broker).await?;
        app.bind().await?.map_err(|error| app.explain(error))?;
        Ok(app)
    }

    /// Checks that the namespace belongs to our database, and binds it if it is unbound.
    ///
    /// # Errors
    /// Outer: the database is unavailable. Inner: see [`Broker::bind`].
    pub(crate) async fn bind(&self) -> Result<Result<(), BrokerError>, StoreError> {
        let installation = self.store.installation().await?;
        Ok(self.broker.bind(&installation).await)
    }

    /// Adds the fix if the namespace belongs to another database.
    fn explain(&self, error: BrokerError) -> anyhow::Error {
        let other = matches!(error, BrokerError::OtherInstallation { .. });
        let error = anyhow::Error::new(error);
        if !other {
            return error.context("AMQP_URL");
        }
        let (database, broker) = (&self.settings.database, self.settings.broker.place());
        anyhow::anyhow!(
            "{error} (AMQP_URL: {broker}; DATABASE_URL: {database}): give this database a RETOUCH_NAMESPACE of its own; \
             or, if it is to take the other's place for good, stop the other's workers and run `retouch rebind`"
        )
    }

    /// As [`App::open`], but connects to RabbitMQ only at the first publish: for commands that only read
    /// tables.
    ///
    /// # Errors
    /// See [`App::open`].
    pub async fn open_tables(settings: Settings) -> Result<Arc<Self>> {
        crate::tls::init();
        let store = open_store(&settings).await?;
        let broker: Arc<dyn Broker> = match &settings.broker {
            BrokerChoice::RabbitMq { url } => {
                Arc::new(RabbitMq::lazy(url, settings.topology.clone()).context("AMQP_URL")?)
            }
            BrokerChoice::Embedded => open_broker(&settings, &store).await?,
        };
        Self::assemble(settings, store, broker).await
    }

    async fn assemble(settings: Settings, store: Store, broker: Arc<dyn Broker>) -> Result<Arc<Self>> {
        blobs_are_there(&settings, &store).await?;
        let blobs = Blobs::open(&settings.blobs).context("RETOUCH_BLOBS")?;
        let fetcher = Fetcher::new(settings.allow_hosts.clone(), FetchLimits::default())?;
        let editors = editors(&settings)?;
        memory::set_limit(settings.rhythm.decode_memory);
        Ok(Arc::new(Self {
            sources: Sources::new(fetcher, blobs.clone(), settings.rhythm.intake_memory),
            results: Fetcher::new(settings.allow_hosts.clone(), RESULT_LIMITS)?,
            gates: Gates::default(),
            beside: Beside::default(),
            activity: Activity::default(),
            bill: Bill::default(),
            suspects: Suspects::default(),
            store,
            broker,
            blobs,
            editors,
            owner: format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple()),
            shutdown: CancellationToken::new(),
            settings,
        }))
    }

    /// Declares queues and lanes, before a worker consumes.
    ///
    /// # Errors
    /// See the ports.
    pub async fn declare(&self) -> Result<()> {
        let lanes = self.lanes();
        self.declare_queues(&lanes).await?;
        for lane in &lanes {
            self.store.declare_lane(lane, &policy(self.lane_limits(lane))).await?;
        }
        Ok(())
    }

    /// The broker was reachable a moment ago, so a failure is retried: RabbitMQ under load answers the
    /// declaration of a quorum queue with an internal error and closes the connection.
    async fn declare_queues(&self, lanes: &[String]) -> Result<(), BrokerError> {
        let mut backoff = Backoff::new(Pace::RECONNECT);
        for _ in 1..DECLARE_TRIES {
            match self.broker.declare(lanes).await {
                Err(BrokerError::Unavailable(error)) => tracing::warn!(error, "declaring again"),
                other => return other,
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.broker.declare(lanes).await
    }

    /// The lanes that this worker serves, by name.
    pub fn lanes(&self) -> Vec<String> {
        self.settings.offer.served_lanes()
    }

    /// A lane's limits.
    pub fn lane_limits(&self, lane: &str) -> LaneLimits {
        self.settings.offer.lanes.limits(lane)
    }

    /// Concurrent calls of a lane in this process; also the prefetch of its queue.
    pub fn lane_concurrency(&self, lane: &str) -> u16 {
        let limits = self.lane_limits(lane);
        if let Some(given) = limits.concurrency {
            return given.max(1);
        }
        // Local edits need a core each; a paid call mostly waits.
        if lane == "local" {
            let cores = std::thread::available_parallelism();
            return cores.map_or(2, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
        }
        limits.max_in_flight.map_or(16, |most| u16::try_from(most).unwrap_or(u16::MAX)).max(1)
    }

    /// Why paid results of these lanes cannot be fetched now: a sentence for each lane, with the host and the
    /// setting.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn unfetched(&self, lanes: &[String]) -> Result<Vec<String>> {
        let shown = self.store.lanes().await?.into_iter().filter(|lane| lanes.contains(&lane.name));
        Ok(shown.filter_map(|lane| lane.unfetched).map(|unfetched| unfetched.notice()).collect())
    }

    /// Whether a provider fetches its input pictures from our blobs.
    pub(crate) fn serves_inputs(&self) -> bool {
        self.editors.values().any(|editor| editor.fetches_inputs())
    }

    /// A result reference as a URL for people and producers.
    pub fn resolve(&self, reference: &str) -> String {
        resolve(&self.settings.public_url, reference)
    }
}

/// The limits of a lane that the store enforces; `concurrency` is local to this process.
fn policy(limits: LaneLimits) -> LanePolicy {
    let LaneLimits { concurrency: _, max_in_flight, submit_interval, daily_budget, one_unresolved } = limits;
    LanePolicy { max_in_flight, submit_interval, daily_budget, one_unresolved }
}

/// A result reference against a public base.
pub fn resolve(base: &Url, reference: &str) -> String {
    blobs::resolve(base, reference)
}

/// An unmounted folder looks like a folder that was never created. Creating it beside a database that has
/// results would make every one of them paid again.
async fn blobs_are_there(settings: &Settings, store: &Store) -> Result<()> {
    let BlobsLocation::Folder(folder) = &settings.blobs else { return Ok(()) };
    if folder.exists() || store.newest_results(1).await?.is_empty() {
        return Ok(());
    }
    let folder = folder.display();
    bail!(
        "RETOUCH_BLOBS: {folder} is not there, and the database has results that were kept in it: mount it, or name its new place; \
         if they are gone for good, make the folder, and they are paid for again when they are asked for"
    )
}

/// Opens the database without a check of its schema.
///
/// # Errors
/// Why it is unreachable, and the setting that names it.
pub async fn connect_store(database: &DatabaseLocation) -> Result<Store> {
    let store = Store::connect(database, 16).await.map_err(|error| match database {
        DatabaseLocation::MySql(_) => {
            let why = error.to_string();
            let fix = crate::doctor::database::fix(&why);
            anyhow::anyhow!("{why}; {fix}")
        }
        DatabaseLocation::Sqlite(_) => error.into(),
    });
    store.with_context(|| format!("DATABASE_URL ({database})"))
}

/// Opens the database and checks its schema.
///
/// # Errors
/// The fault, and the command that repairs it.
pub async fn open_store(settings: &Settings) -> Result<Store> {
    let store = connect_store(&settings.database).await?.with_patience(settings.rhythm.patience);
    let state = match &settings.database {
        DatabaseLocation::Sqlite(_) => store.migrate().await,
        DatabaseLocation::MySql(_) => store.schema_state().await,
    };
    let place = || format!("DATABASE_URL ({})", settings.database);
    match state.with_context(place)? {
        SchemaState::Current => Ok(store),
        other => Err(anyhow::anyhow!("{other}").context(place())),
    }
}

async fn open_broker(settings: &Settings, store: &Store) -> Result<Arc<dyn Broker>> {
    match (&settings.broker, store.sqlite_pool()) {
        (BrokerChoice::RabbitMq { url }, _) => {
            let broker = RabbitMq::connect(url, settings.topology.clone()).await.context("AMQP_URL")?;
            Ok(Arc::new(broker.with_bytes_ahead(settings.rhythm.intake_memory)))
        }
        (BrokerChoice::Embedded, Some(pool)) => {
            let broker = Embedded::beside(&pool).await?;
            Ok(Arc::new(broker.with_bytes_ahead(settings.rhythm.intake_memory)))
        }
        (BrokerChoice::Embedded, None) => bail!("AMQP_URL must be set when DATABASE_URL is not SQLite"),
    }
}
