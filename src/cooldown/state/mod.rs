//! The state of a gate, as plain functions of state, event and time. [`Gate`](super::gate::Gate) puts a lock
//! around it.
//!
//! Calls that may not leave yet stand in a queue, by the time at which they came. Only its head is ever
//! released, when the policy says so, so the order holds whatever happens. Each waiting call also has a
//! *booked* time, found by playing the queue through on a copy of the policy: it is what `max_wait` is judged
//! by and what the call sets its timer to. Whoever wakes first releases everyone who is due, so a caller that
//! has stopped polling costs those behind it no more than its own departure.

mod answers;
mod change;
mod closing;
mod crowd;
mod early;
mod leased;
#[cfg(test)]
mod tests;

use self::{crowd::Crowd, early::Early, leased::Leased};
use super::booking::{Booking, Bounds, Closed, Leave, Look, Place, Settled};
use crate::{
    Cost, WaitReason,
    policy::{Departure, Mirrored, Policy, later},
    signal::Rejected,
    wakers::Wakers,
};
use std::{task::Context, time::Duration};
use tokio::time::Instant;

/// With what each call writes at the beginning, in one cache line with the lock.
#[repr(C)]
pub(super) struct State {
    last_departure: Option<Instant>,
    in_flight: usize,
    /// Those of them whose every answer is heard. Where the policy has a bound, it is these.
    heard: usize,
    early: Early,
    epoch: u64,
    /// There while somebody waits: an idle gate takes little memory, because there may be a million of them.
    crowd: Option<Box<Crowd>>,
    closed: Option<Closed>,
    next_ticket: u64,
    policy: Mirrored,
    leased: Option<Box<Leased>>,
}

impl State {
    pub(super) fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy: Mirrored::new(policy),
            epoch: 0,
            closed: None,
            next_ticket: 0,
            last_departure: None,
            leased: None,
            in_flight: 0,
            heard: 0,
            early: Early::default(),
            crowd: None,
        }
    }

    /// The policy as it was at the beginning, but for calls that left: for a gate of its own.
    pub(super) fn fresh_policy(&mut self) -> Box<dyn Policy> {
        self.tell();
        let mut policy = self.policy.policy().boxed_clone();
        policy.reset();
        policy
    }

    // ===== calls =====

    /// A call that came at `arrived` asks to leave.
    pub(super) fn book(
        &mut self,
        (arrived, cost): (Instant, Cost),
        bounds: Bounds,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Booking {
        let place = self.place(arrived);
        self.book_at((place, cost), bounds, now, wakers)
    }

    /// A call that left could not be sent at once, because the inner service was not ready. It asks again, with
    /// the place that it had, if it had one; nobody behind it is let go before it.
    ///
    /// `urgent` is one that has asked again before: it leaves unless the gate is closed. If the inner service
    /// takes its time with each call, its calls would otherwise keep one another from being sent for ever.
    pub(super) fn ask_again(
        &mut self,
        leave: Leave,
        (place, urgent): (Place, bool),
        bounds: Bounds,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Booking {
        self.recall(leave);
        if urgent && self.closed_until(now).is_none() {
            return Booking::Settled(Ok(self.depart(leave.cost, WaitReason::Normal, now)));
        }
        // It is not one that comes.
        let bounds = Bounds { max_waiting: None, ..bounds };
        self.book_at((place, leave.cost), bounds, now, wakers)
    }

    /// The same where nothing holds the call back; nearly all calls, in good times.
    #[inline(always)]
    pub(super) fn book_open(&mut self, (arrived, cost): (Instant, Cost), now: Instant) -> Option<Leave> {
        if self.closed_until(now).is_some() || self.waiting() > 0 {
            return None;
        }
        if self.early.depart(cost, now) {
            let at = self.not_before_the_last(now);
            return Some(self.left(at, cost, WaitReason::Normal, true));
        }
        self.ask_policy((arrived, cost), now)
    }

    #[inline(never)]
    fn ask_policy(&mut self, (arrived, cost): (Instant, Cost), now: Instant) -> Option<Leave> {
        self.tell();
        let now = self.not_before_the_last(now);
        if self.is_full(now) || self.policy.departure(arrived, cost).at > now {
            return None;
        }
        let leave = self.depart(cost, WaitReason::Normal, now);
        self.early.make_room(&self.policy, now);
        Some(leave)
    }

    fn book_at(
        &mut self,
        (place, cost): (Place, Cost),
        bounds: Bounds,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Booking {
        if let Some(leave) = self.book_open((place.arrived, cost), now) {
            return Booking::Settled(Ok(leave));
        }
        let latest = bounds.latest(place.arrived);
        let too_late = |booked: Departure| latest.is_some_and(|latest| booked.at > latest);
        let mut booked = self.estimate((place, cost), now);
        if self.crowd().abandoned > 0 && too_late(booked) {
            // Before it is refused: the times of calls that went away are free.
            self.rebook(now, wakers);
            booked = self.estimate((place, cost), now);
        }
        let crowded = bounds.max_waiting.is_some_and(|max| self.waiting() >= max);
        if too_late(booked) || crowded {
            self.release(now, None, wakers);
            return Booking::Settled(Err(Rejected::new(booked.at.saturating_duration_since(now))));
        }
        let closed = self.closed_until(now);
        let crowd = self.crowd.get_or_insert_default();
        crowd.join(&self.policy, (place, cost), booked, bounds, closed, now);
        self.release(now, Some(place), wakers);
        match self.take_settled(place) {
            Some(settled) => Booking::Settled(settled),
            None => Booking::Wait { place, booked },
        }
    }

    /// A waiting call looks again: may it leave now, and if not, when should it look next?
    pub(super) fn look(&mut self, place: Place, now: Instant, cx: &Context<'_>, wakers: &mut Wakers) -> Look {
        let head_at = self.release(now, Some(place), wakers);
        if let Some(settled) = self.take_settled(place) {
            return Look::Settled(settled);
        }
        if self.is_full(now) {
            return match self.crowd().wait_for_an_answer(place, now, cx.waker(), wakers) {
                Some(until) => Look::Wait { until },
                None => {
                    self.vacated(now, wakers);
                    Look::Settled(Err(Rejected::new(now.saturating_duration_since(place.arrived))))
                }
            };
        }
        match self.crowd().wait(place, head_at, now, cx.waker(), wakers) {
            Some(until) => Look::Wait { until },
            None => {
                // The policy has become slower since the call was booked; or nobody looked for a while, and the
                // bookings are old. Booked anew, it is refused if it has to be.
                self.rebook(now, wakers);
                self.look(place, now, cx, wakers)
            }
        }
    }

    /// A waiting call went away. Its time goes to those behind it.
    pub(super) fn cancel(&mut self, place: Place, now: Instant, wakers: &mut Wakers) {
        if let Some(waiter) = self.crowd().queue.remove(&place) {
            wakers.discard(waiter.waker);
            self.vacated(now, wakers);
        } else if let Some(Ok(leave)) = self.take_settled(place) {
            self.recall(leave);
        }
        self.release(now, None, wakers);
    }

    /// A call that left was given up before it was sent. Its departure goes to those behind it.
    pub(super) fn cancel_unsent(&mut self, leave: Leave, now: Instant, wakers: &mut Wakers) {
        self.recall(leave);
        self.release(now, None, wakers);
    }

    /// A place in the queue for a call that came at `arrived`.
    pub(super) fn place(&mut self, arrived: Instant) -> Place {
        self.next_ticket += 1;
        Place { arrived, ticket: self.next_ticket }
    }

    // ===== looking at it =====

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn waiting(&self) -> usize {
        self.crowd.as_ref().map_or(0, |crowd| crowd.queue.len())
    }

    #[cfg(feature = "keyed")]
    pub(super) fn last_departure(&self) -> Option<Instant> {
        self.last_departure
    }

    /// Also those whose answers have come and were not told here.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn policy(&mut self) -> &Mirrored {
        self.tell();
        &self.policy
    }

    // ===== inside =====

    fn crowd(&mut self) -> &mut Crowd {
        self.crowd.get_or_insert_default()
    }

    /// The crowd is gone when nobody waits.
    fn go_home(&mut self) {
        self.crowd.take_if(|crowd| crowd.is_empty());
    }

    fn take_settled(&mut self, place: Place) -> Option<Settled> {
        let settled = self.crowd.as_mut()?.settled.remove(&place);
        if settled.is_some() {
            self.go_home();
        }
        settled
    }

    /// As many calls are in flight as the policy allows. The next one leaves when one of them has ended.
    #[inline]
    fn is_full(&self, now: Instant) -> bool {
        self.policy.max_in_flight().is_some_and(|max| {
            let max = max.max(1);
            let overdue = || self.crowd.as_ref().map_or(0, |crowd| crowd.overdue(now));
            self.heard >= max && self.heard - overdue() >= max
        })
    }

    /// Callers read the clock before they have the lock, so one of them may be a little behind.
    #[inline]
    fn not_before_the_last(&self, now: Instant) -> Instant {
        self.last_departure.map_or(now, |last| last.max(now))
    }

    #[inline]
    fn depart(&mut self, cost: Cost, reason: WaitReason, now: Instant) -> Leave {
        let at = self.not_before_the_last(now);
        self.policy.depart(at, cost);
        let quiet = !self.policy.needs_success() && self.policy.max_in_flight().is_none();
        self.left(at, cost, reason, quiet)
    }

    #[inline]
    fn left(&mut self, at: Instant, cost: Cost, reason: WaitReason, quiet: bool) -> Leave {
        self.last_departure = Some(at);
        self.in_flight += 1;
        self.heard += usize::from(!quiet);
        Leave { epoch: self.epoch, at, cost, reason, quiet, late: false }
    }

    /// Releases everyone who is due. Returns when the one who is then at the head may leave; its timer is set
    /// to that, or else it is woken to set it. (Where too many are in flight, that is in the far future, and it
    /// need not be woken for it.) `looking` is the caller's own place, which needs no waking.
    fn release(&mut self, now: Instant, looking: Option<Place>, wakers: &mut Wakers) -> Option<Instant> {
        self.crowd.as_ref()?;
        self.tell();
        let closed = self.closed_until(now);
        while self.waiting() > 0 {
            if self.is_full(now) {
                return Some(later(now, Duration::MAX));
            }
            let mut head = self.crowd.as_mut()?.queue.first_entry()?;
            let place = *head.key();
            let waiter = head.get_mut();
            let next = Closed::hold(closed, self.policy.departure(place.arrived, waiter.cost));
            if next.at > now {
                let late = waiter.timer.is_some_and(|timer| timer > next.at);
                if late && looking != Some(place) {
                    waiter.timer = Some(next.at);
                    wakers.wake(waiter.waker.take());
                }
                return Some(next.at);
            }
            let (cost, reason) = match waiter.reason {
                // Nothing but the calls before it, or in flight, held it back.
                WaitReason::Normal => (waiter.cost, WaitReason::Preflight),
                reason => (waiter.cost, reason),
            };
            // The policy may panic here, so it stands in the queue until it has left.
            let leave = self.depart(cost, reason, now);
            let crowd = self.crowd();
            let waker = crowd.queue.remove(&place).and_then(|waiter| waiter.waker);
            crowd.settled.insert(place, Ok(leave));
            if looking == Some(place) { wakers.discard(waker) } else { wakers.wake(waker) }
        }
        if let Some(crowd) = &mut self.crowd {
            crowd.tail = None;
            crowd.abandoned = 0;
            self.go_home();
        }
        None
    }

    fn estimate(&mut self, call: (Place, Cost), now: Instant) -> Departure {
        self.tell();
        let closed = self.closed_until(now);
        let crowd = self.crowd.get_or_insert_default();
        crowd.estimate(&self.policy, call, closed, now)
    }

    /// A departure that was booked will not be needed, or not as booked.
    fn vacated(&mut self, now: Instant, wakers: &mut Wakers) {
        if let Some(crowd) = &mut self.crowd {
            crowd.abandoned += 1;
            if crowd.abandoned > crowd.queue.len() {
                self.rebook(now, wakers);
            }
        }
    }

    /// Books the whole queue anew. Calls that would have to wait for too long now are refused.
    fn rebook(&mut self, now: Instant, wakers: &mut Wakers) {
        let closed = self.closed_until(now);
        self.tell();
        if let Some(crowd) = &mut self.crowd {
            crowd.rebook(&self.policy, closed, now, wakers);
        }
    }
}
