//! Promises of the fetcher, against local servers that are allowed by address or by name.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, Uri, header};
use axum::routing::get;
use futures::StreamExt;
use futures::stream;

use super::*;

const LIMITS: FetchLimits =
    FetchLimits { max_bytes: 1000, deadline: Duration::from_secs(20), max_redirects: 3, retries: 0 };

fn fetcher(allow: &str, limits: FetchLimits) -> Fetcher {
    Fetcher::new(allow.parse().expect(allow), limits).expect("a client")
}

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Fetches with 127.0.0.1 allowed.
async fn fetch(url: &str) -> Result<Bytes, FetchError> {
    fetcher("127.0.0.1", LIMITS).fetch(url, Purpose::Source).await
}

fn redirect_to(location: &str) -> Response<Body> {
    let redirect = Response::builder().status(302).header(header::LOCATION, location);
    redirect.body(Body::from("moved")).expect("a response")
}

/// Asserts that the error does not reveal the URL's secrets.
fn assert_discreet(error: &FetchError) {
    for text in [error.to_string(), format!("{error:?}")] {
        for secret in ["Signature", "s3cr3t", "hunter2", "path"] {
            assert!(!text.contains(secret), "tells {secret}: {text}");
        }
    }
}

#[tokio::test]
async fn a_picture_is_fetched_whole_and_asked_for_plainly() {
    let app = Router::new().fallback(|request: Request<Body>| async move {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header(header::USER_AGENT), Some(USER_AGENT));
        assert_eq!(header(header::ACCEPT_ENCODING), Some("identity"));
        assert_eq!(header(header::COOKIE), None);
        assert_eq!(header(header::REFERER), None);
        assert_eq!(request.uri(), "/a%20b.png?Signature=a%2Bb");
        "bytes"
    });
    let server = serve(app).await;
    let answer = fetch(&format!("http://{server}/a%20b.png?Signature=a%2Bb")).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"bytes")));
}

#[tokio::test]
async fn a_private_address_is_refused_unless_it_is_allowed() {
    let server = serve(Router::new().route("/", get(|| async { "here" }))).await;
    let port = server.port();
    let addresses = [
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "LocalHost".to_owned(),
        "2130706433".to_owned(),
        "0x7f.1".to_owned(),
        "[::ffff:127.0.0.1]".to_owned(),
        "[::1]".to_owned(),
    ];
    for host in addresses {
        let url = format!("http://{host}:{port}/path?Signature=s3cr3t");
        let refused = fetcher("", LIMITS).fetch(&url, Purpose::Source).await;
        let refused = refused.expect_err(&host);
        assert_eq!(refused.code(), "private_address", "{host}: {refused}");
        assert!(!refused.is_temporary());
        assert_discreet(&refused);
    }
    for (allow, host) in
        [("localhost", "localhost"), ("127.0.0.0/8", "127.0.0.1"), ("127.0.0.0/8,::1", "localhost")]
    {
        let url = format!("http://{host}:{port}/");
        let answer = fetcher(allow, LIMITS).fetch(&url, Purpose::Source).await;
        assert_eq!(answer, Ok(Bytes::from_static(b"here")), "{allow}");
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_connected_to() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    let server = serve(Router::new().route("/", get(|| async { "here" }))).await;
    let url = format!("http://rebinding.example:{}/", server.port());
    // Public at the first lookup, this machine at every later one.
    let resolver = |allow: &Arc<AllowHosts>| {
        GuardedResolver::with_lookup(Arc::clone(allow), |_| {
            let first = LOOKUPS.fetch_add(1, Ordering::SeqCst) == 0;
            let address = if first { "192.0.2.1:0" } else { "127.0.0.1:0" };
            Box::pin(async move { Ok(vec![address.parse().expect("an address")]) })
        })
    };
    let allow: Arc<AllowHosts> = Arc::new("192.0.2.1".parse().expect("allowed, like a public one"));
    let limits = FetchLimits { deadline: Duration::from_millis(300), ..LIMITS };
    let rebound = Fetcher::with_resolver(Arc::clone(&allow), limits, resolver(&allow));
    let rebound = rebound.expect("a client");
    // The first lookup decides the connection: no host answers there, and this machine is never contacted.
    let first = rebound.fetch(&url, Purpose::Source).await.expect_err("no host");
    assert_eq!(first.code(), "source_unavailable", "{first}");
    assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
    let second = rebound.fetch(&url, Purpose::Source).await.expect_err("private");
    assert_eq!(second.code(), "private_address", "{second}");
    // The same name is allowed, and the request passes.
    let allow: Arc<AllowHosts> = Arc::new("*.example".parse().expect("a name"));
    let named = Fetcher::with_resolver(Arc::clone(&allow), LIMITS, resolver(&allow));
    let answer = named.expect("a client").fetch(&url, Purpose::Source).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"here")));
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused() {
    // The server is allowed by its name, which allows no other route to this machine.
    let fetcher = fetcher("localhost", LIMITS);
    for to in ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1/", "//10.0.0.1/", "http://[::1]/"]
    {
        let app = Router::new().fallback(move || async move { redirect_to(to) });
        let port = serve(app).await.port();
        let url = format!("http://localhost:{port}/path?Signature=s3cr3t");
        let refused = fetcher.fetch(&url, Purpose::Source).await.expect_err(to);
        assert_eq!(refused.code(), "private_address", "{to}: {refused}");
        assert_discreet(&refused);
    }
}

#[tokio::test]
async fn redirects_are_followed_and_a_loop_ends() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let app = Router::new()
        .route("/a/start", get(|| async { redirect_to("../b/next?x=1") }))
        .route("/b/next", get(|| async { redirect_to("/picture") }))
        .route("/picture", get(|| async { "here" }))
        .fallback(|uri: Uri| async move {
            ASKED.fetch_add(1, Ordering::SeqCst);
            redirect_to(&format!("{}x?Signature=s3cr3t", uri.path()))
        });
    let server = serve(app).await;
    let answer = fetch(&format!("http://{server}/a/start")).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"here")));
    let endless = fetch(&format!("http://{server}/path")).await.expect_err("endless");
    assert_eq!(endless.code(), "too_many_redirects", "{endless}");
    assert_eq!(ASKED.load(Ordering::SeqCst), LIMITS.max_redirects + 1);
    assert_discreet(&endless);
}

#[tokio::test]
async fn a_redirect_without_a_usable_target_is_a_bad_url() {
    for (to, why) in [
        (Some("ftp://host/"), "scheme is ftp"),
        (Some("file:///etc/passwd"), "scheme is file"),
        (Some("http://user:hunter2@127.0.0.1/"), "user name"),
        (Some("http://[::zz]/"), "no URL"),
        (None, "without saying where"),
    ] {
        let app = Router::new().fallback(move || async move {
            let mut response = redirect_to(to.unwrap_or_default());
            if to.is_none() {
                response.headers_mut().remove(header::LOCATION);
            }
            response
        });
        let server = serve(app).await;
        let refused = fetch(&format!("http://{server}/path")).await.expect_err(why);
        assert_eq!(refused.code(), "bad_url", "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
        assert_discreet(&refused);
    }
}

#[test]
fn only_redirects_from_http_to_https_change_the_scheme() {
    let answer = |from: &str, to: &str| {
        let response = axum::http::Response::builder().header(LOCATION, to).body("");
        redirected(&from.parse().expect(from), &response.expect("a response").into())
    };
    let refused = answer("https://a.example/path", "http://a.example/").expect_err("downgrade");
    assert_eq!(refused.code(), "bad_url");
    assert_discreet(&refused);
    let followed = answer("http://a.example/", "https://b.example/c").expect("upgrade");
    assert_eq!(followed.as_str(), "https://b.example/c");
}

#[tokio::test]
async fn urls_that_cannot_be_fetched_are_refused_before_anything_is_sent() {
    for (url, why) in [
        ("", "relative URL without a base"),
        ("/path", "relative URL without a base"),
        ("ftp://host/path", "scheme is ftp"),
        ("file:///etc/path", "scheme is file"),
        ("data:image/png;base64,path", "scheme is data"),
        ("http://", "empty host"),
        ("http://user:hunter2@1.1.1.1/path", "user name"),
        ("http://hunter2@1.1.1.1/path", "user name"),
        ("http://1.1.1.999/path", "invalid IPv4 address"),
        ("http://[fe80::1%25eth0]/path", "invalid IPv6 address"),
    ] {
        let refused = fetch(url).await.expect_err(url);
        assert_eq!(refused.code(), "bad_url", "{url}: {refused}");
        assert!(refused.to_string().contains(why), "{url}: {refused}");
        assert_discreet(&refused);
    }
}

#[tokio::test]
async fn an_answer_without_a_picture_is_classified_by_the_next_step() {
    let app = Router::new().fallback(|uri: Uri| async move {
        let status: u16 = uri.path()[1..4].parse().expect("a status");
        Response::builder().status(status).body(Body::from("path s3cr3t")).expect("a response")
    });
    let server = serve(app).await;
    for (status, code, temporary) in [
        (204, "source_refused", false),
        (206, "source_refused", false),
        (304, "source_refused", false),
        (400, "source_refused", false),
        (401, "source_refused", false),
        (403, "source_refused", false),
        (404, "source_not_found", false),
        (408, "source_unavailable", true),
        (410, "source_not_found", false),
        (429, "source_unavailable", true),
        (451, "source_refused", false),
        (500, "source_unavailable", true),
        (503, "source_unavailable", true),
    ] {
        let url = format!("http://{server}/{status}/path?Signature=s3cr3t");
        let error = fetch(&url).await.expect_err(code);
        assert_eq!(error.code(), code, "{status}: {error}");
        assert_eq!(error.is_temporary(), temporary, "{status}");
        assert!(error.to_string().contains(&server.to_string()), "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_discreet(&error);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_cut_off_without_reading_it_all() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let endless = |announce: Option<usize>| async move {
        let chunks = stream::repeat_with(|| {
            SENT.fetch_add(1000, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Bytes::from_static(&[7; 1000]))
        });
        let mut response = Response::new(Body::from_stream(chunks.take(50_000)));
        if let Some(bytes) = announce {
            response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
        }
        response
    };
    let exact = |bytes: usize| async move { vec![7; bytes] };
    let app = Router::new()
        .route("/announced", get(move || endless(Some(50_000_000))))
        .route("/unannounced", get(move || endless(None)))
        .route("/1000", get(move || exact(1000)))
        .route("/1001", get(move || exact(1001)));
    let server = serve(app).await;
    for path in ["announced", "unannounced", "1001"] {
        let error = fetch(&format!("http://{server}/{path}")).await.expect_err(path);
        assert_eq!(error.code(), "too_large", "{path}: {error}");
        assert!(error.to_string().contains("1000 bytes"), "{error}");
    }
    // The buffers of both ends of a connection, and not the 100 MB.
    assert!(SENT.load(Ordering::SeqCst) < 30_000_000, "{SENT:?}");
    let whole = fetch(&format!("http://{server}/1000")).await.expect("within the limit");
    assert_eq!(whole.len(), 1000);
}

#[tokio::test]
async fn a_stalled_server_meets_the_deadline() {
    let stalls = || async {
        let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"some"))]);
        Body::from_stream(begin.chain(stream::pending()))
    };
    let app = Router::new()
        .route("/body", get(stalls))
        .route("/answer", get(std::future::pending::<()>))
        .fallback(|uri: Uri| async move {
            // Redirects, each quick enough, must not exceed the deadline in sum.
            tokio::time::sleep(Duration::from_millis(120)).await;
            redirect_to(&format!("{}x", uri.path()))
        });
    let server = serve(app).await;
    let limits = FetchLimits { deadline: Duration::from_millis(300), ..LIMITS };
    let fetcher = fetcher("127.0.0.1", limits);
    for path in ["body", "answer", "path"] {
        let url = format!("http://{server}/{path}?Signature=s3cr3t");
        let error = fetcher.fetch(&url, Purpose::Source).await.expect_err(path);
        assert_eq!(error.code(), "source_unavailable", "{path}: {error}");
        assert!(error.to_string().contains("within 300ms"), "{path}: {error}");
        assert!(error.is_temporary());
        assert_discreet(&error);
    }
}

#[tokio::test]
async fn an_unreachable_or_interrupted_server_is_unavailable() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let unused = closed.local_addr().expect("an address");
    drop(closed);
    let breaks_off = || async {
        let broken = [Ok(Bytes::from_static(b"some")), Err(std::io::Error::other("broken"))];
        let mut response = Response::new(Body::from_stream(stream::iter(broken)));
        response.headers_mut().insert(header::CONTENT_LENGTH, 9.into());
        response
    };
    let broken = serve(Router::new().fallback(breaks_off)).await;
    for (url, why) in [
        (format!("http://{unused}/path?Signature=s3cr3t"), "cannot be connected to"),
        (format!("http://{broken}/path?Signature=s3cr3t"), "broke off"),
        (format!("https://{broken}/path?Signature=s3cr3t"), "cannot be connected to"),
    ] {
        let error = fetch(&url).await.expect_err(why);
        assert_eq!(error.code(), "source_unavailable", "{url}: {error}");
        assert!(error.to_string().contains(why), "{url}: {error}");
        assert_discreet(&error);
    }
}

#[tokio::test]
async fn an_unresolvable_name_is_unavailable() {
    let allow = Arc::new(AllowHosts::default());
    let fails = GuardedResolver::with_lookup(Arc::clone(&allow), |_| {
        Box::pin(async { Err(std::io::Error::other("no such name")) })
    });
    let fetcher = Fetcher::with_resolver(allow, LIMITS, fails).expect("a client");
    let error = fetcher.fetch("http://a.example/path", Purpose::Source).await;
    let error = error.expect_err("no such name");
    assert_eq!(error.code(), "source_unavailable", "{error}");
    assert!(error.to_string().contains("a.example cannot be connected to: no such name"), "{error}");
}

#[tokio::test]
async fn only_temporary_errors_are_retried() {
    static FLAKY: AtomicUsize = AtomicUsize::new(0);
    static GONE: AtomicUsize = AtomicUsize::new(0);
    let app = Router::new()
        .route(
            "/flaky",
            get(|| async {
                match FLAKY.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => Err(StatusCode::BAD_GATEWAY),
                    _ => Ok("here"),
                }
            }),
        )
        .fallback(|| async {
            GONE.fetch_add(1, Ordering::SeqCst);
            StatusCode::NOT_FOUND
        });
    let server = serve(app).await;
    let limits = FetchLimits { retries: 2, ..LIMITS };
    let fetcher = fetcher("127.0.0.1", limits);
    let url = format!("http://{server}/flaky");
    let answer = fetcher.fetch(&url, Purpose::Source).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"here")));
    let url = format!("http://{server}/gone");
    let gone = fetcher.fetch(&url, Purpose::Source).await.expect_err("gone");
    assert_eq!(gone.code(), "source_not_found");
    assert_eq!(GONE.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_providers_result_passes_the_guard_and_the_providers_hosts() {
    let app = Router::new()
        .route("/picture", get(|| async { "here" }))
        .route("/away", get(|| async { redirect_to("http://elsewhere.example/") }));
    let server = serve(app).await;
    let fetcher = fetcher("127.0.0.1", LIMITS);
    let hosts: AllowHosts = "*.provider.example,127.0.0.1,10.0.0.1".parse().expect("hosts");
    let purpose = Purpose::ProviderResult { hosts: &hosts };
    let answer = fetcher.fetch(&format!("http://{server}/picture"), purpose).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"here")));
    for (url, code) in [
        (format!("http://{server}/away"), "foreign_host"),
        ("http://elsewhere.example/".to_owned(), "foreign_host"),
        ("http://10.0.0.1/".to_owned(), "private_address"),
    ] {
        let refused = fetcher.fetch(&url, purpose).await.expect_err(&url);
        assert_eq!(refused.code(), code, "{url}: {refused}");
    }
}

#[tokio::test]
async fn unrequested_compression_is_decoded_within_the_bound() {
    use flate2::write::GzEncoder;
    use std::io::Write as _;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let (small, bomb) = (gzip(&[7; 900]), gzip(&[7; 1001]));
    let answer = |named: bool, body: Vec<u8>| {
        let response = Response::builder();
        let response = if named { response.header(header::CONTENT_ENCODING, "GZIP") } else { response };
        response.body(Body::from(body)).expect("a response")
    };
    let app = Router::new()
        .route(
            "/named",
            get({
                let body = small.clone();
                move || async move { answer(true, body) }
            }),
        )
        .route(
            "/silent",
            get({
                let body = small.clone();
                move || async move { answer(false, body) }
            }),
        )
        .route("/bomb", get(move || async move { answer(true, bomb) }))
        .route("/damaged", get(move || async move { answer(true, vec![1, 2, 3]) }));
    let server = serve(app).await;
    let hosts: AllowHosts = "127.0.0.1".parse().expect("a host");
    let result = Purpose::ProviderResult { hosts: &hosts };
    let fetcher = fetcher("127.0.0.1", LIMITS);
    let plain = Ok(Bytes::from(vec![7; 900]));
    for (path, purpose, expected) in [
        ("named", Purpose::Source, plain.clone()),
        ("named", result, plain.clone()),
        ("silent", result, plain),
        // The hash of a source is that of the bytes as they came.
        ("silent", Purpose::Source, Ok(Bytes::from(small))),
    ] {
        let fetched = fetcher.fetch(&format!("http://{server}/{path}"), purpose).await;
        assert!(fetched == expected, "{path}: {fetched:?}");
    }
    let bomb = fetcher.fetch(&format!("http://{server}/bomb"), Purpose::Source).await;
    assert_eq!(bomb.expect_err("a bomb").code(), "too_large");
    let damaged = fetcher.fetch(&format!("http://{server}/damaged"), result).await;
    assert!(damaged.expect_err("damaged").is_temporary());
}
