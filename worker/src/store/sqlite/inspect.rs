//! How a SQLite file is set up: for it, most is decided by this program.

use crate::store::inspect::InspectStatements;

pub(super) static INSPECT: InspectStatements = InspectStatements {
    session: "SELECT 'version', sqlite_version() UNION ALL SELECT 'journal_mode', journal_mode FROM pragma_journal_mode",
    global: "SELECT '', '' WHERE false",
    now: "SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)",
    cipher: "SELECT '', '' WHERE false",
    inexact_columns: "SELECT '' WHERE false",
    newest_results: "SELECT result_hash FROM image_edit_cache WHERE result_hash IS NOT NULL ORDER BY id DESC LIMIT ?",
};
