use super::{
    anchor::GateRef,
    booking::{After, Booking, Bounds, Leave, Look, Place, Settled},
    gate::Gate,
};
use crate::{
    Cost, WaitReason,
    deferred::{Permit, poll_until},
    policy::later,
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
    gate: GateRef,
    arrived: Instant,
    /// When the call's own time is over, from when it came. Not known of a call that leaves at once.
    deadline: After,
    stage: Stage,
    wait_reason: WaitReason,
    /// The inner service was not ready in time, and it had to ask again.
    asked_again: bool,
    /// Of its place in the queue; 0 if it never stood there.
    ticket: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Outside the rollout: the gate does not know of it. It was sent when it came.
    Control,
    Waiting,
    /// Let go, and waiting for the inner service.
    Left(Leave),
    Sent(Leave),
    /// It would wait for too long; it is recorded, and its caller has to be told.
    Rejected(Rejected),
    Ended,
}

/// A call that is sent within this time from being let go has left in time.
const PROMPT: Duration = Duration::from_millis(1);

impl Attempt {
    /// A call inside the rollout, which came at `arrived` and waited since then for `reason`. It has left, or
    /// waits on; a rejected one is recorded at once.
    pub(super) fn book(
        gate: GateRef,
        (arrived, reason): (Instant, WaitReason),
        (cost, deadline): (Cost, Option<Instant>),
        now: Instant,
    ) -> Self {
        let mut attempt = Self::new(gate, arrived, Stage::Ended, reason);
        attempt.deadline = deadline.map_or(After::NEVER, |deadline| After::new(arrived, deadline));
        let booking =
            attempt.gate.with(|state, wakers| state.book((arrived, cost), attempt.bounds(), now, wakers));
        attempt.gate.attend();
        if let Err(rejected) = attempt.booked(booking, now) {
            attempt.stage = Stage::Rejected(rejected);
        }
        attempt
    }

    /// A call that left, and was sent at once.
    #[inline(always)]
    pub(super) fn sent(gate: GateRef, (arrived, reason): (Instant, WaitReason), leave: Leave) -> Self {
        Self::new(gate, arrived, Stage::Sent(leave), reason)
    }

    /// A call outside the rollout.
    pub(super) fn control(gate: GateRef, now: Instant) -> Self {
        Self::new(gate, now, Stage::Control, WaitReason::Normal)
    }

    #[inline(always)]
    fn new(gate: GateRef, arrived: Instant, stage: Stage, wait_reason: WaitReason) -> Self {
        Self { gate, arrived, deadline: After::NEVER, stage, wait_reason, asked_again: false, ticket: 0 }
    }

    fn bounds(&self) -> Bounds {
        Bounds { deadline: self.deadline.known_since(self.arrived), ..self.gate.bounds() }
    }

    pub(super) const fn is_rejected(&self) -> bool {
        matches!(self.stage, Stage::Rejected(_))
    }

    /// Why the call is not sent, if it was rejected when it came.
    #[inline]
    pub(super) fn take_rejected(&mut self) -> Option<Rejected> {
        let Stage::Rejected(rejected) = self.stage else { return None };
        self.stage = Stage::Ended;
        Some(rejected)
    }

    fn place(&self) -> Place {
        Place { arrived: self.arrived, ticket: self.ticket }
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
                debug_assert_eq!(place.arrived, self.arrived);
                self.stage = Stage::Waiting;
                self.ticket = place.ticket;
                self.waits_for(booked.reason);
                Ok(())
            }
        }
    }

    fn settle(&mut self, mut settled: Settled, now: Instant) -> Result<(), Rejected> {
        match &mut settled {
            Ok(leave) => {
                self.stage = Stage::Left(*leave);
                self.waits_for(leave.reason);
            }
            Err(rejected) => {
                let deadline = self.bounds().deadline;
                rejected.past_deadline =
                    deadline.is_some_and(|deadline| later(now, rejected.retry_after) > deadline);
                tracing::debug!(
                    upstream = %self.gate.settings.name,
                    retry_after_ms = rejected.retry_after.as_millis(),
                    past_deadline = rejected.past_deadline,
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

    /// How late a call leaves that waited. It could have left when its timer was to fire, which is when the policy said,
    /// or when somebody else let it go before that.
    fn record_slip(&self, settled: Settled, timer: Option<Pin<&Sleep>>, now: Instant) {
        if let Ok(leave) = settled {
            let could = timer.map_or(leave.at, |timer| timer.deadline().min(leave.at));
            self.gate.settings.statistics.record_slip(now.saturating_duration_since(could));
        }
    }

    /// With which the caller can report what the call took from the quotas.
    pub(super) fn usage(&self) -> Usage {
        let usage = Usage::new(&self.gate.settings.statistics);
        match self.stage {
            Stage::Sent(leave) => usage.settles(Booked { gate: self.gate.to_gate(), leave }),
            _ => usage,
        }
    }

    #[inline]
    pub(super) const fn arm(&self) -> Arm {
        if let Stage::Control = self.stage { Arm::Control } else { Arm::Treated }
    }

    /// The answer came.
    #[inline]
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
            Stage::Control => Some(self.arrived),
            Stage::Waiting | Stage::Rejected(_) | Stage::Ended => return,
        };
        self.gate.attend();
        self.record(arm, signal.verdict.into(), signal.status, now, sent);
    }

    #[inline]
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

impl Attempt {
    #[cold]
    fn cancelled(&mut self) {
        let arm = self.arm();
        let now = Instant::now();
        let sent = match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Waiting => {
                let place = self.place();
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
            Stage::Control => Some(self.arrived),
            Stage::Rejected(_) | Stage::Ended => return,
        };
        self.gate.attend();
        self.record(arm, Outcome::Cancelled, None, now, sent);
    }
}

impl Permit for Attempt {
    #[inline]
    fn may_send(&mut self) -> bool {
        if let Stage::Left(leave) = self.stage {
            self.stage = Stage::Sent(leave);
        }
        !matches!(self.stage, Stage::Waiting)
    }

    fn poll_leave(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        loop {
            let Stage::Waiting = self.stage else { return Poll::Ready(Ok(())) };
            let place = self.place();
            let now = Instant::now();
            // A timer that fired is no permission: the gate may have moved.
            let look = self.gate.with(|state, wakers| state.look(place, now, cx, wakers));
            self.gate.attend();
            match look {
                Look::Settled(settled) => {
                    self.record_slip(settled, timer.as_ref().as_pin_ref(), now);
                    return Poll::Ready(self.settle(settled, now));
                }
                Look::Wait { until } => ready!(poll_until(timer.as_mut(), until, cx)),
            }
        }
    }

    fn confirm(&mut self) -> Result<bool, Rejected> {
        let Stage::Left(leave) = self.stage else { return Ok(true) };
        let now = Instant::now();
        let (gate, mut place, asked_again) = (&self.gate, self.place(), self.asked_again);
        let booking = gate.with(|state, wakers| {
            let prompt = now.saturating_duration_since(leave.at) < PROMPT;
            if prompt && state.closed_until(now).is_none() {
                return Booking::Settled(Ok(leave));
            }
            // The inner service took its time: by now the gate may be closed, or others have used the quota.
            if place.ticket == 0 {
                place = state.place(place.arrived);
            }
            state.ask_again(leave, (place, asked_again), self.bounds(), now, wakers)
        });
        self.asked_again |= booking != Booking::Settled(Ok(leave));
        self.booked(booking, now)?;
        Ok(self.may_send())
    }
}

/// A call that has left, while the inner service is called: if that panics, it is one that was cancelled. (An
/// [`Attempt`] would do the same, and would have to be written to memory for it first.)
pub(super) struct Sending<'a> {
    gate: &'a GateRef,
    arrival: (Instant, WaitReason),
    leave: Leave,
}

impl<'a> Sending<'a> {
    #[inline(always)]
    pub(super) const fn new(gate: &'a GateRef, arrival: (Instant, WaitReason), leave: Leave) -> Self {
        Self { gate, arrival, leave }
    }
}

impl Drop for Sending<'_> {
    #[inline]
    fn drop(&mut self) {
        drop(Attempt::sent(self.gate.clone(), self.arrival, self.leave));
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
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Ended | Stage::Rejected(_)) {
            self.cancelled();
        }
    }
}
