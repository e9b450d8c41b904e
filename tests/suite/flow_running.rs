//! Operating a worker: refusals at start, its HTTP endpoints, and secrets that it never reveals.

use std::net::TcpListener;

use retouch_tests::env::Env;
use retouch_tests::pictures::{picture, same_pixels};
use retouch_tests::program::Running;
use retouch_tests::proxy::Proxy;
use retouch_tests::services::Port;
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use retouch_worker::editor::double;
use serde_json::{Value, json};

#[tokio::test]
async fn an_unmigrated_database_is_refused_with_the_command() {
    let env = Env::new().await;
    let refused = env.program(&["worker"]).run().await;
    assert_eq!(refused.status.code(), Some(3));
    assert!(refused.stderr.contains("run `retouch migrate`"), "{}", refused.stderr);
    assert_eq!(env.queues().await, [], "it has touched the broker");

    let migrated = env.program(&["migrate", "--json"]).run().await;
    assert_eq!(migrated.stdout.trim(), r#"{"changed":true,"status":"current"}"#);
    let again = env.program(&["migrate", "--json"]).run().await;
    assert_eq!(again.stdout.trim(), r#"{"changed":false,"status":"current"}"#);
    working(&env.program(&["worker"]).start()).await;
}

#[tokio::test]
async fn the_tables_of_another_system_are_named_and_not_touched() {
    let env = Env::new().await;
    let pool = env.pool().await;
    for table in ["image_edit_cache", "image_edit_tasks"] {
        let create = format!("CREATE TABLE {table} (id INT PRIMARY KEY, result_url TEXT)");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&pool).await.unwrap();
    }
    sqlx::query("INSERT INTO image_edit_cache VALUES (1, 'kept')").execute(&pool).await.unwrap();
    for command in ["migrate", "worker"] {
        let refused = env.program(&[command]).run().await;
        assert!(!refused.status.success());
        for part in ["image_edit_cache", "image_edit_tasks", "nothing was touched"] {
            assert!(refused.stderr.contains(part), "{command}: {}", refused.stderr);
        }
    }
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&pool).await.unwrap(), 2);
    let kept: String =
        sqlx::query_scalar("SELECT result_url FROM image_edit_cache").fetch_one(&pool).await.unwrap();
    assert_eq!(kept, "kept");
}

/// A worker with HTTP, and where it serves.
async fn serving(site: &Site, settings: &[(&str, &str)]) -> (Running, String, Port) {
    let port = Port::free().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    let mut all = vec![("RETOUCH_HTTP", address.as_str())];
    all.extend(settings);
    (site.worker_with(&all).await, format!("http://{address}"), port)
}

async fn get(url: &str) -> reqwest::Response {
    reqwest::get(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

#[tokio::test]
async fn a_result_url_serves_the_right_picture_and_nothing_else() {
    let site = Site::on_servers().await;
    let (_worker, root, _port) = serving(&site, &[]).await;
    let mut events = site.events().await;
    let mut bad = serde_json::to_vec(&task("bad", json!({}), &[])).unwrap();
    bad.resize(300 * 1024, b' ');
    site.publish_bytes(&bad).await;
    site.publish(&task("task", json!({}), &[seed(1)])).await;
    let event = events.next_json().await;
    let image = &event["images"][0];
    let url = image["result_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{root}/blobs/sha256/")), "{url}");
    let served = get(url).await;
    assert_eq!(served.status(), 200);
    assert_eq!(served.headers()["content-type"], image["content_type"].as_str().unwrap());
    assert!(served.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(same_pixels(&served.bytes().await.unwrap(), &double::expected(&picture(1)).unwrap()));

    // The message of a dead letter is among the blobs, and no picture.
    let letter = "SELECT payload_blob FROM dead_letters WHERE payload_blob IS NOT NULL";
    site.counts("SELECT COUNT(*) FROM dead_letters WHERE payload_blob IS NOT NULL", 1).await;
    let letter = site.texts(letter).await.remove(0);
    for path in [
        format!("/blobs/sha256/{}/{letter}", &letter[..2]),
        format!("/blobs/sha256/00/{}", "0".repeat(64)),
        "/blobs/sha256/..%2f..%2f/retouch.toml".to_owned(),
        "/blobs/".to_owned(),
    ] {
        assert_eq!(get(&format!("{root}{path}")).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn readiness_names_the_failing_part_and_recovers() {
    let site = Site::on_servers().await;
    let (mut broker, amqp_url) = Proxy::before(site.env.amqp_url()).await;
    let (_worker, root, _port) = serving(&site, &[("AMQP_URL", &amqp_url)]).await;
    let ready = async || {
        let answer = get(&format!("{root}/readyz")).await;
        let status = answer.status().as_u16();
        (status, serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    wait::until("readiness", async || (ready().await.0 == 200).then_some(())).await;
    let (_, parts) = ready().await;
    for part in ["database", "blobs", "queue tasks", "queue edits.double", "queue dead"] {
        assert_eq!(parts[part], "ok", "{parts}");
    }
    broker.refuse().await;
    let lost = wait::until("a loss", async || Some(ready().await).filter(|(status, _)| *status == 503)).await;
    assert!(lost.1["queue tasks"].as_str().unwrap().starts_with("not consuming since"), "{}", lost.1);
    assert_eq!(lost.1["database"], "ok");
    assert_eq!(get(&format!("{root}/livez")).await.status(), 200, "a restart would not help");
    broker.accept().await;
    wait::until("readiness again", async || (ready().await.0 == 200).then_some(())).await;
    site.publish(&task("task", json!({}), &[seed(1)])).await;
    site.ended("task").await;
}

#[tokio::test]
async fn a_move_to_another_address_rewrites_no_row() {
    let site = Site::on_servers().await;
    let mut events = site.events().await;
    let rows = "SELECT CONCAT(result_url, ' ', created_at, ' ', updated_at) FROM image_edit_cache";
    let mut before = Vec::new();
    for (id, base) in [("one", "https://one.example/pictures"), ("two", "https://two.example/p/")] {
        let worker = site.worker_with(&[("RETOUCH_PUBLIC_URL", base)]).await;
        site.publish(&task(id, json!({}), &[seed(1)])).await;
        let event = events.next_json().await;
        let url = event["images"][0]["result_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{}/sha256/", base.trim_end_matches('/'))), "{url}");
        before.push(site.texts(rows).await);
        worker.terminate();
        worker.exit().await;
    }
    assert!(before[0][0].starts_with("sha256/"), "{before:?}");
    assert_eq!(before[0], before[1]);
}

#[tokio::test]
async fn savings_are_the_price_of_each_edit() {
    let site = Site::on_servers().await;
    let settings = site.env.folder().join("retouch.toml");
    let routes = "[routes.double]\neditor = 'double'\nmodel = 'dear'\nprice = '0.5'\n\
        [routes.double_async]\neditor = 'double'\nmodel = 'cheap'\nprice = '0.02'\n";
    std::fs::write(&settings, routes).unwrap();
    let _worker = site.worker_with(&[("RETOUCH_CONFIG", settings.to_str().unwrap())]).await;
    let mut events = site.events().await;
    let mut costs = Vec::new();
    for (id, edit_type) in [("a", "double"), ("b", "double_async"), ("c", "double"), ("d", "double_async")] {
        let mut task = task(id, json!({}), &[seed(1), seed(1)]);
        task["edit_type"] = json!(edit_type);
        site.publish(&task).await;
        let cost = events.next_json().await["cost"].clone();
        costs.push([cost["paid"].as_str().unwrap().to_owned(), cost["saved"].as_str().unwrap().to_owned()]);
    }
    assert_eq!(costs, [["0.5", "0.5"], ["0.02", "0.02"], ["0", "1"], ["0", "0.04"]]);
}

const PASSWORD: &str = "correct-horse-battery";

#[tokio::test]
async fn no_password_is_in_any_line_of_the_log() {
    let site = Site::on_servers().await;
    let name = site.env.namespace();
    let user = format!("'{name}'@'%'");
    site.execute(&format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")).await;
    site.execute(&format!("GRANT ALL ON {name}.* TO {user}")).await;
    site.env.management().create_user(name, PASSWORD).await.unwrap();
    let login = |url: &str| {
        let mut url: url::Url = url.parse().unwrap();
        url.set_username(name).unwrap();
        url.set_password(Some(PASSWORD)).unwrap();
        url.to_string()
    };
    let (mysql, amqp) = (login(&site.env.mysql_url()), login(site.env.amqp_url()));
    let (mut broker, amqp) = Proxy::before(&amqp).await;
    let (database, mysql) = Proxy::before(&mysql).await;
    let settings = [("DATABASE_URL", mysql.as_str()), ("AMQP_URL", &amqp), ("RUST_LOG", "trace")];
    let worker = site.worker_with(&settings).await;
    site.publish(&task("task", json!({}), &[seed(1)])).await;
    site.ended("task").await;
    // And while it loses both and finds them again.
    database.cut().await;
    broker.refuse().await;
    worker.line("not consuming").await;
    broker.accept().await;
    worker.line("consuming again").await;
    site.publish(&task("again", json!({}), &[seed(1)])).await;
    site.ended("again").await;
    worker.terminate();
    worker.exit().await;
    let told = worker.stderr() + &worker.stdout();
    // This program has no lines of that level; libraries would log what they send.
    assert_eq!(told.lines().find(|line| line.contains(r#""level":"TRACE""#)), None);
    // Libraries log sent bytes as numbers.
    let bytes = PASSWORD.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(told.lines().find(|line| line.contains(PASSWORD) || line.contains(&bytes)), None);
    site.env.management().delete_user(name).await.unwrap();
    site.execute(&format!("DROP USER {user}")).await;
}

#[tokio::test]
async fn no_password_is_in_a_workers_start_error() {
    let site = Site::on_servers().await;
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wrong = |url: &str| {
        url.replacen("://", &format!("://user:{PASSWORD}@"), 1)
            .replacen("@guest:guest@", "@", 1)
            .replacen("@root@", "@", 1)
    };
    for (name, url) in [
        ("AMQP_URL", wrong(site.env.amqp_url())),
        ("AMQP_URL", format!("amqp://u:{PASSWORD}@{unused}/")),
        ("AMQP_URL", format!("http://u:{PASSWORD}@{unused}/")),
        ("AMQP_URL", format!("amqp://u:{PASSWORD}@{unused}:no-port/")),
        ("DATABASE_URL", wrong(&site.env.mysql_url())),
        ("DATABASE_URL", format!("mysql://u:{PASSWORD}@{unused}/d")),
        ("DATABASE_URL", format!("oracle://u:{PASSWORD}@{unused}/d")),
        ("DATABASE_URL", format!("mysql://u:{PASSWORD}@{unused}:no-port/d")),
    ] {
        let failed = site.worker().env(name, &url).env("RUST_LOG", "debug").run().await;
        assert!(matches!(failed.status.code(), Some(2 | 3)), "{name}={url}: {}", failed.stderr);
        assert!(failed.stderr.contains("retouch: "), "{}", failed.stderr);
        assert!(!failed.stderr.contains(PASSWORD), "{name}: {}", failed.stderr);
    }
}
