//! Migrations: which a database has, which this program needs, and what to say when they differ.

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::db::{DbError, Tx, vals};

/// Where applied migrations are recorded: a name of our own, so that another program's table is not mistaken for it.
const TABLE: &str = "retouch_migrations";
const APPLIED: &str = "SELECT version, CASE WHEN success THEN 1 ELSE 0 END FROM retouch_migrations";

/// One migration: version, name, text. MySQL commits each statement of it, so every statement there must bear to
/// be run again after a crash in the middle (`IF NOT EXISTS`).
pub(super) type Step = (i64, &'static str, &'static str);

/// For MySQL and MariaDB.
pub(super) const MYSQL: &[Step] = &[
    (1, "tables", include_str!("../../../migrations/mysql/0001_tables.sql")),
    (2, "embedded broker", include_str!("../../../migrations/mysql/0002_embedded_broker.sql")),
    (3, "lanes", include_str!("../../../migrations/mysql/0003_lanes.sql")),
    (4, "provider tasks", include_str!("../../../migrations/mysql/0004_provider_tasks.sql")),
    (5, "suspects", include_str!("../../../migrations/mysql/0005_suspects.sql")),
    (6, "dead letters", include_str!("../../../migrations/mysql/0006_dead_letters.sql")),
    (7, "replicas, cancels", include_str!("../../../migrations/mysql/0007_replicas_cancels.sql")),
    (8, "traces", include_str!("../../../migrations/mysql/0008_traces.sql")),
    (9, "the life of the cache", include_str!("../../../migrations/mysql/0009_cache_life.sql")),
    (10, "what the cache holds", include_str!("../../../migrations/mysql/0010_cache_view.sql")),
    (11, "cleaning the cache", include_str!("../../../migrations/mysql/0011_cache_cleaning.sql")),
    (12, "edges", include_str!("../../../migrations/mysql/0012_edges.sql")),
];

/// For SQLite.
pub(super) const SQLITE: &[Step] = &[
    (1, "tables", include_str!("../../../migrations/sqlite/0001_tables.sql")),
    (2, "embedded broker", include_str!("../../../migrations/sqlite/0002_embedded_broker.sql")),
    (3, "lanes", include_str!("../../../migrations/sqlite/0003_lanes.sql")),
    (4, "provider tasks", include_str!("../../../migrations/sqlite/0004_provider_tasks.sql")),
    (5, "suspects", include_str!("../../../migrations/sqlite/0005_suspects.sql")),
    (6, "dead letters", include_str!("../../../migrations/sqlite/0006_dead_letters.sql")),
    (7, "replicas, cancels", include_str!("../../../migrations/sqlite/0007_replicas_cancels.sql")),
    (8, "traces", include_str!("../../../migrations/sqlite/0008_traces.sql")),
    (9, "the life of the cache", include_str!("../../../migrations/sqlite/0009_cache_life.sql")),
    (10, "what the cache holds", include_str!("../../../migrations/sqlite/0010_cache_view.sql")),
    (11, "cleaning the cache", include_str!("../../../migrations/sqlite/0011_cache_cleaning.sql")),
    (12, "edges", include_str!("../../../migrations/sqlite/0012_edges.sql")),
];

/// What is in a database, compared with what this program needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// Ready for work.
    Current,
    /// Nothing of ours yet.
    Empty,
    /// Migrations are missing.
    Behind {
        /// The database's newest version.
        at: i64,
        /// This program's newest version.
        needs: i64,
    },
    /// A newer program has migrated it.
    Ahead {
        /// The database's newest version.
        at: i64,
        /// This program's newest version.
        knows: i64,
    },
    /// Tables of our names that no migration of ours made: an older system's.
    Foreign {
        /// Their names.
        tables: Vec<String>,
    },
}

const OUR_TABLES: &[&str] = &[
    "image_edit_cache",
    "image_edit_tasks",
    "image_edit_calls",
    "image_edit_waits",
    "lanes",
    "dead_letters",
    "provider_tasks",
];

impl SchemaState {
    /// What is in a database, compared with `steps`. `our_tables` is the dialect's query for all table names.
    pub(super) async fn read(
        connection: &mut dyn Tx,
        our_tables: &'static str,
        steps: &[Step],
    ) -> Result<Self, DbError> {
        let rows = connection.rows(our_tables, vals![]).await?;
        let tables = rows.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
        let mut applied = Vec::new();
        if tables.iter().any(|table| table == TABLE) {
            for row in connection.rows(APPLIED, vals![]).await? {
                // A version that was begun and not ended is ours, and is made up for.
                applied.push(if row.int(1)? == 1 { row.int(0)? } else { 0 });
            }
        }
        Ok(Self::of(&tables, applied, steps))
    }

    /// Whether [`Store::migrate`](super::Store::migrate) has something to do; it touches nothing else.
    pub(super) fn wants_migration(&self) -> bool {
        match self {
            Self::Empty | Self::Behind { .. } => true,
            Self::Current | Self::Ahead { .. } | Self::Foreign { .. } => false,
        }
    }

    /// Compares the tables that are there and the versions that were applied with `steps`.
    fn of(tables: &[String], applied: Vec<i64>, steps: &[Step]) -> Self {
        let needs = steps.iter().map(|step| step.0).max().unwrap_or_default();
        let Some(at) = applied.into_iter().max() else {
            let foreign = tables.iter().filter(|table| OUR_TABLES.contains(&table.as_str())).cloned();
            let tables: Vec<_> = foreign.collect();
            return if tables.is_empty() { Self::Empty } else { Self::Foreign { tables } };
        };
        match at.cmp(&needs) {
            std::cmp::Ordering::Equal => Self::Current,
            std::cmp::Ordering::Less => Self::Behind { at, needs },
            std::cmp::Ordering::Greater => Self::Ahead { at, knows: needs },
        }
    }
}

impl std::fmt::Display for SchemaState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Current => write!(f, "the database is up to date"),
            Self::Empty => write!(f, "the database has no tables of Retouch yet: run `retouch migrate`"),
            Self::Behind { at, needs } => {
                write!(f, "the database is at schema {at}, this program needs {needs}: run `retouch migrate`")
            }
            Self::Ahead { at, knows } => {
                write!(f, "the database is at schema {at}, this program knows {knows}: run a newer `retouch`")
            }
            Self::Foreign { tables } => write!(
                f,
                "the database holds {} that Retouch did not make (another system's?): nothing was touched; \
                 point DATABASE_URL at a database of its own",
                tables.join(", ")
            ),
        }
    }
}

/// Applies `steps`. The dialects keep other programs away themselves: of sqlx's locks one is none at all to MariaDB
/// (it waits for -1 seconds), and for SQLite there is none.
pub(super) async fn migrate<C: Migrate>(steps: &[Step], connection: &mut C) -> Result<(), DbError> {
    let migration = |&(version, name, sql): &Step| {
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(steps.iter().map(migration).collect());
    migrator.dangerous_set_table_name(TABLE);
    migrator.set_locking(false);
    let done = migrator.run_direct(None, connection, false).await;
    done.map_err(|error| DbError::Failed(error.to_string()))
}
