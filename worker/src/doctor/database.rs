//! Checks the database: connection, product, schema, and the settings that the protocol needs.

use std::path::Path;

use super::{Check, no_answer, within};
use crate::config::Parts;
use crate::store::{DatabaseLocation, SchemaState, Store, StoreError};

mod facts;

const NAME: &str = "database";
/// Checks that need a connection.
const OTHERS: [&str; 8] = [
    "database version",
    "schema",
    "isolation",
    "sql_mode",
    "character set",
    "max_allowed_packet",
    "clock",
    "database writes",
];

/// The checks, and the store if its schema fits this program.
pub(super) async fn check(parts: &Parts) -> (Vec<Check>, Option<Store>) {
    match &parts.database {
        Err(_) => (skipped(NAME, "the settings"), None),
        Ok(location @ DatabaseLocation::MySql(_)) => server(location).await,
        Ok(location @ DatabaseLocation::Sqlite(file)) => self::file(location, file).await,
    }
}

fn skipped(first: &str, needs: &str) -> Vec<Check> {
    let names = std::iter::once(first).chain(OTHERS).skip(usize::from(first.is_empty()));
    names.map(|name| Check::skipped(name, format!("skipped: it needs {needs}"))).collect()
}

async fn server(location: &DatabaseLocation) -> (Vec<Check>, Option<Store>) {
    let store = match within(Store::connect(location, 2)).await {
        Some(Ok(store)) => store,
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            let mut checks = vec![unreachable(location, &why)];
            checks.extend(skipped("", "the database"));
            return (checks, None);
        }
    };
    let mut checks = Vec::new();
    match within(store.facts()).await {
        Some(Ok(facts)) => {
            checks.push(facts::reached(location, &facts));
            checks.extend(facts::server(&facts));
        }
        answer => {
            checks.push(Check::good(NAME, location.to_string()));
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            checks.push(Check::failed("database version", why, "look at the server's log"));
        }
    }
    let store = of_schema(location, store, &mut checks).await;
    (checks, store)
}

/// Drops our prefix, which adds nothing to the database's message.
fn reason(error: &StoreError) -> String {
    let text = error.to_string();
    let own = ["the database is unreachable: ", "the database refused a statement: "];
    let found = own.iter().find_map(|words| text.strip_prefix(words));
    found.unwrap_or(&text).to_owned()
}

fn unreachable(location: &DatabaseLocation, why: &str) -> Check {
    let DatabaseLocation::MySql(_) = location else {
        return Check::failed(
            NAME,
            format!("{location}: {why}"),
            "correct DATABASE_URL or the rights of the file",
        );
    };
    Check::failed(NAME, format!("{location}: {why}"), fix(why))
}

/// The fix for an unreachable MySQL server.
pub(crate) fn fix(why: &str) -> &'static str {
    if why.contains("Access denied") {
        "correct user and password in DATABASE_URL, or grant the user all rights on this database"
    } else if why.contains("Unknown database") {
        "make it (CREATE DATABASE … CHARACTER SET utf8mb4), or correct its name in DATABASE_URL"
    } else if why.contains("certificate") || why.contains("TLS") || why.contains("insecure transport") {
        "see the section TLS of docs/operations/doctor.md"
    } else if why.contains("lookup address") {
        "correct the host in DATABASE_URL"
    } else {
        "start the server, or correct host and port in DATABASE_URL"
    }
}

/// Checks the schema and write access; returns a usable store.
async fn of_schema(location: &DatabaseLocation, store: Store, checks: &mut Vec<Check>) -> Option<Store> {
    let migrates_itself = matches!(location, DatabaseLocation::Sqlite(_));
    let state = match within(store.schema_state()).await {
        Some(Ok(state)) => state,
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            checks.push(Check::failed("schema", why, "look at the server's log"));
            checks.push(Check::skipped("database writes", "skipped: it needs the schema"));
            return None;
        }
    };
    match &state {
        SchemaState::Current => checks.push(Check::good("schema", state.to_string())),
        SchemaState::Empty | SchemaState::Behind { .. } if migrates_itself => {
            checks.push(Check::good("schema", "brought up to date when a worker or `retouch edit` starts"));
        }
        SchemaState::Empty
        | SchemaState::Behind { .. }
        | SchemaState::Ahead { .. }
        | SchemaState::Foreign { .. } => checks.push(Check::failed_as_told("schema", &state.to_string())),
    }
    if state != SchemaState::Current {
        checks.push(Check::skipped("database writes", "skipped: it needs the schema"));
        return None;
    }
    checks.push(match within(store.try_write()).await {
        Some(Ok(())) => Check::good("database writes", "a row was written and rolled back"),
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            let fix =
                "grant the user all rights on this database; a replica that is read-only cannot be worked on";
            Check::failed("database writes", why, fix)
        }
    });
    Some(store)
}

async fn file(location: &DatabaseLocation, file: &Path) -> (Vec<Check>, Option<Store>) {
    if !file.exists() {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let found = folder.is_none_or(Path::is_dir);
        let how = if found { "it is made" } else { "it and its folder are made" };
        let mut checks =
            vec![Check::good(NAME, format!("{location}: {how} when a worker or `retouch edit` starts"))];
        checks.extend(skipped("", "a file"));
        return (checks, None);
    }
    let opened = match Store::open(location, 2) {
        Ok(store) => within(store.facts()).await.map(|facts| facts.map(|facts| (store, facts))),
        Err(error) => Some(Err(error)),
    };
    match opened {
        Some(Ok((store, facts))) => {
            let version = facts.session.get("version").map_or("?", String::as_str);
            let mut checks = vec![
                Check::good(NAME, format!("{location}: one file, for one machine")),
                Check::good("database version", format!("SQLite {version}")),
            ];
            checks.push(facts::clock(&facts));
            let store = of_schema(location, store, &mut checks).await;
            (checks, store)
        }
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error));
            let mut checks = vec![unreachable(location, &why)];
            checks.extend(skipped("", "the database"));
            (checks, None)
        }
    }
}
