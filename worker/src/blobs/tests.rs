//! The promises of the blob store, asked of the folder, of memory and, through a stand-in, of S3.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::*;

/// A folder of its own for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("retouch-blobs-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Self(path)
    }

    fn blobs(&self) -> Blobs {
        Blobs::open(&BlobsLocation::Folder(self.0.clone())).expect("opens")
    }

    fn file(&self, hash: Digest32) -> PathBuf {
        self.0.join(reference(hash))
    }

    /// Every file under the folder, relative to it.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("readable") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let relative = path.strip_prefix(&self.0).expect("inside");
                    found.push(relative.to_string_lossy().into_owned());
                }
            }
        }
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn memory() -> Blobs {
    Blobs::open(&BlobsLocation::Memory).expect("opens")
}

const PICTURE: Bytes = Bytes::from_static(b"not really a picture");

/// What every place must do alike.
async fn conformance(blobs: &Blobs) {
    let absent = Digest32::of(b"never stored");
    assert_eq!(blobs.get(absent).await, Err(BlobError::Missing(absent)));
    assert_eq!(blobs.exists(absent, None).await, Ok(false));
    assert_eq!(blobs.delete(absent).await, Ok(()));

    let kept = blobs.put(PICTURE, "image/png").await.expect("kept");
    assert_eq!(kept.hash, Digest32::of(&PICTURE));
    assert_eq!(kept.bytes, PICTURE.len() as u64);
    assert_eq!(blobs.get(kept.hash).await, Ok(PICTURE));
    assert_eq!(blobs.exists(kept.hash, None).await, Ok(true));
    assert_eq!(blobs.exists(kept.hash, Some(kept.bytes)).await, Ok(true));
    assert_eq!(blobs.exists(kept.hash, Some(kept.bytes + 1)).await, Ok(false));

    assert_eq!(blobs.put(PICTURE, "image/png").await, Ok(kept), "put again");
    let (left, right) = (Bytes::from(vec![7; 900_000]), Bytes::from(vec![7; 900_000]));
    let (left, right) = tokio::join!(blobs.put(left, "image/png"), blobs.put(right, "image/png"));
    assert_eq!(left, right);
    let both = left.expect("kept");
    assert_eq!(blobs.get(both.hash).await.expect("whole").len(), 900_000);

    let empty = blobs.put(Bytes::new(), "image/png").await.expect("kept");
    assert_eq!(blobs.get(empty.hash).await, Ok(Bytes::new()));

    assert_eq!(blobs.delete(kept.hash).await, Ok(()));
    assert_eq!(blobs.exists(kept.hash, None).await, Ok(false));
    assert_eq!(blobs.get(kept.hash).await, Err(BlobError::Missing(kept.hash)));
    blobs.put(PICTURE, "image/png").await.expect("kept once more");
    assert_eq!(blobs.get(kept.hash).await, Ok(PICTURE));
}

#[tokio::test]
async fn memory_keeps_the_promises() {
    conformance(&memory()).await;
}

#[tokio::test]
async fn a_folder_keeps_the_promises() {
    conformance(&Scratch::new().blobs()).await;
}

#[tokio::test]
async fn a_folder_holds_exactly_one_file_a_blob_under_its_reference() {
    let scratch = Scratch::new();
    let kept = scratch.blobs().put(PICTURE, "image/png").await.expect("kept");
    assert_eq!(scratch.files(), [reference(kept.hash)]);
    assert_eq!(std::fs::read(scratch.file(kept.hash)).expect("read"), PICTURE);
    // Another replica on the same folder.
    assert_eq!(scratch.blobs().get(kept.hash).await, Ok(PICTURE));
}

#[tokio::test]
async fn a_blob_whose_bytes_changed_is_never_served() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let kept = blobs.put(PICTURE, "image/png").await.expect("kept");
    let mut other = PICTURE.to_vec();
    other[3] ^= 1;
    std::fs::write(scratch.file(kept.hash), other).expect("changed");
    assert_eq!(blobs.get(kept.hash).await, Err(BlobError::Corrupt(kept.hash)));
}

#[tokio::test]
async fn a_truncated_blob_is_not_there_and_never_served() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let kept = blobs.put(PICTURE, "image/png").await.expect("kept");
    std::fs::write(scratch.file(kept.hash), &PICTURE[..7]).expect("cut");
    assert_eq!(blobs.exists(kept.hash, Some(kept.bytes)).await, Ok(false));
    assert_eq!(blobs.get(kept.hash).await, Err(BlobError::Corrupt(kept.hash)));
}

#[tokio::test]
async fn putting_the_right_bytes_heals_a_damaged_blob() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let kept = blobs.put(PICTURE, "image/png").await.expect("kept");
    // Same size: a store that compares sizes only would pay for this picture again and again.
    std::fs::write(scratch.file(kept.hash), vec![0; PICTURE.len()]).expect("changed");
    assert_eq!(blobs.put(PICTURE, "image/png").await, Ok(kept));
    assert_eq!(blobs.get(kept.hash).await, Ok(PICTURE));
}

#[tokio::test]
async fn an_interrupted_put_leaves_no_blob() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let hash = Digest32::of(&PICTURE);
    let file = scratch.file(hash);
    // A killed process leaves its staging file, half written.
    std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
    std::fs::write(format!("{}#1", file.display()), &PICTURE[..5]).expect("written");
    assert_eq!(blobs.exists(hash, None).await, Ok(false));
    assert_eq!(blobs.get(hash).await, Err(BlobError::Missing(hash)));
    blobs.put(PICTURE, "image/png").await.expect("kept");
    assert_eq!(blobs.get(hash).await, Ok(PICTURE));
}

#[tokio::test]
async fn a_put_that_fails_leaves_nothing_under_the_final_name() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let hash = Digest32::of(&PICTURE);
    let shelf = scratch.file(hash).parent().expect("a parent").to_owned();
    std::fs::write(&shelf, b"a file where the shelf should be").expect("written");
    let failed = blobs.put(PICTURE, "image/png").await;
    assert!(matches!(failed, Err(BlobError::Unavailable(_))), "{failed:?}");
    std::fs::remove_file(&shelf).expect("removed");
    assert_eq!(scratch.files(), Vec::<String>::new());
    blobs.put(PICTURE, "image/png").await.expect("kept");
}

#[tokio::test]
async fn a_folder_that_went_away_is_not_an_empty_one() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let kept = blobs.put(PICTURE, "image/png").await.expect("kept");
    // An unmounted share: the mount point is present and empty.
    std::fs::remove_dir_all(scratch.0.join(ALGORITHM)).expect("gone");
    let unavailable = |error| matches!(error, BlobError::Unavailable(_));
    assert!(blobs.get(kept.hash).await.is_err_and(unavailable));
    assert!(blobs.exists(kept.hash, None).await.is_err_and(unavailable));
    assert!(blobs.put(PICTURE, "image/png").await.is_err_and(unavailable));
    assert_eq!(scratch.files(), Vec::<String>::new());
}

#[test]
fn a_folder_that_cannot_be_created_is_an_error() {
    let scratch = Scratch::new();
    let file = scratch.0.join("a-file");
    std::fs::write(&file, b"").expect("written");
    let refused = Blobs::open(&BlobsLocation::Folder(file.join("blobs")));
    let message = refused.expect_err("not a folder").to_string();
    assert!(message.contains("a-file/blobs"), "{message}");
}

#[test]
fn a_reference_resolves_against_the_public_base_and_a_url_to_itself() {
    let reference = reference(Digest32::of(b""));
    assert_eq!(reference, "sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for base in [
        "https://cdn.example/pictures",
        "https://cdn.example/pictures/",
        "https://cdn.example/pictures?x=1#y",
    ] {
        let base: Url = base.parse().expect("a URL");
        let expected = format!("https://cdn.example/pictures/{reference}");
        assert_eq!(resolve(&base, &reference), expected);
    }
    let root: Url = "http://127.0.0.1:8080".parse().expect("a URL");
    assert_eq!(resolve(&root, "sha256/e3"), "http://127.0.0.1:8080/sha256/e3");
    let imported = "https://old.example/a%2Fb.png?Signature=a+b%3D";
    assert_eq!(resolve(&root, imported), imported);
}

/// Just enough of S3, path-style, to show that the client uses the endpoint.
#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, (Bytes, HeaderMap)>>,
    requests: Mutex<Vec<String>>,
}

async fn s3_stand_in(State(bucket): State<Arc<Bucket>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.expect("a body");
    let path = parts.uri.path().to_owned();
    bucket.requests.lock().expect("lock").push(format!("{} {path}", parts.method));
    let answer = |status: StatusCode, body: Bytes, headers: Option<&HeaderMap>| {
        let mut response = Response::builder().status(status).header(header::ETAG, "\"0\"").header(
            header::LAST_MODIFIED,
            chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        );
        if let Some(kind) = headers.and_then(|headers| headers.get(header::CONTENT_TYPE)) {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        if parts.method == Method::HEAD {
            response = response.header(header::CONTENT_LENGTH, body.len());
            return response.body(Body::empty()).expect("a response");
        }
        response.body(Body::from(body)).expect("a response")
    };
    let missing = |code: &str| {
        let body = format!("<Error><Code>{code}</Code><AWSAccessKeyId>AKIATEST</AWSAccessKeyId></Error>");
        answer(StatusCode::NOT_FOUND, body.into(), None)
    };
    if !path.starts_with("/pictures") {
        return missing("NoSuchBucket");
    }
    let mut objects = bucket.objects.lock().expect("lock");
    match parts.method {
        Method::PUT => {
            objects.insert(path, (body, parts.headers.clone()));
            answer(StatusCode::OK, Bytes::new(), None)
        }
        Method::DELETE => {
            objects.remove(&path);
            answer(StatusCode::NO_CONTENT, Bytes::new(), None)
        }
        _ if parts.uri.query().is_some_and(|query| query.contains("list-type=2")) => {
            let body = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            answer(StatusCode::OK, body.into(), None)
        }
        _ => match objects.get(&path) {
            Some((bytes, headers)) => answer(StatusCode::OK, bytes.clone(), Some(headers)),
            None => missing("NoSuchKey"),
        },
    }
}

/// Marks the child process that has the environment.
const CHILD: &str = "RETOUCH_TEST_S3_CHILD";

#[tokio::test]
async fn s3_is_reached_by_the_settings_of_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        return with_s3_environment().await;
    }
    let bucket = Arc::new(Bucket::default());
    let app = axum::Router::new().fallback(s3_stand_in).with_state(bucket.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    // The environment of this process is shared by all tests, so the client runs in a child process.
    let test = "blobs::tests::s3_is_reached_by_the_settings_of_the_environment";
    let child = tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "AKIATEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("NO_PROXY", "127.0.0.1")
        .output();
    let output = child.await.expect("ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = bucket.objects.lock().expect("lock");
    let key = format!("/pictures/retouch/{}", reference(Digest32::of(&PICTURE)));
    let (bytes, headers) = objects.get(&key).expect("the picture");
    assert_eq!(bytes, &PICTURE);
    assert_eq!(headers[header::CONTENT_TYPE], "image/png");
    let requests = bucket.requests.lock().expect("lock");
    let puts = requests.iter().filter(|seen| **seen == format!("PUT {key}"));
    assert_eq!(puts.count(), 2, "put again is not written again: {requests:?}");
}

async fn with_s3_environment() {
    let open = |location: &str| Blobs::open(&location.parse().expect("a place")).expect("opens");
    conformance(&open("s3://pictures/retouch")).await;
    let gone = open("s3://no-such-bucket/retouch");
    let hash = Digest32::of(&PICTURE);
    for answer in [
        gone.get(hash).await.map(|_| ()),
        gone.exists(hash, None).await.map(|_| ()),
        gone.put(PICTURE, "image/png").await.map(|_| ()),
    ] {
        let Err(BlobError::Unavailable(why)) = answer else {
            panic!("a bucket that is gone is no miss: {answer:?}");
        };
        assert!(why.contains("NoSuchBucket"), "{why}");
        assert!(!why.contains("AKIATEST"), "{why}");
    }
}

/// Ten MiB that are not zeros, in pieces as from a socket.
fn large() -> Vec<Bytes> {
    let piece = |n: u8| Bytes::from(vec![n; 64 * 1024]);
    (0..160).map(piece).collect()
}

#[tokio::test]
async fn a_large_file_is_written_on_arrival_and_named_when_whole() {
    let scratch = Scratch::new();
    for blobs in [scratch.blobs(), memory()] {
        let whole: Vec<u8> = large().concat();
        let hash = Digest32::of(&whole);
        let mut arriving = blobs.receive();
        for piece in large() {
            arriving.write(piece).await.unwrap();
        }
        assert!(!blobs.exists(hash, None).await.unwrap(), "under its name before it is whole");
        let received = arriving.finish().await.unwrap();
        assert!(matches!(received, Received::Incoming(_)));
        assert_eq!(received.head(), &whole[..received.head().len()]);
        let kept = blobs.put_received(&received, "image/bmp").await.unwrap();
        assert_eq!((kept.hash, kept.bytes), (hash, whole.len() as u64));
        assert_eq!(blobs.put_received(&received, "image/bmp").await.unwrap(), kept, "once more is as good");
        assert_eq!(blobs.get(hash).await.unwrap(), whole);
    }
    let files = scratch.files();
    assert_eq!(files, [reference(Digest32::of(&large().concat()))], "and nothing else is left");
}

#[tokio::test]
async fn an_incomplete_or_unwanted_large_file_leaves_nothing() {
    let scratch = Scratch::new();
    let blobs = scratch.blobs();
    let mut arriving = blobs.receive();
    for piece in large() {
        arriving.write(piece).await.unwrap();
    }
    blobs.discard_received(arriving.finish().await.unwrap()).await;
    let mut cut = blobs.receive();
    for piece in large() {
        cut.write(piece).await.unwrap();
    }
    drop(cut);
    // Remains of an old crash go with the next file.
    let left = scratch.0.join("incoming/left");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    let old = std::fs::File::create(&left).unwrap();
    old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60)).unwrap();
    let mut next = blobs.receive();
    for piece in large() {
        next.write(piece).await.unwrap();
    }
    blobs.discard_received(next.finish().await.unwrap()).await;
    for _ in 0..100 {
        if scratch.files().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left: {:?}", scratch.files());
}
