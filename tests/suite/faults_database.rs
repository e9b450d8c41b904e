//! Faults that only a private MariaDB can have: deadlocks whose victim is the worker, no space left, no
//! connection left, no prepared statement left. Work is held, resumes by itself, nothing is lost and nothing
//! paid twice. Each proves that it struck, and prints one line: the fault, and the time until work resumed.

use std::time::{Duration, Instant};

use retouch_tests::services::MariaDb;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, task_async};
use retouch_tests::wait;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];

async fn status(connection: &mut MySqlConnection, name: &str) -> u64 {
    let sql =
        format!("SELECT variable_value FROM information_schema.global_status WHERE variable_name = '{name}'");
    let value: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap();
    value.parse().unwrap()
}

async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

/// Every task so far is completed and every call was made once.
async fn nothing_harmed(site: &Site, calls: usize) {
    assert_eq!(site.calls().len(), calls, "something was paid twice");
    let harmed = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(site.number(harmed).await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_tasks WHERE status <> 'completed'").await, 0);
    site.nothing_left().await;
}

/// After the fault: the time until these tasks, one call each, have ended well.
async fn all_end(site: &Site, ids: &[&str]) -> Duration {
    let over = Instant::now();
    for id in ids {
        assert_eq!(site.ended(id).await.status, "completed", "{id}");
    }
    let took = over.elapsed();
    nothing_harmed(site, ids.len()).await;
    took
}

fn report(fault: &str, what: &str, took: Duration) {
    println!("fault | {fault} | {what} | {:.1} s | 0 lost | 0 paid twice", took.as_secs_f64());
}

mod own_servers {
    use super::*;

    /// A transaction that locks in another order than the worker does, and that InnoDB will not choose as the
    /// victim: it has changed more rows.
    struct Rival {
        connection: MySqlConnection,
        root: MySqlConnection,
    }

    impl Rival {
        async fn new(mariadb: &MariaDb, site: &Site) -> Self {
            let mut connection = MySqlConnection::connect(&site.env.mysql_url()).await.unwrap();
            run(&mut connection, "CREATE TABLE rival (id BIGINT) ENGINE = InnoDB").await.unwrap();
            let root = MySqlConnection::connect(&mariadb.url("")).await.unwrap();
            Self { connection, root }
        }

        async fn lock(&mut self, table: &str) {
            run(&mut self.connection, "BEGIN").await.unwrap();
            run(&mut self.connection, "INSERT INTO rival SELECT seq FROM seq_1_to_2000").await.unwrap();
            self.want(table).await;
        }

        async fn want(&mut self, table: &str) {
            run(&mut self.connection, &format!("SELECT * FROM {table} FOR UPDATE")).await.unwrap();
        }

        /// Waits until the worker waits for a lock of ours, then requests one of its own: one of us must give
        /// way. Returns the deadlocks counted since; our query's success shows that the worker lost.
        async fn collide(&mut self, table: &str) -> u64 {
            let root = &mut self.root;
            let before = status(root, "Innodb_deadlocks").await;
            // (`information_schema.innodb_trx` refreshes at most ten times a second.)
            wait::until("the worker waits for a lock", async || {
                (status(root, "Innodb_row_lock_current_waits").await > 0).then_some(())
            })
            .await;
            self.want(table).await;
            let after = status(&mut self.root, "Innodb_deadlocks").await;
            run(&mut self.connection, "ROLLBACK").await.unwrap();
            after - before
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_work_is_lost_or_paid_twice_where_the_worker_loses_deadlocks() {
        let mariadb = MariaDb::start().await.unwrap();
        let site = Site::on_own_database(&mariadb).await;
        let worker = site.worker_with(&HURRY).await;
        let mut rival = Rival::new(&mariadb, &site).await;
        let (mut lost, mut slowest) = (0, Duration::ZERO);
        for round in 0..5 {
            let [leader, follower] = ["leader", "follower"].map(|role| format!("{role}-{round}"));
            let (gate, picture) = (format!("round-{round}"), [seed(round)]);
            site.publish(&task_async(&leader, json!({ "gate": gate }), &picture)).await;
            site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
            // Intake has the call's row and waits for the place of the task's.
            rival.lock("image_edit_tasks").await;
            site.publish(&task_async(&follower, json!({ "gate": gate }), &picture)).await;
            lost += rival.collide("image_edit_calls").await;
            site.taken_in(&follower).await;
            // The end of the edit has the call's row and waits for the task's.
            rival.lock("image_edit_tasks").await;
            site.open_gate(&gate);
            lost += rival.collide("image_edit_calls").await;
            let over = Instant::now();
            for id in [&leader, &follower] {
                assert_eq!(site.ended(id).await.status, "completed");
            }
            slowest = slowest.max(over.elapsed());
        }
        assert!(lost >= 5, "the worker lost {lost} deadlocks only");
        let engine = "SHOW ENGINE INNODB STATUS";
        let (_, _, told): (String, String, String) =
            sqlx::query_as(engine).fetch_one(&mut rival.root).await.unwrap();
        assert!(told.contains("LATEST DETECTED DEADLOCK"), "{told}");
        drop(worker);
        report(
            "db-deadlock",
            &format!("{lost} deadlocks lost by the worker, in intake and at the end of five edits"),
            slowest,
        );
    }

    /// The tablespace may not grow: the effect of a full disk on a database, without one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_without_space_holds_the_work() {
        let small = "--innodb-data-file-path=ibdata1:12M:autoextend:max:32M";
        let enlarged = "--innodb-data-file-path=ibdata1:12M:autoextend:max:128M";
        let one_file = "--innodb-file-per-table=0";
        let mut mariadb = MariaDb::start_with(&[small, one_file]).await.unwrap();
        let site = Site::on_own_database(&mariadb).await;
        let worker = site.worker_with(&HURRY).await;
        site.publish(&task("known", json!({}), &[seed(1)])).await;
        site.ended("known").await;
        site.publish(&task_async("before", json!({ "gate": "full" }), &[seed(2)])).await;
        site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;

        let mut root = MySqlConnection::connect(&site.env.mysql_url()).await.unwrap();
        // Several: the first pages of each come from extents that tables share. Small rows: a server that has no page left for
        // taking back a large one ends itself.
        const FILLERS: [&str; 4] = ["filler", "filler_a", "filler_b", "filler_c"];
        for table in FILLERS {
            let create = format!("CREATE TABLE {table} (filling LONGBLOB) ENGINE = InnoDB");
            run(&mut root, &create).await.unwrap();
        }
        run(&mut root, "INSERT INTO filler SELECT REPEAT('x', 1000000) FROM seq_1_to_10").await.unwrap();
        let mut full = String::new();
        for (table, bytes) in FILLERS.iter().flat_map(|table| [(table, 4_000), (table, 100)]) {
            let fill = format!("INSERT INTO {table} VALUES (REPEAT('x', {bytes}))");
            full = loop {
                if let Err(error) = run(&mut root, &fill).await {
                    break error.to_string();
                }
            };
        }
        assert!(full.contains("is full"), "{full}");
        // More than fits into the pages that the tables have, and those that the server frees meanwhile.
        let mut ids: Vec<String> = Vec::new();
        while !worker.stderr().contains("is full") {
            assert!(ids.len() < 500, "there is room for ever more");
            let (n, id) = (10 + ids.len() as u64, format!("during-{}", ids.len()));
            let mut wordy = task(&id, json!({}), &[seed(n), seed(1)]);
            wordy["metadata"] = json!({ "note": "x".repeat(3500) });
            site.publish(&wordy).await;
            let taken = format!("SELECT COUNT(*) FROM image_edit_tasks WHERE task_id = '{id}'");
            wait::until("it is taken in, or refused", async || {
                (worker.stderr().contains("is full") || site.number(&taken).await == 1).then_some(())
            })
            .await;
            ids.push(id);
        }
        site.open_gate("full");
        worker.line(r#""message":"delayed""#).await;
        mariadb.restart_with(&[enlarged, one_file]).await.unwrap();
        let over = Instant::now();
        for id in ids.iter().map(String::as_str).chain(["before"]) {
            assert_eq!(site.ended(id).await.status, "completed", "{id}");
        }
        let took = over.elapsed();
        nothing_harmed(&site, 2 + ids.len()).await;
        report("db-full", "no space left (error 1114), then the server restarted with more", took);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_takes_no_more_connections_holds_the_work() {
        let mariadb = MariaDb::start().await.unwrap();
        let site = Site::on_own_database(&mariadb).await;
        let mut root = MySqlConnection::connect(&mariadb.url("")).await.unwrap();
        for grant in [
            "CREATE USER plain@'%'",
            "GRANT ALL ON *.* TO plain@'%'",
            "REVOKE SUPER, CONNECTION ADMIN ON *.* FROM plain@'%'",
        ] {
            run(&mut root, grant).await.unwrap();
        }
        let url = site.env.mysql_url().replace("root@", "plain@");
        let _worker = site.worker_with(&[HURRY[0], HURRY[1], ("DATABASE_URL", &url)]).await;
        site.publish(&task_async("before", json!({ "gate": "limit" }), &[seed(1)])).await;
        site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;

        run(&mut root, "SET GLOBAL max_connections = 10").await.unwrap();
        let held = take_all(&mut root, &mariadb).await;
        let refused = status(&mut root, "Connection_errors_max_connections").await;
        site.publish(&task("during", json!({}), &[seed(2)])).await;
        site.open_gate("limit");
        wait::until("five connections refused to the worker", async || {
            let now = status(&mut root, "Connection_errors_max_connections").await;
            (now >= refused + 5).then_some(())
        })
        .await;
        run(&mut root, "SET GLOBAL max_connections = 1000").await.unwrap();
        drop(held);
        let took = all_end(&site, &["during", "before"]).await;
        report("db-limit", "every connection taken by others; five of the worker's refused", took);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_prepares_no_more_statements_holds_the_work() {
        let mariadb = MariaDb::start().await.unwrap();
        let site = Site::on_own_database(&mariadb).await;
        let mut root = MySqlConnection::connect(&mariadb.url("")).await.unwrap();
        let worker = site.worker_with(&HURRY).await;
        site.publish(&task_async("before", json!({ "gate": "limit" }), &[seed(1)])).await;
        site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;

        // What is prepared stays so; other workers on the server have taken the rest. (Text, so that nothing is prepared for it.)
        let limit =
            |most| sqlx::raw_sql(AssertSqlSafe(format!("SET GLOBAL max_prepared_stmt_count = {most}")));
        limit(1).execute(&mut root).await.unwrap();
        site.publish(&task("during", json!({}), &[seed(2)])).await;
        site.open_gate("limit");
        let mut seen = 0;
        for _ in 0..2 {
            worker.line_after(seen, "the database is unreachable: error returned from database: 1461").await;
            seen = worker.mark();
        }
        limit(16_382).execute(&mut root).await.unwrap();
        let took = all_end(&site, &["during", "before"]).await;
        report("db-statements", "no further statement prepared; two of the worker's refused", took);
    }

    /// Kills the worker's connections and takes their places, until it has none.
    async fn take_all(root: &mut MySqlConnection, mariadb: &MariaDb) -> Vec<MySqlConnection> {
        let mut held = Vec::new();
        let url = mariadb.url("").replace("root@", "plain@");
        let ours =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'plain' AND db IS NOT NULL";
        let kill = "SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user = 'plain' AND db IS NOT NULL";
        wait::until("the worker has no connection left", async || {
            let kills: Vec<String> = sqlx::query_scalar(kill).fetch_all(&mut *root).await.unwrap();
            for kill in kills {
                // It may have ended by itself.
                let _gone = run(root, &kill).await;
            }
            while let Ok(connection) = MySqlConnection::connect(&url).await {
                held.push(connection);
            }
            let left: i64 = sqlx::query_scalar(ours).fetch_one(&mut *root).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
        // One more is kept free for root, and only what comes after it is counted as refused.
        while let Ok(connection) = MySqlConnection::connect(&mariadb.url("")).await {
            held.push(connection);
        }
        held
    }
}
