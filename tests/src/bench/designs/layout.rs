//! The ways to lay a cache of edits out in tables, and the statements of each.
//!
//! Picture `n` is everywhere the same: its hash is SHA-256 of `image{n}`, its result's of `result{n}`. The tasks that tables are
//! filled with have one to eight images in turn, all different: eight tasks hold 36 images.

use std::fmt::Write as _;

use retouch_shared::key::Digest32;
use serde_json::json;

use super::super::filled::image;

/// Positions that a task row has a column for.
pub const POSITIONS: usize = 8;
/// Images in as many tasks as there are positions.
pub const IN_A_BLOCK: u64 = 36;

/// A layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A cache row for each edit, beside the task rows.
    Cache,
    /// Task rows with a JSON array of hashes and one of results.
    Json,
    /// The same with a full-text index over the array's text.
    JsonFullText,
    /// Task rows with a column, and an index, for each position.
    Columns,
}

/// How a layout is asked for one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By the edit key.
    Key,
    /// Every row's array is searched.
    Search,
    /// By an index over the first picture of each array: all that a generated column can say, because MariaDB has no index
    /// over the members of an array.
    First,
    /// By the full-text index.
    FullText,
    /// Whether any of the columns has it.
    AnyColumn,
    /// Whether the column of the same position has it.
    SameColumn,
}

impl How {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "by edit key",
            Self::Search => "JSON_CONTAINS over all rows",
            Self::First => "generated column: first picture only",
            Self::FullText => "full-text index",
            Self::AnyColumn => "any of eight columns",
            Self::SameColumn => "the same position's column",
        }
    }
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cache, Self::Json, Self::JsonFullText, Self::Columns];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "independent cache table",
            Self::Json => "task rows, JSON array",
            Self::JsonFullText => "task rows, JSON array, full-text index",
            Self::Columns => "task rows, a column a position",
        }
    }

    /// The ways to ask it.
    #[must_use]
    pub const fn ways(self) -> &'static [How] {
        match self {
            Self::Cache => &[How::Key],
            Self::Json => &[How::Search, How::First],
            Self::JsonFullText => &[How::FullText],
            Self::Columns => &[How::AnyColumn, How::SameColumn],
        }
    }

    /// Its tables. The cache is Retouch's own without the task columns that no lookup reads.
    #[must_use]
    pub fn create(self) -> Vec<String> {
        let head = "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, task_id VARCHAR(64) NOT NULL, edit_type VARCHAR(32) NOT NULL, \
                    prompt VARCHAR(500) NOT NULL, ";
        let json = |more: &str| {
            format!(
                "CREATE TABLE tasks ({head}image_hashes JSON NOT NULL, results JSON NOT NULL, UNIQUE KEY (task_id){more})"
            )
        };
        match self {
            Self::Cache => vec![CACHE.to_owned(), json("")],
            Self::Json => vec![json(
                ", first_hash CHAR(64) CHARACTER SET ascii AS (JSON_VALUE(image_hashes, '$[0]')) VIRTUAL, KEY (first_hash)",
            )],
            Self::JsonFullText => vec![json(", FULLTEXT KEY (image_hashes)")],
            Self::Columns => {
                let columns = (1..=POSITIONS).map(|at| {
                    format!("image_{at} CHAR(64) CHARACTER SET ascii NULL, result_{at} VARCHAR(100) CHARACTER SET ascii NULL, KEY (image_{at})")
                });
                let columns: Vec<_> = columns.collect();
                vec![format!("CREATE TABLE tasks ({head}{}, UNIQUE KEY (task_id))", columns.join(", "))]
            }
        }
    }

    /// Fills it by rows of `{rows}`; the number of rows for so many images.
    #[must_use]
    pub fn fill(self, images: u64) -> Vec<(String, u64)> {
        let tasks = images / IN_A_BLOCK * POSITIONS as u64;
        match self {
            Self::Cache => vec![(FILL_CACHE.to_owned(), images), (Self::Json.fill_tasks(), tasks)],
            Self::Json | Self::JsonFullText | Self::Columns => vec![(self.fill_tasks(), tasks)],
        }
    }

    fn fill_tasks(self) -> String {
        let hash = |at: usize| format!("SHA2(CONCAT('image', b + {at}), 256)");
        let result = |at: usize| format!("CONCAT('sha256/', SHA2(CONCAT('result', b + {at}), 256))");
        let (mut names, mut values) = (String::new(), String::new());
        match self {
            Self::Cache | Self::Json | Self::JsonFullText => {
                names += ", image_hashes, results";
                for of in [&hash as &dyn Fn(usize) -> String, &result] {
                    let members = (1..=POSITIONS).map(|at| match at {
                        1 => format!("'\"', {}, '\"'", of(at)),
                        at => format!("IF(s >= {at}, CONCAT(',\"', {}, '\"'), '')", of(at)),
                    });
                    write!(values, ", CONCAT('[', {}, ']')", members.collect::<Vec<_>>().join(", ")).unwrap();
                }
            }
            Self::Columns => {
                for at in 1..=POSITIONS {
                    write!(names, ", image_{at}, result_{at}").unwrap();
                    let (hash, result) = (hash(at), result(at));
                    write!(values, ", IF(s >= {at}, {hash}, NULL), IF(s >= {at}, {result}, NULL)").unwrap();
                }
            }
        }
        format!(
            "INSERT INTO tasks (task_id, edit_type, prompt{names}) SELECT CONCAT('old-', seq), 'remove_watermark', ''{values} \
             FROM (SELECT seq, (seq - 1) % 8 + 1 AS s, (seq - 1) DIV 8 * {IN_A_BLOCK} + (((seq - 1) % 8 + 1) * ((seq - 1) % 8)) DIV 2 AS b \
             FROM {{rows}}) numbered"
        )
    }

    /// Writes a task of new pictures: one text for each table, and its one parameter.
    #[must_use]
    pub fn write(self, task_id: &str, pictures: &[u64]) -> Vec<(&'static str, String)> {
        let hashes: Vec<_> = pictures.iter().map(|number| image(*number).to_hex()).collect();
        let results: Vec<_> = pictures.iter().map(|number| result(*number)).collect();
        let row = json!({"id": task_id, "hashes": json!(hashes).to_string(), "results": json!(results).to_string()});
        match self {
            Self::Cache => {
                let rows: Vec<_> = pictures
                    .iter()
                    .map(|number| {
                        let key = super::super::filled::key(*number);
                        json!({"key": key, "hash": image(*number), "result": result(*number)})
                    })
                    .collect();
                vec![(WRITE_CACHE, json!(rows).to_string()), (WRITE_JSON, row.to_string())]
            }
            Self::Json | Self::JsonFullText => vec![(WRITE_JSON, row.to_string())],
            Self::Columns => {
                vec![(WRITE_COLUMNS, json!({"id": task_id, "h": hashes, "r": results}).to_string())]
            }
        }
    }
}

/// The statement that asks for a picture at a position (from 0), and its parameters.
#[must_use]
pub fn ask(how: How, picture: u64, position: usize) -> (&'static str, Vec<String>) {
    let hash = image(picture).to_hex();
    match how {
        How::Key => (BY_KEY, vec![super::super::filled::key(picture).to_hex()]),
        How::Search => (BY_SEARCH, vec![hash.clone(), hash]),
        How::First => (BY_FIRST, vec![hash]),
        How::FullText => (BY_FULL_TEXT, vec![hash.clone(), format!("+{hash}")]),
        How::AnyColumn => (BY_ANY_COLUMN, vec![hash; 1 + POSITIONS]),
        How::SameColumn => (BY_SAME_COLUMN[position], vec![hash]),
    }
}

/// Where picture `number`'s result is.
#[must_use]
pub fn result(number: u64) -> String {
    format!("sha256/{}", Digest32::of(format!("result{number}").as_bytes()))
}

const CACHE: &str = "CREATE TABLE image_edit_cache (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, edit_key BINARY(32) NOT NULL, \
    image_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, edit_type VARCHAR(32) NOT NULL, prompt MEDIUMTEXT NOT NULL, \
    result_url TEXT NOT NULL, hit_count BIGINT NOT NULL, last_hit_at DATETIME(3) NOT NULL, \
    UNIQUE KEY edit_key (edit_key), KEY image_hash (image_hash), KEY last_hit_at (last_hit_at))";
const FILL_CACHE: &str = "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, result_url, hit_count, last_hit_at) \
    SELECT UNHEX(SHA2(CONCAT('key', seq), 256)), SHA2(CONCAT('image', seq), 256), 'remove_watermark', '', \
    CONCAT('sha256/', SHA2(CONCAT('result', seq), 256)), 1, UTC_TIMESTAMP(3) - INTERVAL seq % 8000000 SECOND FROM {rows}";
const WRITE_CACHE: &str = "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, result_url, hit_count, last_hit_at) \
    SELECT UNHEX(j.k), j.h, 'remove_watermark', '', j.r, 1, UTC_TIMESTAMP(3) FROM JSON_TABLE(?, '$[*]' COLUMNS \
    (k CHAR(64) PATH '$.key', h CHAR(64) PATH '$.hash', r VARCHAR(100) PATH '$.result')) j \
    ON DUPLICATE KEY UPDATE hit_count = image_edit_cache.hit_count + 1";
const WRITE_JSON: &str = "INSERT INTO tasks (task_id, edit_type, prompt, image_hashes, results) \
    SELECT j.id, 'remove_watermark', '', j.h, j.r FROM JSON_TABLE(?, '$' COLUMNS \
    (id VARCHAR(64) PATH '$.id', h LONGTEXT PATH '$.hashes', r LONGTEXT PATH '$.results')) j";
const WRITE_COLUMNS: &str = "INSERT INTO tasks (task_id, edit_type, prompt, image_1, image_2, image_3, image_4, image_5, image_6, image_7, \
    image_8, result_1, result_2, result_3, result_4, result_5, result_6, result_7, result_8) \
    SELECT j.id, 'remove_watermark', '', j.h0, j.h1, j.h2, j.h3, j.h4, j.h5, j.h6, j.h7, j.r0, j.r1, j.r2, j.r3, j.r4, j.r5, j.r6, j.r7 \
    FROM JSON_TABLE(?, '$' COLUMNS (id VARCHAR(64) PATH '$.id', \
    h0 CHAR(64) PATH '$.h[0]', h1 CHAR(64) PATH '$.h[1]', h2 CHAR(64) PATH '$.h[2]', h3 CHAR(64) PATH '$.h[3]', \
    h4 CHAR(64) PATH '$.h[4]', h5 CHAR(64) PATH '$.h[5]', h6 CHAR(64) PATH '$.h[6]', h7 CHAR(64) PATH '$.h[7]', \
    r0 VARCHAR(100) PATH '$.r[0]', r1 VARCHAR(100) PATH '$.r[1]', r2 VARCHAR(100) PATH '$.r[2]', r3 VARCHAR(100) PATH '$.r[3]', \
    r4 VARCHAR(100) PATH '$.r[4]', r5 VARCHAR(100) PATH '$.r[5]', r6 VARCHAR(100) PATH '$.r[6]', r7 VARCHAR(100) PATH '$.r[7]')) j";
const BY_KEY: &str = "SELECT result_url FROM image_edit_cache WHERE edit_key = UNHEX(?)";
const BY_SEARCH: &str = "SELECT JSON_UNQUOTE(JSON_EXTRACT(results, JSON_UNQUOTE(JSON_SEARCH(image_hashes, 'one', ?)))) FROM tasks \
    WHERE edit_type = 'remove_watermark' AND prompt = '' AND JSON_CONTAINS(image_hashes, JSON_QUOTE(?)) LIMIT 1";
const BY_FIRST: &str = "SELECT JSON_VALUE(results, '$[0]') FROM tasks \
    WHERE first_hash = ? AND edit_type = 'remove_watermark' AND prompt = '' LIMIT 1";
const BY_FULL_TEXT: &str = "SELECT JSON_UNQUOTE(JSON_EXTRACT(results, JSON_UNQUOTE(JSON_SEARCH(image_hashes, 'one', ?)))) FROM tasks \
    WHERE MATCH (image_hashes) AGAINST (? IN BOOLEAN MODE) AND edit_type = 'remove_watermark' AND prompt = '' LIMIT 1";
const BY_ANY_COLUMN: &str = "SELECT CASE ? WHEN image_1 THEN result_1 WHEN image_2 THEN result_2 WHEN image_3 THEN result_3 \
    WHEN image_4 THEN result_4 WHEN image_5 THEN result_5 WHEN image_6 THEN result_6 WHEN image_7 THEN result_7 \
    WHEN image_8 THEN result_8 END FROM tasks WHERE (image_1 = ? OR image_2 = ? OR image_3 = ? OR image_4 = ? OR image_5 = ? \
    OR image_6 = ? OR image_7 = ? OR image_8 = ?) AND edit_type = 'remove_watermark' AND prompt = '' LIMIT 1";

macro_rules! same_column {
    ($($at:literal)*) => {
        [$(concat!("SELECT result_", $at, " FROM tasks WHERE image_", $at, " = ? AND edit_type = 'remove_watermark' AND prompt = '' LIMIT 1")),*]
    };
}
const BY_SAME_COLUMN: [&str; POSITIONS] = same_column!(1 2 3 4 5 6 7 8);
