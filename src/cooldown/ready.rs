//! What `poll_ready` does about the gate: one [`Watch`] per service handle.

use super::gate::Gate;
use crate::record::WaitReason;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct Watch {
    waiting: Option<Waiting>,
    /// Since when, and why, this handle waited in `poll_ready`. It is the wait of the call that follows.
    since: Option<(Instant, WaitReason)>,
    /// A `Ready` was returned since: the wait is not that of a call after the next `Ready`, which may come
    /// long after, as in `Balance`.
    delivered: bool,
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
            if self.delivered {
                self.since = None;
                self.delivered = false;
            }
            let (since, _) = *self.since.get_or_insert((now, closed.reason));
            if gate.max_wait.is_some_and(|max_wait| closed.until.saturating_duration_since(since) > max_wait)
            {
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
    pub(super) fn deliver(&mut self) {
        if self.delivered {
            self.since = None;
        }
        self.delivered = true;
    }

    /// When the call that is made now came, and what it waited for.
    pub(super) fn take_arrival(&mut self, now: Instant) -> (Instant, WaitReason) {
        self.since.take().unwrap_or((now, WaitReason::Normal))
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
