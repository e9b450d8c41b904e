//! What a provider gets of a picture and its mask: decoded in full, and upright, before anything is sent.
//!
//! What must stay true: a picture that cannot be decoded is never paid for; pixels, mask and limits speak of
//! the same, upright picture, whatever the editor.

use std::sync::Arc;
use std::time::Duration;

use super::{Stop, Work};
use crate::editor::{EditError, EditRequest, EditSpec, Measure, Picture, local};
use crate::media::{self, MediaError};

impl Work<'_> {
    /// The request with upright pictures, or the end of the edit. Where nothing has to be turned, the files
    /// are sent as they came.
    pub(super) async fn upright(&self, request: EditRequest) -> Result<EditRequest, Stop> {
        // It decodes and turns them itself, and costs nothing where they are damaged.
        if self.editor.kind() == local::KIND {
            return Ok(request);
        }
        let EditRequest { mut spec, image, mask } = request;
        let as_it_came = image.measure();
        let mask = match mask {
            None => None,
            Some(mask) => {
                let (editor, spec) = (Arc::clone(self.editor), spec.clone());
                let fits = move |mask: Measure| {
                    let spec = EditSpec { mask: Some(mask), ..spec.clone() };
                    editor.check(&spec, as_it_came).is_ok()
                };
                Some(self.upright_picture("mask: ", mask, fits).await?)
            }
        };
        spec.mask = mask.as_ref().map(Picture::measure);
        let (editor, spec_of_check) = (Arc::clone(self.editor), spec.clone());
        let fits = move |image: Measure| editor.check(&spec_of_check, image).is_ok();
        let image = self.upright_picture("", image, fits).await?;
        // What was turned has another size in bytes than what intake checked.
        match self.editor.check(&spec, image.measure()) {
            Ok(()) => Ok(EditRequest { spec, image, mask }),
            Err(EditError::Rejected { code, message }) => {
                let message = format!("upright, as it would be sent: {message}");
                Err(self.fail(&code, &message, false).await)
            }
            Err(other) => Err(self.fail("rejected", &other.to_string(), false).await),
        }
    }

    async fn upright_picture(
        &self,
        whose: &str,
        picture: Picture,
        fits: impl Fn(Measure) -> bool + Send + 'static,
    ) -> Result<Picture, Stop> {
        let Picture { bytes, media } = picture.clone();
        // A turned picture is held twice while it is written.
        let need = 2 * media::memory::decode_bytes(&bytes, &media);
        let turned = media::memory::run(need, move || {
            media::upright(&bytes, media, |media, bytes| fits(Measure { media, bytes }))
        });
        let turned = turned.await.unwrap_or_else(|_| Err(MediaError::undecodable_for_a_bug(media.format)));
        let (bytes, media) = match turned {
            Ok(turned) => turned,
            Err(error) => return Err(self.fail(error.code(), &format!("{whose}{error}"), false).await),
        };
        let turned = Picture { bytes, media };
        // The original is in the blobs already.
        if self.editor.fetches_inputs() && turned.bytes != picture.bytes {
            self.keep_turned(&turned).await?;
        }
        Ok(turned)
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
