//! The database fails, one fault at a time: work is held, resumes by itself, nothing is lost and nothing paid
//! twice. Each prints one line: the fault, and the time until work resumed.

use std::time::{Duration, Instant};

use retouch_tests::proxy::Proxy;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, task_async};
use serde_json::json;
use tokio::sync::Mutex;

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];

/// A call is under way during the fault, and a task arrives in the middle of it.
async fn over(site: &Site, fault: &str, what: &str, make: impl AsyncFnOnce(), end: impl AsyncFnOnce()) {
    let calls = site.calls().len();
    let n = u64::try_from(calls).unwrap();
    let (before, during) = (format!("before-{fault}"), format!("during-{fault}"));
    site.publish(&task_async(&before, json!({ "gate": fault }), &[seed(1000 + n)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    make().await;
    site.publish(&task(&during, json!({ "fault": fault }), &[seed(1)])).await;
    site.open_gate(fault);
    end().await;
    let over = Instant::now();
    for id in [&during, &before] {
        assert_eq!(site.ended(id).await.status, "completed", "{id}");
    }
    let took = over.elapsed();
    assert_eq!(site.calls().len(), calls + 2, "{fault}: something was paid twice");
    let harmed = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(site.number(harmed).await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    site.nothing_left().await;
    println!("fault | {fault} | {what} | {:.1} s | 0 lost | 0 paid twice", took.as_secs_f64());
}

#[tokio::test]
async fn a_stalled_database_and_one_whose_rows_are_locked_hold_the_work() {
    let site = Site::on_servers().await;
    let (proxy, url) = Proxy::before(&site.env.mysql_url()).await;
    let _worker = site.worker_with(&[HURRY[0], HURRY[1], ("DATABASE_URL", &url)]).await;
    let wait = async || tokio::time::sleep(Duration::from_secs(3)).await;
    over(
        &site,
        "db-stalled",
        "no byte passes for 3 s",
        async || proxy.stall(),
        async || {
            wait().await;
            proxy.resume();
        },
    )
    .await;
    let pool = site.env.pool().await;
    let holder = Mutex::new(pool.begin().await.unwrap());
    let lock = async || {
        sqlx::query("SELECT edit_key FROM image_edit_calls FOR UPDATE")
            .execute(&mut **holder.lock().await)
            .await
            .unwrap();
    };
    let what = "every row of calls locked by another connection for 3 s";
    over(&site, "db-locked", what, lock, async || {
        wait().await;
        sqlx::query("ROLLBACK").execute(&mut **holder.lock().await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_another_process_has_locked_holds_the_work() {
    use sqlx::{Connection as _, SqliteConnection};
    let site = Site::in_one_file().await;
    let _worker = site.worker_with(&HURRY).await;
    let mut other = SqliteConnection::connect(&site.env.sqlite_url()).await.unwrap();
    let calls = site.calls().len();
    site.publish(&task("held", json!({"delay_ms": 200}), &[seed(1)])).await;
    site.called(calls + 1).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    let over = Instant::now();
    assert_eq!(site.ended("held").await.status, "completed");
    println!(
        "fault | file-locked | BEGIN EXCLUSIVE by another process for 3 s | {:.1} s | 0 lost | 0 paid twice",
        over.elapsed().as_secs_f64()
    );
    assert_eq!(site.calls().len(), calls + 1);
    site.nothing_left().await;
}

mod own_servers {
    use retouch_tests::services::{MariaDb, RabbitMq};
    use sqlx::{Connection as _, MySqlConnection};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_only_full_or_killed_database_holds_the_work() {
        let (rabbitmq, mut mariadb) = (RabbitMq::start().await.unwrap(), MariaDb::start().await.unwrap());
        let site = Site::on_own(&rabbitmq, &mariadb).await;
        let mut root = MySqlConnection::connect(&mariadb.url("")).await.unwrap();
        // A user with all rights may write to a read-only server, too.
        for grant in [
            "CREATE USER plain@'%'",
            "GRANT ALL ON *.* TO plain@'%'",
            "REVOKE SUPER, READ_ONLY ADMIN, CONNECTION ADMIN ON *.* FROM plain@'%'",
        ] {
            sqlx::query(grant).execute(&mut root).await.unwrap();
        }
        let url = site.env.mysql_url().replace("root@", "plain@");
        let _worker = site.worker_with(&[HURRY[0], HURRY[1], ("DATABASE_URL", &url)]).await;
        let wait = async || tokio::time::sleep(Duration::from_secs(2)).await;

        let mut other = MySqlConnection::connect(&mariadb.url("")).await.unwrap();
        let make = async || {
            sqlx::query("SET GLOBAL read_only = 1").execute(&mut root).await.unwrap();
        };
        over(&site, "read-only", "SET GLOBAL read_only = 1 for 2 s", make, async || {
            wait().await;
            sqlx::query("SET GLOBAL read_only = 0").execute(&mut other).await.unwrap();
        })
        .await;

        let make = async || {
            sqlx::query("SET GLOBAL max_connections = 10").execute(&mut root).await.unwrap();
            let kill = "SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user = 'plain'";
            let kills: Vec<String> = sqlx::query_scalar(kill).fetch_all(&mut root).await.unwrap();
            for kill in kills {
                let _gone = sqlx::query(sqlx::AssertSqlSafe(kill)).execute(&mut root).await;
            }
        };
        let what = "every connection of the worker killed, 10 in all allowed for 2 s";
        over(&site, "connections", what, make, async || {
            wait().await;
            sqlx::query("SET GLOBAL max_connections = 1000").execute(&mut other).await.unwrap();
        })
        .await;

        let server = Mutex::new(&mut mariadb);
        over(
            &site,
            "db-killed",
            "MariaDB killed and restarted",
            async || server.lock().await.kill9(),
            async || {
                server.lock().await.restart().await.unwrap();
            },
        )
        .await;
    }
}
