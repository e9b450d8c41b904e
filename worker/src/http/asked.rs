//! A question that many may put at once and nobody may wait long for: it is asked once at a time, the answer is kept for a
//! while, and who waits too long gets none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

/// A question that was not answered for so long is put anew: its connection is lost.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The last asking, whether answered or not.
struct Asking<T> {
    began: Instant,
    answer: Shared<BoxFuture<'static, Option<(T, Duration)>>>,
}

/// One question.
pub(super) struct Question<T: Clone>(Mutex<Option<Asking<T>>>);

impl<T: Clone> Default for Question<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// How long an answer is kept, and how long one waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) keep: Duration,
    pub(super) wait: Duration,
}

impl<T: Clone + Send + Sync + 'static> Question<T> {
    /// The answer, unless it takes too long. An asking under way is never broken off, since its connection would be lost with
    /// it: whoever asks next gets its answer. What took long to answer is asked less often.
    pub(super) async fn ask<F>(&self, patience: Patience, ask: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let answer = {
            let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*asking {
                Some(last) if last.serves(patience.keep) => last.answer.clone(),
                _ => {
                    let began = Instant::now();
                    let question = ask();
                    let answer = tokio::spawn(async move { (question.await, began.elapsed()) });
                    let answer = answer.map(Result::ok).boxed().shared();
                    *asking = Some(Asking { began, answer: answer.clone() });
                    answer
                }
            }
        };
        tokio::time::timeout(patience.wait, answer).await.ok().flatten().map(|(answer, _)| answer)
    }
}

impl<T: Clone> Asking<T> {
    fn serves(&self, keep: Duration) -> bool {
        match self.answer.peek() {
            // At most a twentieth of the time goes into asking.
            Some(Some((_, took))) => self.began.elapsed() < keep.max(*took * 20),
            Some(None) => false,
            None => self.began.elapsed() < GIVEN_UP,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_question_that_many_put_at_once_is_asked_once_and_its_answer_kept() {
        let question = Question::default();
        let asked = Arc::new(AtomicU32::new(0));
        let put = async || {
            let asked = Arc::clone(&asked);
            let ask = || async move { asked.fetch_add(1, Ordering::Relaxed) };
            question.ask(Patience { keep: HOUR, wait: HOUR }, ask).await
        };
        assert_eq!(futures::future::join_all((0..8).map(|_| put())).await, [Some(0); 8]);
        assert_eq!(put().await, Some(0));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_deadline_and_the_late_answer_is_the_next_ones() {
        let question = Question::default();
        let gate = Arc::new(Semaphore::new(0));
        let put = async |wait| {
            let gate = Arc::clone(&gate);
            question.ask(Patience { keep: HOUR, wait }, || async move { gate.acquire().await.is_ok() }).await
        };
        assert_eq!(put(SHORT).await, None);
        assert_eq!(put(SHORT).await, None);
        gate.add_permits(1);
        assert_eq!(put(HOUR).await, Some(true));
        assert_eq!(gate.available_permits(), 1, "asked again beside the first asking");
    }
}
