//! Images that failed at intake, taken in again because a person sent their dead letter again: their sources are loaded anew,
//! and nothing else of the task is touched.

use std::sync::Arc;

use retouch_shared::event::ImageStatus;
use retouch_shared::task::Task;

use super::{Stop, answer_again, hold, new_task, plan};
use crate::app::App;
use crate::broker::{LETTER, Message};
use crate::outcome::Outcome;
use crate::store::{Again, IMAGES, LetterRef, StoreError, TaskRecord};
use crate::{events, wake};

/// Which images a retry asks for.
pub(super) struct Asked {
    retry: LetterRef,
    /// All that have failed, where it is not said which.
    positions: Option<Vec<u32>>,
}

/// The retry of a dead letter that a message is, if it is one.
pub(super) fn retry(message: &Message) -> Option<LetterRef> {
    LetterRef::parse(message.headers.get(LETTER)?)
}

/// `None` for a message that asks for nothing but its answer.
pub(super) fn asked(message: &Message) -> Option<Asked> {
    let retry = retry(message)?;
    let images = message.headers.get(IMAGES)?;
    let positions = images.split(',').filter_map(|position| position.parse().ok());
    Some(Asked { retry, positions: (!images.is_empty()).then(|| positions.collect()) })
}

pub(super) async fn take_in(
    app: &Arc<App>,
    message: &Message,
    task: &Task,
    known: &TaskRecord,
    asked: &Asked,
) -> Result<Outcome, Stop> {
    let held = |error: StoreError| hold(message, &error);
    if !app.store.retry_goes_on(asked.retry).await.map_err(held)? {
        tracing::info!(letter = %asked.retry, "this retry has failed again already");
        return Ok(Outcome::Done);
    }
    let positions = asked.still_failed(task, known);
    if positions.is_empty() {
        return answer_again(app, message, known).await;
    }
    let images = positions.iter().filter_map(|position| task.images.get(*position as usize).cloned());
    let part = Task { images: images.collect(), ..task.clone() };
    let planned = plan(app, message, &part).await?;
    let new = new_task(app, message, &part, planned).await?;
    match app.store.reopen_images(&new, &positions).await.map_err(held)? {
        Some(Again { task, wake }) => {
            tracing::info!(letter = %asked.retry, images = positions.len(), calls = wake.len(), "failed images taken in again");
            wake::calls(app, wake).await;
            events::publish(app, &task).await;
            Ok(Outcome::Done)
        }
        None => Err(hold(message, &StoreError::Unavailable("the task's row is gone".to_owned()))),
    }
}

impl Asked {
    fn still_failed(&self, task: &Task, known: &TaskRecord) -> Vec<u32> {
        let asked = |position: u32| self.positions.as_ref().is_none_or(|asked| asked.contains(&position));
        let failed = known.images.iter().filter(|image| image.status == ImageStatus::Failed);
        let positions = failed.map(|image| image.position);
        positions.filter(|at| asked(*at) && (*at as usize) < task.images.len()).collect()
    }
}
