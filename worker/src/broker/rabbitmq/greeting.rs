//! Name and version of the broker. The client library drops the first frame, so this reads it on its own
//! connection and hangs up: the broker only logs a client that left early.

use std::pin::pin;

use futures::{AsyncReadExt, AsyncWriteExt};
use retouch_shared::amqp::{AmqpError, Link};

/// <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>, 4.2.2.
const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Product, version and capabilities fit many times over.
const MOST_BYTES: usize = 64 * 1024;

/// The broker's server properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// `RabbitMQ`.
    pub product: String,
    /// `3.10.8`.
    pub version: String,
}

pub(super) async fn greeting(link: &Link) -> Result<Option<Greeting>, AmqpError> {
    let failed = |error: std::io::Error| AmqpError::Unavailable(format!("{}: {error}", link.address()));
    let mut line = pin!(link.dial().await?);
    line.write_all(HELLO).await.map_err(failed)?;
    line.flush().await.map_err(failed)?;
    let mut head = [0; 7];
    line.read_exact(&mut head).await.map_err(failed)?;
    let [_kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size) as usize;
    // A peer that does not speak AMQP sends arbitrary bytes.
    if size > MOST_BYTES {
        return Ok(None);
    }
    let mut payload = vec![0; size];
    line.read_exact(&mut payload).await.map_err(failed)?;
    let _hung_up = line.close().await;
    Ok(read(&payload))
}

/// `connection.start`: class 10, method 10, version 0.9, then the server's properties.
fn read(payload: &[u8]) -> Option<Greeting> {
    let properties = payload.strip_prefix(&[0, 10, 0, 10, 0, 9])?;
    let mut table = long(&mut { properties })?;
    let (mut product, mut version) = (None, None);
    while !table.is_empty() {
        let name = short(&mut table)?;
        let (&kind, rest) = table.split_first()?;
        table = rest;
        match kind {
            b'S' => {
                let text = String::from_utf8_lossy(long(&mut table)?).into_owned();
                match name {
                    b"product" => product = Some(text),
                    b"version" => version = Some(text),
                    _other => {}
                }
            }
            b'F' | b'A' => drop(long(&mut table)?),
            b't' => table = table.get(1..)?,
            // Other types are absent from known brokers; the length of one is unknown, so reading ends here.
            _other => break,
        }
    }
    Some(Greeting { product: product?, version: version? })
}

fn short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&size, rest) = bytes.split_first()?;
    take(bytes, rest, size.into())
}

fn long<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    take(bytes, rest, u32::from_be_bytes(*size) as usize)
}

fn take<'a>(bytes: &mut &'a [u8], rest: &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(size)?;
    *bytes = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut entry = vec![u8::try_from(name.len()).unwrap()];
        entry.extend(name.bytes());
        entry.push(kind);
        if kind != b't' {
            entry.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        }
        entry.extend(value);
        entry
    }

    #[test]
    fn product_and_version_are_read_and_nonsense_is_none() {
        let inner = entry("basic.nack", b't', &[1]);
        let table = [
            entry("capabilities", b'F', &inner),
            entry("product", b'S', b"RabbitMQ"),
            entry("version", b'S', b"3.10.8"),
        ];
        let table = table.concat();
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        payload.extend(table);
        let greeting = Greeting { product: "RabbitMQ".to_owned(), version: "3.10.8".to_owned() };
        assert_eq!(read(&payload), Some(greeting));
        for cut in 0..payload.len() {
            assert_eq!(read(&payload[..cut]), None, "{cut}");
        }
        assert_eq!(read(b"HTTP/1.1 400 Bad Request"), None);
    }
}
