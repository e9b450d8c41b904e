//! `Content-Encoding`: decodes compressed bodies, declared or not, within a bound.
//!
//! Invariant: no body is decoded beyond about `most` bytes, whatever size it claims; a body that cannot be
//! decoded is an error, and is never passed on as plain.
//! <https://www.rfc-editor.org/rfc/rfc9110#name-content-encoding>

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use ruzstd::decoding::StreamingDecoder;
use thiserror::Error;

/// Magic number of gzip.
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
/// Magic number of zstd.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// More nested codings than this are an attack.
const MAX_CODINGS: usize = 4;
/// Input of the brotli decoder at a time, in bytes.
const BROTLI_BUFFER: usize = 16 * 1024;
/// The largest window of a zstd frame that is decoded: RFC 9659 allows servers 8 MiB.
const MAX_ZSTD_WINDOW: u64 = 128 * 1024 * 1024;

/// One way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    /// zlib as in the standard, and raw deflate as some servers send it.
    Deflate,
    Brotli,
    Zstd,
}

/// Why a body was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CodingError {
    /// An unknown coding.
    #[error("its Content-Encoding {0:?} is not known")]
    Unknown(String),
    /// The bytes are not what the coding says.
    #[error("its Content-Encoding {coding} cannot be decoded: {why}")]
    Damaged {
        /// The name of the coding.
        coding: &'static str,
        /// The decoder's words.
        why: String,
    },
    /// Larger than allowed once decoded; the rest was not decoded.
    #[error("it has more than {0} bytes once decoded")]
    TooLarge(usize),
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn decode(self, body: &[u8], most: usize) -> Result<Bytes, CodingError> {
        let decoded = match self {
            Self::Gzip => bounded(MultiGzDecoder::new(body), most),
            // Only decoding tells the two forms apart; the raw form has no checksum that could mislead.
            Self::Deflate => match bounded(ZlibDecoder::new(body), most) {
                Err(Ended::Damaged(_)) => bounded(DeflateDecoder::new(body), most),
                decoded => decoded,
            },
            Self::Brotli => bounded(brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER), most),
            Self::Zstd => zstd(body, most),
        };
        decoded.map_err(|ended| match ended {
            Ended::TooLarge => CodingError::TooLarge(most),
            Ended::Damaged(why) => CodingError::Damaged { coding: self.name(), why },
        })
    }
}

/// Why decoding ended early.
enum Ended {
    TooLarge,
    Damaged(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn bounded(decoder: impl Read, most: usize) -> Result<Bytes, Ended> {
    let mut plain = Vec::new();
    decoder.take((most as u64).saturating_add(1)).read_to_end(&mut plain)?;
    if plain.len() > most { Err(Ended::TooLarge) } else { Ok(plain.into()) }
}

/// Frame after frame: the library decodes only the first.
fn zstd(mut body: &[u8], most: usize) -> Result<Bytes, Ended> {
    let mut plain = Vec::new();
    while !body.is_empty() {
        if body.len() > 5 && body[..4] == ZSTD && window(body) > MAX_ZSTD_WINDOW {
            return Err(Ended::Damaged("its window is larger than any server may use".to_owned()));
        }
        let frame = StreamingDecoder::new(&mut body).map_err(|error| Ended::Damaged(error.to_string()))?;
        let left = (most - plain.len()) as u64;
        frame.take(left.saturating_add(1)).read_to_end(&mut plain)?;
        if plain.len() > most {
            return Err(Ended::TooLarge);
        }
    }
    Ok(plain.into())
}

/// The window size of a zstd frame, by its descriptor; a single-segment frame needs its content size.
/// <https://www.rfc-editor.org/rfc/rfc8878#name-window-descriptor>
fn window(frame: &[u8]) -> u64 {
    let (descriptor, window) = (frame[4], frame[5]);
    if descriptor & 0x20 != 0 {
        return 0;
    }
    let base = 1_u64 << (10 + (window >> 3));
    base + (base / 8) * u64::from(window & 7)
}

/// The declared codings in the order of application, without `identity`.
///
/// # Errors
/// [`CodingError::Unknown`].
fn codings(header: &str) -> Result<Vec<Coding>, CodingError> {
    let unknown = |name: &str| CodingError::Unknown(name.chars().take(40).collect());
    let mut codings = Vec::new();
    for name in header.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "identity" | "none" => {}
            "gzip" | "x-gzip" => codings.push(Coding::Gzip),
            "deflate" | "x-deflate" => codings.push(Coding::Deflate),
            "br" => codings.push(Coding::Brotli),
            "zstd" => codings.push(Coding::Zstd),
            _ => return Err(unknown(name)),
        }
    }
    if codings.len() > MAX_CODINGS { Err(unknown(header)) } else { Ok(codings) }
}

/// All `Content-Encoding` headers of an answer in one line; empty for a plain body.
pub(crate) fn named(headers: &HeaderMap) -> String {
    let named: Vec<_> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    let named = named.join(", ");
    if codings(&named).is_ok_and(|codings| codings.is_empty()) { String::new() } else { named }
}

/// The body without the codings that `header` names, at most `most` bytes.
///
/// # Errors
/// See [`CodingError`].
pub(crate) fn decode(header: &str, body: Bytes, most: usize) -> Result<Bytes, CodingError> {
    // An empty body has nothing to decode, whatever its headers say.
    let mut plain = body;
    for coding in codings(header)?.into_iter().rev() {
        if plain.is_empty() {
            break;
        }
        plain = match coding.decode(&plain, most) {
            // Some servers name a coding and send the plain bytes.
            Err(CodingError::Damaged { .. }) if coding != Coding::Deflate && is_plain(&plain) => plain,
            decoded => decoded?,
        };
    }
    Ok(plain)
}

/// Whether [`decode_unnamed`] would decode this body.
pub(crate) fn begins_compressed(body: &[u8]) -> bool {
    body.starts_with(&GZIP) || body.starts_with(&ZSTD)
}

/// Decodes a body whose compression no header declares, by its first bytes; returns others as they are.
///
/// # Errors
/// See [`CodingError`].
pub(crate) fn decode_unnamed(body: Bytes, most: usize) -> Result<Bytes, CodingError> {
    if body.starts_with(&GZIP) {
        Coding::Gzip.decode(&body, most)
    } else if body.starts_with(&ZSTD) {
        Coding::Zstd.decode(&body, most)
    } else {
        Ok(body)
    }
}

/// JSON or a picture: no coding produces these first bytes.
fn is_plain(body: &[u8]) -> bool {
    let text = body.trim_ascii_start();
    let json = matches!(text.first(), Some(b'{' | b'[' | b'"'))
        && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    json || crate::media::begins_like_a_picture(body)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const MOST: usize = 100_000;
    /// "hello", by the reference encoder of brotli.
    const BROTLI: &[u8] = &[0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];

    fn plain() -> Vec<u8> {
        (0..50_000_u32).flat_map(|n| [n.to_le_bytes()[0], b'a']).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn decoded(header: &str, body: &[u8]) -> Result<Bytes, CodingError> {
        decode(header, Bytes::copy_from_slice(body), MOST)
    }

    #[test]
    fn every_coding_is_decoded_alone_and_in_a_row() {
        let plain = plain();
        for (header, body) in [
            ("gzip", gzip(&plain)),
            ("X-GZIP", gzip(&plain)),
            ("deflate", zlib(&plain)),
            ("deflate", raw(&plain)),
            ("zstd", zstd(&plain)),
            ("identity", plain.clone()),
            ("", plain.clone()),
            ("gzip, identity", gzip(&plain)),
            ("gzip, zstd", zstd(&gzip(&plain))),
            ("deflate , gzip", gzip(&zlib(&plain))),
            // Two members, two frames.
            ("gzip", [gzip(&plain[..9]), gzip(&plain[9..])].concat()),
            ("zstd", [zstd(&plain[..9]), zstd(&plain[9..])].concat()),
        ] {
            assert!(decoded(header, &body) == Ok(plain.clone().into()), "{header}");
        }
        assert_eq!(decoded("gzip", b""), Ok(Bytes::new()));
        // Declared, but not applied.
        assert_eq!(decoded("gzip", b" {\"data\": []}"), Ok(Bytes::from_static(b" {\"data\": []}")));
    }

    #[test]
    fn brotli_from_the_reference_encoder_is_decoded() {
        let decoded = decoded("br", BROTLI);
        assert_eq!(decoded, Ok(Bytes::from_static(b"hello")));
    }

    #[test]
    fn a_bomb_is_refused_while_it_is_decoded() {
        let zeros = vec![0; 50_000_000];
        for (header, bomb) in [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("deflate", raw(&zeros)),
            ("zstd", zstd(&zeros)),
            ("gzip, gzip", gzip(&gzip(&zeros))),
        ] {
            assert!(bomb.len() < 3_000_000, "{header}: {}", bomb.len());
            assert_eq!(decoded(header, &bomb), Err(CodingError::TooLarge(MOST)), "{header}");
        }
    }

    #[test]
    fn undecodable_bodies_are_never_passed_on_as_plain() {
        let whole = gzip(&plain());
        for (header, body, why) in [
            ("gzip", &whole[..whole.len() / 2], "gzip cannot be decoded"),
            ("gzip", b"neither", "gzip cannot be decoded"),
            ("br", b"neither", "br cannot be decoded"),
            ("zstd", b"neither", "zstd cannot be decoded"),
            ("compress", b"neither", "\"compress\" is not known"),
            ("gzip, gzip, gzip, gzip, gzip", b"x", "is not known"),
        ] {
            let refused = decoded(header, body).unwrap_err().to_string();
            assert!(refused.contains(why), "{header}: {refused}");
        }
    }

    #[test]
    fn undeclared_compression_is_recognised_by_its_first_bytes() {
        for body in [gzip(b"plain"), zstd(b"plain"), b"plain".to_vec()] {
            assert_eq!(decode_unnamed(body.into(), MOST), Ok(Bytes::from_static(b"plain")));
        }
        let bomb = decode_unnamed(gzip(&vec![0; 1_000_000]).into(), MOST);
        assert_eq!(bomb, Err(CodingError::TooLarge(MOST)));
    }
}
