//! Servers that are set up badly: they are the test's own.

use retouch_tests::env::Env;
use retouch_tests::services::{MariaDb, RabbitMq};
use retouch_tests::wait;

use super::{doctor, examine};

#[tokio::test]
async fn a_server_that_is_set_up_badly_is_named_setting_by_setting() {
    let bad = [
        "--sql-mode=NO_ENGINE_SUBSTITUTION",
        "--max-allowed-packet=1M",
        "--innodb-flush-log-at-trx-commit=2",
        "--log-bin=log",
        "--binlog-format=STATEMENT",
    ];
    let database = MariaDb::start_with(&bad).await.unwrap();
    let broker = RabbitMq::start().await.unwrap();
    let env = Env::on_own(&broker, &database).await;
    let report = examine(doctor(&env)).await;
    report.names("sql_mode not strict", "sql_mode", "warning", "the server's is not strict");
    report.names("packets too small", "max_allowed_packet", "failed", "1048576 bytes");
    report.names("commits not on disk", "durability", "warning", "innodb_flush_log_at_trx_commit is 2");
    report.names("statement-based log", "isolation", "failed", "binlog_format is STATEMENT");

    // A broker that takes no messages.
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await.unwrap();
    wait::until("the alarm", async || {
        let status = broker.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.unwrap();
        status.contains("memory").then_some(())
    })
    .await;
    let report = examine(doctor(&env)).await;
    report.names("memory alarm", "broker alarms", "failed", "low on memory");
    assert_eq!(report.state("queues"), "ok", "{:#?}", report.checks);
}
