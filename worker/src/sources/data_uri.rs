//! Pictures inside the task: `data:image/png;base64,…` (RFC 2397). Parsing is strict except for white space,
//! which encoders and text editors insert.
//!
//! Its media type is ignored: the content determines the format.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Both with and without padding, which are common; otherwise strict, so that one picture has few spellings.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a `data:` URI holds no bytes. The data is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DataUriError {
    /// Not a `data:` URI in base64.
    #[error("the data URI cannot be read: {0}")]
    Bad(String),
    /// Too many bytes, found before any decoding.
    #[error("the picture in the data URI has more than {limit} bytes, which is the limit")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
}

impl DataUriError {
    /// The error code in a producer's event.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Bad(_) => "bad_data_uri",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// The bytes of a `data:` URI, at most `limit`.
///
/// # Errors
/// [`DataUriError`].
pub(super) fn decode(uri: &str, limit: usize) -> Result<Bytes, DataUriError> {
    let bad = |why: &str| Err(DataUriError::Bad(why.to_owned()));
    let Some((scheme, rest)) = uri.trim_start().split_once(':') else {
        return bad("it does not begin with `data:`");
    };
    if !scheme.eq_ignore_ascii_case("data") {
        return bad("it does not begin with `data:`");
    }
    let Some((header, data)) = rest.split_once(',') else {
        return bad("it has no comma before the data");
    };
    let encoding = header.rsplit_once(';').map_or("", |(_, last)| last.trim());
    if !encoding.eq_ignore_ascii_case("base64") {
        return bad("it is not in base64 (`data:image/png;base64,…`), and percent-encoding is not taken");
    }
    let data = without_white_space(data);
    let digits = data.trim_end_matches('=').len();
    if digits / 4 * 3 + digits % 4 * 3 / 4 > limit {
        return Err(DataUriError::TooLarge { limit });
    }
    match BASE64.decode(data.as_bytes()) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) if data.contains('%') => bad("its base64 is percent-encoded; send it as it is"),
        Err(_) if data.contains(['-', '_']) => bad("its base64 has the URL-safe alphabet; use + and /"),
        Err(error) => Err(DataUriError::Bad(format!("not base64: {error}"))),
    }
}

fn without_white_space(data: &str) -> Cow<'_, str> {
    if !data.contains(|char: char| char.is_ascii_whitespace()) {
        return Cow::Borrowed(data);
    }
    Cow::Owned(data.split_ascii_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_with_and_without_padding_for_any_media_type() {
        for uri in [
            "data:image/png;base64,aGVsbG8=",
            "data:image/png;base64,aGVsbG8",
            "data:;base64,aGVsbG8=",
            "DATA:text/html;charset=utf-8;BASE64,aGVsbG8=",
        ] {
            assert_eq!(decode(uri, 5), Ok(Bytes::from_static(b"hello")), "{uri}");
        }
        assert_eq!(decode("data:image/png;base64,", 5), Ok(Bytes::new()));
    }

    #[test]
    fn white_space_in_a_data_uri_is_ignored() {
        for uri in [
            "data:image/png;base64,aGVs\nbG8=",
            "data:image/png;base64,aGVs\r\n bG8=\r\n",
            "data:image/png;base64, aGVsbG8=",
            "data:image/png;base64,aGVsbG8=\n",
            "data:image/png;base64,aGVsbG8=  \t\n\n",
            "data:image/png; base64,aGVsbG8",
            "\n data:image/png;base64,\naGVsbG8\n",
        ] {
            assert_eq!(decode(uri, 5), Ok(Bytes::from_static(b"hello")), "{uri:?}");
            assert_eq!(decode(uri, 4), Err(DataUriError::TooLarge { limit: 4 }), "{uri:?}");
        }
        assert!(decode("data:image/png;base64,aGVs\u{a0}bG8=", 5).is_err(), "no ASCII white space");
    }

    #[test]
    fn undecodable_data_is_refused_without_repeating_it() {
        for (uri, why) in [
            ("", "does not begin with"),
            ("aGVsbG8=", "does not begin with"),
            ("http://a.example/,aGVsbG8=", "does not begin with"),
            ("data:image/png;base64", "no comma"),
            ("data:image/png,aGVsbG8=", "not in base64"),
            ("data:image/svg+xml,%3Csvg%3E", "percent-encoding is not taken"),
            ("data:image/png;base64;x=y,aGVsbG8=", "not in base64"),
            ("data:image/png;base64,aGVsbG8%3D", "percent-encoded"),
            ("data:image/png;base64,aGV-bG8=", "URL-safe"),
            ("data:image/png;base64,aGVsbG8==", "not base64"),
            ("data:image/png;base64,aGVsb", "not base64"),
            // Leftover bits: a second spelling of the same picture.
            ("data:image/png;base64,aGVsbG9=", "not base64"),
            ("data:image/png;base64,aGVs*G8=", "not base64"),
        ] {
            let refused = decode(uri, 100).expect_err(uri);
            assert_eq!(refused.code(), "bad_data_uri", "{uri}");
            assert!(refused.to_string().contains(why), "{uri}: {refused}");
            assert!(!refused.to_string().contains("aGV"), "{refused}");
        }
    }

    #[test]
    fn the_size_is_checked_to_the_byte_and_before_decoding() {
        for bytes in 0..10 {
            let encoded = BASE64.encode(vec![7; bytes]);
            for data in [encoded.trim_end_matches('='), &encoded] {
                let uri = format!("data:image/png;base64,{data}");
                assert_eq!(decode(&uri, bytes).map(|bytes| bytes.len()), Ok(bytes));
                if let Some(less) = bytes.checked_sub(1) {
                    assert_eq!(decode(&uri, less), Err(DataUriError::TooLarge { limit: less }));
                }
            }
        }
        // Not base64, but refused for its length: nothing was decoded.
        let uri = format!("data:image/png;base64,{}", "*".repeat(1000));
        assert_eq!(decode(&uri, 5).map_err(|error| error.code()), Err("too_large"));
    }
}
