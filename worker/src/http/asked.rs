//! A coalesced probe: concurrent callers share one question at a time, its answer is cached for a while, and
//! a caller that waits too long gets none. A failure is cached no longer than a success: it may be over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::task::AbortHandle;

/// The answer and its duration; `None` if the question was given up.
type Answered<T, E> = Option<(Result<T, E>, Duration)>;

/// The last question, answered or not.
struct Asking<T, E> {
    began: Instant,
    answer: Shared<BoxFuture<'static, Answered<T, E>>>,
    asking: AbortHandle,
}

/// One kind of question.
pub(super) struct Question<T: Clone, E: Clone>(Mutex<Option<Asking<T, E>>>);

impl<T: Clone, E: Clone> Default for Question<T, E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// How long an answer is cached, and how long a caller waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) keep: Duration,
    /// Upper limit of the cache time; and an unanswered question is given up and asked again after this time,
    /// since its connection is lost.
    pub(super) at_most: Duration,
    pub(super) wait: Duration,
}

impl<T, E> Question<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// The answer, or `None` after the deadline. A question under way is not cancelled before it is given up,
    /// since its connection would be lost with it: the next caller gets its answer. Slow questions are asked
    /// less often.
    pub(super) async fn ask<F>(&self, patience: Patience, ask: impl FnOnce() -> F) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let answer = {
            let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*asking {
                Some(last) if last.serves(patience) => last.answer.clone(),
                given_up => {
                    // Otherwise it would hold its connection for as long as the server is silent.
                    given_up.iter().for_each(|last| last.asking.abort());
                    let began = Instant::now();
                    let question = ask();
                    let asked = tokio::spawn(async move { (question.await, began.elapsed()) });
                    let handle = asked.abort_handle();
                    let answer = asked.map(Result::ok).boxed().shared();
                    *asking = Some(Asking { began, answer: answer.clone(), asking: handle });
                    answer
                }
            }
        };
        tokio::time::timeout(patience.wait, answer).await.ok().flatten().map(|(answer, _)| answer)
    }
}

impl<T: Clone, E: Clone> Asking<T, E> {
    fn serves(&self, patience: Patience) -> bool {
        let Patience { keep, at_most, wait: _ } = patience;
        match self.answer.peek() {
            // At most a twentieth of the time is spent on questions.
            Some(Some((Ok(_), took))) => self.began.elapsed() < keep.max((*took * 20).min(at_most)),
            // Counted from its beginning: a failure that took longer is asked again at once.
            Some(Some((Err(_), _))) => self.began.elapsed() < keep,
            Some(None) => false,
            None => self.began.elapsed() < at_most,
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

    fn patient(wait: Duration) -> Patience {
        Patience { keep: HOUR, at_most: HOUR, wait }
    }

    #[tokio::test]
    async fn a_failed_answer_is_kept_no_longer_than_a_good_one() {
        let question = Question::default();
        let patience = Patience { keep: SHORT, at_most: HOUR, wait: HOUR };
        let put = async |answer: Result<u8, u8>| {
            question
                .ask(patience, || async move {
                    tokio::time::sleep(SHORT * 2).await;
                    answer
                })
                .await
        };
        assert_eq!(put(Err(1)).await, Some(Err(1)));
        assert_eq!(put(Ok(2)).await, Some(Ok(2)), "the failure had taken long, and was kept for longer");
        assert_eq!(put(Ok(3)).await, Some(Ok(2)), "what takes long to answer is asked less often");
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_question_and_its_answer() {
        let question = Question::default();
        let asked = Arc::new(AtomicU32::new(0));
        let put = async || {
            let asked = Arc::clone(&asked);
            let ask = || async move { Ok::<_, ()>(asked.fetch_add(1, Ordering::Relaxed)) };
            question.ask(patient(HOUR), ask).await
        };
        assert_eq!(futures::future::join_all((0..8).map(|_| put())).await, [Some(Ok(0)); 8]);
        assert_eq!(put().await, Some(Ok(0)));
    }

    #[tokio::test]
    async fn a_late_answer_is_kept_for_the_next_caller() {
        let question = Question::default();
        let gate = Arc::new(Semaphore::new(0));
        let put = async |wait| {
            let gate = Arc::clone(&gate);
            let ask = || async move { gate.acquire().await.map(|_| ()).map_err(|_| ()) };
            question.ask(patient(wait), ask).await
        };
        assert_eq!(put(SHORT).await, None);
        assert_eq!(put(SHORT).await, None);
        gate.add_permits(1);
        assert_eq!(put(HOUR).await, Some(Ok(())));
        assert_eq!(gate.available_permits(), 1, "asked again beside the first asking");
    }
}
