//! A question that many may put at once and nobody may wait long for: it is asked once at a time, the answer is kept for a
//! while, and who waits too long gets none. A failure is kept no longer than that while: it may be over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::task::AbortHandle;

/// What was answered, and how long that took; none where the asking was given up.
type Answered<T, E> = Option<(Result<T, E>, Duration)>;

/// The last asking, whether answered or not.
struct Asking<T, E> {
    began: Instant,
    answer: Shared<BoxFuture<'static, Answered<T, E>>>,
    asking: AbortHandle,
}

/// One question.
pub(super) struct Question<T: Clone, E: Clone>(Mutex<Option<Asking<T, E>>>);

impl<T: Clone, E: Clone> Default for Question<T, E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// How long an answer is kept, and how long one waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) keep: Duration,
    /// However long it took to answer; and an asking that was not answered for so long is put again, since its connection is lost.
    pub(super) at_most: Duration,
    pub(super) wait: Duration,
}

impl<T, E> Question<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// The answer, unless it takes too long. An asking under way is not broken off before it is given up,
    /// since its connection would be lost with it: the next asker gets its answer. What took long to answer
    /// is asked less often.
    pub(super) async fn ask<F>(&self, patience: Patience, ask: impl FnOnce() -> F) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let answer = {
            let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*asking {
                Some(last) if last.serves(patience) => last.answer.clone(),
                given_up => {
                    // Left alone it would hold its connection for as long as the other side is silent.
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
            // At most a twentieth of the time goes into asking.
            Some(Some((Ok(_), took))) => self.began.elapsed() < keep.max((*took * 20).min(at_most)),
            // From its beginning: one that took longer than that is asked again at once.
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
    async fn a_question_that_many_put_at_once_is_asked_once_and_its_answer_kept() {
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
    async fn nobody_waits_longer_than_the_deadline_and_the_late_answer_is_the_next_ones() {
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
