//! Decides whether an older row can be an entry, and its edit: the same one that a task with its edit type
//! and prompt has today.

use std::collections::{BTreeMap, HashMap};

use retouch_shared::key::{Digest32, EditIdentity, normalise_prompt};
use retouch_shared::task::{MAX_PROMPT_CHARS, Params};
use url::Url;

use super::Links;
use crate::config::Offer;
use crate::routes::Route;
use crate::store::older::OlderImage;
use crate::store::{ImportEntry, Money};

/// Longest accepted link, in bytes.
const MAX_URL: usize = 8 * 1024;
/// Query parameters of signed addresses, in lower case: such an address expires.
const SIGNED: [&str; 6] =
    ["expires", "x-amz-expires", "x-oss-expires", "x-goog-expires", "q-sign-time", "x-tos-expires"];

/// Why a row is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// For programs.
    pub reason: &'static str,
    /// For people: the fault of this row.
    pub detail: String,
    /// Whether a retry changes nothing.
    pub is_final: bool,
}

impl Skip {
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), is_final: true }
    }

    pub(super) fn same_edit(entry: &ImportEntry) -> Self {
        let (hash, prompt) = (entry.image_hash, cut(&entry.prompt));
        Self::new("same_edit", format!("an earlier row is the same edit of {hash}: {:?}", prompt))
    }

    pub(super) fn shared_link(entry: &ImportEntry) -> Self {
        let prompt = cut(&entry.prompt);
        Self::new(
            "shared_link",
            format!(
                "its link is that of an earlier row with another edit of the same picture; this one's prompt is {prompt:?}"
            ),
        )
    }
}

/// The operator's settings for properties that the older rows do not record.
#[derive(Debug)]
pub struct Rules<'a> {
    offer: &'a Offer,
    /// The current names of older edit types.
    pub edit_types: BTreeMap<String, String>,
    /// The model of the older results; `None`: the route's.
    pub model: Option<String>,
    /// Their parameters; the route's defaults fill in missing ones.
    pub params: Params,
    /// The cost of an entry, in millionths, and its currency; `None`: the route's.
    pub price: Option<(i64, Option<String>)>,
    /// Base of relative links.
    pub base_url: Option<Url>,
    /// Treatment of their links.
    pub links: Links,
    routes: HashMap<String, Result<(Route, Params), Skip>>,
}

impl<'a> Rules<'a> {
    /// The routes' values alone.
    pub fn new(offer: &'a Offer, links: Links) -> Self {
        Self {
            offer,
            edit_types: BTreeMap::new(),
            model: None,
            params: Params::default(),
            price: None,
            base_url: None,
            links,
            routes: HashMap::new(),
        }
    }

    /// The entry of a row.
    ///
    /// # Errors
    /// Why it is not an entry.
    pub(super) fn judge(&mut self, image: &OlderImage) -> Result<ImportEntry, Skip> {
        let image_hash = image_hash(image)?;
        let result_url = self.link(image)?;
        let edit_type = match image.edit_type.as_deref() {
            None => return Err(Skip::new("no_edit_type", "its edit type is empty")),
            Some(older) => self.edit_types.get(older).map_or(older, String::as_str).to_owned(),
        };
        let (route, params) = self.route(&edit_type)?;
        let prompt = prompt(route, &image.prompt)?;
        let identity = EditIdentity {
            image_hash,
            edit_type: &edit_type,
            prompt: &prompt,
            provider: route.editor.name,
            model: &route.model,
            params,
            mask_hash: None,
            variant: None,
        };
        Ok(ImportEntry {
            edit_key: identity.key(),
            image_hash,
            provider: route.editor.name.to_owned(),
            model: route.model.clone(),
            params: params.clone(),
            price: route.price.clone(),
            hits: image.hits,
            result_url,
            result: None,
            edit_type,
            prompt,
        })
    }

    /// As for a task; but its editor needs no key here, for no request is sent.
    fn route(&mut self, edit_type: &str) -> Result<&(Route, Params), Skip> {
        if !self.routes.contains_key(edit_type) {
            let decided = self.decide(edit_type);
            self.routes.insert(edit_type.to_owned(), decided);
        }
        match self.routes.get(edit_type) {
            Some(decided) => decided.as_ref().map_err(Clone::clone),
            None => Err(Skip::new("unknown_edit_type", edit_type)),
        }
    }

    fn decide(&self, edit_type: &str) -> Result<(Route, Params), Skip> {
        let found = self.offer.routes.find(&self.offer.models, edit_type, self.model.as_deref());
        let Some(route) = found else {
            let fix = "`retouch routes` shows those that are known; --edit-type-map OLD=NEW says what it is called now";
            return Err(Skip::new("unknown_edit_type", format!("{edit_type:?} has no route: {fix}")));
        };
        let mut route = route.map_err(|error| Skip::new("unknown_model", error.message))?;
        if let Some((micros, currency)) = &self.price {
            let currency = currency.clone().unwrap_or(route.price.currency);
            route.price = Money { micros: *micros, currency };
        }
        let params = self.params.clone().with_defaults(&route.params);
        Ok((route, params))
    }

    /// The absolute link. A provider's own address is never stored: it expires within a day.
    fn link(&self, image: &OlderImage) -> Result<String, Skip> {
        let Some(given) = image.result_url.as_deref() else {
            return Err(Skip::new("no_url", "it has no result URL"));
        };
        let bad = |why: &str| Skip::new("bad_url", format!("{:?} {why}", cut(given)));
        let url = match (Url::parse(given), &self.base_url) {
            (Ok(url), _) => url,
            (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => {
                base.join(given).map_err(|_| bad("cannot be understood"))?
            }
            (Err(url::ParseError::RelativeUrlWithoutBase), None) => {
                let why = "is relative: --base-url URL says to what";
                return Err(Skip::new("relative_url", format!("{:?} {why}", cut(given))));
            }
            (Err(_), _) => return Err(bad("cannot be understood")),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("is neither http nor https"));
        }
        if url.as_str().len() > MAX_URL {
            return Err(bad("is too long"));
        }
        let expires = |name: &str| SIGNED.contains(&name.to_ascii_lowercase().as_str());
        if self.links == Links::Trust && url.query_pairs().any(|(name, _)| expires(&name)) {
            let host = url.host_str().unwrap_or_default();
            let why = "is signed and expires: --fetch copies what it still leads to";
            return Err(Skip::new("temporary_link", format!("its address at {host} {why}")));
        }
        // Unchanged if possible, so that people find it by its text.
        Ok(if self.base_url.is_some() { url.into() } else { given.to_owned() })
    }
}

fn image_hash(image: &OlderImage) -> Result<Digest32, Skip> {
    let Some(given) = image.image_hash.as_deref() else {
        return Err(Skip::new("no_hash", "it has no hash of its picture"));
    };
    let hex = given.strip_prefix("sha256:").unwrap_or(given).to_ascii_lowercase();
    hex.parse().map_err(|_| {
        let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
        let like = match hex.len() {
            32 if is_hex => " (an MD5?)",
            40 if is_hex => " (a SHA-1?)",
            _ => "",
        };
        Skip::new(
            "bad_hash",
            format!("{:?} is no SHA-256{like}: the bytes of the picture are looked up by that", cut(given)),
        )
    })
}

/// The prompt in the edit key today.
fn prompt(route: &Route, given: &str) -> Result<String, Skip> {
    let prompt = normalise_prompt(given);
    let chars = prompt.chars().count();
    if chars > MAX_PROMPT_CHARS || prompt.contains('\0') {
        let why = format!("a prompt has at most {MAX_PROMPT_CHARS} characters, without NUL; it has {chars}");
        return Err(Skip::new("bad_prompt", why));
    }
    route.effective_prompt(&prompt).map_err(|error| Skip::new("bad_prompt", error.message))
}

/// The beginning of a text, for people.
pub(super) fn cut(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { short + "…" } else { short }
}
