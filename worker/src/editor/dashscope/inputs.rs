//! Transport of pictures to the provider: inside the request, by our public URL, or through the provider's
//! own store.
//!
//! Invariant: everything here precedes the submit, so no failure here can have been paid for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::api::Api;
use super::errors::{Place, presentable};
use super::wire::{Given, Said};
use crate::blobs;
use crate::editor::http::{self, SendError};
use crate::editor::{EditError, EditRequest, Picture};
use crate::sources::guard::AllowHosts;

/// How pictures reach the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// In the request, as a `data:` URI: needs nothing, and takes pictures up to about 7.8 MB.
    #[default]
    Data,
    /// By our public URL, which the provider must be able to reach.
    Url,
    /// Uploaded to the provider's temporary store, where it stays for 48 hours.
    Oss,
}

/// Not the name of an [`Input`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input must be one of data, url and oss, not {0:?}")]
pub struct UnknownInput(String);

impl std::str::FromStr for Input {
    type Err = UnknownInput;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let all = [("data", Self::Data), ("url", Self::Url), ("oss", Self::Oss)];
        let found = all.into_iter().find(|(name, _)| *name == word);
        found.map(|(_, input)| input).ok_or_else(|| UnknownInput(word.to_owned()))
    }
}

/// [`Input`] with its dependencies.
#[derive(Debug, Clone)]
pub(super) enum WayIn {
    Data,
    Url { public_url: Url },
    Oss { hosts: AllowHosts },
}

impl WayIn {
    /// Transports the picture and its mask; returns their addresses for the request.
    pub(super) async fn give(&self, api: &Api, request: &EditRequest) -> Result<Given, EditError> {
        let EditRequest { spec, image, mask } = request;
        match self {
            Self::Data => Ok(Given { image: data_uri(image), mask: mask.as_ref().map(data_uri) }),
            Self::Url { public_url } => Ok(Given {
                image: public(public_url, image).await,
                mask: match mask {
                    Some(mask) => Some(public(public_url, mask).await),
                    None => None,
                },
            }),
            Self::Oss { hosts } => {
                let policy = Policy::get(api, hosts, &spec.model).await?;
                Ok(Given {
                    image: policy.upload(api, image).await?,
                    mask: match mask {
                        Some(mask) => Some(policy.upload(api, mask).await?),
                        None => None,
                    },
                })
            }
        }
    }
}

/// Length of a picture's data URI, computed without building it.
pub(super) const fn data_uri_len(content_type: &str, bytes: usize) -> usize {
    data_uri_head(content_type) + bytes.div_ceil(3) * 4
}

/// The most bytes of a picture whose data URI has at most `most` bytes.
pub(super) const fn raw_bytes_within(content_type: &str, most: usize) -> usize {
    (most - data_uri_head(content_type)) / 4 * 3
}

const fn data_uri_head(content_type: &str) -> usize {
    "data:;base64,".len() + content_type.len()
}

fn data_uri(picture: &Picture) -> String {
    let content_type = picture.media.format.content_type();
    let mut uri = String::with_capacity(data_uri_len(content_type, picture.bytes.len()));
    uri.push_str("data:");
    uri.push_str(content_type);
    uri.push_str(";base64,");
    BASE64.encode_string(&picture.bytes, &mut uri);
    uri
}

/// The URL of an input picture: it is already in our blob store under its digest.
async fn public(public_url: &Url, picture: &Picture) -> String {
    blobs::resolve(public_url, &blobs::reference(blobs::digest(&picture.bytes).await))
}

/// The provider's permission to upload for one model.
#[derive(Deserialize)]
struct Policy {
    policy: String,
    signature: String,
    upload_dir: String,
    upload_host: String,
    oss_access_key_id: String,
    x_oss_object_acl: String,
    x_oss_forbid_overwrite: Value,
}

impl Policy {
    async fn get(api: &Api, hosts: &AllowHosts, model: &str) -> Result<Self, EditError> {
        let mut url = api.url(&["uploads"]);
        url.query_pairs_mut().append_pair("action", "getPolicy").append_pair("model", model);
        let answer = http::send(api.get(url)?).await.map_err(unsent)?;
        let said = Said::read(&answer.body);
        let policy = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()["data"].take();
        if !answer.is_success() || policy.is_null() {
            return Err(api.refused(Place::Upload, &answer, &said));
        }
        // The error's text would quote the policy.
        let policy: Self = serde_json::from_value(policy).map_err(|_| {
            EditError::NotSent("the upload policy lacks a field or has one of another type".to_owned())
        })?;
        // Pictures go only to hosts of the provider.
        let url = Url::parse(&policy.upload_host).ok();
        if !url.as_ref().and_then(Url::host).is_some_and(|host| hosts.lists(&host)) {
            let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
            return Err(EditError::Blocked {
                code: "upload_host".to_owned(),
                message: format!(
                    "pictures should be uploaded to {host:?}, which is no host of the provider's; if it is one, add it to result_hosts"
                ),
            });
        }
        Ok(policy)
    }

    /// Uploads a picture and names it as `oss://…`.
    async fn upload(&self, api: &Api, picture: &Picture) -> Result<String, EditError> {
        // A new name each time: the store forbids overwriting.
        let format = picture.media.format;
        let name = format!("{}.{}", uuid::Uuid::now_v7(), format.extension());
        let key = format!("{}/{name}", self.upload_dir.trim_end_matches('/'));
        let length = u64::try_from(picture.bytes.len()).unwrap_or(u64::MAX);
        let file = Part::stream_with_length(picture.bytes.clone(), length).file_name(name);
        let file =
            file.mime_str(format.content_type()).map_err(|error| EditError::NotSent(error.to_string()))?;
        let overwrite = match &self.x_oss_forbid_overwrite {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Fields after the file are ignored by the store.
        let form = Form::new()
            .text("OSSAccessKeyId", self.oss_access_key_id.clone())
            .text("Signature", self.signature.clone())
            .text("policy", self.policy.clone())
            .text("key", key.clone())
            .text("x-oss-object-acl", self.x_oss_object_acl.clone())
            .text("x-oss-forbid-overwrite", overwrite)
            .text("success_action_status", "200")
            .part("file", file);
        let answer = http::send(api.upload(&self.upload_host, form)).await.map_err(unsent)?;
        if answer.is_success() {
            return Ok(format!("oss://{key}"));
        }
        // A policy is valid for minutes and its store answers in XML: after any error, the next try begins
        // with a new policy.
        let said = presentable(&String::from_utf8_lossy(&answer.body));
        Err(EditError::NotSent(format!("the upload was answered {}: {said}", answer.status)))
    }
}

fn unsent(error: SendError) -> EditError {
    match error {
        SendError::NotSent(why) | SendError::NoAnswer(why) => {
            EditError::NotSent(format!("before the submit: {why}"))
        }
    }
}
