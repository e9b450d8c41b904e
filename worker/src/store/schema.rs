//! Migrations: which a database has, which this program needs, and what to say when they differ.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

/// Where applied migrations are recorded: a name of our own, so that another program's table is not mistaken for it.
pub const TABLE: &str = "retouch_migrations";
/// The versions that were applied.
pub const APPLIED: &str = "SELECT version FROM retouch_migrations WHERE success ORDER BY version";

/// One migration: version, name, text.
pub type Step = (i64, &'static str, &'static str);

/// For MySQL and MariaDB.
pub const MYSQL: &[Step] = &[(
    1,
    "tables",
    include_str!("../../../migrations/mysql/0001_tables.sql"),
)];

/// For SQLite.
pub const SQLITE: &[Step] = &[(
    1,
    "tables",
    include_str!("../../../migrations/sqlite/0001_tables.sql"),
)];

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
];

impl SchemaState {
    /// Compares the tables that are there and the versions that were applied with `steps`.
    pub fn of(tables: &[String], applied: Vec<i64>, steps: &[Step]) -> Self {
        let needs = steps.iter().map(|step| step.0).max().unwrap_or_default();
        let Some(at) = applied.into_iter().max() else {
            let foreign = tables
                .iter()
                .filter(|table| OUR_TABLES.contains(&table.as_str()))
                .cloned();
            let tables: Vec<_> = foreign.collect();
            return if tables.is_empty() {
                Self::Empty
            } else {
                Self::Foreign { tables }
            };
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
            Self::Empty => write!(
                f,
                "the database has no tables of Retouch yet: run `retouch migrate`"
            ),
            Self::Behind { at, needs } => {
                write!(
                    f,
                    "the database is at schema {at}, this program needs {needs}: run `retouch migrate`"
                )
            }
            Self::Ahead { at, knows } => {
                write!(
                    f,
                    "the database is at schema {at}, this program knows {knows}: run a newer `retouch`"
                )
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

/// The runner for a dialect's migrations.
pub fn migrator(steps: &[Step]) -> Migrator {
    let migration = |&(version, name, sql): &Step| {
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(steps.iter().map(migration).collect());
    migrator.dangerous_set_table_name(TABLE);
    migrator
}
