//! Judges a server's settings. Pure, except for reading this machine's clock.

use std::time::SystemTime;

use crate::doctor::Check;
use crate::store::{DatabaseLocation, Facts};

/// Statements carry lists of up to 1 MiB and one more row; below this, large tasks would fail at random.
const LEAST_PACKET: u64 = 4 * 1024 * 1024;
/// A larger difference makes logs of two machines hard to compare.
const APART_MS: u64 = 5_000;
/// S3 refuses signatures with a clock this far off.
const FAR_APART_MS: u64 = 15 * 60 * 1000;

/// Address and TLS of the connection.
pub(super) fn reached(location: &DatabaseLocation, facts: &Facts) -> Check {
    match (&facts.cipher, is_near(location)) {
        (Some(cipher), _) => Check::good("database", format!("{location}, encrypted with {cipher}")),
        (None, true) => Check::good("database", format!("{location}, not encrypted, on this machine")),
        (None, false) => Check::warning(
            "database",
            format!("{location}: the connection is not encrypted"),
            "where others share the network, name the server's authority in DATABASE_URL: ?ssl-ca=/path/ca.pem",
        ),
    }
}

fn is_near(location: &DatabaseLocation) -> bool {
    let DatabaseLocation::MySql(url) = location else { return true };
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_none_or(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// All settings.
pub(super) fn server(facts: &Facts) -> Vec<Check> {
    vec![
        version(facts),
        isolation(facts),
        sql_mode(facts),
        character_set(facts),
        packet(facts),
        durability(facts),
        clock(facts),
    ]
}

fn session<'a>(facts: &'a Facts, name: &str) -> &'a str {
    facts.session.get(name).map_or("", String::as_str)
}

fn version(facts: &Facts) -> Check {
    let text = session(facts, "version");
    let maria = text.to_ascii_lowercase().contains("mariadb");
    // Older MariaDBs prefix their version with `5.5.5-` for older clients.
    let number = if maria { text.trim_start_matches("5.5.5-") } else { text };
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let at = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (product, least) = if maria { ("MariaDB", (10, 6)) } else { ("MySQL", (8, 0)) };
    if at >= least {
        return Check::good("database version", format!("{product} {number}"));
    }
    let fix = "use MariaDB 10.6 or later, or MySQL 8.0 or later";
    Check::failed("database version", format!("{product} {number} lacks SKIP LOCKED or JSON_TABLE"), fix)
}

/// We set it on each connection; a proxy or `init_connect` may override it.
fn isolation(facts: &Facts) -> Check {
    let name = "isolation";
    let names = ["transaction_isolation", "tx_isolation"];
    let level = names.iter().map(|name| session(facts, name)).find(|level| !level.is_empty());
    match level {
        Some("READ-COMMITTED") if statement_log(facts) => Check::failed(
            name,
            "binlog_format is STATEMENT, with which no row can be written under READ COMMITTED",
            "set binlog_format=ROW (or MIXED) on the server",
        ),
        Some("READ-COMMITTED") => Check::good(name, "READ COMMITTED on our connections"),
        level => Check::failed(
            name,
            format!(
                "our connections have {}, though they ask for READ COMMITTED",
                level.unwrap_or("an unknown level")
            ),
            "take out what sets it on the way: a proxy, or init_connect",
        ),
    }
}

fn statement_log(facts: &Facts) -> bool {
    session(facts, "log_bin") == "ON" && session(facts, "binlog_format") == "STATEMENT"
}

fn sql_mode(facts: &Facts) -> Check {
    let name = "sql_mode";
    let has = |modes: &str, wanted: &[&str]| modes.split(',').any(|mode| wanted.contains(&mode));
    let ours = session(facts, "sql_mode");
    if has(ours, &["EMPTY_STRING_IS_NULL", "ORACLE"]) {
        let fix = "set the server's sql_mode without it; it is also part of ORACLE";
        return Check::failed(name, "EMPTY_STRING_IS_NULL makes an empty prompt no prompt", fix);
    }
    if !has(ours, &["STRICT_ALL_TABLES"]) {
        let fix = "take out what sets it on the way: a proxy, or init_connect";
        return Check::failed(
            name,
            "not strict on our connections: values that do not fit would be cut",
            fix,
        );
    }
    let theirs = facts.global.get("sql_mode").map_or("", String::as_str);
    if !has(theirs, &["STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"]) {
        let detail = "the server's is not strict; ours is, but what others write to these tables may be cut";
        return Check::warning(name, detail, "set the server's sql_mode to STRICT_TRANS_TABLES");
    }
    Check::good(name, "strict")
}

fn character_set(facts: &Facts) -> Check {
    let name = "character set";
    if !facts.inexact_columns.is_empty() {
        let columns = facts.inexact_columns.join(", ");
        let fix = "convert them back to utf8mb4_bin or ascii_bin, as the files in migrations/mysql have them";
        return Check::failed(
            name,
            format!("compared inexactly, so that two prompts may be taken for one: {columns}"),
            fix,
        );
    }
    let (set, collation) = (session(facts, "character_set_database"), session(facts, "collation_database"));
    Check::good(
        name,
        format!("our tables compare byte for byte (the database's default is {set}, {collation})"),
    )
}

fn packet(facts: &Facts) -> Check {
    let name = "max_allowed_packet";
    match session(facts, name).parse::<u64>() {
        Ok(bytes) if bytes >= LEAST_PACKET => Check::good(name, format!("{} MiB", bytes / 1024 / 1024)),
        Ok(bytes) => Check::failed(
            name,
            format!("{bytes} bytes: statements for large tasks do not fit"),
            "set max_allowed_packet to 16M on the server (4M at least)",
        ),
        Err(_) => Check::skipped(name, "the server does not say"),
    }
}

fn durability(facts: &Facts) -> Check {
    let name = "durability";
    let flush = session(facts, "innodb_flush_log_at_trx_commit");
    if flush.is_empty() || flush == "1" {
        return Check::good(name, "a commit is on disk when it is answered");
    }
    Check::warning(
        name,
        format!(
            "innodb_flush_log_at_trx_commit is {flush}: a crash of the server may forget a second of paid calls"
        ),
        "set it to 1",
    )
}

/// Leases use the database's clock alone; the difference matters for comparing logs.
pub(super) fn clock(facts: &Facts) -> Check {
    let name = "clock";
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ours = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let apart = ours.abs_diff(facts.now_ms);
    let detail = format!("{}.{:03} s between the database and this machine", apart / 1000, apart % 1000);
    let fix =
        "switch on time synchronisation on both machines; leases are safe, they use the database's clock";
    match apart {
        0..=APART_MS => Check::good(name, detail),
        FAR_APART_MS.. => {
            Check::failed(name, format!("{detail}: signatures and certificates are refused"), fix)
        }
        _ => Check::warning(name, detail, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn facts(session: &[(&str, &str)], global: &[(&str, &str)]) -> Facts {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Facts { session: map(session), global: map(global), ..Facts::default() }
    }

    #[test]
    fn versions_of_both_products_are_told_apart() {
        for (text, state) in [
            ("10.11.14-MariaDB-0+deb12u2", State::Good),
            ("5.5.5-10.6.1-MariaDB", State::Good),
            ("10.5.29-MariaDB", State::Failed),
            ("11.8.2-MariaDB", State::Good),
            ("8.0.44", State::Good),
            ("9.1.0", State::Good),
            ("5.7.44-log", State::Failed),
            ("", State::Failed),
        ] {
            assert_eq!(version(&facts(&[("version", text)], &[])).state, state, "{text}");
        }
    }

    #[test]
    fn a_mode_or_a_level_that_breaks_the_protocol_is_a_failure() {
        let strict = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION";
        for (ours, theirs, state) in [
            (strict, "STRICT_TRANS_TABLES", State::Good),
            (strict, "NO_ENGINE_SUBSTITUTION", State::Warning),
            ("NO_ENGINE_SUBSTITUTION", "STRICT_TRANS_TABLES", State::Failed),
            ("STRICT_ALL_TABLES,EMPTY_STRING_IS_NULL", "STRICT_TRANS_TABLES", State::Failed),
        ] {
            let check = sql_mode(&facts(&[("sql_mode", ours)], &[("sql_mode", theirs)]));
            assert_eq!(check.state, state, "{check:?}");
        }
        let level = |more: &[(&str, &str)]| isolation(&facts(more, &[])).state;
        assert_eq!(level(&[("tx_isolation", "READ-COMMITTED")]), State::Good);
        assert_eq!(level(&[("transaction_isolation", "REPEATABLE-READ")]), State::Failed);
        let statement =
            [("tx_isolation", "READ-COMMITTED"), ("log_bin", "ON"), ("binlog_format", "STATEMENT")];
        assert_eq!(level(&statement), State::Failed);
        assert_eq!(packet(&facts(&[("max_allowed_packet", "1048576")], &[])).state, State::Failed);
        let lazy = durability(&facts(&[("innodb_flush_log_at_trx_commit", "2")], &[]));
        assert_eq!(lazy.state, State::Warning);
    }
}
