//! Validation of tasks, and which tasks are the same request.

use serde_json::{Value, json};

use super::*;
use crate::wire::MAX_MESSAGE_BYTES;

/// The smallest task.
fn small() -> Value {
    json!({"v": 1, "task_id": "t-1", "edit_type": "blur", "images": [{"url": "https://example.com/a.png"}]})
}

/// The smallest task with one field changed or added.
fn with(field: &str, value: Value) -> Value {
    let mut message = small();
    message[field] = value;
    message
}

fn decode(message: &Value) -> Result<Task, Invalid> {
    Task::decode(message.to_string().as_bytes())
}

fn refused(payload: impl AsRef<[u8]>) -> String {
    let error = Task::decode(payload.as_ref()).map(|task| task.task_id).unwrap_err();
    assert_eq!(error.reason(), "bad_message");
    error.to_string()
}

/// `small()` with raw JSON added to its outermost object, for documents that a [`Value`] cannot hold.
fn spelled(more: &str) -> String {
    let text = small().to_string();
    format!("{},{more}}}", text.strip_suffix('}').unwrap())
}

fn filled(chars: usize) -> String {
    "x".repeat(chars)
}

#[test]
fn a_message_with_every_field_becomes_a_task_with_every_field() {
    let blob = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    let message = json!({
        "v": 1, "task_id": "0193:a.b_c-d", "edit_type": "remove_watermark", "prompt": " Remove\r\nit ", "model": "wanx",
        "params": {"seed": 7, "a": {"c": 1, "b": [2]}}, "mask": {"data": "data:image/png;base64,AA=="},
        "images": [{"url": "https://example.com/a"}, {"data": "data:,x"}, {"blob": format!("sha256:{blob}")}],
        "variant": "b", "metadata": {"user_id": "42"}
    });
    let task = decode(&message).unwrap();
    assert_eq!(task.task_id, "0193:a.b_c-d");
    assert_eq!(task.edit_type, "remove_watermark");
    assert_eq!(task.prompt, "Remove\nit");
    assert_eq!(task.model.as_deref(), Some("wanx"));
    assert_eq!(task.params.canonical(), r#"{"a":{"b":[2],"c":1},"seed":7}"#);
    assert_eq!(task.mask, Some(Source::Data("data:image/png;base64,AA==".to_owned())));
    let url = Source::Url { url: "https://example.com/a".to_owned(), image_hash: None };
    let blob = Source::Blob(blob.parse().unwrap());
    assert_eq!(task.images, [url, Source::Data("data:,x".to_owned()), blob]);
    assert_eq!(task.variant.as_deref(), Some("b"));
    assert_eq!(task.metadata, Some(json!({"user_id": "42"})));
}

#[test]
fn an_optional_field_that_is_null_is_one_that_is_absent() {
    let absent = decode(&small()).unwrap();
    for field in ["prompt", "model", "params", "mask", "variant", "metadata"] {
        assert_eq!(decode(&with(field, Value::Null)).unwrap(), absent, "{field}");
    }
    let image = json!({"url": "https://example.com/a.png", "data": null, "blob": null});
    assert_eq!(decode(&with("images", json!([image]))).unwrap(), absent);
}

#[test]
fn values_at_their_limit_are_accepted() {
    let url = format!("https://example.com/{}", filled(MAX_URL_BYTES - 20));
    // The key, two quotes each, the colon and the braces are 8 bytes of it.
    for (field, value) in [
        ("task_id", json!(filled(64))),
        ("edit_type", json!(filled(32))),
        ("prompt", json!(filled(MAX_PROMPT_CHARS))),
        ("prompt", json!("")),
        ("prompt", json!("é".repeat(MAX_PROMPT_CHARS))),
        ("model", json!("m")),
        ("model", json!("é".repeat(128))),
        ("variant", json!("b")),
        ("variant", json!("é".repeat(64))),
        ("params", json!({"a": filled(MAX_PARAMS_BYTES - 8)})),
        ("params", json!({})),
        ("metadata", json!({"a": filled(MAX_METADATA_BYTES - 8)})),
        ("images", json!(vec![json!({"url": url}); MAX_IMAGES])),
    ] {
        let taken = decode(&with(field, value)).map(|task| task.task_id.len());
        assert!(taken.is_ok(), "{field}: {taken:?}");
    }
}

#[test]
fn values_beyond_a_limit_are_refused_with_field_and_limit() {
    let url = json!({"url": "https://example.com/"});
    let long_url = json!({"url": filled(MAX_URL_BYTES + 1)});
    for (field, value, says) in [
        ("v", json!(0), "v: version 0 is not known; this worker speaks version 1"),
        ("task_id", json!(""), "task_id: must be 1-64 of [A-Za-z0-9._:-]"),
        ("task_id", json!(filled(65)), "task_id: must be 1-64 of [A-Za-z0-9._:-]"),
        ("task_id", json!("a b"), "task_id: must be 1-64 of"),
        ("task_id", json!("a\n"), "task_id: must be 1-64 of"),
        ("task_id", json!("é"), "task_id: must be 1-64 of"),
        ("task_id", json!("a/b"), "task_id: must be 1-64 of"),
        ("edit_type", json!(""), "edit_type: must be 1-32 of [A-Za-z0-9._-]"),
        ("edit_type", json!(filled(33)), "edit_type: must be 1-32"),
        ("edit_type", json!("a:b"), "edit_type: must be 1-32"),
        ("prompt", json!(filled(MAX_PROMPT_CHARS + 1)), "prompt: must be 0 to 32000 characters, not 32001"),
        ("prompt", json!("a\0b"), "prompt: must not contain a NUL character"),
        ("model", json!(""), "model: must be 1 to 128 characters, not 0"),
        ("model", json!(filled(129)), "model: must be 1 to 128 characters, not 129"),
        ("model", json!("\0"), "model: must not contain a NUL"),
        ("variant", json!(""), "variant: must be 1 to 64 characters, not 0"),
        ("variant", json!(filled(65)), "variant: must be 1 to 64 characters, not 65"),
        ("variant", json!("\0"), "variant: must not contain a NUL"),
        (
            "params",
            json!({"a": filled(MAX_PARAMS_BYTES - 7)}),
            "params: has 16385 bytes as compact JSON; the limit is 16384",
        ),
        (
            "metadata",
            json!({"a": filled(MAX_METADATA_BYTES - 7)}),
            "metadata: has 4097 bytes as compact JSON; the limit is 4096",
        ),
        ("metadata", json!([1]), "metadata: must be an object"),
        ("metadata", json!("x"), "metadata: must be an object"),
        ("images", json!([]), "images: must be 1 to 64 images, not 0"),
        ("images", json!(vec![url.clone(); 65]), "images: must be 1 to 64 images, not 65; split the task"),
        ("images", json!([url, long_url]), "images[1].url: has 8193 bytes; the limit is 8192"),
        (
            "images",
            json!([{"blob": "6b86"}]),
            "images[0].blob: must be `sha256:` and 64 lower-case hex digits",
        ),
        (
            "images",
            json!([{"blob": format!("sha256:{}", "A".repeat(64))}]),
            "images[0].blob: must be `sha256:`",
        ),
        ("images", json!([url, {}]), "images[1]: must have exactly one of `url`, `data`, `blob`"),
        ("images", json!([url, {"url": "a", "data": "b"}]), "images[1]: must have exactly one of"),
        ("mask", json!({}), "mask: must have exactly one of"),
        ("mask", json!({"data": "a", "blob": "b"}), "mask: must have exactly one of"),
    ] {
        let error = refused(with(field, value).to_string());
        assert!(error.starts_with(says), "{field}: {error}");
    }
}

#[test]
fn unknown_fields_and_wrong_types_are_refused_by_path() {
    let url = json!({"url": "https://example.com/"});
    for (field, value, says) in [
        ("colour", json!(1), "colour: unknown field `colour`, expected one of `v`, `task_id`"),
        ("v", json!("1"), "v: invalid type: string \"1\""),
        ("v", json!(1.0), "v: invalid type: floating point"),
        ("task_id", json!(7), "task_id: invalid type: integer `7`, expected a string"),
        ("task_id", Value::Null, "task_id: invalid type: null"),
        ("edit_type", json!({}), "edit_type: invalid type: map"),
        ("prompt", json!(7), "prompt: invalid type: integer"),
        ("model", json!(["m"]), "model: invalid type: sequence"),
        ("params", json!([]), "params: must be an object"),
        ("params", json!("{}"), "params: must be an object"),
        (
            "mask",
            json!("https://example.com/"),
            "mask: invalid type: string \"https://example.com/\", expected an object",
        ),
        ("mask", json!({"uri": "x"}), "mask.uri: unknown field `uri`, expected one of `url`, `data`, `blob`"),
        ("images", json!({}), "images: invalid type: map"),
        ("images", json!([url, "https://example.com/"]), "images[1]: invalid type: string"),
        (
            "images",
            json!([url, ["https://example.com/", null, null]]),
            "images[1]: invalid type: sequence, expected an object",
        ),
        ("images", json!([url, {"url": 7}]), "images[1].url: invalid type: integer"),
        ("images", json!([url, {"url": "a", "position": 1}]), "images[1].position: unknown field `position`"),
        ("variant", json!(2), "variant: invalid type: integer"),
    ] {
        let error = refused(with(field, value).to_string());
        assert!(error.starts_with(says), "{field}: {error}");
    }
    for field in ["v", "task_id", "edit_type", "images"] {
        let mut message = small();
        message.as_object_mut().unwrap().remove(field);
        let error = refused(message.to_string());
        assert!(error.starts_with(&format!("message: missing field `{field}`")), "{error}");
    }
}

#[test]
fn a_duplicate_key_is_refused_by_name() {
    for (more, says) in [
        (r#""v":1"#, "message: duplicate field `v`"),
        (r#""prompt":"a","prompt":"a""#, "message: duplicate field `prompt`"),
        (r#""params":{"seed":1,"seed":1}"#, "params: the key `seed` is given twice; give it once"),
        (r#""params":{"a":[{"b":1,"b":2}]}"#, "params.a[0]: the key `b` is given twice"),
        (r#""mask":{"url":"a","url":"b"}"#, "mask: duplicate field `url`"),
    ] {
        let error = refused(spelled(more));
        assert!(error.starts_with(says), "{more}: {error}");
    }
}

#[test]
fn another_version_is_refused_before_its_unknown_fields() {
    let message = r#"{"colour":{"deep":[1]},"v":2,"task_id":7,"images":"none"}"#;
    assert_eq!(refused(message), "v: version 2 is not known; this worker speaks version 1");
    let message = r#"{"v":99999999999,"task_id":"a"}"#;
    assert_eq!(refused(message), "v: version 99999999999 is not known; this worker speaks version 1");
}

#[test]
fn anything_but_one_json_object_in_utf_8_is_refused() {
    let good = small().to_string();
    let cut = &good[..good.len() - 5];
    for (payload, says) in [
        ("", "message: is not valid JSON: EOF"),
        ("not json", "message: is not valid JSON"),
        ("\u{feff}{}", "message: is not valid JSON"),
        (cut, "message: is not valid JSON: EOF"),
        ("null", "message: invalid type: null, expected an object"),
        (
            "[1,\"a\",\"blur\",\"\",null,{},null,[{\"url\":\"a\"}],null,null]",
            "message: invalid type: sequence",
        ),
        (&format!("{good} {good}"), "message: must be one JSON object: trailing characters"),
        (&format!("{good}x"), "message: must be one JSON object: trailing characters"),
        (&spelled(r#""params":{"a":1e999}"#), "params.a: is not valid JSON: number out of range"),
        (
            &spelled(&format!(r#""params":{{"a":{}1{}}}"#, "[".repeat(200), "]".repeat(200))),
            "params: is nested deeper than 64",
        ),
    ] {
        let error = refused(payload);
        assert!(error.starts_with(says), "{payload}: {error}");
    }
    assert!(
        decode(&small()).is_ok_and(|task| task == Task::decode(format!(" {good}\r\n").as_bytes()).unwrap())
    );
    let mut latin1 = with("prompt", json!("caf?")).to_string().into_bytes();
    let at = latin1.iter().position(|byte| *byte == b'?').unwrap();
    latin1[at] = 0xe9;
    assert_eq!(refused(latin1), format!("message: is not UTF-8 from byte {at} on"));
}

#[test]
fn sixteen_mebibytes_are_accepted_and_one_byte_more_is_refused() {
    let mut payload = small().to_string().into_bytes();
    payload.resize(MAX_MESSAGE_BYTES, b' ');
    assert!(Task::decode(&payload).is_ok());
    payload.push(b' ');
    let error = Task::decode(&payload).unwrap_err();
    assert_eq!(error.reason(), "too_large");
    assert_eq!(
        error.to_string(),
        "the message has 16777217 bytes; the limit is 16777216: send large pictures by url or blob"
    );
}

#[test]
fn a_refusal_is_short_whatever_the_message_holds() {
    // The refusal goes into a header of the dead letter, and headers must fit one frame.
    let large = filled(1 << 20);
    for message in [
        with("v", json!(large)),
        with(&large, json!(1)),
        with("images", json!([{"url": "a", large.as_str(): 1}])),
    ] {
        let error = refused(message.to_string());
        assert!(error.len() < 2048, "{} bytes", error.len());
    }
    for more in [format!(r#""{large}":1,"{large}":1"#), format!(r#""{large}":1e999"#)] {
        assert!(refused(spelled(&format!(r#""params":{{{more}}}"#))).len() < 2048);
    }
}

#[test]
fn a_prompt_is_measured_after_it_was_normalised() {
    let padded = format!(" \u{2003}{}\r\n", filled(MAX_PROMPT_CHARS));
    assert_eq!(decode(&with("prompt", json!(padded))).unwrap().prompt.len(), MAX_PROMPT_CHARS);
    // Twice as many characters before they are composed.
    let decomposed = "e\u{301}".repeat(MAX_PROMPT_CHARS);
    assert_eq!(decode(&with("prompt", json!(decomposed))).unwrap().prompt.chars().count(), MAX_PROMPT_CHARS);
    let crlf = "\r\n".repeat(MAX_PROMPT_CHARS - 2);
    assert!(decode(&with("prompt", json!(format!("a{crlf}b")))).is_ok());
}

#[test]
fn messages_built_in_rust_pass_the_same_checks() {
    let mut message: TaskMessage = serde_json::from_value(small()).unwrap();
    assert_eq!(Task::from_message(message.clone()), decode(&small()));
    message.images.clear();
    let error = Task::from_message(message).unwrap_err().to_string();
    assert_eq!(error, "images: must be 1 to 64 images, not 0; name at least one");
}

#[test]
fn only_a_valid_task_id_of_a_broken_message_is_shown() {
    assert_eq!(peek_task_id(br#"{"task_id":"a-1","colour":1}"#).as_deref(), Some("a-1"));
    for payload in [r#"{"task_id":"a b"}"#, r#"{"task_id":7}"#, r#"{"id":"a"}"#, "nope", ""] {
        assert_eq!(peek_task_id(payload.as_bytes()), None, "{payload}");
    }
}

#[test]
fn the_same_content_in_another_spelling_is_the_same_request() {
    let one = r#"{"v":1,"task_id":"a","edit_type":"blur","prompt":"é\n","params":{"a":1,"b":{"c":2,"d":3}},
        "images":[{"url":"https://example.com/"}],"metadata":{"x":1,"y":2}}"#;
    let other = "{ \"metadata\": {\"y\": 2, \"x\": 1}, \"images\" : [ {\"data\": null, \"url\" : \"https:\\/\\/example.com/\"} ],
        \"variant\": null, \"params\": {\"b\": {\"d\": 3, \"c\": 2}, \"a\": 1},
        \"prompt\": \"  e\\u0301\", \"edit_type\": \"blur\", \"task_id\": \"a\", \"v\": 1 }";
    let hash = |text: &str| Task::decode(text.as_bytes()).unwrap().request_hash;
    assert_eq!(hash(one), hash(other));
}

#[test]
fn any_other_content_is_another_request() {
    let url = |path: &str| json!({"url": format!("https://example.com/{path}")});
    let blob = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    let messages = [
        small(),
        with("task_id", json!("t-2")),
        with("edit_type", json!("sharpen")),
        with("prompt", json!("x")),
        with("prompt", json!("X")),
        with("model", json!("x")),
        with("variant", json!("x")),
        with("params", json!({"x": 1})),
        with("params", json!({"x": 1.0})),
        with("params", json!({"x": "1"})),
        with("metadata", json!({})),
        with("metadata", json!({"x": 1})),
        with("mask", url("m.png")),
        with("images", json!([url("m.png"), url("a.png")])),
        with("images", json!([url("a.png"), url("m.png")])),
        with("images", json!([url("a.png"), url("a.png")])),
        with("images", json!([{"data": "https://example.com/a.png"}])),
        with("images", json!([{"data": "url https://example.com/a.png"}])),
        with("images", json!([{"blob": format!("sha256:{blob}")}])),
        with("images", json!([{"data": format!("sha256:{blob}")}])),
        with("images", json!([{"url": format!("sha256:{blob}")}])),
    ];
    let hashes: std::collections::HashSet<_> =
        messages.iter().map(|message| decode(message).unwrap().request_hash).collect();
    assert_eq!(hashes.len(), messages.len());
}

#[test]
fn the_image_hash_of_a_url_is_part_of_the_request() {
    let hash = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    let decode = |image: serde_json::Value| {
        let message = json!({"v": 1, "task_id": "t", "edit_type": "blur", "images": [image]});
        Task::decode(message.to_string().as_bytes()).map_err(|invalid| invalid.to_string())
    };
    let plain = decode(json!({"url": "https://example.com/a"})).unwrap();
    let said = decode(json!({"url": "https://example.com/a", "image_hash": hash})).unwrap();
    assert_eq!(
        (plain.images[0].image_hash(), said.images[0].image_hash()),
        (None, Some(hash.parse().unwrap()))
    );
    assert_ne!(plain.request_hash, said.request_hash);
    assert_eq!(said.images[0].to_ref(), ImageRef::known_url("https://example.com/a", hash));
    for (image, says) in [
        (
            json!({"url": "https://example.com/a", "image_hash": "6b"}),
            "images[0].image_hash: must be 64 lower-case hex digits",
        ),
        (json!({"data": "data:,", "image_hash": hash}), "images[0].image_hash: goes with `url` only"),
    ] {
        let error = decode(image).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
}
