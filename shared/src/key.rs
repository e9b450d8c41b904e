//! The edit key: the permanent name of one picture with one edit.
//!
//! SHA-256 over a version tag and length-prefixed fields, so that two different edits cannot run into each
//! other (`"ab" + "c"` is not `"a" + "bc"`). Everything that can change the picture is part of the key;
//! position, task, URL and file name are not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::params::Params;

/// Enters every key first. A change of the fields or their encoding needs a new tag: old rows then never hit,
/// instead of serving the wrong picture.
pub const KEY_VERSION: &str = "retouch-edit-v2";
/// The tag's number, as cache rows store it.
pub const KEY_VERSION_NUMBER: u16 = 2;
/// Version of the rules for an editor's input: 1 is upright, with the EXIF orientation applied to picture and
/// mask. A change of the rules changes every key and raises the key version too, since rows store only that
/// number.
pub const INPUT_RULES: u16 = 1;

/// A SHA-256 digest; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest32([u8; 32]);

/// The SHA-256 of a picture's bytes.
pub type ImageHash = Digest32;
/// The name of an edit.
pub type EditKey = Digest32;

impl Digest32 {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From the 32 bytes of a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes bytes as they arrive.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn digest(self) -> Digest32 {
        Digest32(self.0.finalize().into())
    }
}

/// Not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits, not {0:?}")]
pub struct NotADigest(String);

impl FromStr for Digest32 {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NotADigest(text.chars().take(80).collect());
        // One spelling only: upper case would be a second name for the same blob.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Everything that can change the picture.
#[derive(Debug, Clone, Copy)]
pub struct EditIdentity<'a> {
    /// SHA-256 of the input's bytes as received, before any conversion for the editor.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: &'a str,
    /// Normalised by [`normalise_prompt`].
    pub prompt: &'a str,
    /// The provider kind, e.g. `dashscope`: the same model id may mean different things at two of them.
    pub provider: &'a str,
    /// The provider's model id.
    pub model: &'a str,
    /// With the route's defaults merged in.
    pub params: &'a Params,
    /// The mask's bytes.
    pub mask_hash: Option<ImageHash>,
    /// Another take on the same edit.
    pub variant: Option<&'a str>,
}

impl EditIdentity<'_> {
    /// The edit key.
    pub fn key(&self) -> EditKey {
        // Destructured without `..`: a new field does not compile until it is placed.
        let Self { image_hash, edit_type, prompt, provider, model, params, mask_hash, variant } = self;
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(KEY_VERSION.as_bytes());
        field(&INPUT_RULES.to_be_bytes());
        field(image_hash.as_bytes());
        field(edit_type.as_bytes());
        field(prompt.as_bytes());
        field(provider.as_bytes());
        field(model.as_bytes());
        field(params.canonical().as_bytes());
        // Absent is an empty field; a present mask has 32 bytes and a present variant at least one.
        field(mask_hash.as_ref().map_or(&[][..], |hash| &hash.as_bytes()[..]));
        field(variant.unwrap_or_default().as_bytes());
        Digest32(hasher.finalize().into())
    }
}

/// NFC, line ends `\n`, outer white space trimmed, case kept. The same text goes to the provider.
pub fn normalise_prompt(prompt: &str) -> String {
    let composed: String = prompt.nfc().collect();
    composed.replace("\r\n", "\n").replace('\r', "\n").trim().to_owned()
}

#[cfg(test)]
mod tests;
