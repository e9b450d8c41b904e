//! HTTP to a provider, as every paid editor needs it: was the request sent, what was answered, how long to wait, and a
//! key that is never shown.
//!
//! What must stay true: nothing here sends a request twice. Redirects are not followed, no connection is used again (one
//! that the other side closes at the wrong moment would make a request that was never taken look ambiguous), and
//! no error text holds a key or a whole URL.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, redirect};

const USER_AGENT: &str = concat!("retouch/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read: a picture of 20 MiB in base64, and room.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A provider's key, from the environment or from a file that is read at each use: a key that is mended there works
/// without a restart. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// The key itself.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
}

impl ApiKey {
    /// The key now.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key; in words, for a person.
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

/// Why there is no answer: was it sent?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// Certainly not.
    NotSent(String),
    /// Perhaps: a part of it at least may have arrived.
    NoAnswer(String),
}

/// Whatever was answered, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The provider's wish in `Retry-After` or `retry-after-ms`, not clamped.
    pub retry_after: Option<Duration>,
    /// When it was given, by the provider's clock, in whole seconds.
    pub date: Option<SystemTime>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the status is 2xx.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// A client for one provider. `timeout` is for a whole exchange.
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
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                return Err(SendError::NoAnswer(format!("the answer has more than {MAX_ANSWER} bytes")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Answer { status, retry_after, date, body: body.freeze() }),
            Err(error) => {
                return Err(SendError::NoAnswer(format!("the answer broke off: {}", innermost(&error))));
            }
        }
    }
}

fn unsent(error: &reqwest::Error) -> SendError {
    let why = innermost(error);
    if error.is_builder() {
        return SendError::NotSent(format!("the request cannot be made: {why}"));
    }
    // A connection that was never made carried nothing.
    if error.is_connect() {
        return SendError::NotSent(format!("cannot connect: {why}"));
    }
    if error.is_timeout() {
        return SendError::NoAnswer("no answer in time".to_owned());
    }
    SendError::NoAnswer(format!("the connection broke: {why}"))
}

/// The system's or the TLS library's words: reqwest's own outermost ones repeat the URL.
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
        // A server whose clock is an hour off says so in its own date.
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

    #[tokio::test]
    async fn a_connection_that_is_refused_is_not_sent_and_one_that_is_dropped_may_have_been() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = client(Duration::from_secs(5)).unwrap();
        let post = || client.post(format!("http://{address}/?secret=1")).body("x");
        let dropped = tokio::join!(send(post()), async {
            // Reads something of it, then hangs up.
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
