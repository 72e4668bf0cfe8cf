//! What `poll_ready` does about the gate: one [`Watch`] per service handle, and the gate's list of those that
//! wait.

use super::gate::Gate;
use crate::{WaitReason, wakers::Wakers};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct Watch {
    waiting: Option<Waiting>,
    since: Option<Since>,
    /// How long it had waited when it became ready: that is part of the wait of the call that follows. It is
    /// not if the call comes after another `Ready`, as in `Balance`, where it is another call that waited.
    waited: Option<(Duration, WaitReason)>,
}

/// The wait of a handle in `poll_ready`.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    reason: WaitReason,
    /// When it will look again by itself.
    until: Instant,
}

/// Who waits in `poll_ready` looks again as soon as the timer fires. Who comes later than this is another caller,
/// and the one before has given up. (Callers that come and give up within one closing, as below `LoadShed`, cannot
/// be told apart: to the handle they are one that waits.)
const PATIENCE: Duration = Duration::from_millis(100);

impl Since {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) > PATIENCE
    }
}

/// The gate, as `poll_ready` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Open,
    /// Closed for longer than `max_wait`: calls may come, to be rejected.
    Hopeless,
}

impl Watch {
    /// Whether [`poll`](Self::poll) has anything to do. Takes no lock.
    #[inline]
    pub(super) fn concerns(&self, gate: &Gate) -> bool {
        gate.maybe_closed() || self.waiting.is_some()
    }

    pub(super) fn poll(&mut self, gate: &Arc<Gate>, cx: &mut Context<'_>) -> Poll<Sight> {
        loop {
            let now = Instant::now();
            let waiting = self.waiting.get_or_insert_with(|| Waiting::new(gate));
            let Some(closed) = gate.watch(&mut waiting.key, cx.waker(), now) else {
                self.waiting = None;
                return Poll::Ready(Sight::Open);
            };
            let began = self.since.filter(|since| !since.is_over(now));
            let (at, reason) = began.map_or((now, closed.reason), |since| (since.at, since.reason));
            self.since = Some(Since { at, reason, until: closed.until });
            let wait = closed.until.saturating_duration_since(at);
            if gate.max_pending().is_some_and(|max_pending| wait > max_pending) {
                self.waiting = None;
                return Poll::Ready(Sight::Hopeless);
            }
            // A timer that fired is no permission: look at the gate again.
            if waiting.poll_until(closed.until, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// `poll_ready` is about to return `Ready`.
    #[inline]
    pub(super) fn deliver(&mut self) {
        self.waited = None;
        if let Some(since) = self.since.take() {
            let now = Instant::now();
            self.waited =
                (!since.is_over(now)).then(|| (now.saturating_duration_since(since.at), since.reason));
        }
    }

    /// When the call that is made now came, as if it had been made as soon as the handle was ready, and what it
    /// waited for since.
    #[inline]
    pub(super) fn take_arrival(&mut self, now: Instant) -> (Instant, WaitReason) {
        match self.waited.take() {
            None => (now, WaitReason::Normal),
            Some((waited, reason)) => (now.checked_sub(waited).unwrap_or(now), reason),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    gate: Arc<Gate>,
    /// The registration with the gate.
    key: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    fn new(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), key: None, timer: None }
    }

    fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate.unwatch(&mut self.key);
    }
}

/// The service handles that wait in `poll_ready`, in the order in which they came. A handle that was woken has
/// no waker until it waits again.
#[derive(Debug, Default)]
pub(super) struct Handles {
    wakers: BTreeMap<u64, Option<Waker>>,
    next_key: u64,
}

impl Handles {
    pub(super) fn watch(&mut self, key: &mut Option<u64>, waker: &Waker, wakers: &mut Wakers) {
        let key = *key.get_or_insert_with(|| {
            self.next_key += 1;
            self.next_key
        });
        wakers.replace(self.wakers.entry(key).or_default(), waker);
    }

    pub(super) fn unwatch(&mut self, key: &mut Option<u64>, wakers: &mut Wakers) {
        if let Some(key) = key.take() {
            wakers.discard(self.wakers.remove(&key).flatten());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    pub(super) fn wake_all(&mut self, wakers: &mut Wakers) {
        for waker in self.wakers.values_mut() {
            wakers.wake(waker.take());
        }
    }
}
