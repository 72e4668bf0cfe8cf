//! All who wait at a gate: their order, their booked times and their timers.

use crate::{
    Cost, WaitReason,
    cooldown::{
        booking::{After, Bounds, Closed, Place, Settled, book_on},
        ready::Handles,
    },
    policy::{Departure, Mirrored, later},
    signal::Rejected,
    wakers::Wakers,
};
use std::{collections::BTreeMap, task::Waker, time::Duration};
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Crowd {
    pub(super) queue: BTreeMap<Place, Waiter>,
    /// The policy after everyone in the queue has left. Exists while the queue does.
    pub(super) tail: Option<Mirrored>,
    /// Calls that are out of the queue and have not been told yet.
    pub(super) settled: BTreeMap<Place, Settled>,
    /// Calls that left the queue for good since it was booked; their times stand idle until it is booked anew.
    pub(super) abandoned: usize,
    pub(super) max_wait: Option<Duration>,
    /// Service handles that wait in `poll_ready`.
    pub(super) handles: Handles,
}

/// There may be many: what all have in common is in the crowd.
pub(super) struct Waiter {
    pub(super) cost: Cost,
    pub(super) reason: WaitReason,
    /// This and the next are counted from when it came.
    booked: After,
    /// When its own time is over.
    deadline: After,
    /// What its timer is set to, from its first poll on.
    pub(super) timer: Option<Instant>,
    pub(super) waker: Option<Waker>,
}

impl Waiter {
    fn new(place: &Place, cost: Cost, booked: Departure, deadline: Option<Instant>) -> Self {
        let after = |at| After::new(place.arrived, at);
        Self {
            cost,
            reason: booked.reason,
            booked: after(booked.at),
            deadline: deadline.map_or(After::NEVER, after),
            timer: None,
            waker: None,
        }
    }

    pub(super) fn booked(&self, place: &Place) -> Departure {
        Departure::new(self.booked.since(place.arrived), self.reason)
    }

    /// It is not willing to leave later than that.
    fn latest(&self, place: &Place, max_wait: Option<Duration>) -> Option<Instant> {
        let deadline = self.deadline.known_since(place.arrived);
        Bounds { max_wait, deadline, ..Bounds::default() }.latest(place.arrived)
    }

    pub(super) fn is_too_late(&self, place: &Place, max_wait: Option<Duration>, at: Instant) -> bool {
        self.latest(place, max_wait).is_some_and(|latest| at > latest)
    }

    /// Looks again then, or when woken.
    fn sleep(&mut self, until: Instant, waker: &Waker, wakers: &mut Wakers) -> Instant {
        self.timer = Some(until);
        wakers.replace(&mut self.waker, waker);
        until
    }
}

/// A call that was let go looks at once, as a rule. One that has not for so long may never do so, and no longer counts
/// as one in flight: a policy's bound on those would else keep all others from leaving for ever.
const PATIENCE: Duration = Duration::from_secs(1);

const NOT_SETTLED: &str = "a call that is not settled stands in the queue until it is cancelled";

impl Crowd {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.settled.is_empty() && self.handles.is_empty()
    }

    /// When a call in this place would leave. One that came before others that are booked, because it waited in
    /// `poll_ready`, takes the time of the next one, and they move back.
    pub(super) fn estimate(
        &mut self,
        policy: &Mirrored,
        (place, cost): (Place, Cost),
        closed: Option<Closed>,
        now: Instant,
    ) -> Departure {
        match self.queue.range(place..).next() {
            Some((place, next)) => next.booked(place),
            None => self.book_last(policy, (place.arrived, cost), closed, now),
        }
    }

    /// When a call that comes after all others would leave.
    fn book_last(
        &mut self,
        policy: &Mirrored,
        call: (Instant, Cost),
        closed: Option<Closed>,
        now: Instant,
    ) -> Departure {
        let tail = self.tail.get_or_insert_with(|| policy.clone());
        let last = self.queue.last_key_value().map(|(place, waiter)| waiter.booked(place));
        book_on(tail, call, closed, last, now)
    }

    /// A call goes into the queue, booked for a time that [`estimate`](Self::estimate) said.
    pub(super) fn join(
        &mut self,
        policy: &Mirrored,
        (place, cost): (Place, Cost),
        booked: Departure,
        bounds: Bounds,
        closed: Option<Closed>,
        now: Instant,
    ) {
        let last = self.book_last(policy, (place.arrived, cost), closed, now);
        if let Some(tail) = &mut self.tail {
            tail.depart(last.at, cost);
        }
        self.max_wait = bounds.max_wait;
        self.queue.insert(place, Waiter::new(&place, cost, booked, bounds.deadline));
    }

    /// A waiting call sets its timer, where the head of the queue may leave at `head_at`. `None` if it would then be
    /// too late.
    pub(super) fn wait(
        &mut self,
        place: Place,
        head_at: Option<Instant>,
        now: Instant,
        waker: &Waker,
        wakers: &mut Wakers,
    ) -> Option<Instant> {
        let head = self.queue.first_key_value().map(|(place, head)| (head.booked(place).at, head.timer));
        let (Some(waiter), Some(head_at), Some((head_booked, head_timer))) =
            (self.queue.get_mut(&place), head_at, head)
        else {
            unreachable!("{NOT_SETTLED}");
        };
        let until = if head_timer.is_some_and(|timer| timer >= now) {
            // As far behind the head as it was booked behind it: right also where the head has moved since.
            later(head_at, waiter.booked(&place).at.saturating_duration_since(head_booked))
        } else {
            // The head should have looked by now, and may never do so again: this one minds its time for it.
            head_at
        };
        if waiter.is_too_late(&place, self.max_wait, until) {
            wakers.discard(waiter.waker.take());
            return None;
        }
        Some(waiter.sleep(until, waker, wakers))
    }

    /// The same while as many are in flight as may be. `None` if it is too late already; it is then out of the queue.
    pub(super) fn wait_for_an_answer(
        &mut self,
        place: Place,
        now: Instant,
        waker: &Waker,
        wakers: &mut Wakers,
    ) -> Option<Instant> {
        let Some(waiter) = self.queue.get_mut(&place) else { unreachable!("{NOT_SETTLED}") };
        let latest = waiter.latest(&place, self.max_wait);
        if latest.is_some_and(|latest| latest <= now) {
            wakers.discard(waiter.waker.take());
            self.queue.remove(&place);
            return None;
        }
        // Those in flight may be calls that do not look, which shows in a while. It looks again after as long as it
        // has waited, which is a few times in all, or every ten seconds.
        let waited = now.saturating_duration_since(place.arrived);
        let patience = later(now, waited.clamp(PATIENCE, 10 * PATIENCE));
        let until = latest.map_or(patience, |latest| latest.min(patience));
        Some(waiter.sleep(until, waker, wakers))
    }

    /// Books the whole queue anew. Calls that would have to wait for too long now are refused.
    pub(super) fn rebook(
        &mut self,
        policy: &Mirrored,
        closed: Option<Closed>,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        let Self { queue, tail, settled, abandoned, max_wait, .. } = self;
        *abandoned = 0;
        *tail = None;
        if queue.is_empty() {
            return;
        }
        let mut policy = policy.clone();
        let mut last = None;
        queue.retain(|place, waiter| {
            let booked = book_on(&policy, (place.arrived, waiter.cost), closed, last, now);
            if waiter.is_too_late(place, *max_wait, booked.at) {
                let rejected = Rejected::new(booked.at.saturating_duration_since(now));
                settled.insert(*place, Err(rejected));
                wakers.wake(waiter.waker.take());
                return false;
            }
            policy.depart(booked.at, waiter.cost);
            (waiter.booked, waiter.reason) = (After::new(place.arrived, booked.at), booked.reason);
            last = Some(booked);
            true
        });
        *tail = (!queue.is_empty()).then_some(policy);
    }

    /// Has everyone look again.
    pub(super) fn wake_all(&mut self, wakers: &mut Wakers) {
        for waiter in self.queue.values_mut() {
            waiter.timer = None;
            wakers.wake(waiter.waker.take());
        }
    }

    /// How many calls were let go and have not looked.
    pub(super) fn overdue(&self, now: Instant) -> usize {
        let overdue = |settled: &&Settled| {
            settled.is_ok_and(|leave| !leave.quiet && now.saturating_duration_since(leave.at) >= PATIENCE)
        };
        self.settled.values().filter(overdue).count()
    }
}
