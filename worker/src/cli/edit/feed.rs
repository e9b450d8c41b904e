//! The pictures of a command on their way into tasks: read, kept, taken in, some tasks ahead of the calls.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use retouch_shared::event::ImageError;
use retouch_shared::task::MAX_IMAGES;
use retouch_shared::wire::{ImageRef, TaskMessage};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::super::inputs::{EditArgs, Input, Picture, read_at_most};
use crate::app::App;
use crate::broker::Headers;
use crate::intake;
use crate::media::{self, Media};
use crate::sources::fetch::MOST_BYTES;
use crate::store::TaskRecord;
use crate::trace;
use crate::words;

/// Tasks that are taken in at a time: one whose sources have to be waited for holds up no other.
const AT_A_TIME: usize = 4;

/// What became of some pictures.
pub(super) enum Fed {
    /// This one is in no task.
    Failed(usize, ImageError),
    /// The task of these pictures, in its order.
    Task(Vec<usize>, Box<TaskRecord>),
}

/// Takes all pictures in, in tasks of at most [`MAX_IMAGES`].
///
/// # Errors
/// The blob store cannot be used, or a task is refused.
pub(super) async fn feed(
    app: Arc<App>,
    edit: EditArgs,
    pictures: Arc<[Picture]>,
    mask: Option<ImageRef>,
    tell: mpsc::UnboundedSender<Fed>,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut taking = JoinSet::new();
    let (mut at, mut images) = (Vec::new(), Vec::new());
    for (index, picture) in pictures.iter().enumerate() {
        match keep(&app, &picture.input).await? {
            Ok(image) => {
                at.push(index);
                images.push(image);
            }
            // Without a listener the command is at its end.
            Err(error) => drop(tell.send(Fed::Failed(index, error))),
        }
        let last = index + 1 == pictures.len();
        if images.is_empty() || (images.len() < MAX_IMAGES && !last) {
            continue;
        }
        let (at, images) = (std::mem::take(&mut at), std::mem::take(&mut images));
        let place = Arc::clone(&places).acquire_owned().await?;
        let task = edit.tasks(&images, mask.as_ref())?.pop().context("no task")?;
        let (app, tell) = (Arc::clone(&app), tell.clone());
        taking.spawn(async move {
            let task = take_in(&app, &task).await?;
            // Without a listener the command is at its end.
            drop((tell.send(Fed::Task(at, Box::new(task))), place));
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(taken) = taking.join_next().await {
        taken.context("a task was not taken in")??;
    }
    Ok(())
}

async fn take_in(app: &Arc<App>, task: &TaskMessage) -> Result<TaskRecord> {
    let _doing = app.activity.intake();
    let taken = Box::pin(intake::take_in_own(app, task));
    trace::within(trace::intake_span(), &Headers::new(), taken).await
}

/// Files go into the blob store; a URL stays what it is.
///
/// # Errors
/// The blob store cannot be used. The inner one: this picture fails, and nothing of it is kept.
pub(super) async fn keep(app: &App, input: &Input) -> Result<Result<ImageRef, ImageError>> {
    let Input::File(_) = input else {
        return Ok(match input {
            Input::Url(url) => Ok(ImageRef::url(url.clone())),
            other => read(other).map(|_| ImageRef::url(other.name())),
        });
    };
    let (bytes, media) = match read(input) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let kept = app.blobs.put(bytes, media.format.content_type()).await?;
    Ok(Ok(ImageRef::blob(&kept.hash.to_hex())))
}

fn said(why: &(dyn std::error::Error + 'static)) -> String {
    why.downcast_ref::<std::io::Error>().map_or_else(|| why.to_string(), words::of_io)
}

/// A file that is a picture, and not too large for one.
///
/// # Errors
/// Why it fails, as intake would say it.
pub(super) fn read(input: &Input) -> Result<(Bytes, Media), ImageError> {
    let error = |code: &str, message: String| ImageError { code: code.to_owned(), message };
    let path = match input {
        Input::File(path) => path,
        Input::Unreadable { why, .. } => return Err(error("unreadable", why.clone())),
        Input::Url(_) => return Err(error("unreadable", "it is no file".to_owned())),
    };
    let bytes = read_at_most(path).map_err(|why| error("unreadable", said(why.root_cause())))?;
    if bytes.len() > MOST_BYTES {
        let message = format!("has more than {MOST_BYTES} bytes, the limit for a picture");
        return Err(error("too_large", message));
    }
    let media = media::inspect(&bytes).map_err(|why| error(why.code(), why.to_string()))?;
    Ok((bytes, media))
}
