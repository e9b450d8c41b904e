//! Waiting for something to become true: by polling with a deadline, never by sleeping and hoping.

use std::time::{Duration, Instant};

/// How often [`until`] looks.
const LOOK: Duration = Duration::from_millis(10);

/// How long a test waits for something that should happen soon; generous, because the machine may be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is `Some`, and returns it; `None` when the deadline passed first.
pub async fn poll<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if start.elapsed() >= within {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// As [`poll`] within [`SOON`], and panics naming `what` when it does not happen.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    match poll(SOON, look).await {
        Some(found) => found,
        None => panic!("waited {} s in vain: {what}", SOON.as_secs()),
    }
}
