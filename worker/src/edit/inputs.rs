//! What a provider gets of a picture and its mask: decoded in full, and upright, before anything is sent.
//!
//! What must stay true: a picture that cannot be decoded is never paid for; pixels, mask and limits speak of
//! the same, upright picture, whatever the editor.

use std::sync::Arc;
use std::time::Duration;

use retouch_shared::event::ImageError;

use super::{Stop, Work};
use crate::editor::{EditError, EditRequest, EditSpec, Editor, Measure, Picture, local};
use crate::media::{self, MediaError};

impl Work<'_> {
    /// The request with upright pictures, or the end of the edit. Where nothing has to be turned, the files
    /// are sent as they came.
    pub(super) async fn upright(&self, request: EditRequest) -> Result<EditRequest, Stop> {
        // It decodes and turns them itself, and costs nothing where they are damaged.
        if self.editor.kind() == local::KIND {
            return Ok(request);
        }
        let came = [Some(request.image.bytes.clone()), request.mask.as_ref().map(|mask| mask.bytes.clone())];
        let request = match upright(self.editor, request).await {
            Ok(request) => request,
            Err(error) => return Err(self.fail(&error.code, &error.message, false).await),
        };
        // The originals are in the blobs already.
        for (turned, came) in [Some(&request.image), request.mask.as_ref()].into_iter().zip(came) {
            let turned = turned.filter(|turned| Some(&turned.bytes) != came.as_ref());
            if let Some(turned) = turned.filter(|_| self.editor.fetches_inputs()) {
                self.keep_turned(turned).await?;
            }
        }
        Ok(request)
    }

    /// For a provider that fetches it from our blobs. No row names it: it is swept when it is old.
    async fn keep_turned(&self, picture: &Picture) -> Result<(), Stop> {
        let kept = self.app.blobs.put(picture.bytes.clone(), picture.media.format.content_type()).await;
        match kept {
            Ok(_) => Ok(()),
            Err(error) => Err(self.again(false, &error.to_string(), Duration::from_secs(5)).await),
        }
    }
}

/// The request with upright pictures; nothing of it is kept.
///
/// # Errors
/// The edit ends by it: a picture is damaged, or upright the editor refuses it.
pub(crate) async fn upright(
    editor: &Arc<dyn Editor>,
    request: EditRequest,
) -> Result<EditRequest, ImageError> {
    let EditRequest { mut spec, image, mask } = request;
    let as_it_came = image.measure();
    let mask = match mask {
        None => None,
        Some(mask) => {
            let (editor, spec) = (Arc::clone(editor), spec.clone());
            let fits = move |mask: Measure| {
                let spec = EditSpec { mask: Some(mask), ..spec.clone() };
                editor.check(&spec, as_it_came).is_ok()
            };
            Some(upright_picture("mask: ", mask, fits).await?)
        }
    };
    spec.mask = mask.as_ref().map(Picture::measure);
    let (editor_of_check, spec_of_check) = (Arc::clone(editor), spec.clone());
    let fits = move |image: Measure| editor_of_check.check(&spec_of_check, image).is_ok();
    let image = upright_picture("", image, fits).await?;
    // What was turned has another size in bytes than what intake checked.
    match editor.check(&spec, image.measure()) {
        Ok(()) => Ok(EditRequest { spec, image, mask }),
        Err(EditError::Rejected { code, message }) => {
            Err(ImageError { code, message: format!("upright, as it would be sent: {message}") })
        }
        Err(other) => Err(ImageError { code: "rejected".to_owned(), message: other.to_string() }),
    }
}

async fn upright_picture(
    whose: &str,
    picture: Picture,
    fits: impl Fn(Measure) -> bool + Send + 'static,
) -> Result<Picture, ImageError> {
    let Picture { bytes, media } = picture;
    // A turned picture is held twice while it is written.
    let need = 2 * media::memory::decode_bytes(&bytes, &media);
    let turned = media::memory::run(need, move || {
        media::upright(&bytes, media, |media, bytes| fits(Measure { media, bytes }))
    });
    let turned = turned.await.unwrap_or_else(|_| Err(MediaError::undecodable_for_a_bug(media.format)));
    match turned {
        Ok((bytes, media)) => Ok(Picture { bytes, media }),
        Err(error) => Err(ImageError { code: error.code().to_owned(), message: format!("{whose}{error}") }),
    }
}
