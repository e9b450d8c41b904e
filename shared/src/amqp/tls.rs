//! TLS to the broker as RabbitMQ's own URIs spell it (<https://www.rabbitmq.com/docs/uri-query-parameters>): `cacertfile`, and
//! `certfile` with `keyfile` for brokers that ask for a certificate.
//!
//! Invariant: a server's certificate is always verified, and a TLS parameter is never silently ignored.

use std::path::{Path, PathBuf};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use url::Url;

use super::AmqpError;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The files that a URL names. They are read at each connect, so that renewed ones work without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Authorities to trust beside the system's.
    ca: Option<PathBuf>,
    /// Our own certificate and its key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads `?cacertfile=…&certfile=…&keyfile=…`.
    pub(super) fn of(url: &Url) -> Result<Self, AmqpError> {
        let refused = |why: &str| Err(AmqpError::Refused(format!("the AMQP URL cannot be used: {why}")));
        let (mut ca, mut cert, mut key) = (None, None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "cacertfile" => ca = Some(PathBuf::from(&*value)),
                "certfile" => cert = Some(PathBuf::from(&*value)),
                "keyfile" => key = Some(PathBuf::from(&*value)),
                "verify" if value != "verify_peer" => {
                    return refused("the server's certificate is always verified; name its CA in cacertfile");
                }
                _other => {}
            }
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _one => return refused("certfile and keyfile go together"),
        };
        let files = Self { ca, identity };
        if files != Self::default() && url.scheme() != "amqps" {
            return refused("cacertfile, certfile and keyfile need amqps://");
        }
        Ok(files)
    }

    /// The current contents of the files.
    pub(super) async fn read(&self) -> Result<OwnedTLSConfig, AmqpError> {
        let cert_chain = match &self.ca {
            Some(file) => Some(certificates("cacertfile", file).await?),
            None => None,
        };
        let identity = match &self.identity {
            Some((cert, key)) => Some(OwnedIdentity::PKCS8 {
                pem: certificates("certfile", cert).await?.into_bytes(),
                key: text("keyfile", key).await?.into_bytes(),
            }),
            None => None,
        };
        Ok(OwnedTLSConfig { identity, cert_chain })
    }
}

async fn certificates(name: &str, file: &Path) -> Result<String, AmqpError> {
    let text = text(name, file).await?;
    if text.contains(CERTIFICATE) {
        return Ok(text);
    }
    // The TLS library would accept an empty trust store and report only an unknown issuer.
    Err(AmqpError::Refused(format!("{name} {}: it holds no certificate in PEM form", file.display())))
}

async fn text(name: &str, file: &Path) -> Result<String, AmqpError> {
    let text = tokio::fs::read_to_string(file).await;
    text.map_err(|error| AmqpError::Refused(format!("{name} {}: {error}", file.display())))
}

/// Adds the fix to a failed handshake.
pub(super) fn explained(why: String) -> String {
    // BadSignature: an authority with a trusted name, but another key.
    let fix = if why.contains("UnknownIssuer") || why.contains("BadSignature") {
        "the server's certificate is of an authority that this machine does not trust; \
         name its file in the URL: ?cacertfile=/path/ca.pem"
    } else if why.contains("invalid peer certificate") {
        "the server's certificate is not good for this host; use the name that it was made for, or have it renewed"
    } else if why.contains("InvalidContentType") {
        "the server does not speak TLS on this port; that of amqps:// is usually 5671"
    } else {
        return why;
    };
    format!("{why}: {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<TlsFiles, String> {
        TlsFiles::of(&url.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn tls_parameters_are_never_ignored() {
        let files = of("amqps://h/%2f?cacertfile=/ca.pem&heartbeat=5").unwrap();
        assert_eq!(files.ca.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(of("amqp://h/?heartbeat=5"), Ok(TlsFiles::default()));
        for (url, says) in [
            ("amqp://u:hunter2@h/?cacertfile=/ca.pem", "need amqps://"),
            ("amqps://u:hunter2@h/?verify=verify_none", "always verified"),
            ("amqps://u:hunter2@h/?certfile=/c.pem", "go together"),
        ] {
            let error = of(url).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_without_a_certificate_is_named() {
        let files = TlsFiles { ca: Some("/dev/null".into()), identity: None };
        let error = files.read().await.unwrap_err().to_string();
        assert!(error.starts_with("cacertfile /dev/null: it holds no certificate"), "{error}");
    }
}
