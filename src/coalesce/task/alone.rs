//! A request where they come one at a time: it is sent within its own call. There are a task and a group for it only if
//! it is not answered at once.

use super::{Ended, Stage, Task, call};
use crate::coalesce::{
    batch::{Answer, Recipients, Trigger},
    core::Cost,
    group::{Group, SharedGroup},
    hashed::Hashed,
    shared::Shared,
    split::Split,
};
use std::{
    future::Future,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{runtime::Handle, time::Instant};
use tower::Service;

/// What has become of a request that was sent alone.
pub(in crate::coalesce) enum Alone<Req, T, E> {
    Answered(Answer<T, E>),
    /// It is the only one of this group, in whose room it has a place.
    InFlight(SharedGroup<Req, T, E>),
}

impl<S, Req, T, K, P> Task<S, Req, T, S::Error, K, P>
where
    S: Service<Vec<Req>> + Clone + Send + 'static,
    S::Response: IntoIterator<Item = Result<T, S::Error>>,
    S::Future: Send,
    S::Error: Send + Sync + 'static,
    Req: Send + 'static,
    T: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    P: Split<Req, S::Response, S::Error> + Send + Sync + 'static,
{
    /// Sends a request now, if nothing else of its key is here and the inner service is ready. If not, it comes back.
    #[allow(clippy::type_complexity, reason = "what all of them share")]
    pub(in crate::coalesce) fn send_alone(
        shared: &Arc<Shared<S, Req, T, S::Error, K, P>>,
        key: &Hashed<K>,
        cost: Cost,
        request: Req,
    ) -> Result<Alone<Req, T, S::Error>, Req> {
        let Ok(runtime) = Handle::try_current() else { return Err(request) };
        // Whom to wake is not known yet: whatever is not ready at once is asked again by a task.
        let mut nobody = Context::from_waker(Waker::noop());
        let ready = catch_unwind(AssertUnwindSafe(|| {
            let mut service = shared.service();
            matches!(service.poll_ready(&mut nobody), Poll::Ready(Ok(()))).then_some(service)
        }));
        let Ok(Some(service)) = ready else { return Err(request) };
        let mut task = Self { shared: Arc::clone(shared), lane: Some(key.clone()), stage: Stage::Over };
        if !shared.send_alone(key) {
            return Err(request);
        }
        task.stage = Stage::Sending(Recipients::default());
        let began = Instant::now();
        shared.record_batch(Trigger::Idle, 1, cost, Duration::ZERO);
        let mut call = Box::pin(call(Arc::clone(shared), Some(service), vec![request]));
        if let Poll::Ready(ended) = call.as_mut().poll(&mut nobody) {
            let answer = task.ended(ended, began, || drop(call)).only();
            if let Some(tick) = task.next_round() {
                runtime.spawn(task.run(tick));
            }
            return Ok(Alone::Answered(answer));
        }
        let group = Arc::new(Group::in_flight(&shared.room, began));
        task.stage = Stage::Sending(Recipients::only(&group));
        runtime.spawn(async move {
            let ended = task.end(call, began).await;
            task.answer(std::iter::once(ended.only()));
            if let Some(tick) = task.next_round() {
                task.run(tick).await;
            }
        });
        Ok(Alone::InFlight(group))
    }
}

impl<Req, T, E> Ended<Req, T, E> {
    /// The answer to the only request.
    fn only(self) -> Answer<T, E> {
        match self {
            Self::Answers(mut answers) => answers.pop().expect("an answer per request"),
            Self::Failed(error) => Err(error),
            Self::Again(_) => unreachable!("one request is not split"),
        }
    }
}
