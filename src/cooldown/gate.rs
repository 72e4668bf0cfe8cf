//! The shared state of one upstream: [`State`] behind a lock, its statistics, and the drop guard of a call.

use super::queue::{Booking, Closed, Leave, Look, Moved, Place, State};
use crate::{
    deferred::{Permit, poll_until},
    policy::{Answer, Closing, Policy},
    record::{Arm, CallRecord, Outcome, Statistics, WaitReason},
    signal::{Rejected, Signal, Verdict},
    wakers::Wakers,
};
use std::{
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

pub(super) struct Gate {
    state: Mutex<State>,
    /// Whether the gate may be closed: lets `poll_ready` pass an open gate without the lock. It is set and
    /// cleared under the lock; a stale reading does no harm, because `call` decides.
    maybe_closed: AtomicBool,
    pub(super) name: Cow<'static, str>,
    pub(super) statistics: Statistics,
    pub(super) max_wait: Option<Duration>,
    pub(super) stay_pending: bool,
}

impl Gate {
    pub(super) fn new(policy: Box<dyn Policy>) -> Self {
        let statistics = Statistics::new();
        statistics.claim_attempts();
        Self {
            state: Mutex::new(State::new(policy)),
            maybe_closed: AtomicBool::new(false),
            name: Cow::Borrowed("upstream"),
            statistics,
            max_wait: None,
            stay_pending: false,
        }
    }

    /// A gate of its own with the same policy and settings.
    pub(super) fn fork(&self) -> Self {
        Self {
            state: Mutex::new(self.lock().fork()),
            maybe_closed: AtomicBool::new(false),
            name: self.name.clone(),
            statistics: self.statistics.clone(),
            max_wait: self.max_wait,
            stay_pending: self.stay_pending,
        }
    }

    /// A panic under the lock can only come from a policy, which is left as it was before that call or close
    /// to it; every other field is consistent between any two statements that can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, then wakes whom that concerns.
    fn with<T>(&self, work: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.lock(), &mut wakers);
        wakers.finish();
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
            tracing::info!(upstream = %self.name, "gate open");
        }
        closed
    }

    /// The longest time that a handle waits in `poll_ready`.
    pub(super) fn max_pending(&self) -> Option<Duration> {
        self.max_wait.filter(|_| !self.stay_pending)
    }

    pub(super) fn maybe_closed(&self) -> bool {
        self.maybe_closed.load(Relaxed)
    }

    pub(super) fn unwatch(&self, handle: &mut Option<u64>) {
        if handle.is_some() {
            self.with(|state, wakers| state.unwatch(handle, wakers));
        }
    }

    fn answered(&self, signal: &Signal, leave: Leave, at: Instant) {
        let mut answer = Answer::new(*signal, leave.at, at);
        let moved = self.with(|state, wakers| {
            let moved = state.answered(&mut answer, leave.epoch, wakers);
            if moved != Moved::No {
                self.maybe_closed.store(true, Relaxed);
            }
            moved
        });
        match moved {
            Moved::Closed(closing) => tracing::warn!(
                upstream = %self.name,
                verdict = ?signal.verdict,
                wait_ms = closing.wait.as_millis(),
                reason = closing.reason.as_str(),
                "gate closed"
            ),
            Moved::Extended => tracing::debug!(upstream = %self.name, "gate closed for longer"),
            Moved::No => {}
        }
    }

    pub(super) fn cool_for(&self, wait: Duration) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.close(Closing::adaptive(wait), true, now, wakers);
            self.maybe_closed.store(true, Relaxed);
        });
        tracing::warn!(upstream = %self.name, wait_ms = wait.as_millis(), "gate closed by hand");
    }

    pub(super) fn reset(&self) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.reset(now, wakers);
            self.maybe_closed.store(false, Relaxed);
        });
        tracing::info!(upstream = %self.name, "gate reset");
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
        gate.field("name", &self.name);
        self.inspect(|state, closed, now| {
            gate.field("policy", &state.policy())
                .field("closed_for", &closed.map(|closed| closed.until - now))
                .field("epoch", &state.epoch())
                .field("waiting", &state.waiting())
                .field("in_flight", &state.in_flight())
                .finish_non_exhaustive()
        })
    }
}

/// One call on its way through the gate. Dropping it gives back what it holds and writes its record.
#[derive(Debug)]
pub(super) struct Attempt {
    gate: Arc<Gate>,
    arrived: Instant,
    stage: Stage,
    wait_reason: WaitReason,
    /// Where it stood in the queue, if it did.
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Outside the rollout: the gate does not know of it.
    Control {
        sent: Instant,
    },
    Waiting {
        place: Place,
    },
    /// Let go, and waiting for the inner service.
    Left(Leave),
    Sent(Leave),
    Ended,
}

/// A call that is sent within this time from being let go has left in time.
const PROMPT: Duration = Duration::from_millis(1);

impl Attempt {
    /// A call inside the rollout, which came at `arrived` and waited since then for `reason`. It has left, or
    /// waits on; a rejected one is recorded at once.
    pub(super) fn book(
        gate: &Arc<Gate>,
        (arrived, reason): (Instant, WaitReason),
        now: Instant,
    ) -> Result<Self, Rejected> {
        let mut attempt =
            Self { gate: Arc::clone(gate), arrived, stage: Stage::Ended, wait_reason: reason, place: None };
        let booking = gate.with(|state, wakers| state.book(arrived, gate.max_wait, now, wakers));
        attempt.booked(booking, now)?;
        Ok(attempt)
    }

    /// A call outside the rollout.
    pub(super) fn control(gate: &Arc<Gate>, now: Instant) -> Self {
        Self {
            gate: Arc::clone(gate),
            arrived: now,
            stage: Stage::Control { sent: now },
            wait_reason: WaitReason::Normal,
            place: None,
        }
    }

    fn booked(&mut self, booking: Booking, now: Instant) -> Result<(), Rejected> {
        match booking {
            Booking::Leave(leave) => self.leave(leave),
            Booking::Wait { place, booked } => {
                tracing::debug!(
                    upstream = %self.gate.name,
                    wait_ms = booked.at.saturating_duration_since(now).as_millis(),
                    reason = booked.reason.as_str(),
                    "call waits"
                );
                self.stage = Stage::Waiting { place };
                self.place = Some(place);
                self.waits_for(booked.reason);
            }
            Booking::Refused(rejected) => return Err(self.reject(rejected, now)),
        }
        Ok(())
    }

    fn leave(&mut self, leave: Leave) {
        self.stage = Stage::Left(leave);
        self.waits_for(leave.reason);
    }

    fn waits_for(&mut self, reason: WaitReason) {
        if reason != WaitReason::Normal {
            self.wait_reason = reason;
        }
    }

    fn reject(&mut self, rejected: Rejected, now: Instant) -> Rejected {
        tracing::debug!(
            upstream = %self.gate.name,
            retry_after_ms = rejected.retry_after.as_millis(),
            "call rejected: it would wait for too long"
        );
        self.end(Outcome::Rejected, None, now, None);
        rejected
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.gate.statistics
    }

    pub(super) const fn arm(&self) -> Arm {
        if let Stage::Control { .. } = self.stage { Arm::Control } else { Arm::Treated }
    }

    /// The answer came.
    pub(super) fn answered(&mut self, signal: &Signal, now: Instant) {
        let sent = match self.stage {
            // Not sent: the inner service failed before it was ready.
            Stage::Left(leave) | Stage::Sent(leave) => {
                // A rejection from further in says nothing about this upstream.
                if signal.verdict == Verdict::Rejected {
                    self.gate.with(|state, _| state.abandoned_in_flight());
                } else {
                    self.gate.answered(signal, leave, now);
                }
                leave.at
            }
            Stage::Control { sent } => sent,
            Stage::Waiting { .. } | Stage::Ended => return,
        };
        self.end(signal.verdict.into(), Some(signal), now, Some(sent));
    }

    fn end(&mut self, outcome: Outcome, signal: Option<&Signal>, now: Instant, sent: Option<Instant>) {
        let mut record = CallRecord::new(outcome, now);
        record.status = signal.and_then(|signal| signal.status);
        record.waited = sent.unwrap_or(now).saturating_duration_since(self.arrived);
        if !record.waited.is_zero() {
            record.wait_reason = self.wait_reason;
        }
        record.service = sent.map(|sent| now.saturating_duration_since(sent)).unwrap_or_default();
        record.arm = self.arm();
        self.gate.statistics.record(&record);
        self.stage = Stage::Ended;
    }
}

impl Permit for Attempt {
    fn may_send(&mut self) -> bool {
        if let Stage::Left(leave) = self.stage {
            self.stage = Stage::Sent(leave);
        }
        !matches!(self.stage, Stage::Waiting { .. })
    }

    fn poll_leave(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        loop {
            let Stage::Waiting { place } = self.stage else { return Poll::Ready(Ok(())) };
            let now = Instant::now();
            // A timer that fired is no permission: the gate may have moved.
            match self.gate.with(|state, wakers| state.look(place, now, cx, wakers)) {
                Look::Leave(leave) => self.leave(leave),
                Look::Refused(rejected) => return Poll::Ready(Err(self.reject(rejected, now))),
                Look::Wait { until } => ready!(poll_until(timer.as_mut(), until, cx)),
            }
        }
    }

    fn confirm(&mut self) -> Result<bool, Rejected> {
        let Stage::Left(leave) = self.stage else { return Ok(true) };
        let now = Instant::now();
        let (gate, arrived, place) = (&self.gate, self.arrived, self.place);
        let booking = gate.with(|state, wakers| {
            let prompt = now.saturating_duration_since(leave.at) < PROMPT;
            if prompt && state.closed_until(now).is_none() {
                return Booking::Leave(leave);
            }
            // The inner service took its time: by now the gate may be closed, or others have used the quota.
            let place = place.unwrap_or_else(|| state.place(arrived));
            state.ask_again(leave, place, gate.max_wait, now, wakers)
        });
        self.booked(booking, now)?;
        Ok(self.may_send())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = match self.stage {
            Stage::Ended => return,
            _ => Instant::now(),
        };
        let sent = match self.stage {
            Stage::Ended => return,
            Stage::Waiting { place } => {
                self.gate.with(|state, wakers| state.cancel(place, now, wakers));
                None
            }
            Stage::Left(leave) => {
                self.gate.with(|state, wakers| state.cancel_unsent(leave, now, wakers));
                None
            }
            Stage::Sent(leave) => {
                self.gate.with(|state, _| state.abandoned_in_flight());
                Some(leave.at)
            }
            Stage::Control { sent } => Some(sent),
        };
        self.end(Outcome::Cancelled, None, now, sent);
    }
}
