//! The server's own counters, counted down here: the mirror.

use super::{Answer, Closing, Departure, Policy};
use crate::Cost;
use tokio::time::Instant;

/// A policy, and beside it the counters that the server tells. A call leaves at the later of the two times.
#[derive(Debug)]
pub(crate) struct Mirrored {
    policy: Box<dyn Policy>,
    mirror: Mirror,
}

impl Mirrored {
    pub(crate) fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy, mirror: Mirror::default() }
    }

    pub(crate) fn policy(&self) -> &dyn Policy {
        self.policy.as_ref()
    }

    #[inline]
    pub(crate) fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        let told = self.mirror.departure(arrived, cost);
        match told {
            Some(told) if self.policy.trusts_readings() => told,
            Some(told) => {
                let own = self.policy.departure(arrived, cost);
                if told.at > own.at { told } else { own }
            }
            None => self.policy.departure(arrived, cost),
        }
    }

    #[inline]
    pub(crate) fn depart(&mut self, at: Instant, cost: Cost) {
        self.policy.depart(at, cost);
        self.mirror.depart(at, cost);
    }

    pub(crate) fn recall(&mut self, at: Instant, cost: Cost) {
        self.policy.recall(at, cost);
        self.mirror.recall(at, cost);
    }

    pub(crate) fn abandoned(&mut self, departed: Instant) {
        self.policy.abandoned(departed);
        self.mirror.abandoned(departed);
    }

    pub(crate) fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        self.policy.settle(departed, booked, used);
        self.mirror.settle(departed, booked, used);
    }

    pub(crate) fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.mirror.answered(answer);
        self.policy.answered(answer)
    }

    /// Where the server's counters are known, each call is weighed.
    pub(crate) fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        !self.mirror.needs_success()
            && self.policy.max_in_flight().is_none()
            && self.policy.has_room_for(calls, now)
    }

    #[inline]
    pub(crate) fn needs_success(&self) -> bool {
        self.mirror.needs_success() || self.policy.needs_success()
    }

    #[inline]
    pub(crate) fn max_in_flight(&self) -> Option<usize> {
        self.policy.max_in_flight()
    }

    pub(crate) fn reset(&mut self) {
        self.policy.reset();
        self.mirror.reset();
    }
}

impl Clone for Mirrored {
    fn clone(&self) -> Self {
        Self { policy: self.policy.boxed_clone(), mirror: self.mirror.clone() }
    }
}

#[derive(Clone, Debug, Default)]
struct Mirror {}

impl Mirror {
    /// When a call of that cost may leave as far as the server's counters are concerned. `None` where they are not
    /// known.
    fn departure(&self, _arrived: Instant, _cost: Cost) -> Option<Departure> {
        None
    }

    fn depart(&mut self, _at: Instant, _cost: Cost) {}

    fn recall(&mut self, _at: Instant, _cost: Cost) {}

    fn abandoned(&mut self, _departed: Instant) {}

    fn settle(&mut self, _departed: Instant, _booked: Cost, _used: Cost) {}

    /// Whether it has to hear of accepted calls that tell of no counters.
    fn needs_success(&self) -> bool {
        false
    }

    fn answered(&mut self, _answer: &Answer<'_>) {}

    fn reset(&mut self) {}
}
