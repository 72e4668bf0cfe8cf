//! Departures that the policy is told of later, and successes.

use super::State;
use crate::{
    Cost, WaitReason,
    cooldown::{
        booking::Leave,
        untold::{Events, Lease},
    },
    policy::{Answer, Mirrored, later},
    signal::{Signal, Verdict},
};
use std::time::Duration;
use tokio::time::Instant;

/// For so many calls, in so much time.
pub(super) const ROOM: (u32, Duration) = (32, Duration::from_millis(1));

/// Departures for which the policy [had room](crate::policy::Policy::has_room_for) beforehand, and of which it is told
/// later, before anything else is asked or said, as if they had left together with the last of them; or, where it hears of
/// successes as well, evenly. A call then does with one line of the state, as long as nothing happens.
#[derive(Default)]
pub(super) struct Early {
    room: u32,
    /// Also what threads have done by their leases, until it is told.
    pub(super) untold: Events,
    /// What holds for all of them, as in [`Leave::quiet`].
    quiet: bool,
    /// The policy has room until then.
    until: Option<Instant>,
}

impl Early {
    /// One more call leaves, if there is room for it. Returns whether it is quiet.
    #[inline]
    pub(super) fn depart(&mut self, cost: Cost, now: Instant) -> Option<bool> {
        let in_time = self.until.is_some_and(|until| now < until);
        if self.room == 0 || !in_time || cost != Cost::one() {
            return None;
        }
        self.untold.departed(now);
        self.room -= 1;
        Some(self.quiet)
    }

    pub(super) fn make_room(&mut self, policy: &Mirrored, now: Instant) {
        let (calls, time) = ROOM;
        if policy.has_room_for(calls as usize, now) {
            self.room = calls;
            self.until = Some(later(now, time));
            self.quiet = !policy.needs_success();
        }
    }
}

impl State {
    /// Tells the policy of all that it has not heard of. Before anything else is asked of it or told.
    #[inline]
    pub(in crate::cooldown) fn tell(&mut self) {
        self.early.room = 0;
        if !self.early.untold.is_empty() {
            self.tell_all();
        }
    }

    /// A call leaves, and the thread gets a lease, if nothing is to be heard of these calls at once and the policy has
    /// room for them beside those `others`. All that was done by leases [has been told](Self::has_happened).
    pub(in crate::cooldown) fn lease(
        &mut self,
        cost: Cost,
        others: usize,
        now: Instant,
    ) -> Option<(Leave, Lease)> {
        let is_open = self.closed_until(now).is_none() && self.waiting() == 0;
        if !is_open || cost != Cost::one() || !self.policy.hears_later() {
            return None;
        }
        self.tell();
        let now = self.not_before_the_last(now);
        let (calls, time) = ROOM;
        if !self.policy.has_room_for(others + 1 + calls as usize, now) {
            return None;
        }
        let leave = self.depart(cost, WaitReason::Normal, now);
        let leave = Leave { late: !leave.quiet, ..leave };
        Some((leave, Lease::new(calls, later(now, time), self.epoch, leave.quiet)))
    }

    /// What a thread did by its lease. The policy is to be [told](Self::tell).
    pub(in crate::cooldown) fn has_happened(&mut self, events: Events, quiet: bool) {
        let departures = events.departures as usize;
        self.in_flight += departures;
        self.heard += if quiet { 0 } else { departures };
        self.last_departure = self.last_departure.max(events.last);
        self.early.untold.add(events);
    }

    fn tell_all(&mut self) {
        if self.early.untold.accepted > 0 {
            return self.tell_in_turn();
        }
        let at = self.early.untold.last.max(self.last_told);
        while let (Some(at), 1..) = (at, self.early.untold.departures) {
            // First, for the policy may panic.
            self.early.untold.departures -= 1;
            self.policy.depart(at, Cost::one());
        }
        self.early.untold = Events::default();
        self.last_told = at;
    }

    /// So that there seem to be no more in flight than there are.
    #[inline(never)]
    fn tell_in_turn(&mut self) {
        const SUCCESS: Signal = Signal::new(Verdict::Accepted);
        let (apart, took) = self.early.untold.spread();
        while !self.early.untold.is_empty() {
            if let Some(at) = self.early.untold.next_departure(apart) {
                let at = self.last_told.map_or(at, |last| last.max(at));
                self.last_told = Some(at);
                self.policy.depart(at, Cost::one());
            }
            if let Some((departed, at)) = self.early.untold.next_accepted(took) {
                self.ended(false);
                let closing = self.policy.answered(&Answer::new(&SUCCESS, departed, at));
                debug_assert_eq!(closing, None, "a success closes nothing");
            }
        }
    }
}
