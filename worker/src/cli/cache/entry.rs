//! One entry of the cache as `show` and `why` print it, with what the blob store says of its result.

use retouch_shared::event::decimal;
use retouch_shared::key::{Digest32, EditKey, ImageHash, KEY_VERSION_NUMBER};
use serde::Serialize;
use serde_json::Value;

use super::super::Failure;
use super::super::say::say;
use super::{json_time, shortened, time};
use crate::app::App;
use crate::store::CacheEntry;
use crate::words::counted;
use indicatif::HumanBytes;

/// What became of a result's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BlobState {
    /// In our blobs, of the right size.
    Present,
    /// In our blobs, of another size: never served.
    WrongSize,
    /// Not in our blobs.
    Missing,
    /// Imported: at its URL, which is not asked.
    Elsewhere,
}

impl BlobState {
    /// Asks the blob store.
    pub(super) async fn of(app: &App, entry: &CacheEntry) -> Result<Self, Failure> {
        let Some(hash) = entry.result.result_hash else { return Ok(Self::Elsewhere) };
        if app.blobs.exists(hash, Some(entry.result.bytes)).await.map_err(Failure::unreachable)? {
            return Ok(Self::Present);
        }
        let there = app.blobs.exists(hash, None).await.map_err(Failure::unreachable)?;
        Ok(if there { Self::WrongSize } else { Self::Missing })
    }

    /// In words.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::WrongSize => "wrong_size",
            Self::Missing => "missing",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// Whether the entry is served.
    pub(super) const fn is_served(self) -> bool {
        match self {
            Self::Present | Self::Elsewhere => true,
            Self::WrongSize | Self::Missing => false,
        }
    }
}

/// The entry in `--json`. Money is decimal text.
#[derive(Debug, Serialize)]
pub(super) struct ShownEntry {
    pub(super) edit_key: EditKey,
    key_version: u16,
    image_hash: ImageHash,
    edit_type: String,
    prompt: String,
    provider: String,
    model: String,
    params: Value,
    mask_hash: Option<Digest32>,
    variant: Option<String>,
    price: String,
    currency: String,
    hits: u64,
    imported_hits: Option<u64>,
    last_hit_at: String,
    created_at: String,
    verified_at: Option<String>,
    result_url: String,
    result_hash: Option<Digest32>,
    content_type: String,
    width: u32,
    height: u32,
    bytes: u64,
    result_check: Option<String>,
    blob: BlobState,
    #[serde(skip)]
    last_hit: String,
    #[serde(skip)]
    created: String,
}

impl ShownEntry {
    /// The row, resolved, and whether its blob is there.
    pub(super) async fn of(app: &App, entry: &CacheEntry) -> Result<Self, Failure> {
        let blob = BlobState::of(app, entry).await?;
        let result = &entry.result;
        Ok(Self {
            edit_key: result.edit_key,
            key_version: entry.key_version,
            image_hash: entry.image_hash,
            edit_type: entry.edit_type.clone(),
            prompt: entry.prompt.clone(),
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            params: Value::Object(entry.params.as_object().clone()),
            mask_hash: entry.mask_hash,
            variant: entry.variant.clone(),
            price: decimal(result.price.micros),
            currency: result.price.currency.clone(),
            hits: entry.hit_count,
            imported_hits: entry.imported_hits,
            last_hit_at: json_time(entry.last_hit_at),
            created_at: json_time(entry.created_at),
            verified_at: entry.verified_at.map(json_time),
            result_url: app.resolve(&result.result_url),
            result_hash: result.result_hash,
            content_type: result.content_type.clone(),
            width: result.width,
            height: result.height,
            bytes: result.bytes,
            result_check: entry.result_check.clone(),
            blob,
            last_hit: time(entry.last_hit_at),
            created: time(entry.created_at),
        })
    }

    /// For people.
    pub(super) fn print(&self) {
        let Self { edit_type, provider, model, hits, .. } = self;
        say(format!("edit {}", self.edit_key));
        let mut facts = vec![
            ("picture", self.image_hash.to_string()),
            ("edit", format!("{edit_type} by {provider} {model}, {} {}", self.price, self.currency)),
        ];
        if !self.prompt.is_empty() {
            facts.push(("prompt", shortened(&self.prompt, 400)));
        }
        if self.params.as_object().is_some_and(|params| !params.is_empty()) {
            facts.push(("params", self.params.to_string()));
        }
        facts.extend(self.mask_hash.map(|mask| ("mask", mask.to_string())));
        facts.extend(self.variant.clone().map(|variant| ("variant", variant)));
        if self.key_version != KEY_VERSION_NUMBER {
            let version = format!("{}: never hit, this program's is {KEY_VERSION_NUMBER}", self.key_version);
            facts.push(("key version", version));
        }
        let times = counted(*hits, "time");
        facts.push(("served", format!("{times}, last {}, made {}", self.last_hit, self.created)));
        facts.extend(
            self.imported_hits.map(|hits| ("imported", format!("served {} before", counted(hits, "time")))),
        );
        let size = HumanBytes(self.bytes);
        facts.push(("result", self.result_url.clone()));
        let pixels = match (self.width, self.height) {
            (0, 0) => "size in pixels not known".to_owned(),
            (width, height) => format!("{width}×{height}"),
        };
        facts.push(("", format!("{}, {pixels}, {size}, {}", self.content_type, self.blob.as_str())));
        let check = self.result_check.as_deref().map(|check| shortened(check, 400));
        facts.extend(
            check.map(|check| ("check", format!("kept as it came, but it could not be decoded: {check}"))),
        );
        for (name, value) in facts {
            say(format!("  {name:<11} {value}"));
        }
    }
}
