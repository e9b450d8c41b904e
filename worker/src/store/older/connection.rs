//! The connection to an older system: MySQL, MariaDB or a SQLite file, opened for reading only.

use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::shape::{Column, Key, Layout};
use super::{DatabaseLocation, OlderError};
use crate::store::db::DbError;
use crate::store::{mysql, sqlite};

/// A value as text.
pub(super) type Cell = Option<String>;

/// How long a server may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// An older system's database.
pub(super) enum Connection {
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// A value that a statement is asked with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    Text(&'a str),
    Number(i64),
}

/// A name between the quotes of its dialect.
fn quoted(name: &str, quote: char) -> String {
    let mut text = String::from(quote);
    for c in name.chars() {
        text.push(c);
        if c == quote {
            text.push(c);
        }
    }
    text.push(quote);
    text
}

impl Connection {
    /// # Errors
    /// [`OlderError`].
    pub(super) async fn open(location: &DatabaseLocation) -> Result<Self, OlderError> {
        match location {
            DatabaseLocation::MySql(url) => {
                mysql::reach(url).await?;
                let options = mysql::options(url)?.charset("utf8mb4").collation("utf8mb4_bin");
                let pool = MySqlPoolOptions::new().max_connections(2).acquire_timeout(CONNECT);
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move {
                        // Statement by statement, so that it keeps no old versions of rows for us; and the server itself refuses writes.
                        connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                        connection.execute("SET SESSION TRANSACTION READ ONLY").await?;
                        Ok(())
                    })
                });
                Ok(Self::MySql(pool.connect_lazy_with(options)))
            }
            DatabaseLocation::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).read_only(true);
                let options = options.busy_timeout(Duration::from_secs(20));
                let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await;
                Ok(Self::Sqlite(pool.map_err(sqlite::error)?))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::MySql(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }

    pub(super) const fn is_mysql(&self) -> bool {
        matches!(self, Self::MySql(_))
    }

    /// Runs a query whose every column is text.
    pub(super) async fn ask(&self, sql: String, values: &[Asked<'_>]) -> Result<Vec<Vec<Cell>>, OlderError> {
        macro_rules! fetched {
            ($pool:expr, $row:ty, $error:expr) => {{
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for value in values {
                    query = match *value {
                        Asked::Text(text) => query.bind(text),
                        Asked::Number(number) => query.bind(number),
                    };
                }
                let rows = query.fetch_all($pool).await.map_err($error)?;
                let cells = |row: &$row| cells(row.len(), |at| row.try_get_unchecked(at));
                rows.iter().map(cells).collect::<Result<_, _>>()
            }};
        }
        match self {
            Self::MySql(pool) => fetched!(pool, MySqlRow, mysql::error),
            Self::Sqlite(pool) => fetched!(pool, SqliteRow, sqlite::error),
        }
    }

    pub(super) fn name(&self, name: &str) -> String {
        quoted(name, if self.is_mysql() { '`' } else { '"' })
    }

    /// A column as text; bytes in hexadecimal digits.
    fn text_of(&self, column: &str, is_binary: bool) -> String {
        let name = self.name(column);
        match self {
            Self::MySql(_) if is_binary => format!("LOWER(HEX({name}))"),
            Self::MySql(_) => format!("CAST({name} AS CHAR)"),
            Self::Sqlite(_) => {
                format!(
                    "CASE typeof({name}) WHEN 'blob' THEN lower(hex({name})) ELSE CAST({name} AS TEXT) END"
                )
            }
        }
    }

    /// The names of all tables and views.
    pub(super) async fn tables(&self) -> Result<Vec<String>, OlderError> {
        let sql = match self {
            Self::MySql(_) => {
                "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name"
            }
            Self::Sqlite(_) => {
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
            }
        };
        let rows = self.ask(sql.to_owned(), &[]).await?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    pub(super) async fn columns(&self, table: &str) -> Result<Vec<Column>, OlderError> {
        let sql = match self {
            Self::MySql(_) => {
                "SELECT CAST(column_name AS CHAR), CAST(data_type AS CHAR) FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position"
            }
            Self::Sqlite(_) => "SELECT name, lower(type) FROM pragma_table_info(?) ORDER BY cid",
        };
        let rows = self.ask(sql.to_owned(), &[Asked::Text(table)]).await?;
        let column = |row: Vec<Cell>| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            Column { name: cells.next().unwrap_or_default(), kind: cells.next().unwrap_or_default() }
        };
        Ok(rows.into_iter().map(column).collect())
    }

    /// The column that rows are read by: unique, never empty, and in the order of an index.
    pub(super) async fn key(&self, table: &str, columns: &[Column]) -> Result<Key, OlderError> {
        let sql = match self {
            Self::MySql(_) => {
                "SELECT CAST(MIN(s.column_name) AS CHAR) FROM information_schema.statistics s \
                WHERE s.table_schema = DATABASE() AND s.table_name = ? AND s.non_unique = 0 \
                GROUP BY s.index_name HAVING COUNT(*) = 1 AND MAX(s.nullable) = '' AND MAX(s.sub_part) IS NULL \
                ORDER BY s.index_name = 'PRIMARY' DESC, s.index_name LIMIT 1"
            }
            Self::Sqlite(_) => {
                "SELECT CASE WHEN COUNT(*) = 1 AND MIN(upper(type)) = 'INTEGER' THEN MIN(name) ELSE 'rowid' END \
                FROM pragma_table_info(?) WHERE pk > 0"
            }
        };
        let rows = self.ask(sql.to_owned(), &[Asked::Text(table)]).await?;
        let Some(column) = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()) else {
            return Err(OlderError::NotUnderstood(format!(
                "{table} has no primary or unique key of one column that is never NULL, by which it could be read in steps; add one, or \
                 name a copy of the table that has one with --table"
            )));
        };
        let kind = columns.iter().find(|found| found.name == column).map(|found| found.kind.as_str());
        let is_number = !self.is_mysql()
            || kind.is_some_and(|kind| ["tinyint", "smallint", "mediumint", "int", "bigint"].contains(&kind));
        Ok(Key { column, is_number })
    }

    /// How many rows there are, and the last key.
    pub(super) async fn extent(&self, layout: &Layout) -> Result<(u64, Cell), OlderError> {
        let (key, table) = (self.name(&layout.key.column), self.name(&layout.table));
        let kind = if self.is_mysql() { "CHAR" } else { "TEXT" };
        let sql = format!("SELECT CAST(COUNT(*) AS {kind}), CAST(MAX({key}) AS {kind}) FROM {table}");
        let rows = self.ask(sql, &[]).await?;
        let mut cells = rows.into_iter().flatten();
        let count = cells.next().flatten().and_then(|count| count.parse().ok()).unwrap_or_default();
        Ok((count, cells.next().flatten()))
    }

    /// Rows after a key, in its order: the key itself as text, then these columns.
    pub(super) async fn rows(
        &self,
        layout: &Layout,
        columns: &[&str],
        after: Option<&str>,
        last: Option<&str>,
        most: usize,
    ) -> Result<Vec<Vec<Cell>>, OlderError> {
        let key = self.name(&layout.key.column);
        let mut read = vec![self.text_of(&layout.key.column, false)];
        for column in columns {
            read.push(self.text_of(column, layout.binary.iter().any(|binary| binary == column)));
        }
        let bounds = [(after, ">"), (last, "<=")];
        let bounds: Vec<(&str, &str)> =
            bounds.into_iter().filter_map(|(at, sign)| Some((at?, sign))).collect();
        let mut values = Vec::new();
        for (bound, _) in &bounds {
            values.push(match layout.key.is_number.then(|| bound.parse()) {
                None => Asked::Text(bound),
                Some(Ok(number)) => Asked::Number(number),
                Some(Err(_)) => {
                    let text = format!("the key {bound} of {} is larger than can be read", layout.table);
                    return Err(OlderError::Failed(text));
                }
            });
        }
        let conditions: Vec<_> = bounds.iter().map(|(_, sign)| format!("{key} {sign} ?")).collect();
        let condition = match conditions.join(" AND ") {
            none if none.is_empty() => none,
            some => format!(" WHERE {some}"),
        };
        let (read, table) = (read.join(", "), self.name(&layout.table));
        self.ask(format!("SELECT {read} FROM {table}{condition} ORDER BY {key} LIMIT {most}"), &values).await
    }
}

fn cells(count: usize, get: impl Fn(usize) -> Result<Cell, sqlx::Error>) -> Result<Vec<Cell>, OlderError> {
    let read = |at| get(at).map_err(|error| DbError::Failed(error.to_string()).into());
    (0..count).map(read).collect()
}
