//! `retouch health` for container runtimes: 0 or 1 and a reason.

use retouch_tests::program::{Finished, Program};
use retouch_tests::proxy::Proxy;
use retouch_tests::services::Port;
use retouch_tests::site::Site;
use retouch_tests::wait;
use serde_json::Value;

async fn asked(address: &str, arguments: &[&str]) -> Finished {
    let words = [&["health"], arguments].concat();
    // What is in the environment of a container that talks to providers through a proxy.
    let program = Program::new(&words).env("RETOUCH_HTTP", address).env("http_proxy", "http://127.0.0.1:1");
    let done = program.run().await;
    assert_eq!(done.stderr, "");
    done
}

fn is(done: &Finished, code: i32, says: &str) {
    assert_eq!((done.status.code(), done.stdout.starts_with(says)), (Some(code), true), "{}", done.stdout);
}

#[tokio::test]
async fn a_worker_is_healthy_or_says_why_it_is_not() {
    let site = Site::on_servers().await;
    let (mut broker, amqp_url) = Proxy::before(site.env.amqp_url()).await;
    let port = Port::free().unwrap();
    // As in a container: on every address.
    let address = format!("0.0.0.0:{}", port.number());
    let _worker = site.worker_with(&[("RETOUCH_HTTP", &address), ("AMQP_URL", &amqp_url)]).await;
    let health =
        async |code| Some(asked(&address, &[]).await).filter(|done| done.status.code() == Some(code));
    is(&wait::until("health", async || health(0).await).await, 0, "healthy\n");

    broker.refuse().await;
    let ill = wait::until("a loss", async || health(1).await).await;
    is(&ill, 1, "unhealthy; ");
    assert!(ill.stdout.contains("queue tasks: not consuming since"), "{}", ill.stdout);
    let told: Value = serde_json::from_str(&asked(&address, &["--json"]).await.stdout).unwrap();
    assert_eq!(told["healthy"], false);
    assert_eq!(told["answer"]["database"], "ok");
    assert!(told["reason"].as_str().unwrap().contains("queue tasks"), "{told}");
    let livez = format!("http://127.0.0.1:{}/livez", port.number());
    is(&asked(&address, &[&livez]).await, 0, "healthy\n");

    broker.accept().await;
    wait::until("health again", async || health(0).await).await;
}

#[tokio::test]
async fn where_nothing_answers_the_code_is_one() {
    let port = Port::free().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    let done = asked(&address, &[]).await;
    is(&done, 1, &format!("http://{address}/readyz does not answer: "));
    is(&asked("off", &[]).await, 1, "RETOUCH_HTTP is off");
    is(&asked("nowhere", &[]).await, 1, "RETOUCH_HTTP must be ADDRESS:PORT or off");
    is(&asked(&address, &["ftp://127.0.0.1/"]).await, 1, "ftp://127.0.0.1/: a worker speaks http://");
}
