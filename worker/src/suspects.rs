//! Suspects: work that a process may have died of. Whatever kills every process that begins it ends in the dead letters
//! after a few kills, and what was at work beside it does not.
//!
//! A first delivery costs nothing. What is begun again after its process died has each start counted in the store until it
//! ends; a start that never ended was a kill. From its second chance on, a suspect is worked on alone among suspects,
//! so that the next kill is counted for the guilty one only. An orderly stop, a delay, a lost connection are ends.

use std::sync::Arc;
use std::time::Duration;

use retouch_shared::key::{Digest32, EditKey, Hasher};
use tokio::sync::Mutex;

use crate::app::App;
use crate::outcome::Outcome;
use crate::store::{StoreError, suspect_of_edit};

/// The reason code of what kills.
pub(crate) const POISON: &str = "poison";
/// What kills does so soon: after this the next suspect may begin, since edits take minutes.
const TURN: Duration = Duration::from_secs(5);

/// The turn of this process's suspects.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    turn: Mutex<()>,
}

/// Why a suspect was not worked on.
pub(crate) enum Refused {
    /// It kills; in words.
    Poison(String),
    /// The worker is told to stop.
    Stopping,
    /// The store cannot be asked: hold the work.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A task message, by its content: the broker's copies of it are one suspect.
pub(crate) fn message(payload: &[u8]) -> Digest32 {
    let mut hasher = Hasher::default();
    hasher.update(b"tasks\n");
    hasher.update(payload);
    hasher.digest()
}

/// Works on a suspect with its starts counted; `known` is what the store said of it a moment ago, if it was asked.
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
    // The first kill was counted by nobody.
    if starts >= app.settings.rhythm.poison_kills.saturating_sub(1) {
        // Sent again by a person, it has its chances anew.
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

/// It is over, by whatever way: a process that died just after it had ended it could not say so.
pub(crate) async fn over(app: &App, edit_key: EditKey) {
    if let Err(error) = app.store.clear_suspect(suspect_of_edit(edit_key)).await {
        tracing::warn!(%error, "cannot note that a suspect has ended");
    }
}

/// A start that is not taken back is one chance less, and is forgotten in a day.
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
