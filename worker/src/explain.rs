//! Explains a miss: the fields in which an edit differs from cached ones. Pure: all input is passed in.
//!
//! Invariant: every field of the edit key is compared here. [`EditIdentity`] is destructured without `..`, so
//! that a new field does not compile until it is compared.

use retouch_shared::key::{EditIdentity, EditKey, KEY_VERSION_NUMBER};
use serde::Serialize;
use serde_json::{Value, json};

use crate::store::CacheEntry;

/// Characters shown on either side of the difference of two prompts.
const AROUND: usize = 24;

/// One reason, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A field of the edit (`image`, `edit_type`, `prompt`, `provider`, `model`, `params.NAME`, `mask`,
    /// `variant`), `key_version`, or the fate of the entry: `blob`, `evicted`, `forgotten`, `blob_missing`,
    /// `call`, `refused`.
    pub field: String,
    /// The requested value.
    pub wanted: Value,
    /// The cached value.
    pub cached: Value,
    /// For people.
    pub message: String,
}

impl Reason {
    /// A reason with a message of its own.
    pub fn new(field: &str, wanted: impl Into<Value>, cached: impl Into<Value>, message: String) -> Self {
        Self { field: field.to_owned(), wanted: wanted.into(), cached: cached.into(), message }
    }

    fn differs(field: &str, wanted: Value, cached: Value) -> Self {
        let shown = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let message = format!("{field}: wanted {}, cached {}", shown(&wanted), shown(&cached));
        Self { field: field.to_owned(), wanted, cached, message }
    }
}

/// The first entry that differs in the fewest fields, and those fields.
pub fn nearest<'a>(
    wanted: &EditIdentity<'_>,
    entries: &'a [CacheEntry],
) -> Option<(&'a CacheEntry, Vec<Reason>)> {
    let compared = entries.iter().map(|entry| (entry, differences(wanted, entry)));
    compared.min_by_key(|(_, reasons)| reasons.len())
}

/// Every field in which an entry differs from an edit; at least one.
pub fn differences(wanted: &EditIdentity<'_>, entry: &CacheEntry) -> Vec<Reason> {
    let EditIdentity { image_hash, edit_type, prompt, provider, model, params, mask_hash, variant } = *wanted;
    let mut reasons = Vec::new();
    let mut compare = |field: &str, wanted: Value, cached: Value| {
        if wanted != cached {
            reasons.push(Reason::differs(field, wanted, cached));
        }
    };
    compare("image", json!(image_hash), json!(entry.image_hash));
    compare("edit_type", json!(edit_type), json!(entry.edit_type));
    compare("provider", json!(provider), json!(entry.provider));
    compare("model", json!(model), json!(entry.model));
    compare("mask", json!(mask_hash), json!(entry.mask_hash));
    compare("variant", json!(variant), json!(entry.variant));
    for name in names(params.as_object().keys(), entry.params.as_object().keys()) {
        let value = |given: Option<&Value>| given.cloned().unwrap_or_default();
        compare(&format!("params.{name}"), value(params.get(name)), value(entry.params.get(name)));
    }
    if prompt != entry.prompt {
        let (wanted, cached) = marked(prompt, &entry.prompt);
        let message = format!("prompt: wanted {wanted:?}, cached {cached:?}");
        reasons.push(Reason::new("prompt", prompt, entry.prompt.as_str(), message));
    }
    reasons.extend(of_key(
        entry.key_version,
        entry.result.edit_key,
        entry.identity().key(),
        reasons.is_empty(),
    ));
    reasons
}

/// A row whose stored key differs from the key that this program computes of its fields never hits.
fn of_key(version: u16, has: EditKey, ours: EditKey, is_all: bool) -> Option<Reason> {
    if has != ours && version != KEY_VERSION_NUMBER {
        return Some(Reason::differs("key_version", json!(KEY_VERSION_NUMBER), json!(version)));
    }
    let message = "edit_key: the row has another key than its fields make".to_owned();
    (has != ours || is_all).then(|| Reason::new("edit_key", json!(ours), json!(has), message))
}

/// The union of both name sets.
fn names<'a>(
    one: impl Iterator<Item = &'a String>,
    other: impl Iterator<Item = &'a String>,
) -> std::collections::BTreeSet<&'a str> {
    one.chain(other).map(String::as_str).collect()
}

/// Both texts with their difference in brackets, and only the nearby part of what they share.
pub fn marked(one: &str, other: &str) -> (String, String) {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let before = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let rest = one.len().min(other.len()) - before;
    let after = one.iter().rev().zip(other.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mark = |text: &[char]| {
        let (begin, end) = (before.saturating_sub(AROUND), text.len() - after.saturating_sub(AROUND));
        let part = |from: usize, to: usize| text[from..to].iter().collect::<String>();
        let cut = |is_cut: bool| if is_cut { "…" } else { "" };
        format!(
            "{}{}[{}]{}{}",
            cut(begin > 0),
            part(begin, before),
            part(before, text.len() - after),
            part(text.len() - after, end),
            cut(end < text.len())
        )
    };
    (mark(&one), mark(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_prompts_are_marked_and_distant_text_is_cut() {
        for (one, other, marks) in [
            ("make the sky blue", "make the sea blue", ("make the s[ky] blue", "make the s[ea] blue")),
            ("", "a cat", ("[]", "[a cat]")),
            ("a cat", "a cat ", ("a cat[]", "a cat[ ]")),
            ("aa", "aaa", ("aa[]", "aa[a]")),
            ("Ça va", "ça va", ("[Ç]a va", "[ç]a va")),
        ] {
            let (a, b) = marked(one, other);
            assert_eq!((a.as_str(), b.as_str()), marks);
        }
        let long = |middle: &str| format!("{}{middle}{}", "b".repeat(100), "e".repeat(100));
        let (a, b) = marked(&long("x"), &long("猫y"));
        let cut_off = |middle: &str| format!("…{}[{middle}]{}…", "b".repeat(AROUND), "e".repeat(AROUND));
        assert_eq!((a, b), (cut_off("x"), cut_off("猫y")));
    }
}
