//! The state of a gate, as plain functions of state, event and time. [`Gate`](super::gate::Gate) puts a lock
//! around it.
//!
//! Calls that may not leave yet stand in a queue, by the time at which they came. Only its head is ever
//! released, when the policy says so, so the order holds whatever happens. Each waiting call also has a
//! *booked* time, found by playing the queue through on a copy of the policy: it is what `max_wait` is judged
//! by and what the call sets its timer to. Whoever wakes first releases everyone who is due, so a caller that
//! has stopped polling costs those behind it no more than its own departure.

use super::{
    booking::{After, Booking, Bounds, Closed, Leave, Look, Moved, Place, Settled, book_on},
    ready::Handles,
};
use crate::{
    Cost, WaitReason,
    policy::{Answer, Closing, Departure, Mirrored, Policy, later},
    signal::Rejected,
    wakers::Wakers,
};
use std::{
    collections::BTreeMap,
    task::{Context, Waker},
    time::Duration,
};
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
}

/// Departures for which the policy [had room](Policy::has_room_for) beforehand, and of which it is told later, before
/// anything else is asked or said, as if all had left with the last of them. A call then does with one line of the
/// state, as long as nothing happens.
#[derive(Default)]
struct Early {
    room: u8,
    untold: u8,
    /// What holds for all of them, as in [`Leave::quiet`].
    quiet: bool,
    /// The policy has room until then.
    until: Option<Instant>,
}

/// For so many calls, in so much time.
const ROOM: (u8, Duration) = (32, Duration::from_millis(1));

/// All who wait.
#[derive(Default)]
struct Crowd {
    queue: BTreeMap<Place, Waiter>,
    /// The policy after everyone in the queue has left. Exists while the queue does.
    tail: Option<Mirrored>,
    /// Calls that are out of the queue and have not been told yet.
    settled: BTreeMap<Place, Settled>,
    /// Calls that left the queue for good since it was booked; their times stand idle until it is booked anew.
    abandoned: usize,
    max_wait: Option<Duration>,
    /// Service handles that wait in `poll_ready`.
    handles: Handles,
}

/// There may be many: what all have in common is in the crowd.
struct Waiter {
    cost: Cost,
    reason: WaitReason,
    /// This and the next are counted from when it came.
    booked: After,
    /// When its own time is over.
    deadline: After,
    /// What its timer is set to, from its first poll on.
    timer: Option<Instant>,
    waker: Option<Waker>,
}

impl Waiter {
    fn booked(&self, place: &Place) -> Departure {
        Departure::new(self.booked.since(place.arrived), self.reason)
    }

    /// It is not willing to leave later than that.
    fn latest(&self, place: &Place, max_wait: Option<Duration>) -> Option<Instant> {
        let deadline = self.deadline.known_since(place.arrived);
        Bounds { max_wait, deadline, ..Bounds::default() }.latest(place.arrived)
    }

    fn is_too_late(&self, place: &Place, max_wait: Option<Duration>, at: Instant) -> bool {
        self.latest(place, max_wait).is_some_and(|latest| at > latest)
    }
}

/// A call that was let go looks at once, as a rule. One that has not for so long may never do so, and no longer counts
/// as one in flight: a policy's bound on those would else keep all others from leaving for ever.
const PATIENCE: Duration = Duration::from_secs(1);

const NOT_SETTLED: &str = "a call that is not settled stands in the queue until it is cancelled";

impl State {
    pub(super) fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy: Mirrored::new(policy),
            epoch: 0,
            closed: None,
            next_ticket: 0,
            last_departure: None,
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
        let in_time = self.early.until.is_some_and(|until| now < until);
        if self.early.room > 0 && in_time && cost == Cost::one() {
            let at = self.last_departure.map_or(now, |last| last.max(now));
            self.early.untold += 1;
            self.early.room -= 1;
            return Some(self.left(at, cost, WaitReason::Normal, self.early.quiet));
        }
        self.ask_policy((arrived, cost), now)
    }

    #[inline(never)]
    fn ask_policy(&mut self, (arrived, cost): (Instant, Cost), now: Instant) -> Option<Leave> {
        self.tell();
        if self.is_full(now) || self.policy.departure(arrived, cost).at > now {
            return None;
        }
        let leave = self.depart(cost, WaitReason::Normal, now);
        self.make_room(now);
        Some(leave)
    }

    fn make_room(&mut self, now: Instant) {
        let (calls, time) = ROOM;
        if self.policy.has_room_for(calls.into(), now) {
            self.early.room = calls;
            self.early.until = Some(later(now, time));
            self.early.quiet = !self.policy.needs_success();
        }
    }

    /// Tells the policy of all departures that it has not heard of. Before anything else is asked of it or told.
    #[inline]
    fn tell(&mut self) {
        self.early.room = 0;
        if self.early.untold > 0 {
            self.tell_all();
        }
    }

    fn tell_all(&mut self) {
        let Some(at) = self.last_departure else { return };
        while self.early.untold > 0 {
            // First, for the policy may panic.
            self.early.untold -= 1;
            self.policy.depart(at, Cost::one());
        }
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
        let mut booked = self.estimate(place, cost, now);
        if self.crowd().abandoned > 0 && too_late(booked) {
            // Before it is refused: the times of calls that went away are free.
            self.rebook(now, wakers);
            booked = self.estimate(place, cost, now);
        }
        let crowded = bounds.max_waiting.is_some_and(|max| self.waiting() >= max);
        if too_late(booked) || crowded {
            self.release(now, None, wakers);
            return Booking::Settled(Err(Rejected::new(booked.at.saturating_duration_since(now))));
        }
        let last = self.book_last((place.arrived, cost), now);
        let crowd = self.crowd();
        if let Some(tail) = &mut crowd.tail {
            tail.depart(last.at, cost);
        }
        let after = |at| After::new(place.arrived, at);
        let waiter = Waiter {
            cost,
            reason: booked.reason,
            booked: after(booked.at),
            deadline: bounds.deadline.map_or(After::NEVER, after),
            timer: None,
            waker: None,
        };
        crowd.max_wait = bounds.max_wait;
        crowd.queue.insert(place, waiter);
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
            return self.wait_for_an_answer(place, now, cx, wakers);
        }
        let Crowd { queue, max_wait, .. } = self.crowd();
        let head = queue.first_key_value().map(|(place, head)| (head.booked(place).at, head.timer));
        let (Some(waiter), Some(head_at), Some((head_booked, head_timer))) =
            (queue.get_mut(&place), head_at, head)
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
        if waiter.is_too_late(&place, *max_wait, until) {
            // The policy has become slower since the call was booked; or nobody looked for a while, and the
            // bookings are old. Booked anew, it is refused if it has to be.
            wakers.discard(waiter.waker.take());
            self.rebook(now, wakers);
            return self.look(place, now, cx, wakers);
        }
        waiter.timer = Some(until);
        wakers.replace(&mut waiter.waker, cx.waker());
        Look::Wait { until }
    }

    /// For a waiting call, while as many are in flight as may be.
    fn wait_for_an_answer(
        &mut self,
        place: Place,
        now: Instant,
        cx: &Context<'_>,
        wakers: &mut Wakers,
    ) -> Look {
        let Crowd { queue, max_wait, .. } = self.crowd();
        let Some(waiter) = queue.get_mut(&place) else { unreachable!("{NOT_SETTLED}") };
        let latest = waiter.latest(&place, *max_wait);
        if latest.is_some_and(|latest| latest <= now) {
            wakers.discard(waiter.waker.take());
            queue.remove(&place);
            self.vacated(now, wakers);
            return Look::Settled(Err(Rejected::new(now.saturating_duration_since(place.arrived))));
        }
        // Those in flight may be calls that do not look, which shows in a while. It looks again after as long as it
        // has waited, which is a few times in all, or every ten seconds.
        let waited = now.saturating_duration_since(place.arrived);
        let patience = later(now, waited.clamp(PATIENCE, 10 * PATIENCE));
        let until = latest.map_or(patience, |latest| latest.min(patience));
        waiter.timer = Some(until);
        wakers.replace(&mut waiter.waker, cx.waker());
        Look::Wait { until }
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

    /// It is no longer in flight.
    fn ended(&mut self, quiet: bool) {
        self.in_flight = self.in_flight.wrapping_sub(1);
        self.heard -= usize::from(!quiet);
    }

    fn recall(&mut self, leave: Leave) {
        self.tell();
        self.ended(leave.quiet);
        self.policy.recall(leave.at, leave.cost);
        if let Some(crowd) = &mut self.crowd {
            // The queue was booked behind it.
            crowd.abandoned += usize::from(!crowd.queue.is_empty());
        }
    }

    /// The answer to a call came in.
    pub(super) fn answered(&mut self, answer: &mut Answer<'_>, leave: Leave, wakers: &mut Wakers) -> Moved {
        self.tell();
        self.ended(leave.quiet);
        answer.current = leave.epoch == self.epoch;
        let moved = match self.policy.answered(answer) {
            Some(closing) => self.close(closing, answer.current, answer.at, wakers),
            None => Moved::No,
        };
        self.release(answer.at, None, wakers);
        moved
    }

    /// A call in flight went away without an answer.
    pub(super) fn abandoned_in_flight(&mut self, leave: Leave, now: Instant, wakers: &mut Wakers) {
        self.tell();
        self.ended(leave.quiet);
        self.policy.abandoned(leave.at, leave.cost);
        self.release(now, None, wakers);
    }

    /// What a call took from the quotas in truth, after its answer.
    pub(super) fn settle(&mut self, leave: Leave, used: Cost, now: Instant, wakers: &mut Wakers) {
        if used != leave.cost {
            self.tell();
            self.policy.settle(leave.at, leave.cost, used);
            self.vacated(now, wakers);
            self.release(now, None, wakers);
        }
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
            // They set their timers anew, or learn that `max_wait` is too short for this.
            self.wake_handles(wakers);
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
        self.tell();
        self.policy.reset();
        self.epoch += 1;
        self.closed = None;
        self.wake_handles(wakers);
        self.rebook(now, wakers);
        self.release(now, None, wakers);
    }

    /// The policy says something else than before, by itself: the gate is closed for at least so long, or in a new epoch
    /// for just so long.
    #[cfg(feature = "redis")]
    pub(super) fn renew(&mut self, closing: Closing, new_epoch: bool, now: Instant, wakers: &mut Wakers) {
        if new_epoch {
            // It may have been opened.
            self.closed = None;
            self.wake_handles(wakers);
        }
        if new_epoch || !closing.wait.is_zero() {
            self.close(closing, new_epoch, now, wakers);
        }
        self.rebook(now, wakers);
        self.release(now, None, wakers);
    }

    /// Until when the gate is closed, if it is.
    #[inline]
    pub(super) fn closed_until(&mut self, now: Instant) -> Option<Closed> {
        if self.closed.is_some_and(|closed| closed.until <= now) {
            self.closed = None;
        }
        self.closed
    }

    /// A service handle waits in `poll_ready`.
    pub(super) fn watch(&mut self, key: &mut Option<u64>, waker: &Waker, wakers: &mut Wakers) {
        self.crowd().handles.watch(key, waker, wakers);
    }

    /// It waits no longer.
    pub(super) fn unwatch(&mut self, key: &mut Option<u64>, wakers: &mut Wakers) {
        if let Some(crowd) = &mut self.crowd {
            crowd.handles.unwatch(key, wakers);
            self.go_home();
        }
    }

    fn wake_handles(&mut self, wakers: &mut Wakers) {
        if let Some(crowd) = &mut self.crowd {
            crowd.handles.wake_all(wakers);
        }
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
        self.crowd
            .take_if(|crowd| crowd.queue.is_empty() && crowd.settled.is_empty() && crowd.handles.is_empty());
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
            self.heard >= max && self.heard - self.overdue(now) >= max
        })
    }

    /// Calls that were let go and have not looked.
    fn overdue(&self, now: Instant) -> usize {
        let overdue = |settled: &&Settled| {
            settled.is_ok_and(|leave| !leave.quiet && now.saturating_duration_since(leave.at) >= PATIENCE)
        };
        self.crowd.as_ref().map_or(0, |crowd| crowd.settled.values().filter(overdue).count())
    }

    #[inline]
    fn depart(&mut self, cost: Cost, reason: WaitReason, now: Instant) -> Leave {
        // Callers read the clock before they have the lock, so one of them may be a little behind.
        let at = self.last_departure.map_or(now, |last| last.max(now));
        self.policy.depart(at, cost);
        let quiet = !self.policy.needs_success() && self.policy.max_in_flight().is_none();
        self.left(at, cost, reason, quiet)
    }

    #[inline]
    fn left(&mut self, at: Instant, cost: Cost, reason: WaitReason, quiet: bool) -> Leave {
        self.last_departure = Some(at);
        self.in_flight += 1;
        self.heard += usize::from(!quiet);
        Leave { epoch: self.epoch, at, cost, reason, quiet }
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

    /// When a call in this place would leave. One that came before others that are booked, because it waited in
    /// `poll_ready`, takes the time of the next one, and they move back.
    fn estimate(&mut self, place: Place, cost: Cost, now: Instant) -> Departure {
        match self.crowd().queue.range(place..).next() {
            Some((place, next)) => next.booked(place),
            None => self.book_last((place.arrived, cost), now),
        }
    }

    /// When a call that comes after all others would leave.
    fn book_last(&mut self, call: (Instant, Cost), now: Instant) -> Departure {
        self.tell();
        let closed = self.closed_until(now);
        let crowd = self.crowd.get_or_insert_default();
        let tail = crowd.tail.get_or_insert_with(|| self.policy.clone());
        let last = crowd.queue.last_key_value().map(|(place, waiter)| waiter.booked(place));
        book_on(tail, call, closed, last, now)
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
        let Some(crowd) = &mut self.crowd else { return };
        let Crowd { queue, tail, settled, abandoned, max_wait, .. } = crowd.as_mut();
        *abandoned = 0;
        *tail = None;
        if queue.is_empty() {
            return;
        }
        let mut policy = self.policy.clone();
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
}

mod change;
#[cfg(test)]
mod tests;
