//! HTTP to a provider for all paid editors: whether the request was sent, the answer, Retry-After, and a key
//! that is never shown.
//!
//! Invariant: nothing here sends a request twice. Redirects are not followed, and no connection is reused
//! (one that the server closes at the wrong moment would make an unprocessed request look ambiguous). No
//! error text holds a key or a whole URL.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, redirect};
use tokio::task::spawn_blocking;

use crate::coding;

const USER_AGENT: &str = concat!("retouch/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, before and after decompression: a picture of 90 MiB in base64, and room.
/// Of a larger one the beginning is kept: it was answered, so it must not be sent again.
const MAX_ANSWER: usize = 128 * 1024 * 1024;
/// Request id headers of providers and gateways.
const REQUEST_IDS: [&str; 6] =
    ["x-request-id", "request-id", "x-dashscope-request-id", "req-arms-id", "x-amzn-requestid", "cf-ray"];
/// Parameter in the stored content type of a kept body: codings that could not be removed.
const CODING_PARAMETER: &str = "; content-encoding=";
/// Likewise: only the beginning was kept.
const CUT_PARAMETER: &str = "; cut=1";
/// Size of the content type column.
const MAX_TYPE_CHARS: usize = 128;

/// A provider's key, from the environment or from a file that is read at each use: a key corrected there
/// works without a restart. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// The key itself.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
}

impl ApiKey {
    /// Reads the current key.
    ///
    /// # Errors
    /// The file is unreadable or holds no key; in words, for a person.
    pub fn read(&self) -> Result<String, String> {
        let (text, place) = match self {
            Self::Text(text) => (text.clone(), "the key".to_owned()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                (text.map_err(|error| format!("{}: {error}", path.display()))?, path.display().to_string())
            }
        };
        let key = text.trim();
        let sendable = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if sendable {
            Ok(key.to_owned())
        } else {
            Err(format!("{place} is empty or cannot be sent as a header"))
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why there is no answer, by whether the request was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// Certainly not sent.
    NotSent(String),
    /// Perhaps sent: at least a part of it may have arrived.
    NoAnswer(String),
}

/// A whole answer, of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Delay from `Retry-After` or `retry-after-ms`, not clamped.
    pub retry_after: Option<Duration>,
    /// Time of the answer by the provider's clock, in whole seconds.
    pub date: Option<SystemTime>,
    /// The declared type of the body; empty if undeclared. Includes codings that could not be removed.
    pub content_type: String,
    /// The provider's request id, from a header.
    pub request_id: Option<String>,
    /// The body without any `Content-Encoding`; unchanged if [`Answer::flaw`] says why.
    pub body: Bytes,
    /// Why the body is incomplete or still encoded: too large, or a coding that cannot be decoded.
    pub flaw: Option<String>,
}

/// Content type, body and flaw of a kept answer.
fn reopened(content_type: &str, body: Bytes) -> (String, Bytes, Option<String>) {
    if let Some(content_type) = content_type.strip_suffix(CUT_PARAMETER) {
        return (content_type.to_owned(), body, Some("only its beginning was kept".to_owned()));
    }
    let Some((content_type, codings)) = content_type.rsplit_once(CODING_PARAMETER) else {
        return (content_type.to_owned(), body, None);
    };
    match coding::decode(codings, body.clone(), MAX_ANSWER) {
        Ok(plain) => (content_type.to_owned(), plain, None),
        Err(error) => (content_type.to_owned(), body, Some(error.to_string())),
    }
}

impl Answer {
    /// The answer of a kept body with its stored content type. A program that knows more codings than the one
    /// that kept it decodes them.
    pub(super) fn kept(content_type: &str, body: Bytes) -> Self {
        let (content_type, body, flaw) = reopened(content_type, body);
        Self { status: 200, retry_after: None, date: None, content_type, request_id: None, body, flaw }
    }

    /// Whether the status is 2xx.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// A client for one provider. `timeout` covers a whole exchange.
///
/// # Errors
/// TLS cannot be set up.
pub fn client(timeout: Duration) -> anyhow::Result<Client> {
    crate::tls::init();
    let client = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .pool_max_idle_per_host(0)
        .retry(reqwest::retry::never())
        .build()?;
    Ok(client)
}

/// Sends once and reads the whole answer.
///
/// # Errors
/// See [`SendError`].
pub async fn send(request: RequestBuilder) -> Result<Answer, SendError> {
    let mut response = request.send().await.map_err(|error| unsent(&error))?;
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let date = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let content_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
    let codings = coding::named(&headers);
    let (raw, cut) = read(&mut response).await?;
    let (body, flaw, mark) = match cut {
        Some(cut) => (raw, Some(cut), CUT_PARAMETER.to_owned()),
        None if codings.is_empty() => (raw, None, String::new()),
        None => match plain(codings.clone(), raw).await {
            (body, None) => (body, None, String::new()),
            (raw, flaw) => (raw, flaw, format!("{CODING_PARAMETER}{codings}")),
        },
    };
    // The parameter makes the kept body readable again, so it must fit.
    let room = MAX_TYPE_CHARS.saturating_sub(mark.chars().count());
    let content_type = content_type.chars().take(room).chain(mark.chars()).take(MAX_TYPE_CHARS).collect();
    Ok(Answer {
        status,
        retry_after: retry_after(&headers, SystemTime::now()),
        date,
        content_type,
        request_id: REQUEST_IDS.into_iter().find_map(text),
        body,
        flaw,
    })
}

/// Reads the raw body. One that is too large yields its beginning, and the reason.
async fn read(response: &mut Response) -> Result<(Bytes, Option<String>), SendError> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                let flaw = format!("it has more than {MAX_ANSWER} bytes, of which the first were read");
                return Ok((body.freeze(), Some(flaw)));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok((body.freeze(), None)),
            Err(error) => {
                return Err(SendError::NoAnswer(format!("the answer broke off: {}", innermost(&error))));
            }
        }
    }
}

/// Decodes the body; returns it unchanged with the reason if that fails.
async fn plain(codings: String, raw: Bytes) -> (Bytes, Option<String>) {
    let coded = raw.clone();
    // It may grow to megabytes: decode it off the async threads.
    let decoded = spawn_blocking(move || coding::decode(&codings, coded, MAX_ANSWER)).await;
    match decoded
        .map_err(|error| error.to_string())
        .and_then(|decoded| decoded.map_err(|error| error.to_string()))
    {
        Ok(body) => (body, None),
        Err(flaw) => (raw, Some(flaw)),
    }
}

fn unsent(error: &reqwest::Error) -> SendError {
    let why = innermost(error);
    if error.is_builder() {
        return SendError::NotSent(format!("the request cannot be made: {why}"));
    }
    // Without a connection nothing was sent.
    if error.is_connect() {
        return SendError::NotSent(format!("cannot connect: {why}"));
    }
    if error.is_timeout() {
        return SendError::NoAnswer("no answer in time".to_owned());
    }
    SendError::NoAnswer(format!("the connection broke: {why}"))
}

/// The message of the system or the TLS library: reqwest's outer ones repeat the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// `retry-after-ms`, or `Retry-After` as seconds or as a date, read against the answer's own date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let wish = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(wish) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(wish).ok()?;
    let now = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn every_spelling_of_retry_after_is_understood() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 10:00:00 GMT").unwrap();
        let at =
            |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs), now).map(|wish| wish.as_millis());
        assert_eq!(at(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(at(&[("retry-after", " 0.5 ")]), Some(500));
        assert_eq!(at(&[("retry-after-ms", "1500"), ("retry-after", "7")]), Some(1_500));
        assert_eq!(at(&[("retry-after", "Wed, 25 Nov 2026 10:00:30 GMT")]), Some(30_000));
        // A server's wrong clock also shows in its own date.
        let ahead =
            [("retry-after", "Wed, 25 Nov 2026 11:00:30 GMT"), ("date", "Wed, 25 Nov 2026 11:00:00 GMT")];
        assert_eq!(at(&ahead), Some(30_000));
        assert_eq!(at(&[("retry-after", "Wed, 25 Nov 2026 09:00:00 GMT")]), Some(0));
        for nonsense in ["", "soon", "-1", "NaN", "1e400"] {
            assert_eq!(at(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn a_key_is_trimmed_read_anew_and_never_shown() {
        let folder = std::env::temp_dir().join(format!("retouch-key-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("key");
        let key = ApiKey::File(file.clone());
        assert!(key.read().unwrap_err().contains("key"), "no such file");
        std::fs::write(&file, "sk-one\n").unwrap();
        assert_eq!(key.read().unwrap(), "sk-one");
        std::fs::write(&file, "sk-two").unwrap();
        assert_eq!(key.read().unwrap(), "sk-two");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!format!("{:?}", ApiKey::Text("sk-secret".to_owned())).contains("secret"));
        let broken = ApiKey::Text("sk-secret\nmore".to_owned()).read().unwrap_err();
        assert!(!broken.contains("secret"), "{broken}");
    }

    #[test]
    fn a_kept_body_is_reopened_as_it_was_kept() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, b"{}").unwrap();
        let gzip = Bytes::from(gzip.finish().unwrap());
        let plain = Bytes::from_static(b"{}");
        for (content_type, body, read, flaw) in [
            ("text/html", plain.clone(), plain.clone(), None),
            ("application/json; content-encoding=gzip", gzip, plain.clone(), None),
            ("a/b; content-encoding=lzma", plain.clone(), plain.clone(), Some("\"lzma\" is not known")),
            ("image/png; cut=1", plain.clone(), plain, Some("only its beginning")),
        ] {
            let answer = Answer::kept(content_type, body);
            assert_eq!(answer.body, read, "{content_type}");
            assert_eq!(answer.content_type, content_type.split(';').next().unwrap());
            let told = answer.flaw.unwrap_or_default();
            assert!(flaw.map_or(told.is_empty(), |flaw| told.contains(flaw)), "{content_type}: {told}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_sent_and_a_dropped_one_may_be() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = client(Duration::from_secs(5)).unwrap();
        let post = || client.post(format!("http://{address}/?secret=1")).body("x");
        let dropped = tokio::join!(send(post()), async {
            // Reads a part of it, then hangs up.
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
        });
        let Err(SendError::NoAnswer(why)) = dropped.0 else { panic!("{:?}", dropped.0) };
        assert!(!why.contains("secret"), "{why}");
        drop(listener);
        let refused = send(post()).await;
        assert!(matches!(refused, Err(SendError::NotSent(_))), "{refused:?}");
    }
}
