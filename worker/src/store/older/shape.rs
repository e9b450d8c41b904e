//! Which table of an older system holds results, and what its columns mean: told by their names, or by whoever asks.
//!
//! What must stay true: a column is only taken for what its name says, and what is missing is named.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::OlderError;

/// How an older system keeps its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One row a result: hash, edit type, prompt, URL.
    Cache,
    /// One row a task, whose results are a JSON list.
    TasksJson,
    /// One row a task, with columns for each image.
    TasksColumns,
}

impl Shape {
    /// As it is named on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::TasksJson => "tasks-json",
            Self::TasksColumns => "tasks-columns",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = [Self::Cache, Self::TasksJson, Self::TasksColumns].into_iter();
        let mut found = found.filter(|shape| shape.as_str() == text);
        found.next().ok_or_else(|| "one of cache, tasks-json, tasks-columns".to_owned())
    }
}

/// What whoever asks says of the tables; what is none is found out.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The table.
    pub table: Option<String>,
    /// The shape.
    pub shape: Option<Shape>,
    /// Columns by what they mean, see [`ROLES`].
    pub columns: BTreeMap<String, String>,
    /// The member of a JSON element that has the hash.
    pub hash_field: Option<String>,
    /// The member of a JSON element that has the URL.
    pub url_field: Option<String>,
}

/// The members of a JSON element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Has the hash.
    pub hash: String,
    /// Has the URL.
    pub url: String,
}

/// The columns of one image of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) number: u32,
    pub(super) hash: String,
    pub(super) url: String,
}

/// The column that rows are read by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) column: String,
    pub(super) is_number: bool,
}

/// A table and what its columns mean.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The table.
    pub table: String,
    /// The shape.
    pub shape: Shape,
    /// Columns by what they mean.
    pub columns: BTreeMap<&'static str, String>,
    /// Columns that say nothing about a result.
    pub ignored: Vec<String>,
    /// Of [`Shape::TasksJson`].
    pub fields: Option<Fields>,
    /// Tables of usual names that are there too.
    pub others: Vec<String>,
    pub(super) positions: Vec<Position>,
    pub(super) key: Key,
    /// Columns that hold bytes, not text.
    pub(super) binary: Vec<String>,
}

/// A column as the catalogue has it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// In lower case, e.g. `varchar`.
    pub(super) kind: String,
}

impl Column {
    fn is_binary(&self) -> bool {
        ["binary", "varbinary", "blob", "tinyblob", "mediumblob", "longblob"].contains(&self.kind.as_str())
    }
}

/// What is looked for, and the names that it goes by, the surest first.
const NAMES: &[(&str, &[&str])] = &[
    (
        "image_hash",
        &["image_hash", "hash", "image_sha256", "sha256", "input_hash", "source_hash", "img_hash"],
    ),
    ("edit_type", &["edit_type", "operation", "edit_kind", "type"]),
    ("prompt", &["prompt", "edit_prompt"]),
    ("result_url", &["result_url", "output_url", "edited_url", "result_image_url", "url"]),
    ("hit_count", &["hit_count", "hits", "use_count", "usage_count", "used_count"]),
    ("results", &["results", "result", "results_json", "result_json", "image_results", "images", "output"]),
];
/// What `--column` can name.
pub const ROLES: [&str; 6] = ["image_hash", "edit_type", "prompt", "result_url", "hit_count", "results"];
/// The members of a JSON element, the surest first.
const HASH_FIELDS: &[&str] =
    &["image_hash", "hash", "image_sha256", "sha256", "input_hash", "source_hash", "original_hash"];
const URL_FIELDS: &[&str] = &["result_url", "output_url", "edited_url", "result_image_url", "url", "result"];
/// Columns of one image, without their number and underscores, the surest first.
const HASH_COLUMNS: &[&str] = &["imagehash", "imagesha", "imghash", "hash", "sha", "inputhash", "sourcehash"];
const URL_COLUMNS: &[&str] = &[
    "imageresulturl",
    "imgresulturl",
    "resulturl",
    "imageoutputurl",
    "outputurl",
    "imageeditedurl",
    "editedurl",
    "imageresult",
    "resultimageurl",
    "imageurl",
    "imgurl",
    "url",
];
/// What an older system calls its tables.
const TABLES: [&str; 2] = ["image_edit_cache", "image_edit_tasks"];

pub(super) fn usual(table: &str) -> bool {
    TABLES.contains(&table.to_ascii_lowercase().as_str())
}

/// The table that is asked for; otherwise the cache before the tasks.
pub(super) fn choose(tables: &[String], named: &Named) -> Result<String, OlderError> {
    if let Some(wanted) = &named.table {
        let found = tables.iter().find(|table| *table == wanted);
        return found.cloned().ok_or_else(|| {
            OlderError::NotUnderstood(format!(
                "--table {wanted}: no such table; there are {}",
                listed(tables.iter().map(String::as_str))
            ))
        });
    }
    let wanted = match named.shape {
        None => &TABLES[..],
        Some(Shape::Cache) => &TABLES[..1],
        Some(Shape::TasksJson | Shape::TasksColumns) => &TABLES[1..],
    };
    let found = wanted.iter().find_map(|name| tables.iter().find(|table| table.eq_ignore_ascii_case(name)));
    found.cloned().ok_or_else(|| {
        OlderError::NotUnderstood(format!(
            "there is no table {}; name the one that holds the results with --table; there are {}",
            wanted.join(" or "),
            listed(tables.iter().map(String::as_str))
        ))
    })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(30).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What the columns mean.
pub(super) fn recognise(table: &str, columns: &[Column], named: &Named) -> Result<Layout, OlderError> {
    if columns.iter().any(|column| column.name == "edit_key" || column.name == "request_hash") {
        return Err(OlderError::NotUnderstood(format!(
            "{table} is Retouch's own: --from names the older system's database, DATABASE_URL this one's; where both systems had the \
             same database, Retouch needs one of its own"
        )));
    }
    let found = roles(table, columns, named)?;
    let positions = positions(columns);
    let has = |role: &str| found.contains_key(role);
    let shape = match named.shape {
        Some(shape) => shape,
        None if has("image_hash") && has("result_url") => Shape::Cache,
        None if !positions.is_empty() => Shape::TasksColumns,
        None if has("results") => Shape::TasksJson,
        None => return Err(unrecognised(table, columns)),
    };
    let (needs, may): (&[&str], &[&str]) = match shape {
        Shape::Cache => (&["image_hash", "edit_type", "prompt", "result_url"], &["hit_count"]),
        Shape::TasksJson => (&["edit_type", "prompt", "results"], &[]),
        Shape::TasksColumns => (&["edit_type", "prompt"], &[]),
    };
    let missing: Vec<_> = needs.iter().filter(|role| !has(role)).collect();
    if let Some(role) = missing.first() {
        return Err(OlderError::NotUnderstood(format!(
            "{table} as {shape}: there is no column for {}; it has {}; name one with --column {role}=NAME",
            listed(missing.iter().map(|role| **role)),
            listed(columns.iter().map(|column| column.name.as_str()))
        )));
    }
    if shape == Shape::TasksColumns && positions.is_empty() {
        return Err(OlderError::NotUnderstood(format!(
            "{table} as {shape}: there are no columns such as image_1_hash and image_1_result_url; it has {}",
            listed(columns.iter().map(|column| column.name.as_str()))
        )));
    }
    let wanted = |role: &&str| needs.contains(role) || may.contains(role);
    let columns_by_role: BTreeMap<_, _> = found.into_iter().filter(|(role, _)| wanted(role)).collect();
    let positions = if shape == Shape::TasksColumns { positions } else { Vec::new() };
    let used = |name: &String| {
        columns_by_role.values().any(|column| column == name)
            || positions.iter().any(|position| position.hash == *name || position.url == *name)
    };
    Ok(Layout {
        table: table.to_owned(),
        shape,
        ignored: columns.iter().map(|column| column.name.clone()).filter(|name| !used(name)).collect(),
        columns: columns_by_role,
        fields: None,
        others: Vec::new(),
        positions,
        key: Key::default(),
        binary: columns
            .iter()
            .filter(|column| column.is_binary())
            .map(|column| column.name.clone())
            .collect(),
    })
}

fn unrecognised(table: &str, columns: &[Column]) -> OlderError {
    OlderError::NotUnderstood(format!(
        "{table} is of no shape that is known: neither image_hash and result_url (cache), nor results (tasks-json), nor image_1_hash and \
         image_1_result_url (tasks-columns) are there; it has {}; say which with --shape and --column",
        listed(columns.iter().map(|column| column.name.as_str()))
    ))
}

/// Columns by what they mean: as named, or by their usual names.
fn roles(
    table: &str,
    columns: &[Column],
    named: &Named,
) -> Result<BTreeMap<&'static str, String>, OlderError> {
    let column = |name: &str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    let mut roles = BTreeMap::new();
    for (role, names) in NAMES {
        let found = match named.columns.get(*role) {
            Some(name) => Some(column(name).ok_or_else(|| {
                OlderError::NotUnderstood(format!("--column {role}={name}: {table} has no such column"))
            })?),
            None => names.iter().find_map(|name| column(name)),
        };
        if let Some(found) = found {
            roles.insert(*role, found.name.clone());
        }
    }
    Ok(roles)
}

/// The columns of each image, by its number.
fn positions(columns: &[Column]) -> Vec<Position> {
    let numbered: Vec<(u32, String, &str)> = columns
        .iter()
        .filter_map(|column| {
            numbered(&column.name).map(|(number, word)| (number, word, column.name.as_str()))
        })
        .collect();
    let find = |number: u32, words: &[&str]| {
        let of = |word: &str| numbered.iter().find(|(n, found, _)| *n == number && found == word);
        words.iter().find_map(|word| of(word)).map(|(_, word, name)| (word.clone(), (*name).to_owned()))
    };
    let mut numbers: Vec<u32> = numbered.iter().map(|(number, ..)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut positions = Vec::new();
    let mut words: Option<(String, String)> = None;
    for number in numbers {
        // As the first one is called, so are all: a missing result must not be taken from a column of another meaning.
        let found = match &words {
            None => (find(number, HASH_COLUMNS), find(number, URL_COLUMNS)),
            Some((hash, url)) => (find(number, &[hash.as_str()]), find(number, &[url.as_str()])),
        };
        if let (Some((hash_word, hash)), Some((url_word, url))) = found {
            words = Some((hash_word, url_word));
            positions.push(Position { number, hash, url });
        }
    }
    positions
}

/// The number in a column's name, and the name without it and without underscores.
fn numbered(name: &str) -> Option<(u32, String)> {
    // The digits of a digest's name are no position.
    let name = name.to_ascii_lowercase().replace("sha256", "sha");
    let begin = name.find(|c: char| c.is_ascii_digit())?;
    let end = name[begin..].find(|c: char| !c.is_ascii_digit()).map_or(name.len(), |length| begin + length);
    let number = name[begin..end].parse().ok()?;
    Some((number, format!("{}{}", &name[..begin], &name[end..]).replace('_', "")))
}

/// The members of the JSON elements, of those that some element has.
pub(super) fn fields(
    layout: &Layout,
    there: &BTreeMap<String, u64>,
    named: &Named,
    is_empty: bool,
) -> Result<Fields, OlderError> {
    let find = |given: &Option<String>, names: &[&str], what: &str, option: &str| {
        if let Some(given) = given {
            return Ok(given.clone());
        }
        let found = names.iter().find(|name| there.contains_key(**name));
        match found {
            Some(found) => Ok((*found).to_owned()),
            // Nothing is to be read, so nothing is missing.
            None if is_empty => Ok(names.first().copied().unwrap_or_default().to_owned()),
            None => Err(OlderError::NotUnderstood(format!(
                "{}.{}: the elements of its lists have no member for the {what}; they have {}; name it with {option} NAME",
                layout.table,
                layout.column("results"),
                listed(there.keys().map(String::as_str))
            ))),
        }
    };
    Ok(Fields {
        hash: find(&named.hash_field, HASH_FIELDS, "hash of the picture", "--hash-field")?,
        url: find(&named.url_field, URL_FIELDS, "URL of the result", "--url-field")?,
    })
}

impl Layout {
    /// The column of this meaning; empty where there is none.
    pub(super) fn column(&self, role: &str) -> &str {
        self.columns.get(role).map_or("", String::as_str)
    }

    /// Every column that is read, the key apart.
    pub(super) fn read_columns(&self) -> Vec<&str> {
        let of_positions = self.positions.iter().flat_map(|position| [&position.hash, &position.url]);
        self.columns.values().chain(of_positions).map(String::as_str).collect()
    }

    /// Where a column of this meaning is among [`Layout::read_columns`].
    pub(super) fn place(&self, role: &str) -> Option<usize> {
        self.columns.keys().position(|found| *found == role)
    }

    /// Where this column is among [`Layout::read_columns`].
    pub(super) fn place_of(&self, column: &str) -> Option<usize> {
        self.read_columns().iter().position(|found| *found == column)
    }

    /// For people: what is read, and as what.
    pub fn described(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> =
            self.columns.iter().map(|(role, column)| ((*role).to_owned(), column.clone())).collect();
        if let Some(fields) = &self.fields {
            lines.push(("hash of an image".to_owned(), fields.hash.clone()));
            lines.push(("result of an image".to_owned(), fields.url.clone()));
        }
        for position in &self.positions {
            lines
                .push((format!("image {}", position.number), format!("{}, {}", position.hash, position.url)));
        }
        lines
    }
}
