//! Prompts that an older system could not tell apart: its collation, or the part of the prompt that its unique key has, made them one.
//! Its own database is asked, since only that knows its collation.

use super::connection::{Cell, Connection};
use super::shape::{Layout, Shape};
use super::{OlderError, shape};
use crate::store::older::connection::Asked;

/// Most groups that are told.
const MOST: usize = 1000;

/// Prompts of tasks that were one prompt to the older system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedPrompts {
    /// Whose prompts were compared.
    pub table: String,
    /// By which collation.
    pub collation: String,
    /// The characters that its unique key compares; none: all of them.
    pub characters: Option<u32>,
    /// Edit type and two of the spellings, and how many there are.
    pub groups: Vec<MergedGroup>,
}

/// Spellings that were one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedGroup {
    /// The operation.
    pub edit_type: String,
    /// Two of them.
    pub spellings: [String; 2],
    /// How many there are.
    pub count: u64,
}

/// How the cache of the older system compares prompts.
struct Comparison {
    charset: String,
    collation: String,
    characters: Option<u32>,
}

/// None where no table tells which prompts were asked for.
pub(super) async fn merged_prompts(
    connection: &Connection,
    layout: &Layout,
) -> Result<Option<MergedPrompts>, OlderError> {
    let Some((tasks, edit_type, prompt)) = asked_in(connection, layout).await? else { return Ok(None) };
    let (comparison, sql) = if connection.is_mysql() {
        let of =
            cache_of(layout).map_or((tasks.as_str(), prompt.as_str()), |(table, column)| (table, column));
        let comparison = comparison(connection, of.0, of.1).await?;
        let sql = mysql_groups(connection, &comparison, &tasks, &edit_type, &prompt);
        (comparison, sql)
    } else {
        let comparison =
            Comparison { charset: String::new(), collation: "the column's".to_owned(), characters: None };
        (comparison, sqlite_groups(connection, &tasks, &edit_type, &prompt))
    };
    let rows = connection.ask(sql, &[]).await?;
    let groups = rows.into_iter().filter_map(group).collect();
    let Comparison { charset: _, collation, characters } = comparison;
    Ok(Some(MergedPrompts { table: tasks, collation, characters, groups }))
}

/// The table that has every prompt as it was asked for, and its columns.
async fn asked_in(
    connection: &Connection,
    layout: &Layout,
) -> Result<Option<(String, String, String)>, OlderError> {
    if layout.shape != Shape::Cache {
        let columns = (layout.column("edit_type").to_owned(), layout.column("prompt").to_owned());
        return Ok(Some((layout.table.clone(), columns.0, columns.1)));
    }
    let Some(tasks) = layout.others.first() else { return Ok(None) };
    let columns = connection.columns(tasks).await?;
    let there = |names: [&str; 2]| {
        let found = |name: &&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        names.into_iter().find(|name| found(name)).map(str::to_owned)
    };
    let found = (there(["edit_type", "operation"]), there(["prompt", "edit_prompt"]));
    Ok(match found {
        (Some(edit_type), Some(prompt)) => Some((tasks.clone(), edit_type, prompt)),
        _ => None,
    })
}

/// The cache's table and its prompt: what the older system looked up in.
fn cache_of(layout: &Layout) -> Option<(&str, &str)> {
    match layout.shape {
        Shape::Cache => Some((&layout.table, layout.column("prompt"))),
        Shape::TasksJson | Shape::TasksColumns => {
            layout.others.iter().find(|other| shape::usual(other)).map(|table| (table.as_str(), "prompt"))
        }
    }
}

async fn comparison(connection: &Connection, table: &str, column: &str) -> Result<Comparison, OlderError> {
    let collation = connection
        .ask(
            "SELECT CAST(character_set_name AS CHAR), CAST(collation_name AS CHAR) FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?"
                .to_owned(),
            &[Asked::Text(table), Asked::Text(column)],
        )
        .await?;
    let part = connection
        .ask(
            "SELECT CAST(MAX(sub_part) AS CHAR) FROM information_schema.statistics \
             WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ? AND non_unique = 0"
                .to_owned(),
            &[Asked::Text(table), Asked::Text(column)],
        )
        .await?;
    let first = |rows: Vec<Vec<Cell>>| rows.into_iter().next().unwrap_or_default().into_iter();
    let mut collation = first(collation).map(|cell| cell.unwrap_or_else(|| "binary".to_owned()));
    let charset = collation.next().unwrap_or_else(|| "binary".to_owned());
    let collation = collation.next().unwrap_or_else(|| "binary".to_owned());
    let characters = first(part).next().flatten().and_then(|part| part.parse().ok());
    Ok(Comparison { charset, collation, characters })
}

fn mysql_groups(
    connection: &Connection,
    comparison: &Comparison,
    tasks: &str,
    edit_type: &str,
    prompt: &str,
) -> String {
    let [tasks, edit_type, prompt] = [tasks, edit_type, prompt].map(|name| connection.name(name));
    let Comparison { charset, collation, characters } = comparison;
    // Its names come from the server's catalogue; a word is all that they can be.
    let word =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let compared = format!("CONVERT({prompt} USING {}) COLLATE {}", word(charset), word(collation));
    let compared = match characters {
        Some(characters) => format!("LEFT({compared}, {characters})"),
        None => compared,
    };
    // What differs in white space around it alone is one prompt to us too.
    let exact = format!("CAST(TRIM({prompt}) AS BINARY)");
    let text = |of: &str| format!("CAST(CONVERT({of} USING utf8mb4) AS CHAR)");
    format!(
        "SELECT CAST({edit_type} AS CHAR), {}, {}, CAST(COUNT(DISTINCT {exact}) AS CHAR) FROM {tasks} WHERE {prompt} IS NOT NULL \
         GROUP BY {edit_type}, {compared} HAVING COUNT(DISTINCT {exact}) > 1 ORDER BY COUNT(*) DESC LIMIT {MOST}",
        text(&format!("MIN({exact})")),
        text(&format!("MAX({exact})")),
    )
}

fn sqlite_groups(connection: &Connection, tasks: &str, edit_type: &str, prompt: &str) -> String {
    let [tasks, edit_type, prompt] = [tasks, edit_type, prompt].map(|name| connection.name(name));
    let exact = format!("CAST(trim({prompt}) AS BLOB)");
    format!(
        "SELECT CAST({edit_type} AS TEXT), CAST(MIN({exact}) AS TEXT), CAST(MAX({exact}) AS TEXT), CAST(COUNT(DISTINCT {exact}) AS TEXT) \
         FROM {tasks} WHERE {prompt} IS NOT NULL GROUP BY {edit_type}, {prompt} HAVING COUNT(DISTINCT {exact}) > 1 \
         ORDER BY COUNT(*) DESC LIMIT {MOST}"
    )
}

fn group(row: Vec<Cell>) -> Option<MergedGroup> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    Some(MergedGroup {
        edit_type: next().unwrap_or_default(),
        spellings: [next()?, next()?],
        count: next()?.parse().ok()?,
    })
}
