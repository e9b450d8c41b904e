//! What would become of a picture, by the decisions that intake and the edit stage take: for a command that
//! says what it would cost.
//!
//! What must stay true: nothing is kept, recorded or sent; and each decision is the function that decides when
//! the edit is made, in the same order.

use retouch_shared::event::ImageError;
use retouch_shared::key::EditKey;
use retouch_shared::task::Task;
use tokio::sync::OnceCell;

use super::{Look, Ready};
use crate::app::App;
use crate::broker::Message;
use crate::edit::{Sends, read_answer, upright};
use crate::editor::{EditError, EditRequest, EditSpec, Picture};
use crate::outcome::Outcome;
use crate::sources::Loaded;
use crate::store::{CallStanding, CallState, Money};

/// What would become of a picture.
pub(crate) enum Foreseen {
    /// It would be answered from the cache.
    Hit,
    /// It would be answered by a call that needs no send of this command: it was sent, or another process is
    /// sending it, or its answer was kept and can be read.
    Joined,
    /// This call would be sent.
    Call {
        edit_key: EditKey,
        /// It was sent before and not answered, so it may be paid twice.
        again: bool,
    },
    /// It would fail.
    Refused(ImageError),
}

/// A task of a command as intake and the edit stage would look at it: nothing is kept or recorded.
pub(crate) struct Preview<'a>(Ready<'a>);

impl<'a> Preview<'a> {
    /// # Errors
    /// Every picture would fail for this reason.
    pub(crate) fn new(
        app: &'a App,
        message: &'a Message,
        task: &'a Task,
        mask: Option<Loaded>,
    ) -> Result<Self, ImageError> {
        let route = app.settings.offer.resolve(&task.edit_type, task.model.as_deref())?;
        let prompt = route.effective_prompt(&task.prompt)?;
        let Some(editor) = app.editors.get(route.editor.name) else {
            let message = format!("there is no editor {} on this worker", route.editor.name);
            return Err(ImageError { code: "no_editor".to_owned(), message });
        };
        let spec = EditSpec {
            edit_type: task.edit_type.clone(),
            prompt,
            model: route.model.clone(),
            params: task.params.clone().with_defaults(&route.params),
            mask: mask.as_ref().map(Loaded::measure),
        };
        Ok(Self(Ready { app, message, task, route, editor, spec, mask, mask_kept: OnceCell::new() }))
    }

    /// What each call of it costs.
    pub(crate) fn price(&self) -> &Money {
        &self.0.route.price
    }

    /// What would become of this picture.
    ///
    /// # Errors
    /// The cache, the calls or the blob store cannot be asked; in words.
    pub(crate) async fn of(&self, picture: &Loaded) -> Result<Foreseen, String> {
        let Ready { app, editor, spec, .. } = &self.0;
        let edit_key = self.0.key(picture.hash);
        match self.0.look(edit_key).await {
            Ok(Look::Hit(_)) => return Ok(Foreseen::Hit),
            Ok(Look::Miss | Look::Lost(_)) => {}
            Err(Outcome::Delay { error, .. }) => return Err(error),
            Err(_) => return Err("the cache cannot be asked".to_owned()),
        }
        match editor.check(spec, picture.measure()) {
            Ok(()) => {}
            Err(EditError::Rejected { code, message }) => {
                return Ok(Foreseen::Refused(ImageError { code, message }));
            }
            Err(other) => return Ok(Foreseen::Refused(rejected(&other))),
        }
        let call = app.store.call_standing(edit_key).await.map_err(|error| error.to_string())?;
        if let Some(call) = &call
            && let Some(foreseen) = self.unsent(call).await?
        {
            return Ok(foreseen);
        }
        let again = call.is_some_and(|call| self.sends(&call).may_pay_twice());
        let as_sent = |picture: &Loaded| Picture { bytes: picture.bytes.clone(), media: picture.media };
        let (image, mask) = (as_sent(picture), self.0.mask.as_ref().map(as_sent));
        let request = EditRequest { spec: spec.clone(), image, mask };
        Ok(match upright(editor, request).await {
            Ok(_) => Foreseen::Call { edit_key, again },
            Err(error) => Foreseen::Refused(error),
        })
    }

    /// What becomes of a picture without a send of its call, which is there already; `None`: it is sent.
    async fn unsent(&self, call: &CallStanding) -> Result<Option<Foreseen>, String> {
        let Ready { app, editor, spec, route, .. } = &self.0;
        let policy_decides = match call.state {
            CallState::Submitted | CallState::Stored => return Ok(Some(Foreseen::Joined)),
            CallState::Failed if call.may_still_come => return Ok(Some(Foreseen::Joined)),
            CallState::Submitting | CallState::Ambiguous if call.leased => {
                return Ok(Some(Foreseen::Joined));
            }
            // Where the provider is asked first, its answer is not known before.
            CallState::Submitting | CallState::Ambiguous => !app.lane_limits(&route.lane).one_unresolved,
            CallState::Queued | CallState::Claimed | CallState::Done | CallState::Failed => true,
        };
        if let Some(kept) = &call.answer {
            let spec = EditSpec { mask: None, ..spec.clone() };
            if read_answer(&app.blobs, editor, spec, kept).await?.is_ok() {
                return Ok(Some(Foreseen::Joined));
            }
        }
        let refusal = self.sends(call).refusal(app.settings.on_ambiguous);
        Ok(refusal.filter(|_| policy_decides).map(Foreseen::Refused))
    }

    fn sends<'b>(&'b self, call: &'b CallStanding) -> Sends<'b> {
        let price = self.price();
        Sends {
            held: call.held.as_deref(),
            unanswered: call.unanswered,
            free: call.price_micros == 0 && price.micros == 0,
            price,
        }
    }
}

fn rejected(error: &EditError) -> ImageError {
    ImageError { code: "rejected".to_owned(), message: error.to_string() }
}
