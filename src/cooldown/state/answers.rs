//! What becomes of a call that has left.

use super::State;
use crate::{
    Cost,
    cooldown::booking::{Leave, Moved},
    policy::Answer,
    wakers::Wakers,
};
use tokio::time::Instant;

impl State {
    /// It is no longer in flight.
    pub(super) fn ended(&mut self, quiet: bool) {
        self.in_flight = self.in_flight.wrapping_sub(1);
        self.heard -= usize::from(!quiet);
    }

    pub(super) fn recall(&mut self, leave: Leave) {
        self.tell();
        self.ended(leave.quiet);
        self.policy.recall(leave.at, leave.cost);
        if let Some(crowd) = &mut self.crowd {
            // The queue was booked behind it.
            crowd.abandoned += usize::from(!crowd.queue.is_empty());
        }
    }

    /// The answer to a call came in.
    pub(in crate::cooldown) fn answered(
        &mut self,
        answer: &mut Answer<'_>,
        leave: Leave,
        wakers: &mut Wakers,
    ) -> Moved {
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
    pub(in crate::cooldown) fn abandoned_in_flight(
        &mut self,
        leave: Leave,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        self.tell();
        self.ended(leave.quiet);
        self.policy.abandoned(leave.at, leave.cost);
        self.release(now, None, wakers);
    }

    /// What a call took from the quotas in truth, after its answer.
    pub(in crate::cooldown) fn settle(
        &mut self,
        leave: Leave,
        used: Cost,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        if used != leave.cost {
            self.tell();
            self.policy.settle(leave.at, leave.cost, used);
            self.vacated(now, wakers);
            self.release(now, None, wakers);
        }
    }
}
