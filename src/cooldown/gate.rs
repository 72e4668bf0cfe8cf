//! The shared state of one upstream: [`State`] behind a lock, and where its calls are recorded.

use super::{
    booking::{Bounds, Closed, Leave, Moved},
    state::State,
};
use crate::{
    Cost,
    policy::{Answer, Closing, Policy},
    record::Statistics,
    signal::Signal,
    wakers::Wakers,
};
use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

pub(super) struct Gate {
    state: Mutex<State>,
    /// Whether the gate may be closed: lets `poll_ready` pass an open gate without the lock. It is set and
    /// cleared under the lock; a stale reading does no harm, because `call` decides.
    maybe_closed: AtomicBool,
    pub(super) settings: Arc<Settings>,
    #[cfg(test)]
    locked: std::sync::atomic::AtomicUsize,
}

/// What a gate was told when it was made. The gates of one layer, by key, share it.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) name: Cow<'static, str>,
    pub(super) statistics: Statistics,
    pub(super) bounds: Bounds,
    pub(super) stay_pending: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: Cow::Borrowed("upstream"),
            statistics: Statistics::new(),
            bounds: Bounds::default(),
            stay_pending: false,
        }
    }
}

impl Gate {
    pub(super) fn new(policy: Box<dyn Policy>, settings: Arc<Settings>) -> Self {
        Self {
            state: Mutex::new(State::new(policy)),
            maybe_closed: AtomicBool::new(false),
            settings,
            #[cfg(test)]
            locked: Default::default(),
        }
    }

    /// A gate of its own with the same policy and settings.
    pub(super) fn fork(&self) -> Self {
        Self::new(self.lock().fresh_policy(), Arc::clone(&self.settings))
    }

    pub(super) fn settings_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// A panic under the lock can only come from a policy. Nothing is half done when one is called, so the state
    /// can be used after it.
    fn lock(&self) -> MutexGuard<'_, State> {
        #[cfg(test)]
        self.locked.fetch_add(1, Relaxed);
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, then wakes whom that concerns.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.lock(), &mut wakers);
        drop(wakers);
        result
    }

    /// Whether a service handle may go on to its inner service: `Some` says until when not, and that the
    /// handle will be woken if the gate opens before.
    pub(super) fn watch(&self, handle: &mut Option<u64>, waker: &Waker, now: Instant) -> Option<Closed> {
        if !self.maybe_closed() {
            return None;
        }
        let (closed, opened) = self.with(|state, wakers| match state.closed_until(now) {
            Some(closed) => {
                state.watch(handle, waker, wakers);
                (Some(closed), false)
            }
            None => {
                state.unwatch(handle, wakers);
                (None, self.maybe_closed.swap(false, Relaxed))
            }
        });
        if opened {
            tracing::info!(upstream = %self.settings.name, "gate open");
        }
        closed
    }

    /// The longest time that a handle waits in `poll_ready`.
    pub(super) fn max_pending(&self) -> Option<Duration> {
        self.settings.bounds.max_wait.filter(|_| !self.settings.stay_pending)
    }

    pub(super) fn maybe_closed(&self) -> bool {
        self.maybe_closed.load(Relaxed)
    }

    #[cfg(feature = "keyed")]
    pub(super) fn is_closed(&self) -> bool {
        self.maybe_closed() && self.lock().closed_until(Instant::now()).is_some()
    }

    /// Whether a call has left in that time.
    #[cfg(feature = "keyed")]
    pub(super) fn left_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().last_departure().is_some_and(|last| now.saturating_duration_since(last) < time)
    }

    pub(super) fn unwatch(&self, handle: &mut Option<u64>) {
        if handle.is_some() {
            self.with(|state, wakers| state.unwatch(handle, wakers));
        }
    }

    pub(super) fn answered(&self, signal: &Signal, leave: Leave, at: Instant) {
        let mut answer = Answer::new(signal, leave.at, at).cost(leave.cost);
        let moved = self.with(|state, wakers| {
            let moved = state.answered(&mut answer, leave.epoch, wakers);
            if moved != Moved::No {
                self.maybe_closed.store(true, Relaxed);
            }
            moved
        });
        match moved {
            Moved::Closed(closing) => tracing::warn!(
                upstream = %self.settings.name,
                verdict = ?signal.verdict,
                wait_ms = closing.wait.as_millis(),
                reason = closing.reason.as_str(),
                "gate closed"
            ),
            Moved::Extended => tracing::debug!(upstream = %self.settings.name, "gate closed for longer"),
            Moved::No => {}
        }
    }

    /// What a call took from the quotas in truth.
    pub(super) fn settle(&self, leave: Leave, used: Cost) {
        let now = Instant::now();
        self.with(|state, wakers| state.settle(leave, used, now, wakers));
    }

    pub(super) fn cool_for(&self, wait: Duration) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.close(Closing::adaptive(wait), true, now, wakers);
            self.maybe_closed.store(true, Relaxed);
        });
        tracing::warn!(upstream = %self.settings.name, wait_ms = wait.as_millis(), "gate closed by hand");
    }

    pub(super) fn reset(&self) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.reset(now, wakers);
            self.maybe_closed.store(false, Relaxed);
        });
        tracing::info!(upstream = %self.settings.name, "gate reset");
    }

    /// Shows the state to `look`, with the time until which the gate is closed.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(&State, Option<Closed>, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.lock();
        let closed = state.closed_until(now);
        look(&state, closed, now)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gate = f.debug_struct("Gate");
        gate.field("name", &self.settings.name);
        self.inspect(|state, closed, now| {
            gate.field("policy", &state.policy().policy())
                .field("closed_for", &closed.map(|closed| closed.until - now))
                .field("epoch", &state.epoch())
                .field("waiting", &state.waiting())
                .field("in_flight", &state.in_flight())
                .finish_non_exhaustive()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cooldown::attempt::Attempt, deferred::Permit, policy::Ladder, signal::Verdict};

    #[test]
    fn an_open_gate_is_locked_once_to_book_and_once_to_report() {
        let gate = Arc::new(Gate::new(Box::new(Ladder::new()), Arc::default()));
        let locked = || gate.locked.load(Relaxed);
        let now = Instant::now();
        assert!(!gate.maybe_closed());
        assert_eq!(locked(), 0, "poll_ready");
        let mut attempt = Attempt::book(&gate, (now, crate::WaitReason::Normal), Cost::one(), now).unwrap();
        assert!(attempt.may_send());
        assert_eq!(locked(), 1, "call");
        attempt.answered(&Signal::new(Verdict::Accepted), now);
        drop(attempt);
        assert_eq!(locked(), 2, "the answer");
    }
}
