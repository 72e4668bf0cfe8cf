//! What the state of a gate is told later, or only in sum, so that threads need not wait for one another.

use super::{booking::Leave, state::State};
use crate::{
    Cost, WaitReason,
    lanes::{Lane, Lanes},
    policy::Passed,
};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// By thread. A gate by key has only what all share: there may be a million of them.
#[derive(Default)]
pub(super) struct Untold {
    answers: AtomicU64,
    threads: Option<Lanes<OfThread>>,
}

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
    /// Of their success nothing need be heard. Else it may be heard later, while the lease is in force.
    quiet: bool,
    untold: Events,
}

/// Of which the policy has not heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    /// Calls that have left, and when the first and the last one did.
    pub(super) departures: u32,
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// Calls that were accepted, how long they took together, and when the last one was.
    pub(super) accepted: u32,
    pub(super) took: Duration,
    pub(super) at: Option<Instant>,
}

impl Events {
    #[inline]
    pub(super) fn departed(&mut self, at: Instant) {
        self.departures += 1;
        self.first.get_or_insert(at);
        self.last = Some(at);
    }

    #[inline]
    fn accepted(&mut self, departed: Instant, at: Instant) {
        self.accepted += 1;
        self.took += at.saturating_duration_since(departed);
        self.at = self.at.max(Some(at));
    }

    /// Those of another thread as well.
    pub(super) fn add(&mut self, other: Self) {
        self.departures += other.departures;
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.accepted += other.accepted;
        self.took += other.took;
        self.at = self.at.max(other.at);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.departures == 0 && self.accepted == 0
    }

    /// For the policy, which has heard of the departure `before`.
    pub(super) fn passed(self, before: Option<Instant>) -> Passed {
        let at = self.at.or(self.last).unwrap_or_else(Instant::now);
        let departed = at.checked_sub(self.took / self.accepted.max(1)).unwrap_or(at);
        let after = |time: Option<Instant>| time.max(before).unwrap_or(departed);
        Passed {
            first: after(self.first),
            last: after(self.last),
            departed,
            ..Passed::new(self.departures, self.accepted, at)
        }
    }
}

impl Lease {
    pub(super) fn new(calls: u32, until: Instant, epoch: u64, quiet: bool) -> Self {
        Self { left: calls, until: Some(until), epoch, quiet, untold: Events::default() }
    }

    /// One more call leaves, if it may.
    #[inline]
    pub(super) fn depart(&mut self, cost: Cost, now: Instant) -> Option<Leave> {
        let in_time = self.until.is_some_and(|until| now < until);
        if self.left == 0 || !in_time || cost != Cost::one() {
            return None;
        }
        self.left -= 1;
        self.untold.departed(now);
        let (quiet, late) = (self.quiet, !self.quiet);
        Some(Leave { epoch: self.epoch, at: now, cost, reason: WaitReason::Normal, quiet, late })
    }

    /// A call was accepted, of which the policy may hear later. Whether it will.
    #[inline]
    fn accepted(&mut self, leave: Leave, at: Instant) -> bool {
        let in_force = self.epoch == leave.epoch && self.until.is_some_and(|until| at < until);
        if in_force {
            self.untold.accepted(leave.at, at);
        }
        in_force
    }

    fn renew(&mut self, lease: Self) {
        *self = Self { untold: self.untold, ..lease };
    }

    fn end(&mut self) {
        (self.left, self.until) = (0, None);
    }

    /// Tells the state what has happened. Whether there was a success.
    fn tell(&mut self, state: &mut State) -> bool {
        let untold = std::mem::take(&mut self.untold);
        if !untold.is_empty() {
            state.has_happened(untold, self.quiet);
        }
        untold.accepted > 0
    }
}

impl OfThread {
    #[inline]
    pub(super) fn depart(&self, cost: Cost, now: Instant) -> Option<Leave> {
        self.lease().depart(cost, now)
    }

    /// Whether the state hears of it later.
    #[inline]
    fn accepted(&self, leave: Leave, at: Instant) -> bool {
        self.lease().accepted(leave, at)
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
    pub(super) fn of_this_thread(&self) -> Option<(Lane, &OfThread)> {
        let threads = self.threads.as_ref()?;
        let lane = Lane::of_this_thread();
        Some((lane, threads.get(lane)))
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

    /// A call was accepted of which the policy may hear later. Whether it will.
    #[inline]
    pub(super) fn accepted(&self, leave: Leave, at: Instant) -> bool {
        self.of_this_thread().is_some_and(|(_, thread)| thread.accepted(leave, at))
    }

    pub(super) fn answers(&self) -> u64 {
        let threads = self.threads.iter().flat_map(Lanes::iter).map(|thread| &thread.answers);
        threads.chain([&self.answers]).map(|answers| answers.load(Relaxed)).sum()
    }

    /// The thread gets this lease.
    pub(super) fn renew(&self, thread: Lane, lease: Lease, state: &mut State) {
        state.set_leased(state.leased() | 1 << thread.index());
        if let Some(threads) = &self.threads {
            threads.get(thread).lease().renew(lease);
        }
    }

    /// Tells the state of what has happened by leases. Returns how many calls may still leave by them.
    pub(super) fn tell(&self, state: &mut State, now: Instant) -> usize {
        self.visit(state, |lease| {
            if lease.until.is_none_or(|until| until <= now) {
                lease.end();
            }
            lease.left as usize
        })
    }

    /// The same, and no call may leave by one any more.
    #[cold]
    pub(super) fn end_leases(&self, state: &mut State) {
        self.visit(state, |lease| {
            lease.end();
            0
        });
    }

    fn visit(&self, state: &mut State, mut look: impl FnMut(&mut Lease) -> usize) -> usize {
        let Some(threads) = &self.threads else { return 0 };
        let (mut left, mut accepted) = (0, false);
        let leased = state.leased();
        let mut leased_still = leased;
        let leases = || {
            let is_leased = move |thread: &usize| leased & (1 << thread) != 0;
            (0..u64::BITS as usize).filter(is_leased).map(|thread| (thread, threads.at(thread).lease()))
        };
        for (thread, mut lease) in leases() {
            accepted |= lease.tell(state);
            left += look(&mut lease);
            if lease.until.is_none() {
                leased_still &= !(1 << thread);
            }
        }
        if accepted {
            // A call may leave by one lease and be answered by another, and all who were answered have left by now.
            leases().for_each(|(_, mut lease)| {
                let untold = &mut lease.untold;
                let later = Events { departures: 0, first: None, last: None, ..*untold };
                let earlier = Events { accepted: 0, took: Duration::ZERO, at: None, ..*untold };
                if !earlier.is_empty() {
                    state.has_happened(earlier, false);
                    *untold = later;
                }
            });
        }
        state.set_leased(leased_still);
        state.tell_of_leases();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Answer, Closing, Departure, Policy};
    use std::sync::Arc;

    #[test]
    fn a_lease_is_for_so_many_calls_in_so_much_time() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let mut lease = Lease::new(2, at(10), 7, true);
        let leave = lease.depart(Cost::one(), at(1)).unwrap();
        assert_eq!((leave.epoch, leave.at, leave.quiet), (7, at(1), true));
        assert_eq!(lease.depart(Cost::one().input(5), at(1)), None, "it is for calls of one request");
        assert_eq!(lease.depart(Cost::one(), at(10)), None, "it is over");
        assert_eq!(lease.depart(Cost::one(), at(2)).unwrap().at, at(2));
        assert_eq!(lease.depart(Cost::one(), at(2)), None, "it is used up");
        lease.renew(Lease::new(1, at(20), 8, true));
        assert_eq!(lease.depart(Cost::one(), at(11)).unwrap().epoch, 8);
        let untold = lease.untold;
        assert_eq!((untold.departures, untold.first, untold.last), (3, Some(at(1)), Some(at(11))));
    }

    #[test]
    fn a_success_is_told_later_while_the_lease_is_in_force() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let mut lease = Lease::new(2, at(10), 7, false);
        let leave = lease.depart(Cost::one(), at(1)).unwrap();
        assert_eq!((leave.quiet, leave.late), (false, true));
        assert!(lease.accepted(leave, at(9)));
        assert!(!lease.accepted(leave, at(10)), "it is over");
        lease.renew(Lease::new(2, at(20), 8, false));
        assert!(!lease.accepted(leave, at(11)), "the gate was closed since it left");
        assert!(lease.accepted(Leave { epoch: 8, ..leave }, at(11)));
        lease.end();
        assert!(!lease.accepted(Leave { epoch: 8, ..leave }, at(12)));
        assert_eq!((lease.untold.accepted, lease.untold.took), (2, Duration::from_micros(8 + 10)));
    }

    #[test]
    fn what_several_threads_did_is_one() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let mut events = Events::default();
        [0, 1, 8].into_iter().for_each(|micros| events.departed(at(micros)));
        let mut others = Events::default();
        [2, 9].into_iter().for_each(|micros| others.departed(at(micros)));
        others.accepted(at(2), at(4));
        others.accepted(at(9), at(10));
        events.add(others);
        events.accepted(at(0), at(9));
        let passed = events.passed(None);
        assert_eq!((passed.departures, passed.first, passed.last), (5, now, at(9)));
        assert_eq!(
            (passed.accepted, passed.departed, passed.at),
            (3, at(6), at(10)),
            "they took 12 us in all"
        );
        let passed = events.passed(Some(at(5)));
        assert_eq!((passed.first, passed.last), (at(5), at(9)), "times do not go backwards");
    }

    /// Remembers what it is told.
    #[derive(Clone, Debug, Default)]
    struct Spy(Arc<Mutex<Vec<Passed>>>);

    impl Policy for Spy {
        fn departure(&self, arrived: Instant, _: Cost) -> Departure {
            Departure::new(arrived, WaitReason::Normal)
        }

        fn depart(&mut self, _: Instant, _: Cost) {}

        fn hears_later(&self) -> bool {
            true
        }

        fn passed(&mut self, calls: &Passed) {
            self.0.lock().unwrap().push(*calls);
        }

        fn answered(&mut self, _: &Answer<'_>) -> Option<Closing> {
            None
        }

        fn reset(&mut self) {}
    }

    /// Leases of two threads, of two and of three calls, which are over at these times.
    fn two_leases(spy: &Spy, until: [Instant; 2]) -> (Untold, State) {
        let (untold, mut state) = (Untold::by_thread(), State::new(Box::new(spy.clone())));
        for (thread, until) in [1, 2].into_iter().zip(until) {
            state.set_leased(state.leased() | 1 << thread);
            of(&untold, thread).lease().renew(Lease::new(1 + thread as u32, until, 0, false));
        }
        (untold, state)
    }

    fn of(untold: &Untold, thread: usize) -> &OfThread {
        untold.threads.as_ref().unwrap().at(thread)
    }

    #[test]
    fn a_lease_that_is_over_takes_no_room() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let (untold, mut state) = two_leases(&Spy::default(), [at(10), at(20)]);
        assert_eq!((untold.tell(&mut state, at(9)), state.leased()), (5, 0b110));
        assert_eq!((untold.tell(&mut state, at(10)), state.leased()), (3, 0b100));
        assert_eq!((untold.tell(&mut state, at(20)), state.leased()), (0, 0));
    }

    /// While the second lease is looked at, a call leaves and is answered by the first one, which is looked at once more:
    /// for that it has left.
    #[test]
    fn each_departure_and_each_success_is_told_once() {
        let now = Instant::now();
        let at = |micros| now + Duration::from_micros(micros);
        let spy = Spy::default();
        let (untold, mut state) = two_leases(&spy, [at(100); 2]);
        let passes = |thread, [left, answered]: [u64; 2]| {
            let leave = of(&untold, thread).depart(Cost::one(), at(left)).unwrap();
            assert!(of(&untold, thread).accepted(leave, at(answered)));
        };
        passes(2, [1, 5]);
        let mut looked_at = 0;
        untold.visit(&mut state, |_| {
            looked_at += 1;
            if looked_at == 2 {
                passes(1, [6, 16]);
            }
            0
        });
        let told = Passed { first: at(1), last: at(6), departed: at(1), ..Passed::new(2, 1, at(5)) };
        assert_eq!(*spy.0.lock().unwrap(), [told]);
        let left_over = of(&untold, 1).lease().untold;
        let expected =
            Events { accepted: 1, took: Duration::from_micros(10), at: Some(at(16)), ..Events::default() };
        assert_eq!(left_over, expected);

        untold.tell(&mut state, at(20));
        let told = Passed { departed: at(6), ..Passed::new(0, 1, at(16)) };
        let spied = spy.0.lock().unwrap();
        assert_eq!((spied[1].departures, spied[1].accepted), (told.departures, told.accepted));
        assert_eq!((spied[1].departed, spied[1].at), (told.departed, told.at));
        assert_eq!((spied.len(), state.in_flight()), (2, 0));
    }

    #[test]
    fn what_each_call_writes_is_in_a_few_cache_lines() {
        assert!(size_of::<OfThread>() <= 192, "{}", size_of::<OfThread>());
    }
}
