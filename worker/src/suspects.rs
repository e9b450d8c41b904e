//! The poison guard: work that may have killed a process. Poison that kills every process that begins it ends
//! in the dead letters after a few kills; other work of those processes does not.
//!
//! A first delivery costs nothing. When work is begun again after its process died, the store counts each
//! start until it ends; a start without an end was a kill. From its second chance on, a suspect runs alone
//! among suspects, so that the next kill is counted for the guilty one only. An orderly stop, a delay and a
//! lost connection count as ends.

use std::sync::Arc;
use std::time::Duration;

use retouch_shared::key::{Digest32, EditKey, Hasher};
use tokio::sync::Mutex;

use crate::app::App;
use crate::outcome::Outcome;
use crate::store::{StoreError, suspect_of_edit};

/// The reason code of poison.
pub(crate) const POISON: &str = "poison";
/// Poison kills within this time: after it the next suspect may begin, since edits take minutes.
const TURN: Duration = Duration::from_secs(5);

/// Serialises the suspects of this process.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    turn: Mutex<()>,
}

/// Why a suspect was not worked on.
pub(crate) enum Refused {
    /// Poison; in words.
    Poison(String),
    /// The worker is stopping.
    Stopping,
    /// The store is unavailable: hold the work.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Identifies a task message by its content: the broker's copies of it are one suspect.
pub(crate) fn message(payload: &[u8]) -> Digest32 {
    let mut hasher = Hasher::default();
    hasher.update(b"tasks\n");
    hasher.update(payload);
    hasher.digest()
}

/// Runs a suspect with its starts counted; `known` is its record if the caller has just read it.
pub(crate) async fn work_on(
    app: &Arc<App>,
    suspect: Digest32,
    known: Option<u32>,
    work: impl Future<Output = Outcome>,
) -> Result<Outcome, Refused> {
    let starts = match known {
        Some(starts) => starts,
        None => app.store.suspect_starts(suspect).await?.unwrap_or_default(),
    };
    // The first kill was not counted.
    if starts >= app.settings.rhythm.poison_kills.saturating_sub(1) {
        // After a person's retry it has all its chances again.
        app.store.clear_suspect(suspect).await?;
        return Err(Refused::Poison(format!(
            "each of the {} processes that began it died of it; it was not begun again",
            starts + 1
        )));
    }
    let turn = if starts == 0 {
        None
    } else {
        tracing::warn!(starts, "a process died with this before; working on it alone among its like");
        tokio::select! {
            () = app.shutdown.cancelled() => return Err(Refused::Stopping),
            turn = app.suspects.turn.lock() => Some(turn),
        }
    };
    app.store.start_suspect(suspect).await?;
    let mut work = std::pin::pin!(work);
    let outcome = match tokio::time::timeout(TURN, &mut work).await {
        Ok(outcome) => outcome,
        Err(_its_turn_is_over) => {
            drop(turn);
            work.await
        }
    };
    end(app, suspect, &outcome).await;
    Ok(outcome)
}

/// Clears a suspect, however its work ended: a process that died just after the end could not clear it.
pub(crate) async fn over(app: &App, edit_key: EditKey) {
    if let Err(error) = app.store.clear_suspect(suspect_of_edit(edit_key)).await {
        tracing::warn!(%error, "cannot note that a suspect has ended");
    }
}

/// Records the end of a start. If that fails the suspect has one chance less for a day.
async fn end(app: &App, suspect: Digest32, outcome: &Outcome) {
    let ended = match outcome {
        Outcome::Done | Outcome::Dead { .. } => app.store.clear_suspect(suspect).await,
        Outcome::Delay { .. } | Outcome::Rest { .. } | Outcome::HandBack => {
            app.store.end_suspect(suspect).await
        }
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "cannot note that a suspect has ended");
    }
}
