//! Servers of a test's own: what a crash leaves, and that nothing of them stays behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use retouch_tests::{
    broker::Amqp,
    env::{AMQP_URL, MYSQL_URL},
    services::{MariaDb, Port, RabbitMq},
    wait,
};
use sqlx::{Connection, MySqlConnection};

#[tokio::test]
async fn a_killed_broker_comes_back_with_every_confirmed_message() {
    let mut broker = RabbitMq::start().await.unwrap();
    let amqp = Amqp::connect(&broker.amqp_url()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    amqp.channel.queue_declare("kept".into(), durable, arguments).await.unwrap();
    broker.sync_declarations().await.unwrap();
    amqp.publish("", "kept", "survivor").await;

    broker.kill9();
    assert!(TcpStream::connect(broker.address()).is_err());
    broker.stop_and_restart().await.unwrap();

    let amqp = Amqp::connect(&broker.amqp_url()).await;
    // A queue's leader is elected a moment after the broker takes connections.
    let survivor = wait::until("the message", async || amqp.take("kept").await).await;
    assert_eq!(survivor.delivery.data, b"survivor");
    let queues = broker.ctl(&["list_queues", "--silent", "name"]).await.unwrap();
    assert_eq!(queues.trim(), "kept");
}

#[tokio::test]
async fn a_killed_database_comes_back_with_every_commit() {
    let mut server = MariaDb::start().await.unwrap();
    let mut database = MySqlConnection::connect(&server.url("")).await.unwrap();
    for statement in
        ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]
    {
        sqlx::query(statement).execute(&mut database).await.unwrap();
    }
    let mut open = database.begin().await.unwrap();
    sqlx::query("INSERT INTO d.t VALUES (2)").execute(&mut *open).await.unwrap();
    server.kill9();
    assert!(TcpStream::connect(server.address()).is_err());
    drop(open);

    for _ in 0..2 {
        server.restart().await.unwrap();
        let mut database = MySqlConnection::connect(&server.url("d")).await.unwrap();
        let kept: Vec<i32> = sqlx::query_scalar("SELECT id FROM t").fetch_all(&mut database).await.unwrap();
        assert_eq!(kept, [1]);
    }
}

#[tokio::test]
async fn the_runner_returns_its_commands_exit_code_and_stops_servers() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner(folder.path(), "exit 7");
    let done = runner.output().unwrap();
    assert_eq!(done.status.code(), Some(7));
    assert_eq!(String::from_utf8(done.stdout).unwrap().lines().count(), 2);
    nothing_left_of(folder.path()).await;
}

#[tokio::test]
async fn no_server_outlives_its_runner_even_when_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner(folder.path(), "exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    let urls = BufReader::new(runner.stdout.take().unwrap()).lines().take(2).map(Result::unwrap);
    for url in urls {
        assert!(listens(&url), "{url}");
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    nothing_left_of(folder.path()).await;
}

/// The runner of the shared servers with a shell script that first tells where they are; all its files are in
/// `folder`.
fn runner(folder: &Path, script: &str) -> Command {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_with-servers"));
    let script = format!("echo ${AMQP_URL}; echo ${MYSQL_URL}; {script}");
    runner.args(["--", "sh", "-c", &script]).env("TMPDIR", folder).stderr(Stdio::null());
    runner
}

fn listens(url: &str) -> bool {
    let url: url::Url = url.parse().unwrap();
    TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).is_ok()
}

/// Waits until no process has this folder in its environment, as its home say, and no server has files in it.
async fn nothing_left_of(folder: &Path) {
    let mark = folder.as_os_str().as_bytes();
    let mut left = Vec::new();
    let gone = wait::poll(wait::SOON, async || {
        left = entries(Path::new("/proc"));
        left.retain(|process| {
            // A process that ends just now, or another user's, cannot be read; neither is ours.
            let environ = fs::read(process.join("environ")).unwrap_or_default();
            environ.windows(mark.len()).any(|part| part == mark)
        });
        left.extend(entries(folder).into_iter().filter(|path| !path.ends_with(Port::locks())));
        left.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "left behind: {left:?}");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
