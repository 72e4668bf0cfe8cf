//! What threads have done by themselves, with leases.

use super::{State, early::ROOM};
use crate::{
    Cost, WaitReason,
    cooldown::{
        booking::Leave,
        untold::{Events, Lease},
    },
    policy::later,
};
use tokio::time::Instant;

/// There from the first lease on.
#[derive(Default)]
pub(super) struct Leased {
    /// Threads with a lease, a bit for each.
    threads: u64,
    /// What the policy is not told of yet.
    untold: Events,
    /// The last departure before.
    before: Option<Instant>,
    /// Of successes nothing is told.
    quiet: bool,
}

impl State {
    /// Threads that have leases, a bit for each.
    #[inline]
    pub(in crate::cooldown) fn leased(&self) -> u64 {
        self.leased.as_ref().map_or(0, |leased| leased.threads)
    }

    pub(in crate::cooldown) fn set_leased(&mut self, threads: u64) {
        self.leased.get_or_insert_default().threads = threads;
    }

    /// A call leaves, and the thread gets a lease, if nothing is to be heard of these calls at once and the policy has
    /// room for them beside those `others`. It [has been told](Self::tell_of_leases) of all leases.
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

    /// What a thread did by its lease, of which the policy is [to be told](Self::tell_of_leases).
    pub(in crate::cooldown) fn has_happened(&mut self, events: Events, quiet: bool) {
        let departures = events.departures as usize;
        self.in_flight += departures;
        self.heard += if quiet { 0 } else { departures };
        let leased = self.leased.get_or_insert_default();
        if leased.untold.is_empty() {
            leased.before = self.last_departure;
        }
        leased.quiet = quiet;
        leased.untold.add(events);
        self.last_departure = self.last_departure.max(events.last);
    }

    pub(in crate::cooldown) fn tell_of_leases(&mut self) {
        let Some(leased) = &mut self.leased else { return };
        if !leased.quiet {
            return self.tell_together();
        }
        let untold = &mut leased.untold;
        let at = untold.last.max(leased.before);
        while let (Some(at), 1..) = (at, untold.departures) {
            // First, for the policy may panic.
            untold.departures -= 1;
            self.policy.depart(at, Cost::one());
        }
        *untold = Events::default();
    }

    fn tell_together(&mut self) {
        let Some(leased) = &mut self.leased else { return };
        if leased.untold.is_empty() {
            return;
        }
        // Taken out first, for the policy may panic.
        let passed = std::mem::take(&mut leased.untold).passed(leased.before);
        self.in_flight = self.in_flight.wrapping_sub(passed.accepted as usize);
        self.heard -= passed.accepted as usize;
        self.policy.passed(&passed);
    }
}
