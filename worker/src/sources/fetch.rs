//! Fetches pictures from untrusted hosts: guarded, bounded in size and time, without credentials. Unrequested
//! compression is decoded within the same bound.
//!
//! Redirects are followed here, not by the client, so that each hop passes the same checks. A redirect from
//! https to http is refused: an https address promises that the picture is not replaced on the way, and a
//! producer can name an http address directly. Errors are shown to producers and stored, so they name the
//! host and the limit and never a path, a query (signed URLs) or credentials.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::Instant;
use url::Url;

use retouch_shared::key::{Hasher, ImageHash};

use crate::blobs;
use crate::coding::{self, CodingError};
use crate::delay::{Backoff, Pace};

mod probe;
pub(crate) mod result;

use super::guard::{AllowHosts, GuardedResolver, RefusedAddress};
use super::memory::{Memory, Share};

const USER_AGENT: &str = concat!("retouch/", env!("CARGO_PKG_VERSION"));
/// The share of the deadline for an address that never answers; a name may have several.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Short: the caller has a wait ladder for longer outages.
const RETRY: Pace = Pace { first: Duration::from_millis(400), most: Duration::from_secs(2) };
/// Most bytes of an input picture from any source.
pub const MOST_BYTES: usize = 20 * 1024 * 1024;

/// Limits of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Most bytes of one picture.
    pub max_bytes: usize,
    /// From the lookup of the name to the last byte, all redirects included.
    pub deadline: Duration,
    /// Most redirects.
    pub max_redirects: usize,
    /// Retries of a temporary error, within the deadline.
    pub retries: u32,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { max_bytes: MOST_BYTES, deadline: Duration::from_secs(20), max_redirects: 5, retries: 2 }
    }
}

/// The kind of a fetch, which decides the rules.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A picture of a task, from any host that passes the guard.
    Source,
    /// A provider's temporary result: every hop must be one of the provider's hosts and pass the guard.
    ProviderResult {
        /// The provider's hosts.
        hosts: &'a AllowHosts,
    },
}

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// An address that is never fetched from, on any host.
    #[error("the URL cannot be used: {0}")]
    BadUrl(String),
    /// Refused by the guard.
    #[error(transparent)]
    PrivateAddress(#[from] RefusedAddress),
    /// A provider's result on another host than the provider's.
    #[error("{host} is none of the hosts that the provider's results may be on")]
    ForeignHost {
        /// The requested host.
        host: String,
    },
    /// 404 or 410.
    #[error("{host} has no such picture: it answered {status}")]
    NotFound {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// Access is refused: repeating the request changes nothing.
    #[error("{host} does not hand the picture out: it answered {status}")]
    Refused {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// Unreachable, too slow or faulty: repeating the request may help.
    #[error("{host} {why}")]
    Unavailable {
        /// The host.
        host: String,
        /// What happened, in words.
        why: String,
    },
    /// Too many bytes; the rest was not read.
    #[error("the picture at {host} has more than {limit} bytes, which is the limit")]
    TooLarge {
        /// The host.
        host: String,
        /// In bytes.
        limit: usize,
    },
    /// Too many redirects.
    #[error("{host} redirects once more after {limit} redirects, which is the limit")]
    TooManyRedirects {
        /// The redirecting host.
        host: String,
        /// Redirects that are followed.
        limit: usize,
    },
}

impl FetchError {
    /// The error code in a producer's event.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "bad_url",
            Self::PrivateAddress(_) => "private_address",
            Self::ForeignHost { .. } => "foreign_host",
            Self::NotFound { .. } => "source_not_found",
            Self::Refused { .. } => "source_refused",
            Self::Unavailable { .. } => "source_unavailable",
            Self::TooLarge { .. } => "too_large",
            Self::TooManyRedirects { .. } => "too_many_redirects",
        }
    }

    /// The host, for errors that concern one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::BadUrl(_) => None,
            Self::PrivateAddress(RefusedAddress { host, .. })
            | Self::ForeignHost { host }
            | Self::NotFound { host, .. }
            | Self::Refused { host, .. }
            | Self::Unavailable { host, .. }
            | Self::TooLarge { host, .. }
            | Self::TooManyRedirects { host, .. } => Some(host),
        }
    }

    /// Whether repeating the request may help.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::BadUrl(_)
            | Self::PrivateAddress(_)
            | Self::ForeignHost { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::TooManyRedirects { .. } => false,
        }
    }
}

/// The one client for all downloads. Clones share it.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    allow: Arc<AllowHosts>,
    limits: FetchLimits,
}

impl Fetcher {
    /// A client with hosts that are exempt from the guard.
    ///
    /// # Errors
    /// TLS cannot be set up, e.g. because the system has no root certificates.
    pub fn new(allow: AllowHosts, limits: FetchLimits) -> anyhow::Result<Self> {
        let allow = Arc::new(allow);
        let resolver = GuardedResolver::new(Arc::clone(&allow));
        Self::with_resolver(allow, limits, resolver)
    }

    fn with_resolver(
        allow: Arc<AllowHosts>,
        limits: FetchLimits,
        resolver: GuardedResolver,
    ) -> anyhow::Result<Self> {
        crate::tls::init();
        // Without an encoding, the counted bytes are the bytes of the picture.
        let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([identity]))
            // A proxy would resolve names and connect in our place, outside of the guard.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(resolver)
            .connect_timeout(CONNECT_TIMEOUT.min(limits.deadline))
            // As many as intake fetches at once from one popular host: a connection that is not kept must be
            // made anew.
            .pool_max_idle_per_host(256)
            .pool_idle_timeout(Duration::from_secs(15))
            .build()?;
        Ok(Self { client, allow, limits })
    }

    /// The limits of this client.
    pub const fn limits(&self) -> FetchLimits {
        self.limits
    }

    /// The bytes at `url`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, url: &str, purpose: Purpose<'_>) -> Result<Bytes, FetchError> {
        Ok(self.retried(url, purpose, None).await?.bytes)
    }

    /// The picture at `url`, hashed on arrival, and its share of `memory`; waiting for memory extends the
    /// deadline.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn fetch_into(&self, memory: &Memory, url: &str) -> Result<Fetched, FetchError> {
        let body = self.retried(url, Purpose::Source, Some(memory)).await?;
        let share = match body.share {
            Some(share) => share,
            None => memory.share(body.bytes.len()).await,
        };
        let hash = match body.hash {
            Some(hash) => hash,
            None => blobs::digest(&body.bytes).await,
        };
        Ok(Fetched { bytes: body.bytes, hash, share })
    }

    async fn retried(
        &self,
        url: &str,
        purpose: Purpose<'_>,
        memory: Option<&Memory>,
    ) -> Result<Body, FetchError> {
        let url = Url::parse(url).map_err(|error| FetchError::BadUrl(error.to_string()))?;
        let mut deadline = Instant::now() + self.limits.deadline;
        let mut backoff = Backoff::new(RETRY);
        let mut retries = self.limits.retries;
        loop {
            match self.once(&url, purpose, memory, &mut deadline).await {
                Err(error) if error.is_temporary() && retries > 0 => {
                    let again = Instant::now() + backoff.next_delay();
                    if again >= deadline {
                        return Err(error);
                    }
                    tokio::time::sleep_until(again).await;
                    retries -= 1;
                }
                answer => return answer,
            }
        }
    }

    async fn once(
        &self,
        url: &Url,
        purpose: Purpose<'_>,
        memory: Option<&Memory>,
        deadline: &mut Instant,
    ) -> Result<Body, FetchError> {
        // Boxed, because the timeout moves it.
        let answer = tokio::time::timeout_at(*deadline, Box::pin(self.follow(url, purpose))).await;
        let (from, response) = answer.unwrap_or_else(|_| Err(self.too_slow(url)))?;
        let codings = coding::named(response.headers());
        let announced = self.most_bytes(&from, &response)?;
        // Headers do not tell the decompressed size.
        let most = if codings.is_empty() { announced } else { self.limits.max_bytes };
        let mut share = None;
        if let Some(memory) = memory {
            let waiting = Instant::now();
            share = Some(memory.share(most).await);
            // The host is not responsible for our full memory.
            *deadline += waiting.elapsed();
        }
        let body = tokio::time::timeout_at(*deadline, self.body(&from, response, share)).await;
        let body = body.unwrap_or_else(|_| Err(self.too_slow(url)))?;
        // A result is paid for: undeclared compression is recognised by its first bytes.
        let unnamed = matches!(purpose, Purpose::ProviderResult { .. });
        if codings.is_empty() && !unnamed { Ok(body) } else { self.plain(&from, body, codings).await }
    }

    /// The body without its codings, declared or not.
    async fn plain(&self, url: &Url, body: Body, codings: String) -> Result<Body, FetchError> {
        let (limit, coded) = (self.limits.max_bytes, body.bytes.clone());
        // It may grow to megabytes: decode it off the async threads.
        let decoded = tokio::task::spawn_blocking(move || {
            let plain = if codings.is_empty() { coded } else { coding::decode(&codings, coded, limit)? };
            coding::decode_unnamed(plain, limit)
        });
        let unavailable = |why: String| FetchError::Unavailable { host: host_of(url), why };
        match decoded.await.map_err(|_| unavailable("sent what made the decoder fail".to_owned()))? {
            Ok(bytes) => {
                let hash = body.hash.filter(|_| bytes == body.bytes);
                Ok(Body { bytes, hash, share: body.share })
            }
            Err(CodingError::TooLarge(_)) => Err(self.too_large(url)),
            Err(error) => Err(unavailable(format!("sent a picture that cannot be unpacked: {error}"))),
        }
    }

    fn too_slow(&self, url: &Url) -> FetchError {
        FetchError::Unavailable {
            host: host_of(url),
            why: format!("did not deliver the picture within {:?}", self.limits.deadline),
        }
    }

    /// Returns the final answer's headers, and its URL.
    async fn follow(&self, url: &Url, purpose: Purpose<'_>) -> Result<(Url, Response), FetchError> {
        let mut url = url.clone();
        for _ in 0..=self.limits.max_redirects {
            self.check(&url, purpose)?;
            let sent = self.client.get(url.clone()).send().await;
            let response = sent.map_err(|error| failed(&url, &error))?;
            match read_status(&url, response.status())? {
                Next::Body => return Ok((url, response)),
                Next::Redirect => url = redirected(&url, &response)?,
            }
        }
        Err(FetchError::TooManyRedirects { host: host_of(&url), limit: self.limits.max_redirects })
    }

    /// Checks every hop before a request is sent there.
    fn check(&self, url: &Url, purpose: Purpose<'_>) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            let why = format!("its scheme is {}, not http or https", url.scheme());
            return Err(FetchError::BadUrl(why));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let why = "it has a user name or password in it; sign the URL instead";
            return Err(FetchError::BadUrl(why.to_owned()));
        }
        let Some(host) = url.host() else {
            return Err(FetchError::BadUrl("it has no host".to_owned()));
        };
        if let Purpose::ProviderResult { hosts } = purpose
            && !hosts.lists(&host)
        {
            return Err(FetchError::ForeignHost { host: host.to_string() });
        }
        Ok(self.allow.check_literal(&host)?)
    }

    /// The size limit of this answer: a Content-Length beyond the limit is refused here.
    fn most_bytes(&self, url: &Url, response: &Response) -> Result<usize, FetchError> {
        let limit = self.limits.max_bytes;
        match response.content_length().map(usize::try_from) {
            Some(Ok(length)) if length <= limit => Ok(length),
            Some(_) => Err(self.too_large(url)),
            None => Ok(limit),
        }
    }

    fn too_large(&self, url: &Url) -> FetchError {
        FetchError::TooLarge { host: host_of(url), limit: self.limits.max_bytes }
    }

    /// Counts the arriving bytes: a Content-Length is trusted only if it is too large.
    async fn body(
        &self,
        url: &Url,
        mut response: Response,
        share: Option<Share>,
    ) -> Result<Body, FetchError> {
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
        let mut hasher = share.is_some().then(Hasher::default);
        loop {
            let chunk = response.chunk().await.map_err(|error| failed(url, &error))?;
            let Some(chunk) = chunk else { break };
            if body.len() + chunk.len() > self.limits.max_bytes {
                return Err(self.too_large(url));
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Body { bytes: body.freeze(), hash: hasher.map(Hasher::digest), share })
    }
}

/// A picture fetched for a task.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) hash: ImageHash,
    pub(super) share: Share,
}

struct Body {
    bytes: Bytes,
    /// Set if there is a share of memory.
    hash: Option<ImageHash>,
    share: Option<Share>,
}

/// The next step after an answer without an error.
enum Next {
    Body,
    Redirect,
}

fn read_status(url: &Url, status: StatusCode) -> Result<Next, FetchError> {
    let host = host_of(url);
    let status = status.as_u16();
    match status {
        200 => Ok(Next::Body),
        301 | 302 | 303 | 307 | 308 => Ok(Next::Redirect),
        404 | 410 => Err(FetchError::NotFound { host, status }),
        // Timeout, too early, too many requests: the picture may be available later.
        408 | 425 | 429 | 500..=599 => {
            Err(FetchError::Unavailable { host, why: format!("answered {status}") })
        }
        // An unrequested part, an empty answer or another meaning: not a picture either.
        0..=199 | 201..=300 | 304..=306 | 309..=499 | 600..=u16::MAX => {
            Err(FetchError::Refused { host, status })
        }
    }
}

fn redirected(from: &Url, response: &Response) -> Result<Url, FetchError> {
    let refuse = |why: &str| {
        let host = host_of(from);
        FetchError::BadUrl(format!("{host} redirects {why}"))
    };
    let location = response.headers().get(LOCATION);
    let location = location.ok_or_else(|| refuse("without saying where to"))?;
    let location = std::str::from_utf8(location.as_bytes());
    let to = location.ok().and_then(|location| from.join(location).ok());
    let to = to.ok_or_else(|| refuse("to something that is no URL"))?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(refuse("from https to http; give the http URL if that is meant"));
    }
    Ok(to)
}

/// Describes the client's own failures without the URL.
fn failed(url: &Url, error: &reqwest::Error) -> FetchError {
    let mut cause: &dyn StdError = error;
    loop {
        if let Some(refused) = cause.downcast_ref::<RefusedAddress>() {
            return refused.clone().into();
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    if error.is_builder() {
        return FetchError::BadUrl("it cannot be sent in a request".to_owned());
    }
    // The innermost cause is the system's or the TLS library's; reqwest's outermost one repeats the URL.
    let why = if error.is_timeout() {
        "did not answer in time".to_owned()
    } else if error.is_connect() {
        format!("cannot be connected to: {cause}")
    } else {
        format!("broke off: {cause}")
    };
    FetchError::Unavailable { host: host_of(url), why }
}

/// The host, and the port unless it is the default.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the URL");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests;
