//! How a MySQL or MariaDB server is set up.

use crate::store::inspect::InspectStatements;

/// What matters, by either product's name. A variable that a version does not have is left out.
macro_rules! variables {
    ($scope:literal) => {
        concat!(
            "SHOW ",
            $scope,
            " VARIABLES WHERE Variable_name IN ('version', 'tx_isolation', 'transaction_isolation', 'sql_mode', \
            'character_set_database', 'collation_database', 'max_allowed_packet', 'read_only', 'log_bin', 'binlog_format', \
            'innodb_flush_log_at_trx_commit', 'sync_binlog')"
        )
    };
}

pub(super) static INSPECT: InspectStatements = InspectStatements {
    session: variables!("SESSION"),
    global: variables!("GLOBAL"),
    now: "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED)",
    cipher: "SHOW SESSION STATUS LIKE 'Ssl_cipher'",
    inexact_columns: "SELECT CAST(CONCAT(table_name, '.', column_name, ' (', collation_name, ')') AS CHAR) FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND collation_name NOT LIKE '%\\_bin' \
            AND table_name IN ('image_edit_cache', 'image_edit_tasks', 'image_edit_calls', 'image_edit_waits', 'lanes', 'dead_letters') \
        ORDER BY table_name, ordinal_position",
    newest_results: "SELECT result_hash FROM image_edit_cache WHERE result_hash IS NOT NULL ORDER BY id DESC LIMIT ?",
};
