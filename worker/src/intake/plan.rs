//! What is to be done with each image of a task: a hit, a miss whose input is kept, or no answer.
//!
//! What must stay true: each picture is in memory for itself and only from its first byte until it is known to be a hit or its input
//! is kept, so that the bound on bytes (`sources`) can't be waited for by somebody who holds a share of it. What a producer says
//! about a picture's bytes is believed only to look it up (decision 0010): whatever is kept, paid for or stored is named
//! by the digest of bytes that were read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use retouch_shared::event::ImageError;
use retouch_shared::key::{Digest32, EditIdentity, EditKey, ImageHash};
use retouch_shared::task::{Params, Source, Task};
use tokio::sync::OnceCell;

use super::{LOADS, Stop, hold};
use crate::app::App;
use crate::blobs::{BlobError, Blobs};
use crate::broker::Message;
use crate::editor::{EditError, EditSpec, Editor};
use crate::failpoint::around;
use crate::metrics::count::blob_error;
use crate::outcome::attempt;
use crate::routes::Route;
use crate::sources::{LoadError, Loaded};
use crate::store::{CachedResult, CallSpec, Planned};

mod preview;

pub(crate) use preview::{Foreseen, Preview};

/// A source that cannot be reached now is asked again this often, a rung further each time, before its image fails.
const SOURCE_ATTEMPTS: u32 = 3;

/// What could be had of a picture, or why not.
type Had<T> = Result<T, ImageError>;

/// What is to be done with every image of a task, and the route it takes.
pub(super) struct Plan {
    pub(super) route: Option<Route>,
    pub(super) params: Params,
    pub(super) images: Vec<Planned>,
    /// Before any picture was kept.
    pub(super) began: Instant,
}

/// A task with its route, its editor and its mask.
struct Ready<'a> {
    app: &'a App,
    message: &'a Message,
    task: &'a Task,
    route: Route,
    editor: &'a Arc<dyn Editor>,
    /// What the provider is told, and what the edit key holds: the task's with the route's.
    spec: EditSpec,
    mask: Option<Loaded>,
    /// The mask is in the blobs.
    mask_kept: OnceCell<()>,
}

/// What the cache says of an edit.
enum Look {
    Hit(CachedResult),
    Miss,
    /// A miss, since the blob of its result is gone.
    Lost(Digest32),
}

pub(super) async fn plan(app: &App, message: &Message, task: &Task) -> Result<Plan, Stop> {
    let began = Instant::now();
    let route = match app.settings.offer.resolve(&task.edit_type, task.model.as_deref()) {
        Ok(route) => route,
        Err(error) => return Ok(all_failed(task, None, task.params.clone(), &error)),
    };
    let params = task.params.clone().with_defaults(&route.params);
    let prompt = match route.effective_prompt(&task.prompt) {
        Ok(prompt) => prompt,
        Err(error) => return Ok(all_failed(task, Some(route), params, &error)),
    };
    let Some(editor) = app.editors.get(route.editor.name) else {
        let message = format!("there is no editor {} on this worker", route.editor.name);
        let error = ImageError { code: "no_editor".to_owned(), message };
        return Ok(all_failed(task, Some(route), params, &error));
    };
    let mask = match &task.mask {
        None => None,
        Some(mask) => match had(message, app.sources.load_mask(mask).await)? {
            Ok(mask) => Some(mask),
            Err(error) => {
                let error = ImageError { code: error.code, message: format!("mask: {}", error.message) };
                return Ok(all_failed(task, Some(route), params, &error));
            }
        },
    };
    let spec = EditSpec {
        edit_type: task.edit_type.clone(),
        prompt,
        model: route.model.clone(),
        params,
        mask: mask.as_ref().map(Loaded::measure),
    };
    let ready = Ready { app, message, task, route, editor, spec, mask, mask_kept: OnceCell::new() };
    let images: Vec<_> = task.images.iter().map(|source| ready.image(source).boxed()).collect();
    let images: Vec<Planned> = stream::iter(images).buffered(LOADS).try_collect().await?;
    tell_lost(&images);
    Ok(Plan { route: Some(ready.route), params: ready.spec.params, images, began })
}

/// Once for each edit, at whatever positions it is.
fn tell_lost(images: &[Planned]) {
    let mut told = BTreeSet::new();
    for planned in images {
        let Planned::Miss { call, refused: Some(blob) } = planned else { continue };
        if told.insert(call.edit_key) {
            blob_error("missing");
            tracing::warn!(edit_key = %call.edit_key, %blob, "a cached result has lost its blob: a miss");
        }
    }
}

fn all_failed(task: &Task, route: Option<Route>, params: Params, error: &ImageError) -> Plan {
    let failed = Planned::Failed { image_hash: None, error: error.clone() };
    Plan { route, params, images: vec![failed; task.images.len()], began: Instant::now() }
}

/// A bad picture is an answer; a store or a source that cannot be asked now stops the task for a while.
fn had<T>(message: &Message, loaded: Result<T, LoadError>) -> Result<Had<T>, Stop> {
    match loaded {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(LoadError::BadInput { code, message }) => Ok(Err(ImageError { code: code.to_owned(), message })),
        Err(LoadError::Temporary { code, message: text }) => {
            if attempt(message) < SOURCE_ATTEMPTS {
                return Err(hold(message, &text));
            }
            Ok(Err(ImageError { code: code.to_owned(), message: text }))
        }
        Err(LoadError::StoreUnavailable(error)) => Err(hold(message, &error)),
    }
}

impl Ready<'_> {
    /// One image, from where it is to be had to what is to be done with it.
    async fn image(&self, source: &Source) -> Result<Planned, Stop> {
        // Whoever says which picture it is need not send it where the answer is known.
        let said = match source.image_hash() {
            Some(said) => Some((said, self.look(self.key(said)).await?)),
            None => None,
        };
        if let Some((image_hash, Look::Hit(result))) = said {
            return Ok(Planned::Hit { image_hash, result });
        }
        let read = match had(self.message, self.app.sources.read(source).await)? {
            Ok(read) => read,
            Err(error) => return Ok(Planned::Failed { image_hash: None, error }),
        };
        let image_hash = read.hash;
        let look = match said {
            Some((_, look)) => look,
            None => self.look(self.key(image_hash)).await?,
        };
        let refused = match look {
            // What was answered once need not be looked at, and would not be refused.
            Look::Hit(result) => return Ok(Planned::Hit { image_hash, result }),
            Look::Lost(hash) => Some(hash),
            Look::Miss => None,
        };
        let loaded = match had(self.message, read.recognise())? {
            Ok(loaded) => loaded,
            Err(error) => return Ok(Planned::Failed { image_hash: None, error }),
        };
        if let Err(error) = self.editor.check(&self.spec, loaded.measure()) {
            let error = match error {
                EditError::Rejected { code, message } => ImageError { code, message },
                other => ImageError { code: "rejected".to_owned(), message: other.to_string() },
            };
            return Ok(Planned::Failed { image_hash: Some(image_hash), error });
        }
        let call = self.call(image_hash);
        let kept = around("keep_inputs", self.keep_inputs(loaded)).await;
        kept.map_err(|error| hold(self.message, &error))?;
        Ok(Planned::Miss { call: Box::new(call), refused })
    }

    /// Asks the cache. A hit's bytes exist: where they do not it is a miss that says why.
    async fn look(&self, edit_key: EditKey) -> Result<Look, Stop> {
        let found = self.app.store.look_up(edit_key).await.map_err(|error| hold(self.message, &error))?;
        let Some(result) = found else { return Ok(Look::Miss) };
        // An imported row may name no blob of ours.
        let Some(hash) = result.result_hash else { return Ok(Look::Hit(result)) };
        let exists = self.app.blobs.exists(hash, Some(result.bytes)).await;
        if exists.map_err(|error| hold(self.message, &error))? {
            return Ok(Look::Hit(result));
        }
        Ok(Look::Lost(hash))
    }

    async fn keep_inputs(&self, input: Loaded) -> Result<(), BlobError> {
        keep(&self.app.blobs, &input).await?;
        if let Some(mask) = &self.mask {
            self.mask_kept.get_or_try_init(|| keep(&self.app.blobs, mask)).await?;
        }
        Ok(())
    }

    fn key(&self, image_hash: ImageHash) -> EditKey {
        let Self { task, route, editor, spec, mask, .. } = self;
        let identity = EditIdentity {
            image_hash,
            edit_type: &task.edit_type,
            prompt: &spec.prompt,
            provider: editor.kind(),
            model: &route.model,
            params: &spec.params,
            mask_hash: mask.as_ref().map(|mask| mask.hash),
            variant: task.variant.as_deref(),
        };
        identity.key()
    }

    fn call(&self, image_hash: ImageHash) -> CallSpec {
        let Self { task, route, editor, spec, mask, .. } = self;
        CallSpec {
            edit_key: self.key(image_hash),
            image_hash,
            edit_type: task.edit_type.clone(),
            prompt: spec.prompt.clone(),
            provider: editor.kind().to_owned(),
            model: route.model.clone(),
            params: spec.params.clone(),
            mask_hash: mask.as_ref().map(|mask| mask.hash),
            variant: task.variant.clone(),
            lane: route.lane.clone(),
            price: route.price.clone(),
        }
    }
}

async fn keep(blobs: &Blobs, input: &Loaded) -> Result<(), BlobError> {
    blobs.put(input.bytes.clone(), input.media.format.content_type()).await.map(drop)
}
