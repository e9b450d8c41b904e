//! An older system's database, read for `retouch cache import`. It is only ever read: no row of it is locked, nothing is written,
//! and rows come in batches by their key, so that it goes on working meanwhile.
//!
//! Its tables have names of their own, so statements are put together here, as nowhere else: names come from its catalogue and are
//! quoted, values are bound.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::DatabaseLocation;
use super::db::DbError;

mod connection;
mod merged;
mod shape;
#[cfg(test)]
mod tests;

use connection::{Cell, Connection};
pub use merged::{MergedGroup, MergedPrompts};
pub use shape::{Fields, Layout, Named, ROLES, Shape};

/// Rows that are read together.
const BATCH: usize = 500;
/// Rows that are looked at to find out how the members of a JSON list are called.
const SAMPLE: usize = 200;
/// Where a JSON object may have its list of images.
const LISTS: [&str; 4] = ["images", "results", "items", "data"];

/// Why an older system's tables cannot be read.
#[derive(Debug, Error)]
pub enum OlderError {
    /// It cannot be asked now.
    #[error("the older system's database is unreachable: {0}")]
    Unavailable(String),
    /// It refused a statement.
    #[error("the older system's database refused a statement: {0}")]
    Failed(String),
    /// It holds no table that is understood: a person must say more.
    #[error("{0}")]
    NotUnderstood(String),
}

impl From<DbError> for OlderError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(text) | DbError::Conflict(text) => Self::Unavailable(text),
            DbError::Duplicate(text) | DbError::Failed(text) => Self::Failed(text),
        }
    }
}

/// One result of the older system, as it has it: nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderImage {
    /// Where it was found, for people.
    pub place: String,
    /// Of the input picture.
    pub image_hash: Option<String>,
    /// The operation.
    pub edit_type: Option<String>,
    /// As it was given.
    pub prompt: String,
    /// Where the result is.
    pub result_url: Option<String>,
    /// How often it was served.
    pub hits: u64,
}

/// What a run reads: the rows up to here. Later ones are for the next run.
#[derive(Debug, Clone)]
pub struct Extent {
    /// How many rows there are.
    pub rows: u64,
    last: Option<String>,
}

/// The rows of one batch.
#[derive(Debug)]
pub struct Batch {
    /// So many rows.
    pub rows: u64,
    /// What they hold.
    pub images: Vec<OlderImage>,
    /// Where the next batch goes on; none after the last.
    pub after: Option<String>,
}

/// An older system's database.
pub struct OlderSystem {
    connection: Connection,
}

impl OlderSystem {
    /// Connects, for reading only.
    ///
    /// # Errors
    /// [`OlderError`].
    pub async fn connect(location: &DatabaseLocation) -> Result<Self, OlderError> {
        Ok(Self { connection: Connection::open(location).await? })
    }

    /// Finds the table, and what its columns mean.
    ///
    /// # Errors
    /// [`OlderError::NotUnderstood`], naming what is missing.
    pub async fn layout(&self, named: &Named) -> Result<Layout, OlderError> {
        let tables = self.connection.tables().await?;
        let table = shape::choose(&tables, named)?;
        let columns = self.connection.columns(&table).await?;
        let mut layout = shape::recognise(&table, &columns, named)?;
        layout.key = self.connection.key(&table, &columns).await?;
        layout.ignored.retain(|name| *name != layout.key.column);
        layout.others = tables.into_iter().filter(|other| *other != table && shape::usual(other)).collect();
        if layout.shape == Shape::TasksJson {
            layout.fields = Some(self.fields(&layout, named).await?);
        }
        Ok(layout)
    }

    /// How the members of the JSON list are called. For the whole table, since a member that one element lacks must not be taken
    /// from one of another meaning.
    async fn fields(&self, layout: &Layout, named: &Named) -> Result<Fields, OlderError> {
        let results = layout.column("results");
        let rows = self.connection.rows(layout, &[results], None, None, SAMPLE).await?;
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        for row in &rows {
            for element in elements(row.get(1).and_then(Cell::as_deref)).unwrap_or_default() {
                for name in element.as_object().into_iter().flat_map(|members| members.keys()) {
                    *names.entry(name.clone()).or_default() += 1;
                }
            }
        }
        shape::fields(layout, &names, named, rows.is_empty())
    }

    /// What there is to read now.
    ///
    /// # Errors
    /// [`OlderError`].
    pub async fn extent(&self, layout: &Layout) -> Result<Extent, OlderError> {
        let (rows, last) = self.connection.extent(layout).await?;
        Ok(Extent { rows, last })
    }

    /// The next rows, in the order of their key.
    ///
    /// # Errors
    /// [`OlderError`].
    pub async fn batch(
        &self,
        layout: &Layout,
        extent: &Extent,
        after: Option<&str>,
    ) -> Result<Batch, OlderError> {
        let Some(last) = extent.last.as_deref() else {
            return Ok(Batch { rows: 0, images: Vec::new(), after: None });
        };
        let columns = layout.read_columns();
        let rows = self.connection.rows(layout, &columns, after, Some(last), BATCH).await?;
        let more = rows.len() == BATCH;
        let next = rows.last().and_then(|row| row.first().cloned().flatten()).filter(|_| more);
        let mut images = Vec::new();
        for row in &rows {
            self::images(layout, row, &mut images);
        }
        Ok(Batch { rows: rows.len() as u64, images, after: next })
    }

    /// Prompts that the older system's collation took for the same.
    ///
    /// # Errors
    /// [`OlderError`].
    pub async fn merged_prompts(&self, layout: &Layout) -> Result<Option<MergedPrompts>, OlderError> {
        merged::merged_prompts(&self.connection, layout).await
    }

    /// Hangs up.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}

/// What one row holds, by the columns of [`Layout::read_columns`]; the first cell is the key.
fn images(layout: &Layout, row: &[Cell], found: &mut Vec<OlderImage>) {
    let key = row.first().and_then(Cell::as_deref).unwrap_or_default();
    let cell = |role: &str| layout.place(role).and_then(|at| row.get(at + 1)).cloned().flatten();
    let image = |place: String, image_hash: Option<String>, result_url: Option<String>, hits| OlderImage {
        place,
        image_hash: given(image_hash),
        edit_type: given(cell("edit_type")),
        prompt: cell("prompt").unwrap_or_default(),
        result_url: given(result_url),
        hits,
    };
    match layout.shape {
        Shape::Cache => {
            let hits = cell("hit_count").and_then(|hits| hits.parse().ok()).unwrap_or_default();
            found.push(image(format!("row {key}"), cell("image_hash"), cell("result_url"), hits));
        }
        Shape::TasksJson => {
            let Some(fields) = &layout.fields else { return };
            let results = cell("results");
            let Some(elements) = elements(results.as_deref()) else {
                // A task without results is no result; what is no list is told by its place.
                if given(results).is_some_and(|text| text != "null") {
                    found.push(image(format!("row {key}: no JSON list"), None, None, 0));
                }
                return;
            };
            for (at, element) in elements.iter().enumerate() {
                let (hash, url) = (member(element, &fields.hash), member(element, &fields.url));
                found.push(image(format!("row {key}, image {at}"), hash, url, 1));
            }
        }
        Shape::TasksColumns => {
            for position in &layout.positions {
                let [hash, url] = [&position.hash, &position.url]
                    .map(|column| layout.place_of(column).and_then(|at| row.get(at + 1)).cloned().flatten());
                // A task with fewer images than there are columns.
                if given(hash.clone()).is_some() || given(url.clone()).is_some() {
                    found.push(image(format!("row {key}, image {}", position.number), hash, url, 1));
                }
            }
        }
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The images of a JSON column: a list, or an object that has one.
fn elements(text: Option<&str>) -> Option<Vec<Value>> {
    match serde_json::from_str(text?).ok()? {
        Value::Array(elements) => Some(elements),
        Value::Object(mut members) => LISTS.iter().find_map(|name| match members.remove(*name) {
            Some(Value::Array(elements)) => Some(elements),
            _ => None,
        }),
        // Twice encoded: a text that holds JSON.
        Value::String(text) => match serde_json::from_str(&text).ok()? {
            Value::Array(elements) => Some(elements),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => None,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A member by its path, e.g. `output.url`.
fn member(element: &Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(element, |value, name| value.get(name))?;
    found.as_str().map(str::to_owned)
}
