//! The task that closes batches and sends them. It is there only while there is work.

mod alone;
mod call;

pub(super) use self::alone::Alone;

use self::call::{Ended, call};
use super::{
    Abandon, BatchError,
    batch::{Answer, Batch, Recipients, Trigger},
    core::{Linger, Look},
    shared::{LaneOf, Shared, Start},
    split::Split,
};
use crate::deferred::poll_until;
use futures::FutureExt;
use std::{
    future::{Future, poll_fn},
    hash::Hash,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep},
};
use tower::Service;

/// Collects a batch, sends it, and so on, until nothing is left. If it is dropped before, because it panicked or its
/// runtime shut down, its callers are told.
pub(super) struct Task<S, Req, T, E, K, P>
where
    K: Hash + Eq + Clone,
{
    shared: Arc<Shared<S, Req, T, E, K, P>>,
    lane: LaneOf<K>,
    stage: Stage<Req, T, E>,
}

enum Stage<Req, T, E> {
    Collecting,
    /// To send a full batch, beside the one that collects.
    Hurrying,
    /// These wait for their answers.
    Sending(Recipients<Req, T, E>),
    Over,
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
    #[allow(clippy::type_complexity, reason = "what all of them share")]
    pub(super) fn spawn(shared: &Arc<Shared<S, Req, T, S::Error, K, P>>, lane: LaneOf<K>, start: Start) {
        let stage = if start == Start::Full { Stage::Hurrying } else { Stage::Collecting };
        let task = Self { shared: Arc::clone(shared), lane, stage };
        // Without a runtime the task is dropped, which fails what waits.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(task.run(start == Start::Tick));
    }

    async fn run(mut self, mut tick: bool) {
        loop {
            let round = AssertUnwindSafe(self.round(tick)).catch_unwind().await;
            if round.is_err() {
                // What can panic is code of others: of the inner service, of its results, of a caller's waker.
                self.fail_round();
            }
            let Some(next) = self.next_round() else { return };
            tick = next;
        }
    }

    /// Collects one batch and sends it.
    async fn round(&mut self, tick: bool) {
        if let Stage::Hurrying = self.stage {
            if let Some(service) = self.hurry().await {
                return self.take_and_send(Trigger::Items, service).await;
            }
            if let Stage::Over = self.stage {
                return;
            }
        }
        if tick {
            // Tokio polls a task that has yielded only after it has run what else can run and has looked for new
            // events: the requests that come together are together then.
            tokio::task::yield_now().await;
            if !self.shared.has_work(&self.lane) {
                self.stage = Stage::Over;
                return;
            }
        }
        let Some((trigger, service)) = self.collect().await else { return };
        self.take_and_send(trigger, service).await;
    }

    /// The service, if it is ready now. If not, the full batch waits like others, for the task that collects, which
    /// this one is then if there is no other.
    async fn hurry(&mut self) -> Option<Result<S, S::Error>> {
        let mut service = self.shared.service();
        if let Poll::Ready(ready) = poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await {
            return Some(ready.map(|()| service));
        }
        self.stage = if self.shared.not_sent(&self.lane) { Stage::Collecting } else { Stage::Over };
        None
    }

    async fn take_and_send(&mut self, trigger: Trigger, service: Result<S, S::Error>) {
        let Some((requests, at)) = self.take(trigger) else { return };
        match service {
            Ok(service) => self.send((service, at), requests).await,
            Err(error) => self.fail(&BatchError::Batch(Arc::new(error))),
        }
    }

    /// Takes the next batch, and lets another task collect the one after it.
    fn take(&mut self, trigger: Trigger) -> Option<(Vec<Req>, Instant)> {
        let collects = matches!(self.stage, Stage::Collecting);
        let taken = self.shared.take(&self.lane, collects, trigger);
        let Some((Batch { requests, recipients, at, .. }, start)) = taken else {
            self.stage = Stage::Over;
            return None;
        };
        self.stage = Stage::Sending(recipients);
        if let Some(start) = start {
            Self::spawn(&self.shared, self.lane.clone(), start);
        }
        Some((requests, at))
    }

    /// Something panicked: the batch at hand fails, or else the next one.
    fn fail_round(&mut self) {
        if let Stage::Collecting | Stage::Hurrying = self.stage {
            drop(self.take(Trigger::Tick));
        }
        self.fail(&BatchError::Panicked);
    }

    /// Whether there is more to do, and whether for that the end of the tick is to be waited for.
    fn next_round(&mut self) -> Option<bool> {
        if let Stage::Over = self.stage {
            return None;
        }
        self.stage = Stage::Over;
        // The next request is sent alone if no task waits for it.
        let alone = self.shared.streak().is_long();
        let next = self.shared.with(&self.lane, |lane, wakers| {
            let goes_on = if alone { lane.sent_alone() } else { lane.sent() };
            for open in lane.all_open() {
                open.wake_watchers(wakers); // one may wait for a batch to end
            }
            goes_on.then(|| !lane.front_is_closed())
        })?;
        self.stage = Stage::Collecting;
        Some(next)
    }

    /// Waits until the next batch may close and the inner service is ready for it, while requests still join.
    async fn collect(&mut self) -> Option<(Trigger, Result<S, S::Error>)> {
        let linger = self.shared.settings.linger;
        let trigger = if linger == Linger::Tick {
            Trigger::Tick
        } else {
            let mut timer = pin!(None);
            poll_fn(|cx| self.poll_linger(linger, timer.as_mut(), cx)).await?
        };
        let mut service = self.shared.service();
        let ready = poll_fn(|cx| match service.poll_ready(cx) {
            Poll::Pending if !self.watch(cx) => Poll::Ready(None),
            poll => poll.map(Some),
        });
        let ready = ready.await?;
        Some((trigger, ready.map(|()| service)))
    }

    fn poll_linger(
        &mut self,
        linger: Linger,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Trigger>> {
        loop {
            if !self.watch(cx) {
                return Poll::Ready(None);
            }
            let look = self.shared.with(&self.lane, |lane, _| {
                let open = lane.front().filter(|_| !lane.front_is_closed())?;
                Some(linger.look(open.since, lane.sending(), lane.completed(), Instant::now()))
            });
            match look {
                // it is closed, and knows why
                None => return Poll::Ready(Some(Trigger::Idle)),
                Some(Look::Close(trigger)) => return Poll::Ready(Some(trigger)),
                Some(Look::Wait(until)) => ready!(poll_until(timer.as_mut(), until, cx)),
            }
        }
    }

    /// Whether there is a batch that somebody waits for. If so, the task is woken when that changes; else it is
    /// over.
    fn watch(&mut self, cx: &Context<'_>) -> bool {
        let found = self.shared.watch(&self.lane, cx);
        if !found {
            self.stage = Stage::Over;
        }
        found
    }

    /// Sends the requests, if need be in parts, and answers the callers.
    async fn send(&mut self, readied: (S, Instant), requests: Vec<Req>) {
        let mut readied = Some(readied);
        let (mut next, mut parts) = (Some(requests), Vec::new());
        while let Some(part) = next.take().or_else(|| parts.pop()) {
            let size = part.len();
            match self.call(readied.take(), part).await {
                Ended::Answers(answers) => self.answer(answers.into_iter()),
                Ended::Failed(error) => self.answer((0..size).map(|_| Err(error.share()))),
                Ended::Again(mut first) => {
                    let second = first.split_off(first.len() / 2);
                    parts.extend([second, first]);
                }
            }
            if !parts.is_empty() && poll_fn(|cx| Poll::Ready(self.is_abandoned(cx))).await {
                return self.fail(&BatchError::Closed);
            }
        }
    }

    /// One call, by a service that was ready at that time or else by a new one.
    async fn call(&self, readied: Option<(S, Instant)>, requests: Vec<Req>) -> Ended<Req, T, S::Error> {
        let (service, at) = readied.unzip();
        let call = call(Arc::clone(&self.shared), service, requests);
        self.end(call, at.unwrap_or_else(Instant::now)).await
    }

    /// The end of a call that began at that time. A panic in any part of it stays in here.
    async fn end(
        &self,
        call: impl Future<Output = Ended<Req, T, S::Error>>,
        began: Instant,
    ) -> Ended<Req, T, S::Error> {
        let mut call = pin!(Some(call));
        let mut timer = pin!(None);
        let until = self.shared.settings.timeout.map(|timeout| crate::policy::later(began, timeout));
        let ended = poll_fn(|cx| {
            if let Some(Poll::Ready(ended)) = call.as_mut().as_pin_mut().map(|call| call.poll(cx)) {
                return Poll::Ready(ended);
            }
            if let Some(until) = until {
                if poll_until(timer.as_mut(), until, cx).is_ready() {
                    return Poll::Ready(Ended::Failed(BatchError::TimedOut));
                }
            }
            if self.is_abandoned(cx) { Poll::Ready(Ended::Failed(BatchError::Closed)) } else { Poll::Pending }
        })
        .await;
        self.ended(ended, began, || call.set(None))
    }

    /// Counts a call that has ended so, and drops it.
    fn ended(
        &self,
        ended: Ended<Req, T, S::Error>,
        began: Instant,
        drop_call: impl FnOnce(),
    ) -> Ended<Req, T, S::Error> {
        let took = began.elapsed();
        let ended = match catch_unwind(AssertUnwindSafe(drop_call)) {
            Ok(()) => ended,
            Err(_) => Ended::Failed(BatchError::Panicked),
        };
        if let Some(succeeded) = ended.succeeded() {
            self.shared.settings.statistics.record_batch_call_ended(succeeded, took);
        }
        ended
    }

    /// Whether all callers have gone, so that the call may as well be dropped. If not, the task is woken then.
    fn is_abandoned(&self, cx: &Context<'_>) -> bool {
        let cancel = self.shared.settings.abandon == Abandon::Cancel;
        matches!(&self.stage, Stage::Sending(recipients) if cancel && !recipients.are_there(cx))
    }

    /// Answers the next callers.
    fn answer(&mut self, answers: impl ExactSizeIterator<Item = Answer<T, S::Error>>) {
        if let Stage::Sending(recipients) = &mut self.stage {
            recipients.deliver(answers);
        }
    }

    /// All callers that have no answer yet get this one.
    fn fail(&mut self, error: &BatchError<S::Error>) {
        if let Stage::Sending(recipients) = &mut self.stage {
            recipients.fail(error);
        }
    }
}

/// The runtime shuts down, or there is none: nobody goes on with this batch.
impl<S, Req, T, E, K, P> Drop for Task<S, Req, T, E, K, P>
where
    K: Hash + Eq + Clone,
{
    fn drop(&mut self) {
        let collecting = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return,
            Stage::Collecting => true,
            Stage::Hurrying => false,
            Stage::Sending(mut recipients) => {
                recipients.fail(&BatchError::Closed);
                false
            }
        };
        self.shared.lost(&self.lane, collecting);
    }
}
