//! The state of a gate, as plain functions of state, event and time. [`Gate`](super::gate::Gate) puts a lock
//! around it.
//!
//! Calls that may not leave yet stand in a queue. Only its head is ever released, when the policy says so, so
//! the order of arrival holds whatever happens. Each waiting call also has a *booked* time, found by playing
//! the queue through on a copy of the policy: it is what `max_wait` is judged by and what the call sets its
//! timer to. Whoever wakes first releases everyone who is due, so a caller that stopped polling delays
//! nobody but itself.

use crate::{
    policy::{Answer, Closing, Departure, Policy, later},
    record::WaitReason,
    signal::Rejected,
    wakers::Wakers,
};
use std::{
    collections::{
        BTreeMap,
        btree_map::{Entry, OccupiedEntry},
    },
    task::{Context, Waker},
    time::Duration,
};
use tokio::time::Instant;

pub(super) struct State {
    policy: Box<dyn Policy>,
    /// The policy after everyone in the queue has left. Exists while the queue does.
    tail: Option<Box<dyn Policy>>,
    epoch: u64,
    closed: Option<Closed>,
    next_ticket: u64,
    queue: BTreeMap<u64, Waiter>,
    /// Calls that are out of the queue and have not been told yet.
    settled: BTreeMap<u64, Settled>,
    /// Calls that left the queue for good since it was booked; their times stand idle until it is booked anew.
    abandoned: usize,
    in_flight: usize,
    /// Service handles that wait in `poll_ready`, in the order in which they came.
    handles: BTreeMap<u64, Option<Waker>>,
}

/// Why and until when the whole upstream is cooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) until: Instant,
    pub(super) reason: WaitReason,
}

struct Waiter {
    arrived: Instant,
    /// The latest time at which it is willing to leave.
    deadline: Option<Instant>,
    booked: Departure,
    /// What its timer is set to, from its first poll on.
    timer: Option<Instant>,
    waker: Option<Waker>,
}

enum Settled {
    Leave(Leave),
    Refused(Rejected),
}

/// A call has left, or may leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    pub(super) epoch: u64,
    pub(super) reason: WaitReason,
}

/// The answer to a call that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Booking {
    Leave(Leave),
    Wait { ticket: u64, booked: Departure },
    Refused(Rejected),
}

/// The answer to a call that looks again.
pub(super) enum Look {
    Leave(Leave),
    Refused(Rejected),
    Wait { until: Instant },
}

/// What an answer did to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    No,
    /// Closed in a new epoch.
    Closed(Closing),
    /// The closing in force was made longer.
    Extended,
}

impl State {
    pub(super) fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy,
            tail: None,
            epoch: 0,
            closed: None,
            next_ticket: 0,
            queue: BTreeMap::new(),
            settled: BTreeMap::new(),
            abandoned: 0,
            in_flight: 0,
            handles: BTreeMap::new(),
        }
    }

    /// A fresh state with the same policy, for a gate of its own.
    pub(super) fn fork(&self) -> Self {
        let mut policy = self.policy.boxed_clone();
        policy.reset();
        Self::new(policy)
    }

    // ===== calls =====

    /// A call that came at `arrived` asks to leave.
    pub(super) fn book(
        &mut self,
        arrived: Instant,
        max_wait: Option<Duration>,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Booking {
        self.release(now, None, wakers);
        if self.queue.is_empty() && self.closed.is_none() && self.policy.departure(arrived).at <= now {
            return Booking::Leave(self.depart(WaitReason::Normal, now));
        }
        let deadline = max_wait.map(|max_wait| later(arrived, max_wait));
        let mut booked = self.book_last(arrived, now);
        if self.abandoned > 0 && deadline.is_some_and(|deadline| booked.at > deadline) {
            // Before it is refused: the times of calls that went away are free.
            self.rebook(now, wakers);
            booked = self.book_last(arrived, now);
        }
        if deadline.is_some_and(|deadline| booked.at > deadline) {
            if self.queue.is_empty() {
                self.tail = None;
            }
            return Booking::Refused(Rejected::new(booked.at.saturating_duration_since(now)));
        }
        if let Some(tail) = &mut self.tail {
            tail.depart(booked.at);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert(ticket, Waiter { arrived, deadline, booked, timer: None, waker: None });
        Booking::Wait { ticket, booked }
    }

    /// A waiting call looks again: may it leave now, and if not, when should it look next?
    pub(super) fn look(&mut self, ticket: u64, now: Instant, cx: &Context<'_>, wakers: &mut Wakers) -> Look {
        let head_at = self.release(now, Some(ticket), wakers);
        match self.settled.remove(&ticket) {
            Some(Settled::Leave(leave)) => return Look::Leave(leave),
            Some(Settled::Refused(rejected)) => return Look::Refused(rejected),
            None => {}
        }
        let head_booked = self.queue.first_key_value().map(|(_, head)| head.booked.at);
        let (Some(mut waiter), Some(head_at), Some(head_booked)) =
            (occupied(&mut self.queue, ticket), head_at, head_booked)
        else {
            unreachable!("a call that is not settled stands in the queue until it is cancelled");
        };
        // As far behind the head as it was booked behind it: right also where the head has moved since.
        let until = later(head_at, waiter.get().booked.at.saturating_duration_since(head_booked));
        if waiter.get().deadline.is_some_and(|deadline| until > deadline) {
            // The policy has become slower since the call was booked.
            wakers.discard(waiter.remove().waker);
            self.abandoned += 1;
            self.release(now, None, wakers);
            return Look::Refused(Rejected::new(until.saturating_duration_since(now)));
        }
        let waiter = waiter.get_mut();
        waiter.timer = Some(until);
        wakers.replace(&mut waiter.waker, cx.waker());
        Look::Wait { until }
    }

    /// A waiting call went away. Its time goes to those behind it.
    pub(super) fn cancel(&mut self, ticket: u64, now: Instant, wakers: &mut Wakers) {
        if let Some(waiter) = self.queue.remove(&ticket) {
            wakers.discard(waiter.waker);
            self.abandoned += 1;
            if self.abandoned > self.queue.len() {
                self.rebook(now, wakers);
            }
        } else if let Some(Settled::Leave(_)) = self.settled.remove(&ticket) {
            // It had been let go in this very moment; that one departure is lost.
            self.in_flight -= 1;
        }
        self.release(now, None, wakers);
    }

    /// A call that left could not be sent before the gate closed again. It goes back to the place in the queue
    /// that its ticket gives it, the front if it came before all others.
    pub(super) fn return_to_queue(
        &mut self,
        ticket: Option<u64>,
        arrived: Instant,
        max_wait: Option<Duration>,
        now: Instant,
        wakers: &mut Wakers,
    ) -> u64 {
        self.in_flight -= 1;
        let deadline = max_wait.map(|max_wait| later(arrived, max_wait));
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.next_ticket - 1
        });
        let booked = Departure::now(arrived);
        self.queue.insert(ticket, Waiter { arrived, deadline, booked, timer: None, waker: None });
        self.rebook(now, wakers);
        ticket
    }

    /// The epoch in which a call that left, but was not sent yet, is sent; `None` if the gate has closed.
    pub(super) fn still_open(&mut self, now: Instant) -> Option<u64> {
        self.closed_until(now).is_none().then_some(self.epoch)
    }

    /// The answer to a call came in.
    pub(super) fn answered(&mut self, answer: &mut Answer, epoch: u64, wakers: &mut Wakers) -> Moved {
        self.in_flight -= 1;
        answer.current = epoch == self.epoch;
        let moved = match self.policy.answered(answer) {
            Some(closing) => self.close(closing, answer.current, answer.at, wakers),
            None => Moved::No,
        };
        self.release(answer.at, None, wakers);
        moved
    }

    /// A call in flight went away without an answer.
    pub(super) fn abandoned_in_flight(&mut self) {
        self.in_flight -= 1;
    }

    // ===== the gate =====

    /// Closes the gate for at least that long. `current` begins a new epoch.
    pub(super) fn close(
        &mut self,
        closing: Closing,
        current: bool,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Moved {
        let until = later(now, closing.wait);
        let longer = self.closed_until(now).is_none_or(|closed| until > closed.until);
        if longer {
            self.closed = Some(Closed { until, reason: closing.reason });
        }
        if current {
            self.epoch += 1;
        }
        if longer || current {
            self.rebook(now, wakers);
        }
        match (current, longer) {
            (true, _) => Moved::Closed(closing),
            (false, true) => Moved::Extended,
            (false, false) => Moved::No,
        }
    }

    /// Opens the gate, forgets the refusals, and disregards answers that are still on their way.
    pub(super) fn reset(&mut self, now: Instant, wakers: &mut Wakers) {
        self.policy.reset();
        self.epoch += 1;
        self.closed = None;
        for handle in self.handles.values_mut() {
            wakers.wake(handle.take());
        }
        self.rebook(now, wakers);
        self.release(now, None, wakers);
    }

    /// Until when the gate is closed, if it is.
    pub(super) fn closed_until(&mut self, now: Instant) -> Option<Closed> {
        self.closed = self.closed.filter(|closed| closed.until > now);
        self.closed
    }

    // ===== handles in poll_ready =====

    pub(super) fn watch(&mut self, handle: &mut Option<u64>, waker: &Waker, wakers: &mut Wakers) {
        let key = *handle.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket - 1
        });
        wakers.replace(self.handles.entry(key).or_default(), waker);
    }

    pub(super) fn unwatch(&mut self, handle: &mut Option<u64>, wakers: &mut Wakers) {
        if let Some(handle) = handle.take() {
            wakers.discard(self.handles.remove(&handle).flatten());
        }
    }

    // ===== looking at it =====

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn policy(&self) -> &dyn Policy {
        self.policy.as_ref()
    }

    // ===== inside =====

    fn depart(&mut self, reason: WaitReason, now: Instant) -> Leave {
        self.policy.depart(now);
        self.in_flight += 1;
        Leave { epoch: self.epoch, reason }
    }

    /// Releases everyone who is due. Returns when the one who is then at the head may leave; its timer is set
    /// to that, or else it is woken to set it. `looking` is the caller's own ticket, which needs no waking.
    fn release(&mut self, now: Instant, looking: Option<u64>, wakers: &mut Wakers) -> Option<Instant> {
        let closed = self.closed_until(now);
        while let Some(mut head) = self.queue.first_entry() {
            let ticket = *head.key();
            let mut next = self.policy.departure(head.get().arrived);
            if let Some(closed) = closed.filter(|closed| closed.until > next.at) {
                next = Departure::new(closed.until, closed.reason);
            }
            if next.at > now {
                let waiter = head.get_mut();
                let late = waiter.timer.is_some_and(|timer| timer > next.at);
                if late && looking != Some(ticket) {
                    waiter.timer = Some(next.at);
                    wakers.wake(waiter.waker.take());
                }
                return Some(next.at);
            }
            let waiter = head.remove();
            let leave = self.depart(waiter.booked.reason, now);
            self.settled.insert(ticket, Settled::Leave(leave));
            if looking != Some(ticket) {
                wakers.wake(waiter.waker);
            }
        }
        self.tail = None;
        self.abandoned = 0;
        None
    }

    /// When a call that comes after all others would leave.
    fn book_last(&mut self, arrived: Instant, now: Instant) -> Departure {
        let closed = self.closed_until(now);
        let tail = self.tail.get_or_insert_with(|| self.policy.boxed_clone());
        let last = self.queue.last_key_value().map(|(_, waiter)| waiter.booked);
        book_on(tail.as_ref(), arrived, closed, last, now)
    }

    /// Books the whole queue anew. Calls that would have to wait for too long now are refused.
    fn rebook(&mut self, now: Instant, wakers: &mut Wakers) {
        let closed = self.closed_until(now);
        self.abandoned = 0;
        if self.queue.is_empty() {
            self.tail = None;
            return;
        }
        let mut tail = self.policy.boxed_clone();
        let mut last = None;
        let settled = &mut self.settled;
        self.queue.retain(|ticket, waiter| {
            let booked = book_on(tail.as_ref(), waiter.arrived, closed, last, now);
            if waiter.deadline.is_some_and(|deadline| booked.at > deadline) {
                let rejected = Rejected::new(booked.at.saturating_duration_since(now));
                settled.insert(*ticket, Settled::Refused(rejected));
                wakers.wake(waiter.waker.take());
                return false;
            }
            tail.depart(booked.at);
            waiter.booked = booked;
            last = Some(booked);
            true
        });
        self.tail = (!self.queue.is_empty()).then_some(tail);
    }
}

fn occupied(queue: &mut BTreeMap<u64, Waiter>, ticket: u64) -> Option<OccupiedEntry<'_, u64, Waiter>> {
    match queue.entry(ticket) {
        Entry::Occupied(entry) => Some(entry),
        Entry::Vacant(_) => None,
    }
}

fn book_on(
    tail: &dyn Policy,
    arrived: Instant,
    closed: Option<Closed>,
    last: Option<Departure>,
    now: Instant,
) -> Departure {
    let mut booked = tail.departure(arrived);
    if let Some(closed) = closed.filter(|closed| closed.until > booked.at) {
        booked = Departure::new(closed.until, closed.reason);
    }
    if let Some(last) = last.filter(|last| last.at > booked.at) {
        booked = last;
    }
    booked.at = booked.at.max(now);
    booked
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
