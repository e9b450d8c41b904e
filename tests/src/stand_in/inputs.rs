//! The pictures of a request: inside it, by URL, or uploaded before; and their refusals.

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use image::{ImageDecoder, codecs::png::PngDecoder};
use retouch_worker::media::{Format, Media, inspect};
use tokio::task::spawn_blocking;

use super::answers::Refusal;
use super::models::{Model, Style};
use super::state::Shared;

/// Most bytes of a data URI, all of it.
const MOST_URI: usize = 10_485_760;
/// Most bytes of a picture.
const MOST_BYTES: usize = 10 * 1024 * 1024;
const MOST_FORM_BYTES: usize = 50 * 1024 * 1024;

/// Why a picture is unavailable.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request is wrong.
    Refused(Refusal),
    /// The provider fetches a URL when it comes to the task; that it cannot is the task's failure.
    Unreachable(Refusal),
}

impl Trouble {
    /// For a provider that looks at once.
    pub(super) fn refusal(self) -> Refusal {
        let (Self::Refused(refusal) | Self::Unreachable(refusal)) = self;
        refusal
    }
}

/// Who asks for pictures, and what for.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    pub(super) shared: &'a Shared,
    pub(super) account: &'a str,
    pub(super) model: &'static Model,
    pub(super) headers: &'a HeaderMap,
}

impl Loader<'_> {
    /// The bytes behind a `data:`, `http(s):` or `oss:` URL.
    pub(super) async fn load(&self, url: &str) -> Result<Bytes, Trouble> {
        if let Some(data) = url.strip_prefix("data:") {
            return inline(url.len(), data).await.map_err(Trouble::Refused);
        }
        if let Some(key) = url.strip_prefix("oss://") {
            return self.uploaded(key).map_err(Trouble::Refused);
        }
        if !(url.starts_with("http://") || url.starts_with("https://")) || !url.is_ascii() {
            let refusal = Refusal::new(400, "InvalidURL", "The provided URL does not appear to be valid.");
            return Err(Trouble::Refused(refusal));
        }
        let fetched = async { self.shared.http.get(url).send().await?.error_for_status()?.bytes().await };
        fetched.await.map_err(|_| {
            let words = "The request URL is invalid, please check the request URL is available.";
            Trouble::Unreachable(Refusal::new(400, "InvalidURL", words))
        })
    }

    fn uploaded(&self, key: &str) -> Result<Bytes, Refusal> {
        let resolve = self.headers.get("x-dashscope-ossresourceresolve");
        if resolve.is_none_or(|value| value != "enable") {
            return Err(Refusal::new(400, "InvalidURL", "The provided URL does not appear to be valid."));
        }
        let (state, now) = self.shared.now();
        let file = state.uploads.files.get(key).filter(|file| {
            file.account == self.account && file.model == self.model.name && file.expires > now
        });
        let denied =
            || Refusal::new(403, "AccessDenied", "The oss resource is not yours, of another model, or gone.");
        file.map(|file| file.bytes.clone()).ok_or_else(denied)
    }
}

async fn inline(length: usize, data: &str) -> Result<Bytes, Refusal> {
    if length > MOST_URI {
        let words = format!("Exceeded limit on max bytes per data-uri item : {MOST_URI}");
        return Err(Refusal::invalid(words));
    }
    let wrong = || Refusal::invalid("The data URI is not `data:{mime};base64,…`.");
    let (_, encoded) = data.split_once(";base64,").ok_or_else(wrong)?;
    let encoded = encoded.to_owned();
    let decoded = spawn_blocking(move || BASE64.decode(encoded)).await.unwrap();
    decoded.map(Bytes::from).map_err(|_| wrong())
}

/// Refuses what the model does not take, from the header alone.
pub(super) fn check(model: &Model, bytes: &[u8]) -> Result<Media, Refusal> {
    let (least, most, limit) = match model.style {
        Style::Functions => (512, 4096, MOST_BYTES),
        Style::Images => (384, 5000, MOST_BYTES),
        // 384 to 3072 is only recommended.
        Style::Messages => (1, u32::MAX, MOST_BYTES),
        Style::Form => (1, u32::MAX, MOST_FORM_BYTES),
    };
    let form = model.style == Style::Form;
    let not_a_picture = || match form {
        true => Refusal::new(
            400,
            "invalid_image_file",
            "Invalid image file or mode for image 1, please check your image file.",
        ),
        false => Refusal::new(
            400,
            "InvalidImage.FileFormat",
            "Invalid image type. Please ensure the uploaded file is a valid image.",
        ),
    };
    if bytes.len() > limit {
        let words = format!("The image is larger than {} MB.", limit / 1024 / 1024);
        return Err(if form {
            Refusal::new(400, "invalid_image_file", words)
        } else {
            Refusal::invalid(words)
        });
    }
    let media = inspect(bytes).map_err(|_| not_a_picture())?;
    let taken = match media.format {
        Format::Png | Format::Jpeg | Format::WebP => true,
        Format::Bmp | Format::Tiff => !form,
        Format::Gif => model.style == Style::Messages,
    };
    if !taken || (model.style == Style::Images && has_alpha(media, bytes)) {
        return Err(not_a_picture());
    }
    if [media.width, media.height].iter().any(|side| !(least..=most).contains(side)) {
        let words = "The input image resolution is too large or small.";
        return Err(Refusal::new(400, "InvalidImageResolution", words));
    }
    Ok(media)
}

fn has_alpha(media: Media, bytes: &[u8]) -> bool {
    let decoder = (media.format == Format::Png).then(|| PngDecoder::new(std::io::Cursor::new(bytes)));
    decoder.and_then(Result::ok).is_some_and(|png| png.color_type().has_alpha())
}

/// Refuses a mask of another size than its picture.
pub(super) fn check_mask(model: &Model, image: Media, mask: &[u8]) -> Result<(), Refusal> {
    let mask = check(model, mask)?;
    if (mask.width, mask.height) == (image.width, image.height) {
        return Ok(());
    }
    let words = "The mask image must have the same resolution as the base image.";
    Err(match model.style {
        Style::Form => Refusal::new(400, "invalid_image_file", words),
        Style::Functions | Style::Images | Style::Messages => Refusal::invalid(words),
    })
}
