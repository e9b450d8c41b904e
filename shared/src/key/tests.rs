//! The edit key never changes: golden values, and every field counts.

use std::collections::HashSet;

use super::*;

/// A digest by its bytes, so that this test computes none.
fn hash(text: &str) -> Digest32 {
    Digest32::of(text.as_bytes())
}

fn params(text: &str) -> Params {
    text.parse().unwrap()
}

#[test]
fn the_key_version_has_the_same_number_in_tag_and_rows() {
    assert!(KEY_VERSION.ends_with(&format!("-v{KEY_VERSION_NUMBER}")));
    assert_eq!(
        (KEY_VERSION_NUMBER, INPUT_RULES),
        (2, 1),
        "other rules need another number: rows say only that"
    );
}

/// The recipe, in Python, for the values below:
/// ```text
/// import hashlib, struct
/// def key(*fields):
///     hasher = hashlib.sha256()
///     for field in (b"retouch-edit-v2", struct.pack(">H", 1)) + fields:
///         hasher.update(struct.pack(">Q", len(field)) + field)
///     return hasher.hexdigest()
/// image, mask = hashlib.sha256(b"picture").digest(), hashlib.sha256(b"mask").digest()
/// key(image, b"blur", b"", b"local", b"local-1", b"{}", b"", b"")
/// key(image, b"remove_watermark", "Entferne das Wasserzeichen \U0001f600\nbitte".encode(), b"dashscope",
///     b"wanx2.1-imageedit", '{"a":{"b":[2,1.5],"c":"é"},"seed":7}'.encode(), b"", b"")
/// key(image, b"sepia", b"x", b"openai", b"m", b'{"n":null}', mask, b"b")
/// ```
#[test]
fn the_key_of_an_edit_never_changes() {
    let image_hash = hash("picture");
    let plain = EditIdentity {
        image_hash,
        edit_type: "blur",
        prompt: "",
        provider: "local",
        model: "local-1",
        params: &Params::default(),
        mask_hash: None,
        variant: None,
    };
    assert_eq!(plain.key().to_hex(), "4cddb733a71f854e3b420f5a19ecea827a2f14c70332c9d30512efcfd0c9a337");
    let worded = EditIdentity {
        image_hash,
        edit_type: "remove_watermark",
        prompt: "Entferne das Wasserzeichen \u{1f600}\nbitte",
        provider: "dashscope",
        model: "wanx2.1-imageedit",
        params: &params(r#"{ "seed": 7, "a": {"c": "\u00e9", "b": [2, 1.5]} }"#),
        mask_hash: None,
        variant: None,
    };
    assert_eq!(worded.key().to_hex(), "26d5babe7785f2bfc710ed70c0da137234205336d7e32c603c4dec066f86ab4d");
    let masked = EditIdentity {
        image_hash,
        edit_type: "sepia",
        prompt: "x",
        provider: "openai",
        model: "m",
        params: &params(r#"{"n":null}"#),
        mask_hash: Some(hash("mask")),
        variant: Some("b"),
    };
    assert_eq!(masked.key().to_hex(), "b876b2d63780b833f667412752509876f4884021b787cf128cefd0341b96f338");
}

#[test]
fn a_change_of_any_one_field_changes_the_key() {
    let (empty, seed) = (Params::default(), params(r#"{"seed":7}"#));
    let base = EditIdentity {
        image_hash: hash("picture"),
        edit_type: "blur",
        prompt: "cat",
        provider: "local",
        model: "local-1",
        params: &empty,
        mask_hash: None,
        variant: None,
    };
    // Destructured: a new field does not compile until its change is in the table.
    let EditIdentity {
        image_hash: _,
        edit_type: _,
        prompt: _,
        provider: _,
        model: _,
        params: _,
        mask_hash: _,
        variant: _,
    } = base;
    let changed = [
        base,
        EditIdentity { image_hash: hash("another"), ..base },
        EditIdentity { edit_type: "sharpen", ..base },
        EditIdentity { edit_type: "Blur", ..base },
        EditIdentity { prompt: "Cat", ..base },
        EditIdentity { prompt: "cat ", ..base },
        EditIdentity { prompt: "cät", ..base },
        EditIdentity { prompt: "cat\u{1f600}", ..base },
        EditIdentity { prompt: "cat\u{1f601}", ..base },
        EditIdentity { provider: "openai", ..base },
        EditIdentity { model: "local-2", ..base },
        EditIdentity { params: &seed, ..base },
        EditIdentity { mask_hash: Some(hash("mask")), ..base },
        EditIdentity { mask_hash: Some(hash("picture")), ..base },
        EditIdentity { variant: Some("b"), ..base },
        EditIdentity { variant: Some("B"), ..base },
    ];
    let keys: HashSet<_> = changed.iter().map(EditIdentity::key).collect();
    assert_eq!(keys.len(), changed.len());
}

#[test]
fn text_moved_from_one_field_to_the_next_makes_another_edit() {
    let (params, nothing) = (params(r#"{"a":"b"}"#), Params::default());
    let base = EditIdentity {
        image_hash: hash("picture"),
        edit_type: "ab",
        prompt: "c",
        provider: "p",
        model: "m",
        params: &nothing,
        mask_hash: None,
        variant: None,
    };
    let shifted = [
        base,
        EditIdentity { edit_type: "a", prompt: "bc", ..base },
        EditIdentity { edit_type: "abc", prompt: "", ..base },
        EditIdentity { prompt: "", provider: "cp", ..base },
        EditIdentity { prompt: "cp", provider: "", ..base },
        EditIdentity { provider: "pm", model: "", ..base },
        EditIdentity { model: "", variant: Some("m"), ..base },
        EditIdentity { model: r#"m{"a":"b"}"#, ..base },
        EditIdentity { params: &params, ..base },
        EditIdentity { variant: Some(r#"{"a":"b"}"#), ..base },
        // The same bytes as a mask and as a variant.
        EditIdentity { mask_hash: Some(Digest32::from_bytes([b'x'; 32])), ..base },
        EditIdentity { variant: Some("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), ..base },
        // A field that looks like a length and what follows it.
        EditIdentity { prompt: "c\0\0\0\0\0\0\0\u{1}p", provider: "", ..base },
    ];
    let keys: HashSet<_> = shifted.iter().map(EditIdentity::key).collect();
    assert_eq!(keys.len(), shifted.len());
}

#[test]
fn parameters_enter_the_key_in_their_canonical_form() {
    let key = |text: &str| {
        EditIdentity {
            image_hash: hash("picture"),
            edit_type: "blur",
            prompt: "",
            provider: "local",
            model: "local-1",
            params: &params(text),
            mask_hash: None,
            variant: None,
        }
        .key()
    };
    assert_eq!(
        key(r#"{"b":1,"a":{"y":[1,2],"x":"\u00e9"}}"#),
        key("{ \"a\": {\"x\":\"é\", \"y\": [1, 2]},\n\"b\":1 }")
    );
    let different =
        ["{}", r#"{"a":7}"#, r#"{"a":7.0}"#, r#"{"a":"7"}"#, r#"{"a":[7]}"#, r#"{"a":null}"#, r#"{"b":7}"#];
    let keys: HashSet<_> = different.into_iter().map(key).collect();
    assert_eq!(keys.len(), different.len());
}

#[test]
fn no_dependency_changes_the_order_or_numbers_of_serde_json() {
    // `preserve_order` would put `b` first, `arbitrary_precision` would keep `1e2`, and without `float_roundtrip` the
    // last number would come back as another: each would change the edit key of edits that were paid for.
    let text = r#"{"b":1e2,"a":31.245270191439438}"#;
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(value.to_string(), r#"{"a":31.245270191439438,"b":100.0}"#);
}

#[test]
fn a_prompt_is_composed_trimmed_and_has_one_kind_of_line_end() {
    for (given, normalised) in [
        ("", ""),
        ("  \t\r\n ", ""),
        ("e\u{301}", "é"),
        ("\u{212b}", "å".to_uppercase().as_str()),
        ("a\r\nb\rc\nd\n\re", "a\nb\nc\nd\n\ne"),
        ("\u{a0}\u{2003}\u{3000}cat\u{2028}\u{85}", "cat"),
        (" two  words ", "two  words"),
        ("Cat", "Cat"),
        ("ﬁ ① Ⅳ", "ﬁ ① Ⅳ"),
        ("\u{200b}cat\u{feff}", "\u{200b}cat\u{feff}"),
        ("\u{1f469}\u{200d}\u{1f680}", "\u{1f469}\u{200d}\u{1f680}"),
    ] {
        assert_eq!(normalise_prompt(given), normalised, "{given:?}");
    }
}

#[test]
fn normalising_a_prompt_again_changes_nothing() {
    let marks = [
        "a",
        "e\u{301}",
        "\u{301}",
        "\r",
        "\n",
        " ",
        "\u{2000}",
        "\u{2001}",
        "\u{958}",
        "\u{fb2c}",
        "\u{1100}\u{1161}",
    ];
    for first in marks {
        for second in marks {
            for third in marks {
                let once = normalise_prompt(&format!("{first}{second}{third}"));
                assert_eq!(normalise_prompt(&once), once, "{first:?} {second:?} {third:?}");
            }
        }
    }
}

#[test]
fn a_digest_has_one_spelling() {
    let hex = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    let digest: Digest32 = hex.parse().unwrap();
    assert_eq!(digest, Digest32::of(b"1"));
    assert_eq!((digest.to_string(), digest.to_hex()), (hex.to_owned(), hex.to_owned()));
    assert_eq!(serde_json::from_str::<Digest32>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
    for bad in
        ["", &hex[1..], &hex.to_uppercase(), &format!("{hex}0"), &hex.replace('6', "g"), &format!(" {hex}")]
    {
        assert!(bad.parse::<Digest32>().is_err(), "{bad}");
    }
    let long = "x".repeat(1 << 20);
    assert!(long.parse::<Digest32>().unwrap_err().to_string().len() < 256);
}
