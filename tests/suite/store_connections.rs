//! The store's connections to a server: few warm ones rather than all in turn, none withheld from a waiting
//! caller, none left open.

use std::time::Duration;

use futures::future::join_all;
use retouch_shared::key::Digest32;
use retouch_tests::env::Env;
use retouch_tests::wait;
use retouch_worker::store::{DatabaseLocation, Store};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

async fn store(url: &str, connections: u32) -> Store {
    let store = Store::open(&DatabaseLocation::MySql(url.to_owned()), connections).unwrap();
    store.migrate().await.unwrap();
    store
}

/// The one value that a query finds, as text, without preparing it.
async fn value(connection: &mut MySqlConnection, sql: &str) -> String {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap();
    row.get_unchecked(0)
}

/// How many connections are open to a database, but for the one that asks.
async fn open(connection: &mut MySqlConnection, database: &str) -> u64 {
    let sql = format!(
        "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist WHERE db = '{database}' AND id <> CONNECTION_ID()"
    );
    value(connection, &sql).await.parse().unwrap()
}

/// So many questions at a time.
async fn ask_together(store: &Store, many: u64) {
    let asked = (0..many).map(|n| {
        let (store, key) = (store.clone(), Digest32::of(&n.to_le_bytes()));
        tokio::spawn(async move { store.lookup(&[key]).await.unwrap().len() })
    });
    let found: usize = join_all(asked).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(found, 0);
}

mod own_servers {
    use retouch_tests::services::MariaDb;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_quiet_worker_reuses_its_last_connection() {
        let mariadb = MariaDb::start().await.unwrap();
        let env = Env::on_own_database(&mariadb).await;
        let store = store(&env.mysql_url(), 8).await;
        let mut own = MySqlConnection::connect(&env.mysql_url()).await.unwrap();
        wait::until("it has opened several connections", async || {
            ask_together(&store, 64).await;
            (open(&mut own, env.namespace()).await >= 4).then_some(())
        })
        .await;
        let prepared = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Com_stmt_prepare'";
        let before: u64 = value(&mut own, prepared).await.parse().unwrap();
        for _ in 0..32 {
            store.lanes().await.unwrap();
        }
        let after: u64 = value(&mut own, prepared).await.parse().unwrap();
        assert_eq!(after - before, 1, "a new statement, asked 32 times one after the other");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_caller_gets_the_next_returned_connection() {
    let env = Env::new().await;
    let store = store(&env.mysql_url(), 1).await;
    // A caller without one within ten seconds would be told that the database is unreachable.
    for _ in 0..20 {
        ask_together(&store, 50).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_closed_has_no_connection_left() {
    let env = Env::new().await;
    let store = store(&env.mysql_url(), 8).await;
    let mut own = MySqlConnection::connect(&env.mysql_url()).await.unwrap();
    ask_together(&store, 64).await;
    assert!(open(&mut own, env.namespace()).await >= 1);
    tokio::time::timeout(Duration::from_secs(20), store.close()).await.unwrap();
    wait::until("the server knows of none", async || {
        (open(&mut own, env.namespace()).await == 0).then_some(())
    })
    .await;
    assert!(store.lanes().await.is_err(), "a closed store answers");
}
