//! RabbitMQ connections, shared by producers and the worker: one connection opened once for all concurrent
//! callers, and errors named by what the caller does next. Nothing here recovers by itself: after an error
//! the caller asks again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::runtime::default_runtime;
use lapin::tcp::AMQPUriTcpExt;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::sync::Mutex;
use url::Url;

use self::tls::TlsFiles;

mod tls;

/// Why a broker operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmqpError {
    /// Unreachable, or the broker ended the connection: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The named queue or exchange does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The broker refuses: a person must act, trying again does not help.
    #[error("{0}")]
    Refused(String),
}

impl AmqpError {
    /// Sorts an error of the client library. A refused login or virtual host is as final as a refused operation.
    pub fn from_lapin(error: &lapin::Error) -> Self {
        let text = error.to_string();
        let ErrorKind::ProtocolError(amqp) = error.kind() else {
            return Self::Unavailable(text);
        };
        let text = amqp.get_message().to_string();
        match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::NotFound(text),
            AMQPErrorKind::Soft(
                AMQPSoftError::ACCESSREFUSED
                | AMQPSoftError::RESOURCELOCKED
                | AMQPSoftError::PRECONDITIONFAILED,
            ) => Self::Refused(text),
            AMQPErrorKind::Soft(
                AMQPSoftError::CONTENTTOOLARGE | AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS,
            ) => Self::Unavailable(text),
            AMQPErrorKind::Hard(hard) => match hard.get_id() {
                // 402 invalid path, 530 not allowed: the virtual host is not there or not ours.
                402 | 530 => Self::Refused(text),
                _other => Self::Unavailable(text),
            },
        }
    }
}

/// The broker's address, login and timeout.
#[derive(Clone)]
pub struct Link {
    uri: AMQPUri,
    tls: TlsFiles,
    timeout: Duration,
}

/// Two of these without a sign of life and the connection is dead. The server may ask for less.
const HEARTBEAT_SECONDS: u16 = 20;

impl Link {
    /// Reads `amqp://…` or `amqps://…`; nothing is connected yet. For `amqps` the process must have installed a
    /// default `rustls` provider; `?cacertfile=/path/ca.pem` names an authority to trust beside the system's.
    ///
    /// # Errors
    /// [`AmqpError::Refused`] where it is not such a URL. The message never holds the URL: it may hold a password.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, AmqpError> {
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|error: String| AmqpError::Refused(format!("the AMQP URL cannot be used: {error}")))?;
        // The caller has parsed it as a URL before.
        let parsed = Url::parse(url);
        let tls = parsed.map_or_else(|_| Ok(TlsFiles::default()), |url| TlsFiles::of(&url))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        if uri.vhost.is_empty() {
            // By the specification `amqp://host/` names the virtual host "", which no broker has; take it as
            // "/".
            uri.vhost.push('/');
        }
        Ok(Self { uri, tls, timeout })
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// A raw connection to the broker (TLS for `amqps`), before any AMQP frame.
    ///
    /// # Errors
    /// See [`AmqpError`].
    pub async fn dial(&self) -> Result<impl AsyncRead + AsyncWrite + Send + 'static, AmqpError> {
        let tls = self.tls.read().await?;
        let runtime = default_runtime().map_err(|error| AmqpError::from_lapin(&error))?;
        let dialled = self.uri.connect_with_config_async(tls.as_ref(), &runtime).await;
        dialled.map_err(|error| AmqpError::Unavailable(tls::explained(error.to_string())))
    }

    /// Connects, without automatic recovery: recovered channels deliver again what is still being worked on, and a
    /// consumer whose channel was closed falls silent for ever.
    ///
    /// # Errors
    /// See [`AmqpError`].
    pub async fn connect(&self, name: &str) -> Result<Connection, AmqpError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let address = self.address();
        let tls = self.tls.read().await?;
        let runtime = default_runtime().map_err(|error| AmqpError::from_lapin(&error))?;
        let connect = Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        match tokio::time::timeout(self.timeout, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match AmqpError::from_lapin(&error) {
                AmqpError::Unavailable(why) => {
                    AmqpError::Unavailable(format!("{address}: {}", tls::explained(why)))
                }
                AmqpError::NotFound(why) | AmqpError::Refused(why) => {
                    AmqpError::Refused(format!("{address}: {why}"))
                }
            }),
            Err(_elapsed) => {
                Err(AmqpError::Unavailable(format!("{address}: no connection within {:?}", self.timeout)))
            }
        }
    }
}

/// One shared connection (or the like), opened on demand and reopened after it failed. Of concurrent callers
/// one opens it; the callers that waited for a failed attempt share its error instead of each trying in turn.
#[derive(Debug)]
pub struct Slot<T> {
    attempts: AtomicU64,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    open: Option<T>,
    failed: Option<AmqpError>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let state = State { open: None, failed: None };
        Self { attempts: AtomicU64::new(0), state: Mutex::new(state) }
    }
}

impl<T: Clone> Slot<T> {
    /// Returns the current value while it is `usable`, otherwise opens a new one.
    ///
    /// # Errors
    /// The error of `open`.
    pub async fn get(
        &self,
        usable: impl Fn(&T) -> bool,
        open: impl Future<Output = Result<T, AmqpError>>,
    ) -> Result<T, AmqpError> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(thing) = state.open.as_ref().filter(|thing| usable(thing)) {
            return Ok(thing.clone());
        }
        if self.attempts.load(Ordering::Acquire) != seen
            && let Some(error) = &state.failed
        {
            return Err(error.clone());
        }
        state.open = None;
        let opened = open.await;
        self.attempts.fetch_add(1, Ordering::Release);
        match opened {
            Ok(thing) => {
                state.failed = None;
                state.open = Some(thing.clone());
                Ok(thing)
            }
            Err(error) => {
                state.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Takes out the current value if `this` matches it.
    pub async fn take_if(&self, this: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.state.lock().await;
        state.open.take_if(|open| this(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_being_quoted() {
        for bad in ["", "http://u:hunter2@h/", "amqp://u:hunter2@h:99999/"] {
            let Err(error) = Link::new(bad, Duration::from_secs(1)) else {
                panic!("{bad:?} was accepted");
            };
            assert!(matches!(error, AmqpError::Refused(_)), "{error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn waiting_callers_share_the_error_of_a_failed_attempt() {
        let slot = Slot::<u32>::default();
        let opened = AtomicU64::new(0);
        let attempt = || async {
            slot.get(|_| true, async {
                opened.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(AmqpError::Unavailable("down".into()))
            })
            .await
        };
        let (one, two, three) = tokio::join!(attempt(), attempt(), attempt());
        assert!(one.is_err() && two.is_err() && three.is_err());
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert!(attempt().await.is_err());
        assert_eq!(opened.load(Ordering::Relaxed), 2, "the next one tries again");
    }
}
