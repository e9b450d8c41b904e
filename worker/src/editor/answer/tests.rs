//! Every observed shape, and neighbours of each kind.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

/// The smallest that is recognised, with bytes that the two base64 alphabets write differently.
const PICTURE: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\xff\xfb\xff\xbf\xfe";
const URL: &str = "https://cdn.example/a.png?sig=a%2Bb";

fn base() -> Url {
    Url::parse("https://api.example/v1?version=2").unwrap()
}

fn contents(body: impl AsRef<[u8]>) -> Contents {
    Contents::of(&Bytes::copy_from_slice(body.as_ref()))
}

fn found(body: impl AsRef<[u8]>) -> Option<Found> {
    let contents = contents(body);
    contents.picture(&base()).or_else(|| contents.picture_anywhere(&base()))
}

fn standard() -> String {
    BASE64_STANDARD.encode(PICTURE)
}

fn assert_bytes(body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    let expected = Some(Found::Bytes(Bytes::from_static(PICTURE)));
    assert_eq!(found(body), expected, "{}", String::from_utf8_lossy(body));
}

fn assert_url(body: &str, url: &str) {
    assert_eq!(found(body), Some(Found::Url(url.to_owned())), "{body}");
}

#[test]
fn pictures_are_found_in_every_spelling_of_bytes() {
    let (plain, safe) = (standard(), BASE64_URL_SAFE_NO_PAD.encode(PICTURE));
    assert!(safe.contains(['-', '_']), "the alphabets differ in {safe}");
    let lines: String =
        plain.as_bytes().chunks(20).map(|line| format!("{}\r\n", str::from_utf8(line).unwrap())).collect();
    let percent = plain.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D");
    for text in [
        plain.clone(),
        plain.trim_end_matches('=').to_owned(),
        safe,
        lines,
        format!("data:image/png;base64,{plain}"),
        format!("DATA:image/png;charset=x;BASE64,{percent}"),
        format!("image/png;base64,{plain}"),
    ] {
        for name in ["b64_json", "B64_JSON", "b64", "base64", "image_base64", "bytesBase64Encoded"] {
            assert_bytes(json!({ "data": [{ name: text }] }).to_string());
        }
    }
    for body in [
        json!({"data": [{"url": format!("data:image/png;base64,{plain}"), "b64_json": null}]}),
        json!({"data": [{"url": URL, "b64_json": plain}], "error": null}),
        json!({"data": [{"url": "", "b64_json": ""}, {"b64_json": "None"}, {"b64_json": plain}]}),
        json!({"images": [plain]}),
        json!({"output": [{"type": "image_generation_call", "result": plain}]}),
        json!({"candidates": [{"content": {"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": plain}}]}}]}),
        json!({"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": plain}]}),
        json!({"choices": [{"message": {"content": "", "images": [{"image_url": {"url": format!("data:image/png;base64,{plain}")}}]}}]}),
    ] {
        assert_bytes(body.to_string());
    }
    assert_bytes(PICTURE);
    assert_bytes(&plain);
    assert_bytes(format!("data:image/png;base64,{plain}"));
}

#[test]
fn addresses_are_found_in_every_wrapper_and_kept_unchanged() {
    for body in [
        json!({"data": [{"url": URL}]}),
        json!({"data": {"url": URL}}),
        json!({"data": [URL]}),
        json!({"data": URL}),
        json!({"images": [{"url": URL}]}),
        json!({"images": [URL]}),
        json!({"image": URL}),
        json!({"image": {"url": URL}}),
        json!({"image_url": {"url": URL}}),
        json!({"code": 0, "data": {"data": [{"url": URL}]}}),
        json!({"code": "200", "message": "success", "data": {"images": [{"image_url": URL}]}}),
        json!({"output": {"url": URL}}),
        json!({"output": URL}),
        json!({"output": [URL]}),
        json!({"output": {"results": [{"code": "x", "message": "no"}, {"url": URL}]}}),
        json!({"output": {"choices": [{"message": {"content": [{"text": "a"}, {"image": URL}]}}]}}),
        json!({"output": {"result_url": URL}}),
        json!({"result": {"output_urls": [URL]}}),
        json!({"results": [{"image_url": URL}]}),
        json!({"imageUrl": URL}),
        json!([{"url": URL}]),
        json!({"choices": [{"message": {"content": format!("Here: ![it]({URL})")}}]}),
        json!({"some_gateway": {"its_wrap": {"url": URL}}}),
        json!({"statusCode": 200, "body": json!({"data": [{"url": URL}]}).to_string()}),
        json!(json!({"data": [{"url": URL}]}).to_string()),
        json!(URL),
    ] {
        assert_url(&body.to_string(), URL);
    }
    assert_url(URL, URL);
    for (relative, absolute) in [
        ("/images/1.png?sig=x", "https://api.example/images/1.png?sig=x"),
        ("images/1.png", "https://api.example/v1/images/1.png"),
        ("./1", "https://api.example/v1/1"),
        ("../1.webp", "https://api.example/1.webp"),
        ("//cdn.example/1", "https://cdn.example/1"),
    ] {
        assert_url(&json!({"data": [{"url": relative}]}).to_string(), absolute);
    }
}

#[test]
fn text_around_the_json_is_taken_off() {
    let body = json!({"data": [{"b64_json": standard()}]}).to_string();
    assert_bytes(format!("\u{feff}{body}"));
    assert_bytes(format!("\n\r\n  \t{body}\n\n"));
    assert_bytes(format!("{body}\0"));
    assert_bytes(format!("{body}\ntrailing words"));
    let wide = |mark: [u8; 2], unit: fn(u16) -> [u8; 2]| {
        let units = body.encode_utf16().flat_map(unit);
        mark.into_iter().chain(units).collect::<Vec<u8>>()
    };
    assert_bytes(wide([0xff, 0xfe], u16::to_le_bytes));
    assert_bytes(wide([0xfe, 0xff], u16::to_be_bytes));
    // One document a line; the last is the final one.
    assert_bytes(format!("{}\n{body}\n", json!({"progress": 0.5})));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    assert_bytes(gzip.finish().unwrap());
}

#[test]
fn the_last_event_that_is_not_a_draft_has_the_picture() {
    let draft = json!({"type": "image_edit.partial_image", "partial_image_index": 0, "b64_json": "aGVsbG8="});
    let done = json!({"type": "image_edit.completed", "b64_json": standard()});
    for stream in [
        format!(
            "event: image_edit.partial_image\ndata: {draft}\n\nevent: image_edit.completed\ndata: {done}\n\n"
        ),
        format!(
            "event: image_edit.partial_image\r\ndata: {draft}\r\n\r\nevent: image_edit.completed\r\ndata: {done}\r\n\r\ndata: [DONE]\r\n\r\n"
        ),
        format!("event:image_edit.partial_image\rdata:{{\"b64_json\":\"aGVsbG8=\"}}\r\rdata:{done}"),
        format!(": keep-alive\n\nid: 1\nretry: 5\ndata: {done}\n\ndata: [DONE]\n\n"),
        format!("data: {draft}\ndata: {done}\ndata: [DONE]\n"),
        format!("data: {done}\n\ndata: {draft}\n\n"),
        format!("{draft}\n{done}\n"),
        json!([draft, done]).to_string(),
    ] {
        assert_bytes(stream);
    }
    let pretty = serde_json::to_string_pretty(&done).unwrap();
    let lines: String = pretty.lines().map(|line| format!("data: {line}\n")).collect();
    assert_bytes(format!("{lines}\n"));
    let only_draft = format!("event: image_edit.partial_image\ndata: {draft}\n\n");
    assert_eq!(found(&only_draft), None);
    assert_eq!(contents(&only_draft).what(only_draft.as_bytes()), "it holds drafts and no final picture");
}

#[test]
fn echoes_of_the_request_are_never_taken_for_the_answer() {
    for body in [
        json!({"input": {"image": URL}}),
        json!({"request": {"data": [{"url": URL}]}}),
        json!({"prompt": URL, "revised_prompt": URL}),
        json!({"source_url": URL, "mask": {"url": URL}}),
        json!({"data": [], "original_image": URL, "reference_images": [URL]}),
        json!({"data": {"input": {"url": URL}, "status": "queued"}}),
        json!({"error": {"message": "no", "url": URL}}),
        json!({"urls": {"get": URL, "cancel": URL}}),
        json!({"message": URL}),
        json!({"metadata": {"url": URL}, "usage": {"url": URL}}),
    ] {
        assert_eq!(found(body.to_string()), None, "{body}");
    }
}

#[test]
fn texts_without_a_picture_are_not_guessed_at() {
    for body in [
        "",
        " ",
        "<html>ok</html>",
        "ok",
        "[]",
        "{}",
        "null",
        "42",
        r#"{"data":null}"#,
        r#"{"data":[{}]}"#,
        r#"{"data":[{"b64_json":"***"}]}"#,
        r#"{"data":[{"b64_json":"data:image/png;base64,"}]}"#,
        r#"{"data":[{"url":"file:///etc/passwd"}]}"#,
        r#"{"data":[{"url":"oss://bucket/key.png"}]}"#,
        r#"{"result":"n/a","message":"done"}"#,
        r#"{"data":[{"b64_json":"aGVs"#,
        "data: {\"data\":[{\"url\":\n\n",
        "BM is no picture",
    ] {
        assert_eq!(found(body), None, "{body}");
    }
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    assert_eq!(found(&deep), None);
}

#[test]
fn a_task_id_is_found_in_every_known_member() {
    for body in [
        json!({"output": {"task_id": "a-1", "task_status": "PENDING"}}),
        json!({"task_id": "a-1"}),
        json!({"taskId": "a-1"}),
        json!({"code": 0, "data": {"task_id": "a-1"}}),
        json!({"data": {"output": {"task_id": "a-1"}, "input": {"task_id": "b"}}}),
        json!([{"result": {"task_id": "a-1"}}]),
    ] {
        assert_eq!(contents(body.to_string()).task_id().as_deref(), Some("a-1"), "{body}");
    }
    for none in [
        json!({"task_id": ""}),
        json!({"task_id": ".."}),
        json!({"input": {"task_id": "a"}}),
        json!({"task_id": null}),
    ] {
        assert_eq!(contents(none.to_string()).task_id(), None, "{none}");
    }
    assert_eq!(contents(r#"{"task_id":17}"#).task_id().as_deref(), Some("17"));
}

#[test]
fn an_error_is_told_from_an_answer_without_one() {
    let fault = |body: &Value| contents(body.to_string()).fault().map(|fault| (fault.code, fault.message));
    let of = |code: &str, message: &str| Some((Some(code.to_owned()), message.to_owned()));
    for (body, expected) in [
        (json!({"error": {"code": "odd", "message": "No."}}), of("odd", "No.")),
        (json!({"error": {"code": 1301, "message": "No."}}), of("1301", "No.")),
        (json!({"error": {"message": "No.", "type": "x"}}), Some((None, "No.".to_owned()))),
        (json!({"error": "no_credit", "message": "No."}), of("no_credit", "No.")),
        (json!({"error": "There is no credit"}), Some((None, "There is no credit".to_owned()))),
        (json!({"error": true, "message": "No.", "code": "odd"}), of("odd", "No.")),
        (json!({"errors": [{"code": "odd", "message": "No."}]}), of("odd", "No.")),
        (json!({"code": "Moon", "message": "No.", "output": null}), of("Moon", "No.")),
        (json!({"code": 40001, "msg": "No."}), of("40001", "No.")),
        (json!({"response": {"error": {"code": "odd", "message": "No."}}}), of("odd", "No.")),
        (json!({"output": {"code": "Moon", "message": "No."}}), of("Moon", "No.")),
        (json!({"success": false, "message": "No."}), Some((None, "No.".to_owned()))),
        (json!([{"error": {"code": "odd", "message": "No."}}]), of("odd", "No.")),
        (json!({"error": null}), None),
        (json!({"error": ""}), None),
        (json!({"error": {}}), None),
        (json!({"error": false}), None),
        (json!({"code": 0, "message": "success"}), None),
        (json!({"code": 200, "message": "whatever"}), None),
        (json!({"code": "", "message": null}), None),
        (json!({"code": 1, "message": "success"}), None),
        (json!({"data": []}), None),
    ] {
        assert_eq!(fault(&body), expected, "{body}");
    }
    let event = "event: error\ndata: {\"error\":{\"code\":\"odd\",\"message\":\"No.\"}}\n\n";
    assert_eq!(contents(event).fault().and_then(|fault| fault.code).as_deref(), Some("odd"));
}

#[test]
fn the_beginning_of_an_answer_can_be_shown_anywhere() {
    let shown = beginning(
        "<p>\u{202e}a\u{7}b\u{2066}c\n\n  d\0\u{200f}\u{feff} sk-secret https://h.example/x?sig=s".as_bytes(),
    );
    assert_eq!(shown, "<p>abc d sk-… https://h.example…");
    assert_eq!(beginning(b"\xff\xfe\x00"), "");
    assert_eq!(beginning("é".repeat(2000).as_bytes()).chars().count(), SHOWN_CHARS);
}
