//! The program `stand-in`, for a person who tries a worker or a client without paying.

use reqwest::Method;
use retouch_tests::program::Program;
use retouch_tests::stand_in::StandIn;
use serde_json::{Value, json};

use super::client::{IMAGE2IMAGE, photo, refused, said, simple};

#[tokio::test]
async fn the_stand_in_serves_until_it_is_stopped() {
    let running = Program::other(env!("CARGO_BIN_EXE_stand-in"), &["--port", "0"]).start();
    let line = running.line("DASHSCOPE_BASE_URL=").await;
    let base = line.split('=').nth(1).unwrap().to_owned();
    retouch_worker::tls::init();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let control = |method: Method, path: &str, body: &Value| {
        let url = format!("{}/stand-in/{path}", base.strip_suffix("/api/v1").unwrap());
        http.request(method, url).header("content-type", "application/json").body(body.to_string()).send()
    };
    let create = || {
        let post = http.post(format!("{base}{IMAGE2IMAGE}")).bearer_auth(StandIn::KEY);
        let post = post.header("content-type", "application/json").header("x-dashscope-async", "enable");
        post.body(simple(&photo(1)).to_string())
    };
    let set = control(Method::PUT, "settings", &json!({ "limits": "off" })).await.unwrap();
    assert_eq!(set.status(), 204);
    let refusal = json!({ "status": 429, "code": "Throttling.RateQuota", "message": "as asked" });
    let fault =
        json!({ "fault": { "create": { "refuse": { "refusal": refusal, "created": false } } }, "times": 1 });
    assert_eq!(control(Method::POST, "faults", &fault).await.unwrap().status(), 204);
    assert_eq!(refused(create()).await, (429, "Throttling.RateQuota".to_owned()));
    assert_eq!(said(create()).await.0, 200);
    let chaos = json!({ "seed": 1, "chaos": [[1.0, { "create": { "drop": { "created": true } } }]] });
    assert_eq!(control(Method::POST, "chaos", &chaos).await.unwrap().status(), 204);
    assert!(create().send().await.is_err());
    assert_eq!(control(Method::DELETE, "faults", &Value::Null).await.unwrap().status(), 204);
    control(Method::POST, "advance", &json!({ "seconds": 60 })).await.unwrap();
    let ledger = control(Method::GET, "ledger", &Value::Null).await.unwrap().bytes().await.unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    assert_eq!(ledger["sums"], json!({ "creates": 2, "billed": 2, "fen": { "wanx2.1-imageedit": 28 } }));
    running.terminate();
    assert!(running.exit().await.success());
}

#[tokio::test]
async fn the_program_says_how_it_is_used() {
    for (arguments, code) in [(&["--help"][..], 0), (&["--prot", "1"], 2)] {
        let done = Program::other(env!("CARGO_BIN_EXE_stand-in"), arguments).run().await;
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.starts_with("usage: stand-in [--port PORT]\n") && !said.contains("backtrace"), "{said}");
        assert_eq!(done.status.code(), Some(code), "{arguments:?}");
    }
}
