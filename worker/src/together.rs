//! Batches concurrent requests without a timer: requests that arrive while a batch runs form the next batch,
//! together with those of tasks that are ready to run; an idle batcher runs a request at once.
//!
//! Invariant: a batch runs to its end even if its callers are gone (their handlers were aborted). Every
//! caller gets an answer or learns that there is none, also when a batch panics or the runtime ends under it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Unanswered requests.
struct Asked<Q, A> {
    waiting: VecDeque<(Q, oneshot::Sender<A>)>,
    /// A batch is running; it takes the waiting requests when it ends.
    answering: bool,
}

/// The batcher of one kind of request.
pub(crate) struct Together<Q, A> {
    asked: Mutex<Asked<Q, A>>,
    /// Requests in one batch.
    most: usize,
}

impl<Q, A> std::fmt::Debug for Together<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    /// At most this many requests in one batch.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let asked = Asked { waiting: VecDeque::new(), answering: false };
        Arc::new(Self { asked: Mutex::new(asked), most: most.max(1) })
    }

    /// Returns the answer to `question`. `answer` answers a whole batch, in its order. `None`: it did not.
    pub(crate) async fn ask<F, Fut>(self: &Arc<Self>, question: Q, answer: F) -> Option<A>
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<A>> + Send,
    {
        let (tell, told) = oneshot::channel();
        let idle = {
            let mut asked = self.lock();
            asked.waiting.push_back((question, tell));
            !std::mem::replace(&mut asked.answering, true)
        };
        if idle {
            let mut answering = Answering { together: Arc::clone(self), over: false };
            // Not in the first caller's task: other callers depend on it.
            tokio::spawn(async move {
                loop {
                    // Tasks that are ready join the batch first; without any this returns at once.
                    tokio::task::yield_now().await;
                    let Some((questions, askers)) = answering.next() else { return };
                    let answers = answer(questions).await;
                    for (asker, answer) in askers.into_iter().zip(answers) {
                        // The caller may be gone.
                        let _gone = asker.send(answer);
                    }
                }
            });
        }
        told.await.ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Asked<Q, A>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs batches until no request is waiting.
struct Answering<Q: Send + 'static, A: Send + 'static> {
    together: Arc<Together<Q, A>>,
    /// No request was waiting; another batch may be running by now.
    over: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Answering<Q, A> {
    /// The next batch; without requests the next caller starts a new run.
    fn next(&mut self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut asked = self.together.lock();
        if asked.waiting.is_empty() {
            asked.answering = false;
            self.over = true;
            return None;
        }
        let most = self.together.most.min(asked.waiting.len());
        Some(asked.waiting.drain(..most).unzip())
    }
}

impl<Q: Send + 'static, A: Send + 'static> Drop for Answering<Q, A> {
    /// Cut off (a panic, the end of the runtime): waiting callers learn that there is no answer.
    fn drop(&mut self) {
        if !self.over {
            let mut asked = self.together.lock();
            asked.answering = false;
            asked.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_share_the_next_batch_and_get_their_own_answers() {
        let together: Arc<Together<usize, usize>> = Together::new(100);
        let (gate, questions) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |n: usize| {
            let (together, gate, questions) = (Arc::clone(&together), gate.clone(), questions.clone());
            tokio::spawn(async move {
                let answer = move |asked: Vec<usize>| {
                    let (gate, questions) = (gate.clone(), questions.clone());
                    async move {
                        questions.fetch_add(1, Ordering::Relaxed);
                        gate.acquire().await.unwrap().forget();
                        asked.into_iter().map(|n| n * 2).collect()
                    }
                };
                together.ask(n, answer).await
            })
        };
        let first = ask(0);
        while questions.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (1..=150).map(ask).collect();
        while together.lock().waiting.len() < 150 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(3);
        assert_eq!(first.await.unwrap(), Some(0));
        for (n, other) in (1..).zip(others) {
            assert_eq!(other.await.unwrap(), Some(n * 2));
        }
        // One alone, then a full batch, then the rest.
        assert_eq!(questions.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_batch_that_panics_leaves_no_caller_waiting() {
        let together: Arc<Together<bool, ()>> = Together::new(10);
        let answer = |asked: Vec<bool>| async move {
            assert!(!asked[0], "the test asks for this panic");
            vec![()]
        };
        assert_eq!(together.ask(true, answer).await, None);
        assert_eq!(together.ask(false, answer).await, Some(()));
    }

    #[tokio::test]
    async fn a_batch_runs_to_its_end_without_its_callers() {
        let together: Arc<Together<u8, ()>> = Together::new(10);
        let asked = Arc::new(Semaphore::new(0));
        let carried = Arc::clone(&asked);
        let mut asking = Box::pin(together.ask(1, move |_| {
            let carried = Arc::clone(&carried);
            async move {
                carried.add_permits(1);
                vec![()]
            }
        }));
        assert!(futures::poll!(&mut asking).is_pending());
        drop(asking);
        asked.acquire().await.unwrap().forget();
    }
}
