//! The worker's HTTP port under hostile clients, and the files that it serves.

use std::time::{Duration, Instant};

use retouch_shared::key::Digest32;
use retouch_tests::memory::{current_mib, peak_mib};
use retouch_tests::program::Running;
use retouch_tests::services::Port;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A worker with HTTP, and its address.
async fn serving(site: &Site) -> (Running, String, Port) {
    let port = Port::free().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    (site.worker_with(&[("RETOUCH_HTTP", &address)]).await, address, port)
}

async fn connect(address: &str, begin: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(begin.as_bytes()).await.unwrap();
    stream
}

async fn is_alive(address: &str) -> bool {
    let asked = reqwest::get(format!("http://{address}/livez"));
    matches!(tokio::time::timeout(Duration::from_secs(5), asked).await, Ok(Ok(answer)) if answer.status() == 200)
}

#[tokio::test]
async fn connections_that_only_wait_are_closed_and_probes_answered_meanwhile() {
    let site = Site::in_one_file().await;
    let (worker, address, _port) = serving(&site).await;
    let files = || std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count();
    let before = files();
    let began = Instant::now();
    let mut slow = Vec::new();
    for number in 0..400 {
        let begin = if number % 2 == 0 { "GET /livez HTTP/1.1\r\nx: " } else { "" };
        slow.push(connect(&address, begin).await);
        if number % 100 == 99 {
            assert!(is_alive(&address).await, "after {number} connections");
        }
    }
    let open = files() - before;
    println!("400 connections: {open} files open");
    assert!(open <= 256 + 4, "{open} files are open");
    site.publish(&task("meanwhile", json!({}), &[seed(1)])).await;
    site.ended("meanwhile").await;
    for stream in &mut slow {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", began.elapsed());
    }
    println!("all closed after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(40));
}

/// A result of so many bytes, as a provider could have returned it: the row of a finished edit names it.
/// Returns its path.
async fn large_result(site: &Site, bytes: &[u8]) -> String {
    site.publish(&task("task", json!({}), &[seed(1)])).await;
    site.ended("task").await;
    let hash = Digest32::of(bytes).to_hex();
    let reference = format!("sha256/{}/{hash}", &hash[..2]);
    let file = site.env.folder().join("blobs").join(&reference);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let sql = format!(
        "UPDATE image_edit_cache SET result_hash = '{hash}', result_url = '{reference}', bytes = {}",
        bytes.len()
    );
    site.execute(&sql).await;
    format!("/blobs/{reference}")
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[tokio::test]
async fn slow_readers_of_a_large_result_take_no_copy_each() {
    let site = Site::in_one_file().await;
    let (worker, address, _port) = serving(&site).await;
    let bytes = noise(18_750_000);
    let path = large_result(&site, &bytes).await;
    let before = current_mib(worker.pid());
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut readers = Vec::new();
    for _ in 0..60 {
        readers.push(connect(&address, &request).await);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(is_alive(&address).await);
    let peak = peak_mib(worker.pid());
    println!("60 slow readers: {before} MiB before, {peak} MiB at most");
    assert!(peak < before + 60, "{before} MiB before, {peak} MiB at most");
    // They are served whole when they read on.
    let mut whole = Vec::new();
    readers.pop().unwrap().read_to_end(&mut whole).await.unwrap();
    assert!(whole.ends_with(&bytes), "{} bytes came", whole.len());
}

#[tokio::test]
async fn only_results_are_served_in_parts_too_and_nothing_of_them_runs() {
    let site = Site::in_one_file().await;
    let (_worker, address, _port) = serving(&site).await;
    let bytes = noise(1_000_000);
    let path = large_result(&site, &bytes).await;
    let url = format!("http://{address}{path}");
    let client = reqwest::Client::new();
    let get = async |url: &str, name: &'static str, value: &str| {
        client.get(url).header(name, value).send().await.unwrap()
    };
    let whole = get(&url, "x-nothing", "").await;
    assert_eq!(whole.status(), 200);
    let header = |name: &str| whole.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!((header("content-length").as_str(), header("accept-ranges").as_str()), ("1000000", "bytes"));
    let tag = header("etag");
    assert!(whole.bytes().await.unwrap() == bytes);

    let part = get(&url, "range", "bytes=999990-").await;
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 999990-999999/1000000".parse().unwrap())
    );
    assert_eq!(&part.bytes().await.unwrap()[..], &bytes[999_990..]);
    assert_eq!(get(&url, "range", "bytes=1000000-").await.status(), 416);
    assert_eq!(get(&url, "if-none-match", &tag).await.status(), 304);

    // The input's digest is in every event.
    let input = site.task("task").await.unwrap().images[0]["image_hash"].as_str().unwrap().to_owned();
    let input_url = format!("http://{address}/blobs/sha256/{}/{input}", &input[..2]);
    assert!(site.env.folder().join(format!("blobs/sha256/{}/{input}", &input[..2])).exists());
    assert_eq!(get(&input_url, "x-nothing", "").await.status(), 404);
    assert_eq!(get(&input_url, "if-none-match", &format!("\"{input}\"")).await.status(), 404);

    // A damaged result never comes whole.
    let file = site.env.folder().join(path.trim_start_matches('/'));
    let mut damaged = bytes.clone();
    damaged[3] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    assert!(get(&url, "x-nothing", "").await.bytes().await.is_err());
    assert_eq!(get(&url, "range", "bytes=0-9").await.status(), 503);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(get(&url, "if-none-match", &tag).await.status(), 404);
}

#[tokio::test]
async fn a_publicly_reachable_address_is_warned_of() {
    let site = Site::in_one_file().await;
    let port = Port::free().unwrap();
    let address = format!("0.0.0.0:{}", port.number());
    let worker = site.worker_with(&[("RETOUCH_HTTP", &address)]).await;
    worker.line("other machines reach this address, and it has no login").await;
    let local = format!("127.0.0.1:{}", port.number());
    wait::until("liveness", async || is_alive(&local).await.then_some(())).await;
    let done = site.program(&["doctor"]).env("RETOUCH_HTTP", &address).run().await;
    let line =
        |name: &str| done.stdout.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("http: ").starts_with(&format!("! http: a worker serves {address}")), "{}", done.stdout);
    assert!(line("http: ").contains("other machines reach it without a login"), "{}", done.stdout);
    assert!(
        line("public url: ").starts_with("! public url: result URLs start with http://0.0.0.0:"),
        "{}",
        done.stdout
    );
}
