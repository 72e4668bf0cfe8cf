//! What the state of a gate is told later, or only in sum, so that threads need not wait for one another.

use super::{booking::Leave, state::State};
use crate::{
    Cost, WaitReason,
    lanes::{Lane, Lanes},
};
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::time::Instant;

/// By thread. A gate by key has only what all share: there may be a million of them.
#[derive(Default)]
pub(super) struct Untold {
    answers: AtomicU64,
    threads: Option<Lanes<OfThread>>,
}

/// In one cache line.
#[derive(Default)]
pub(super) struct OfThread {
    lease: Mutex<Lease>,
    /// Answers of which the state hears nothing but their number.
    answers: AtomicU64,
}

/// A thread may let so many calls go by itself, of [one request](Cost::one) each. The policy
/// [has room](crate::policy::Policy::has_room_for) for them.
#[derive(Debug, Default)]
pub(super) struct Lease {
    left: u32,
    until: Option<Instant>,
    epoch: u64,
    /// Calls that have left of which the state has not heard, and when the last one did.
    departures: u32,
    last: Option<Instant>,
}

impl Lease {
    pub(super) const fn new(calls: u32, until: Instant, epoch: u64) -> Self {
        Self { left: calls, until: Some(until), epoch, departures: 0, last: None }
    }

    /// One more call leaves, if it may.
    #[inline]
    pub(super) fn depart(&mut self, cost: Cost, now: Instant) -> Option<Leave> {
        let in_time = self.until.is_some_and(|until| now < until);
        if self.left == 0 || !in_time || cost != Cost::one() {
            return None;
        }
        let at = self.last.map_or(now, |last| last.max(now));
        self.left -= 1;
        self.departures += 1;
        self.last = Some(at);
        Some(Leave { epoch: self.epoch, at, cost, reason: WaitReason::Normal, quiet: true })
    }

    fn renew(&mut self, lease: Self) {
        *self = Self { departures: self.departures, last: self.last, ..lease };
    }

    /// Tells the state who has left.
    fn tell(&mut self, state: &mut State) {
        if let Some(last) = self.last.take() {
            state.have_left(self.departures, last);
            self.departures = 0;
        }
    }
}

impl OfThread {
    #[inline]
    pub(super) fn depart(&self, cost: Cost, now: Instant) -> Option<Leave> {
        self.lease().depart(cost, now)
    }

    pub(super) fn renew(&self, lease: Lease) {
        self.lease().renew(lease);
    }

    /// Whoever has the state's lock may ask for this one, and not the other way round.
    #[inline]
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Untold {
    /// For a gate that threads share.
    pub(super) fn by_thread() -> Self {
        Self { threads: Some(Lanes::new(Default::default)), ..Self::default() }
    }

    #[inline]
    pub(super) fn of_this_thread(&self) -> Option<&OfThread> {
        self.threads.as_ref().map(|threads| threads.get(Lane::of_this_thread()))
    }

    #[inline]
    pub(super) fn add_answer(&self) {
        match &self.threads {
            Some(threads) => {
                let lane = Lane::of_this_thread();
                lane.add(&threads.get(lane).answers, 1);
            }
            None => Lane::SHARED.add(&self.answers, 1),
        }
    }

    pub(super) fn answers(&self) -> u64 {
        let threads = self.threads.iter().flat_map(Lanes::iter).map(|thread| &thread.answers);
        threads.chain([&self.answers]).map(|answers| answers.load(Relaxed)).sum()
    }

    /// Tells the state of all who have left by a lease. Returns how many still may.
    pub(super) fn tell(&self, state: &mut State, now: Instant) -> usize {
        let mut left = 0;
        for thread in self.threads.iter().flat_map(Lanes::iter) {
            let mut lease = thread.lease();
            lease.tell(state);
            if lease.until.is_none_or(|until| until <= now) {
                lease.left = 0;
            }
            left += lease.left as usize;
        }
        state.tell();
        left
    }

    /// The same, and nobody may any more.
    #[cold]
    pub(super) fn end_leases(&self, state: &mut State) {
        for thread in self.threads.iter().flat_map(Lanes::iter) {
            let mut lease = thread.lease();
            lease.tell(state);
            lease.left = 0;
        }
        state.leased = false;
        state.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lease_is_for_so_many_calls_in_so_much_time() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let mut lease = Lease::new(2, at(10), 7);
        let leave = lease.depart(Cost::one(), at(1)).unwrap();
        assert_eq!((leave.epoch, leave.at, leave.quiet), (7, at(1), true));
        assert_eq!(lease.depart(Cost::one().input(5), at(1)), None, "it is for calls of one request");
        assert_eq!(lease.depart(Cost::one(), at(10)), None, "it is over");
        assert_eq!(lease.depart(Cost::one(), at(0)).unwrap().at, at(1), "times do not go backwards");
        assert_eq!(lease.depart(Cost::one(), at(2)), None, "it is used up");
        lease.renew(Lease::new(1, at(20), 8));
        assert_eq!(lease.depart(Cost::one(), at(11)).unwrap().epoch, 8);
        assert_eq!((lease.departures, lease.last), (3, Some(at(11))));
    }

    #[test]
    fn what_each_call_writes_is_in_one_cache_line() {
        assert!(size_of::<OfThread>() <= 64);
    }
}
