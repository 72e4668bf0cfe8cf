//! The shared state of one upstream: [`State`] behind a lock, its statistics, and the drop guard of a call.

use super::queue::{Booking, Closed, Leave, Look, Moved, State};
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

    pub(super) fn maybe_closed(&self) -> bool {
        self.maybe_closed.load(Relaxed)
    }

    pub(super) fn unwatch(&self, handle: &mut Option<u64>) {
        if handle.is_some() {
            self.with(|state, wakers| state.unwatch(handle, wakers));
        }
    }

    fn book(&self, arrived: Instant, now: Instant) -> Booking {
        let booking = self.with(|state, wakers| state.book(arrived, self.max_wait, now, wakers));
        match &booking {
            Booking::Leave(_) => {}
            Booking::Wait { booked, .. } => tracing::debug!(
                upstream = %self.name,
                wait_ms = booked.at.saturating_duration_since(now).as_millis(),
                reason = booked.reason.as_str(),
                "call waits"
            ),
            Booking::Refused(rejected) => self.log_rejected(rejected),
        }
        booking
    }

    fn log_rejected(&self, rejected: &Rejected) {
        tracing::debug!(
            upstream = %self.name,
            retry_after_ms = rejected.retry_after.as_millis(),
            "call rejected: it would wait for too long"
        );
    }

    fn answered(&self, signal: &Signal, epoch: u64, departed: Instant, at: Instant) {
        let mut answer = Answer::new(*signal, departed, at);
        let moved = self.with(|state, wakers| {
            let moved = state.answered(&mut answer, epoch, wakers);
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
    /// The ticket with which it waited, to find its place again if it has to go back.
    ticket: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Outside the rollout: the gate does not know of it.
    Control {
        sent: Instant,
    },
    Waiting {
        ticket: u64,
    },
    Left {
        epoch: u64,
        at: Instant,
    },
    Ended,
}

impl Attempt {
    /// A call inside the rollout, which came at `arrived` and waited since then for `reason`. It has left, or
    /// waits on; a rejected one is recorded at once.
    pub(super) fn book(
        gate: &Arc<Gate>,
        (arrived, reason): (Instant, WaitReason),
        now: Instant,
    ) -> Result<Self, Rejected> {
        let mut attempt =
            Self { gate: Arc::clone(gate), arrived, stage: Stage::Ended, wait_reason: reason, ticket: None };
        match gate.book(arrived, now) {
            Booking::Leave(leave) => attempt.leave(leave, now),
            Booking::Wait { ticket, booked } => attempt.wait(ticket, booked.reason),
            Booking::Refused(rejected) => {
                attempt.record(Outcome::Rejected, None, now, None);
                return Err(rejected);
            }
        }
        Ok(attempt)
    }

    /// A call outside the rollout.
    pub(super) fn control(gate: &Arc<Gate>, now: Instant) -> Self {
        Self {
            gate: Arc::clone(gate),
            arrived: now,
            stage: Stage::Control { sent: now },
            wait_reason: WaitReason::Normal,
            ticket: None,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.gate.statistics
    }

    pub(super) const fn arm(&self) -> Arm {
        if let Stage::Control { .. } = self.stage { Arm::Control } else { Arm::Treated }
    }

    fn leave(&mut self, leave: Leave, now: Instant) {
        self.stage = Stage::Left { epoch: leave.epoch, at: now };
        self.waits_for(leave.reason);
    }

    fn wait(&mut self, ticket: u64, reason: WaitReason) {
        self.stage = Stage::Waiting { ticket };
        self.ticket = Some(ticket);
        self.waits_for(reason);
    }

    fn waits_for(&mut self, reason: WaitReason) {
        if reason != WaitReason::Normal {
            self.wait_reason = reason;
        }
    }

    /// The answer came.
    pub(super) fn answered(&mut self, signal: &Signal, now: Instant) {
        let sent = match self.stage {
            Stage::Left { epoch, at } => {
                // A rejection from further in says nothing about this upstream.
                if signal.verdict == Verdict::Rejected {
                    self.gate.lock().abandoned_in_flight();
                } else {
                    self.gate.answered(signal, epoch, at, now);
                }
                at
            }
            Stage::Control { sent } => sent,
            Stage::Waiting { .. } | Stage::Ended => return,
        };
        self.end(signal.verdict.into(), Some(signal), now, Some(sent));
    }

    fn end(&mut self, outcome: Outcome, signal: Option<&Signal>, now: Instant, sent: Option<Instant>) {
        self.record(outcome, signal, now, sent);
        self.stage = Stage::Ended;
    }

    fn record(&self, outcome: Outcome, signal: Option<&Signal>, now: Instant, sent: Option<Instant>) {
        let mut record = CallRecord::new(outcome, now);
        record.status = signal.and_then(|signal| signal.status);
        record.waited = sent.unwrap_or(now).saturating_duration_since(self.arrived);
        if !record.waited.is_zero() {
            record.wait_reason = self.wait_reason;
        }
        record.service = sent.map(|sent| now.saturating_duration_since(sent)).unwrap_or_default();
        record.arm = self.arm();
        self.gate.statistics.record(&record);
    }
}

impl Permit for Attempt {
    fn poll_leave(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        loop {
            let Stage::Waiting { ticket } = self.stage else { return Poll::Ready(Ok(())) };
            let now = Instant::now();
            // A timer that fired is no permission: the gate may have moved.
            match self.gate.with(|state, wakers| state.look(ticket, now, cx, wakers)) {
                Look::Leave(leave) => {
                    self.leave(leave, now);
                    return Poll::Ready(Ok(()));
                }
                Look::Refused(rejected) => {
                    self.gate.log_rejected(&rejected);
                    self.end(Outcome::Rejected, None, now, None);
                    return Poll::Ready(Err(rejected));
                }
                Look::Wait { until } => {
                    ready!(poll_until(timer.as_mut(), until, cx));
                }
            }
        }
    }

    fn confirm(&mut self) -> bool {
        let Stage::Left { .. } = self.stage else { return true };
        let now = Instant::now();
        let (arrived, ticket) = (self.arrived, self.ticket);
        let max_wait = self.gate.max_wait;
        let confirmed = self.gate.with(|state, wakers| match state.still_open(now) {
            Some(epoch) => Ok(epoch),
            None => Err(state.return_to_queue(ticket, arrived, max_wait, now, wakers)),
        });
        match confirmed {
            Ok(epoch) => self.stage = Stage::Left { epoch, at: now },
            Err(ticket) => self.wait(ticket, WaitReason::Normal),
        }
        confirmed.is_ok()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = || Instant::now();
        match self.stage {
            Stage::Ended => {}
            Stage::Waiting { ticket } => {
                let now = now();
                self.gate.with(|state, wakers| state.cancel(ticket, now, wakers));
                self.end(Outcome::Cancelled, None, now, None);
            }
            Stage::Left { at, .. } => {
                self.gate.lock().abandoned_in_flight();
                self.end(Outcome::Cancelled, None, now(), Some(at));
            }
            Stage::Control { sent } => self.end(Outcome::Cancelled, None, now(), Some(sent)),
        }
    }
}
