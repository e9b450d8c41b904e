//! A 2xx answer: the picture in it, or why there is none.
//!
//! What must stay true: an answer without a picture may have been paid for, unless it says in a code that it was not.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use url::Url;

use super::errors;
use crate::editor::EditError;
use crate::editor::http::Answer;

/// A paid picture is not thrown away over its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where the picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// In the answer.
    Bytes(Bytes),
    /// At an http or https address.
    Url(Url),
}

#[derive(Deserialize)]
struct Reply {
    data: Option<Vec<Item>>,
}

/// Gateways fill in what they have not with null or with an empty text.
#[derive(Deserialize)]
struct Item {
    b64_json: Option<String>,
    url: Option<String>,
}

/// The picture of a 2xx answer.
pub(super) fn picture(answer: &Answer, key: &str) -> Result<Found, EditError> {
    let reply = serde_json::from_slice::<Reply>(&answer.body).ok();
    let items = reply.and_then(|reply| reply.data).unwrap_or_default();
    let text = items.into_iter().find_map(|item| {
        let given = |text: &String| !text.is_empty();
        item.b64_json.filter(given).map(Text::Base64).or(item.url.filter(given).map(Text::Url))
    });
    match text {
        Some(Text::Base64(text)) => decode(&text).map(Found::Bytes),
        Some(Text::Url(text)) => locate(&text),
        None => Err(errors::refused(answer, key)),
    }
}

enum Text {
    Base64(String),
    Url(String),
}

fn locate(text: &str) -> Result<Found, EditError> {
    if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        return decode(text).map(Found::Bytes);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Found::Url(url)),
        // Not repeated: it may be signed.
        Ok(_) | Err(_) => Err(paid("its picture is at no http or https address")),
    }
}

/// Base64, bare or in a `data:` URI.
fn decode(text: &str) -> Result<Bytes, EditError> {
    let data = match text.split_once(',') {
        Some((_, data)) => data,
        None => text,
    };
    let decoded = if data.contains(char::is_whitespace) {
        BASE64.decode(data.split_ascii_whitespace().collect::<String>())
    } else {
        BASE64.decode(data)
    };
    match decoded {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        Ok(_) => Err(paid("its picture is empty")),
        Err(_) => Err(paid("its picture is not in base64")),
    }
}

fn paid(why: &str) -> EditError {
    EditError::Ambiguous(format!("the provider answered, but {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Result<Found, EditError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        picture(&Answer { status: 200, retry_after: None, date: None, body }, "sk-key")
    }

    #[test]
    fn bytes_are_found_however_a_gateway_spells_them() {
        for body in [
            r#"{"created":1,"data":[{"b64_json":"aGVsbG8="}],"usage":{"total_tokens":5}}"#,
            r#"{"data":[{"b64_json":"aGVsbG8"}]}"#,
            r#"{"data":[{"b64_json":"aGVs\nbG8="}]}"#,
            r#"{"data":[{"b64_json":"data:image/png;base64,aGVsbG8="}]}"#,
            r#"{"data":[{"url":"data:image/png;base64,aGVsbG8=","b64_json":null}]}"#,
            r#"{"data":[{"url":"https://a.example/x.png","b64_json":"aGVsbG8="}],"error":null}"#,
            r#"{"data":[{"url":"","b64_json":""},{"b64_json":"aGVsbG8="}]}"#,
        ] {
            assert_eq!(found(body), Ok(Found::Bytes(Bytes::from_static(b"hello"))), "{body}");
        }
    }

    #[test]
    fn a_url_is_kept_to_the_letter() {
        let url = "https://oaidalleapiprodscus.blob.core.windows.net/private/img.png?se=1&sig=a%2Bb%3D";
        let answer = found(&format!(r#"{{"data":[{{"url":"{url}","b64_json":""}}]}}"#));
        let Ok(Found::Url(found)) = answer else { panic!("{answer:?}") };
        assert_eq!(found.as_str(), url);
    }

    #[test]
    fn an_answer_without_a_usable_picture_may_have_been_paid() {
        for body in [
            "",
            "<html>ok</html>",
            "[]",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":[]}"#,
            r#"{"data":{"b64_json":"aGVsbG8="}}"#,
            r#"{"data":[{}]}"#,
            r#"{"data":[{"b64_json":"***"}]}"#,
            r#"{"data":[{"b64_json":"data:image/png;base64,"}]}"#,
            r#"{"data":[{"url":"file:///etc/passwd"}]}"#,
            r#"{"data":[{"url":"/images/1.png?sig=secret"}]}"#,
            r#"{"error":{"message":"it went wrong","code":"odd"}}"#,
        ] {
            let answer = found(body);
            let Err(EditError::Ambiguous(why)) = &answer else { panic!("{body}: {answer:?}") };
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn an_error_with_a_known_code_is_that_error_whatever_the_status() {
        let refused = found(r#"{"error":{"message":"No.","code":"moderation_blocked"}}"#);
        assert_eq!(refused, Err(EditError::rejected("moderation_blocked", "No.")));
    }
}
