//! Departures that the policy is told of later.

use super::State;
use crate::{
    Cost,
    policy::{Mirrored, later},
};
use std::time::Duration;
use tokio::time::Instant;

/// For so many calls, in so much time.
pub(super) const ROOM: (u32, Duration) = (32, Duration::from_millis(1));

/// Departures for which the policy [had room](crate::policy::Policy::has_room_for) beforehand, and of which it is told
/// later, before anything else is asked or said, as if all had left with the last of them; where it need not hear of
/// their success. A call then does with one line of the state, as long as nothing happens.
#[derive(Default)]
pub(super) struct Early {
    room: u32,
    pub(super) untold: u32,
    /// The policy has room until then.
    until: Option<Instant>,
}

impl Early {
    /// One more call leaves, if there is room for it.
    #[inline]
    pub(super) fn depart(&mut self, cost: Cost, now: Instant) -> bool {
        let in_time = self.until.is_some_and(|until| now < until);
        let leaves = self.room > 0 && in_time && cost == Cost::one();
        if leaves {
            self.untold += 1;
            self.room -= 1;
        }
        leaves
    }

    pub(super) fn make_room(&mut self, policy: &Mirrored, now: Instant) {
        let (calls, time) = ROOM;
        if !policy.needs_success() && policy.has_room_for(calls as usize, now) {
            self.room = calls;
            self.until = Some(later(now, time));
        }
    }
}

impl State {
    /// Tells the policy of all departures that it has not heard of. Before anything else is asked of it or told.
    #[inline]
    pub(super) fn tell(&mut self) {
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
}
