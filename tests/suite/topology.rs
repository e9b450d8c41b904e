//! `retouch topology`: reports differences without changing anything, and exports definitions from the data
//! that a worker declares from.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use retouch_tests::env::Env;
use serde_json::Value;

mod own_servers;

/// Exit code and findings: what, state, detail.
async fn check(env: &Env, arguments: &[&str]) -> (i32, Vec<Value>) {
    let done = env.program(&[&["topology", "check", "--json"], arguments].concat()).run().await;
    let findings = serde_json::from_str(&done.stdout);
    let findings = findings.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    (done.status.code().unwrap(), findings)
}

fn states(findings: &[Value]) -> Vec<&str> {
    let mut states: Vec<_> = findings.iter().filter_map(|finding| finding["state"].as_str()).collect();
    states.sort_unstable();
    states.dedup();
    states
}

#[tokio::test]
async fn a_check_reports_missing_or_different_items_and_changes_nothing() {
    let env = Env::new().await;
    let (code, findings) = check(&env, &[]).await;
    assert_eq!((code, states(&findings)), (1, vec!["missing"]));
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let name = format!("{}.edits.local", env.namespace());
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let amqp = env.amqp().await;
    amqp.channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    let (code, findings) = check(&env, &[]).await;
    assert_eq!((code, states(&findings)), (1, vec!["different", "missing"]));
    let different = findings.iter().find(|finding| finding["state"] == "different").unwrap();
    assert_eq!(different["what"], format!("queue {name}"));
    let detail = different["detail"].as_str().unwrap();
    assert!(detail.contains("exists with another x-") && detail.contains("it has none"), "{detail}");
    assert_eq!(env.queues().await.len(), 1, "nothing was declared");
    let text = env.program(&["topology", "check"]).run().await;
    assert!(
        text.stdout.contains(&format!("✗ queue {name}: the queue {name} exists with another x-")),
        "{}",
        text.stdout
    );
    assert!(text.stdout.contains("– bindings: "), "{}", text.stdout);
}

#[tokio::test]
async fn a_missing_lane_and_an_unreachable_broker_are_told_apart() {
    let env = Env::new().await;
    let done = env.program(&["topology", "check", "--lane", "nowhere"]).run().await;
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stderr.contains("--lane nowhere: there is none; there are dashscope."), "{}", done.stderr);
    let done = env.program(&["topology", "check"]).env("AMQP_URL", "amqp://127.0.0.1:1/").run().await;
    assert_eq!(done.status.code(), Some(3));
}

#[tokio::test]
async fn definitions_need_no_broker_and_name_the_virtual_host_and_the_lanes() {
    let env = Env::new().await;
    let export = async |arguments: &[&str]| {
        let program = env.program(&[&["topology", "export"], arguments].concat());
        let done = program.env("AMQP_URL", "amqp://127.0.0.1:1/images").run().await;
        assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
        serde_json::from_str::<Value>(&done.stdout).unwrap()
    };
    let queues = |definitions: &Value| -> Vec<String> {
        let queues = definitions["queues"].as_array().unwrap().iter();
        queues
            .map(|queue| queue["name"].as_str().unwrap().to_owned())
            .filter(|name| name.contains(".edits."))
            .collect()
    };
    let definitions = export(&[]).await;
    assert_eq!(definitions["queues"][0]["vhost"], "images", "that of AMQP_URL");
    assert_eq!(queues(&definitions), [format!("{}.edits.local", env.namespace())], "there is no key");
    let definitions = export(&["--vhost", "other", "--lane", "dashscope.wanx2.1-imageedit"]).await;
    assert_eq!(definitions["bindings"][0]["vhost"], "other");
    assert_eq!(queues(&definitions), [format!("{}.edits.dashscope.wanx2.1-imageedit", env.namespace())]);
}
