//! The departures that a process has from the ledger and has not used.

use super::process::Tokens;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    pub(super) at: Instant,
    /// How many departures the fleet had given out before.
    pub(super) seq: f64,
    /// The tokens that are booked for it, and those that the fleet had booked then, with these.
    pub(super) booked: Tokens,
    pub(super) end: Tokens,
}

/// The slots in the order of their times, and how many calls come without waiting for one.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    slots: VecDeque<Slot>,
    /// Departures in the present tenth of a second, and in the one before.
    since: Option<Instant>,
    now: u32,
    before: u32,
}

/// So long after its time a slot can be used.
pub(super) const VALID: Duration = Duration::from_millis(100);
/// What was heard by two ways is the same time within this.
const GRACE: Duration = Duration::from_millis(10);
/// Fewer calls than that in a tenth of a second are not worth a departure ahead: it would be void before the next call.
const STEADY: u32 = 3;

impl Lease {
    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
    }

    /// The next slot that a call which leaves at `at` can use.
    pub(super) fn next(&self, at: Instant) -> Option<Slot> {
        self.slots.iter().copied().find(|slot| slot.at + VALID > at)
    }

    pub(super) fn first(&self) -> Option<Slot> {
        self.slots.front().copied()
    }

    /// The first one, for a call beside others.
    pub(super) fn take(&mut self) -> Option<Slot> {
        self.slots.pop_front()
    }

    /// The first one that a call can use that leaves at `at`, or else the last one before.
    pub(super) fn take_for(&mut self, at: Instant) -> Option<Slot> {
        let index = self.slots.iter().position(|slot| slot.at + VALID > at);
        let index = index.or(self.slots.len().checked_sub(1))?;
        self.slots.remove(index)
    }

    /// Takes those away that are before `until`.
    pub(super) fn void(&mut self, until: Instant) {
        self.slots.retain(|slot| slot.at + GRACE >= until);
    }

    /// What its departures are booked for.
    pub(super) fn booked(&self) -> impl Iterator<Item = Tokens> {
        self.slots.iter().map(|slot| slot.booked)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Those whose time is not over.
    pub(super) fn valid(&self, now: Instant) -> usize {
        self.slots.iter().filter(|slot| slot.at + VALID > now).count()
    }

    /// Takes those away whose time is over. How many there were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.slots.len();
        self.slots.retain(|slot| slot.at + VALID > now);
        before - self.slots.len()
    }

    /// Takes away all but the first `keep`.
    pub(super) fn shorten(&mut self, keep: usize) -> usize {
        let surplus = self.slots.len().saturating_sub(keep);
        self.slots.truncate(keep);
        surplus
    }

    /// A call leaves.
    pub(super) fn count(&mut self, at: Instant) {
        match self.since {
            Some(since) if at < since + VALID => {}
            Some(since) => {
                self.before = if at < since + 2 * VALID { self.now } else { 0 };
                (self.since, self.now) = (Some(at), 0);
            }
            None => self.since = Some(at),
        }
        self.now += 1;
    }

    /// How many calls are to be expected in the next tenth of a second.
    pub(super) fn expected(&self, now: Instant) -> usize {
        let fresh = self.since.is_some_and(|since| now < since + 2 * VALID);
        let most = self.now.max(self.before);
        if fresh && most >= STEADY { most as usize } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_void_a_tenth_of_a_second_after_its_time() {
        let start = Instant::now();
        let mut lease = Lease::default();
        for slot in 0..3 {
            let (at, booked, end) = (start + slot * VALID, Tokens::default(), Tokens::default());
            lease.push(Slot { at, seq: f64::from(slot), booked, end });
        }
        assert_eq!(lease.next(start + VALID).map(|slot| slot.seq), Some(1.0));
        assert_eq!(lease.expire(start + VALID), 1);
        assert_eq!(lease.shorten(1), 1);
        assert_eq!(lease.take().map(|slot| slot.seq), Some(1.0));
        assert_eq!((lease.len(), lease.take()), (0, None));
    }

    #[test]
    fn calls_are_expected_where_they_came_steadily() {
        let start = Instant::now();
        let mut lease = Lease::default();
        assert_eq!(lease.expected(start), 0);
        (0..2).for_each(|_| lease.count(start));
        assert_eq!(lease.expected(start), 0, "two are not worth it");
        (0..8).for_each(|_| lease.count(start));
        assert_eq!(lease.expected(start), 10);
        lease.count(start + VALID);
        assert_eq!(lease.expected(start + VALID), 10, "as in the tenth before");
        assert_eq!(lease.expected(start + 3 * VALID), 0, "they stopped");
        lease.count(start + 9 * VALID);
        assert_eq!(lease.expected(start + 9 * VALID), 0);
    }
}
