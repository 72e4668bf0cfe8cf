use super::{
    booking::{Booking, Leave, Look, Place, Settled},
    gate::Gate,
};
use crate::{
    Cost, WaitReason,
    deferred::{Permit, poll_until},
    record::{Arm, CallRecord, Outcome, Settle, Usage},
    signal::{Rejected, Signal, Verdict},
};
use http::StatusCode;
use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// One call on its way through the gate. Dropping it gives back what it holds and writes its record.
#[derive(Debug)]
pub(super) struct Attempt {
    gate: Arc<Gate>,
    arrived: Instant,
    stage: Stage,
    wait_reason: WaitReason,
    /// Where it stood in the queue, if it did.
    place: Option<Place>,
    /// The inner service was not ready in time, and it had to ask again.
    asked_again: bool,
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
        cost: Cost,
        now: Instant,
    ) -> Result<Self, Rejected> {
        let mut attempt = Self::new(gate, arrived, Stage::Ended, reason);
        let booking =
            gate.with(|state, wakers| state.book((arrived, cost), gate.settings.bounds, now, wakers));
        attempt.booked(booking, now)?;
        Ok(attempt)
    }

    /// A call outside the rollout.
    pub(super) fn control(gate: &Arc<Gate>, now: Instant) -> Self {
        Self::new(gate, now, Stage::Control { sent: now }, WaitReason::Normal)
    }

    fn new(gate: &Arc<Gate>, arrived: Instant, stage: Stage, wait_reason: WaitReason) -> Self {
        Self { gate: Arc::clone(gate), arrived, stage, wait_reason, place: None, asked_again: false }
    }

    fn booked(&mut self, booking: Booking, now: Instant) -> Result<(), Rejected> {
        match booking {
            Booking::Settled(settled) => self.settle(settled, now),
            Booking::Wait { place, booked } => {
                tracing::debug!(
                    upstream = %self.gate.settings.name,
                    wait_ms = booked.at.saturating_duration_since(now).as_millis(),
                    reason = booked.reason.as_str(),
                    "call waits"
                );
                self.stage = Stage::Waiting { place };
                self.place = Some(place);
                self.waits_for(booked.reason);
                Ok(())
            }
        }
    }

    fn settle(&mut self, settled: Settled, now: Instant) -> Result<(), Rejected> {
        match settled {
            Ok(leave) => {
                self.stage = Stage::Left(leave);
                self.waits_for(leave.reason);
            }
            Err(rejected) => {
                tracing::debug!(
                    upstream = %self.gate.settings.name,
                    retry_after_ms = rejected.retry_after.as_millis(),
                    "call rejected: it would wait for too long"
                );
                self.stage = Stage::Ended;
                self.record(Arm::Treated, Outcome::Rejected, None, now, None);
            }
        }
        settled.map(drop)
    }

    fn waits_for(&mut self, reason: WaitReason) {
        if reason != WaitReason::Normal {
            self.wait_reason = reason;
        }
    }

    /// With which the caller can report what the call took from the quotas.
    pub(super) fn usage(&self) -> Usage {
        let usage = Usage::new(&self.gate.settings.statistics);
        match self.stage {
            Stage::Sent(leave) => usage.settles(Booked { gate: Arc::clone(&self.gate), leave }),
            _ => usage,
        }
    }

    pub(super) const fn arm(&self) -> Arm {
        if let Stage::Control { .. } = self.stage { Arm::Control } else { Arm::Treated }
    }

    /// The answer came.
    pub(super) fn answered(&mut self, signal: &Signal, now: Instant) {
        let arm = self.arm();
        // A policy that panics on the answer must not find the call in flight again when this is dropped.
        let sent = match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Sent(leave) if signal.verdict != Verdict::Rejected => {
                self.gate.answered(signal, leave, now);
                if let Some(used) = signal.used {
                    self.gate
                        .settings
                        .statistics
                        .add_tokens(used.input_tokens.into(), used.output_tokens.into());
                    self.gate.settle(leave, used);
                }
                Some(leave.at)
            }
            // A gate further in rejected it, or the inner service failed before it was ready.
            Stage::Sent(leave) | Stage::Left(leave) => {
                self.gate.with(|state, wakers| state.cancel_unsent(leave, now, wakers));
                None
            }
            Stage::Control { sent } => Some(sent),
            Stage::Waiting { .. } | Stage::Ended => return,
        };
        self.record(arm, signal.verdict.into(), signal.status, now, sent);
    }

    fn record(
        &self,
        arm: Arm,
        outcome: Outcome,
        status: Option<StatusCode>,
        now: Instant,
        sent: Option<Instant>,
    ) {
        let mut record = CallRecord::timed(outcome, self.arrived, sent, now, self.wait_reason);
        record.status = status;
        record.arm = arm;
        self.gate.settings.statistics.record(&record);
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
                Look::Settled(settled) => return Poll::Ready(self.settle(settled, now)),
                Look::Wait { until: Some(until) } => ready!(poll_until(timer.as_mut(), until, cx)),
                Look::Wait { until: None } => return Poll::Pending,
            }
        }
    }

    fn confirm(&mut self) -> Result<bool, Rejected> {
        let Stage::Left(leave) = self.stage else { return Ok(true) };
        let now = Instant::now();
        let (gate, arrived, place, asked_again) = (&self.gate, self.arrived, self.place, self.asked_again);
        let booking = gate.with(|state, wakers| {
            let prompt = now.saturating_duration_since(leave.at) < PROMPT;
            if prompt && state.closed_until(now).is_none() {
                return Booking::Settled(Ok(leave));
            }
            // The inner service took its time: by now the gate may be closed, or others have used the quota.
            let place = place.unwrap_or_else(|| state.place(arrived));
            state.ask_again(leave, (place, asked_again), gate.settings.bounds, now, wakers)
        });
        self.asked_again |= booking != Booking::Settled(Ok(leave));
        self.booked(booking, now)?;
        Ok(self.may_send())
    }
}

/// A call that was sent, and what it was booked for.
struct Booked {
    gate: Arc<Gate>,
    leave: Leave,
}

impl Settle for Booked {
    fn settle(&self, input: u64, output: u64) {
        let tokens = |tokens: u64| tokens.try_into().unwrap_or(u32::MAX);
        self.gate.settle(self.leave, self.leave.cost.input(tokens(input)).output(tokens(output)));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let arm = self.arm();
        let stage = mem::replace(&mut self.stage, Stage::Ended);
        if let Stage::Ended = stage {
            return;
        }
        let now = Instant::now();
        let sent = match stage {
            Stage::Waiting { place } => {
                self.gate.with(|state, wakers| state.cancel(place, now, wakers));
                None
            }
            Stage::Left(leave) => {
                self.gate.with(|state, wakers| state.cancel_unsent(leave, now, wakers));
                None
            }
            Stage::Sent(leave) => {
                self.gate.with(|state, wakers| state.abandoned_in_flight(leave, now, wakers));
                Some(leave.at)
            }
            Stage::Control { sent } => Some(sent),
            Stage::Ended => None,
        };
        self.record(arm, Outcome::Cancelled, None, now, sent);
    }
}
