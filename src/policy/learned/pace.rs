use super::{later, secs, since};
use crate::policy::Passed;
use std::time::Duration;
use tokio::time::Instant;

/// When calls leave: evenly, at a rate that may change at any time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The time slot of the last departure; the call may have left a little later.
    slot: Option<Instant>,
    /// How many calls it counted for.
    weight: u32,
    /// No departure before that.
    open_at: Option<Instant>,
    /// How many calls may leave at once after nothing left for a while.
    burst: u32,
    last: Option<(Instant, Option<Instant>, u32)>,
}

/// Timers fire up to a few milliseconds late; the next departure is not put off for that.
const SLACK: Duration = Duration::from_millis(4);

impl Pace {
    pub(super) const fn new(burst: u32) -> Self {
        Self { slot: None, weight: 0, open_at: None, burst, last: None }
    }

    /// When the next call may leave at this rate.
    pub(super) fn next(&self, rate: f64) -> Option<Instant> {
        self.slot.map(|slot| later(slot, self.interval(rate))).max(self.open_at)
    }

    /// Whether so many calls may leave now or later, if nobody waits until they do. A few milliseconds of them at most.
    pub(super) fn has_room_for(&self, calls: usize, rate: f64, now: Instant) -> bool {
        let turns = secs(calls as f64 / rate);
        turns <= SLACK && self.next(rate).is_none_or(|next| later(next, turns) <= now)
    }

    fn interval(&self, rate: f64) -> Duration {
        secs(f64::from(self.weight) / rate)
    }

    /// A call leaves. Returns how many seconds later it does so than it might have, or `None` if it had waited for
    /// its turn.
    pub(super) fn depart(&mut self, at: Instant, weight: u32, rate: f64) -> Option<f64> {
        let next = self.next(rate);
        let earliest = at.checked_sub(self.stored(rate)).unwrap_or(at);
        self.last = Some((at, self.slot, self.weight));
        self.slot = Some(next.map_or(earliest, |next| next.max(earliest)).min(at));
        self.weight = weight;
        match next {
            Some(next) if next >= earliest => None,
            next => Some(next.map_or(0.0, |next| since(earliest, next))),
        }
    }

    /// Calls leave that have [room](Self::has_room_for), evenly spread: how many seconds later than they might have, and
    /// whether the last one had waited for its turn. As [`depart`](Self::depart) for each.
    pub(super) fn pass(&mut self, calls: &Passed, rate: f64) -> (f64, bool) {
        let stored = self.stored(rate);
        let earliest = |at: Instant| at.checked_sub(stored).unwrap_or(at);
        let (first, last) = (earliest(calls.first), earliest(calls.last));
        let turns = secs(f64::from(calls.departures - 1) / rate);
        // What has no slot yet begins with all that can be in store.
        let free = later(self.next(rate).unwrap_or(first), turns);
        let slot = free.max(last).max(later(first, turns));
        self.slot = Some(slot.min(calls.last));
        self.weight = 1;
        self.last = None;
        (since(slot, free), slot > last || free >= last)
    }

    /// How much may be in store: slots that were not used.
    fn stored(&self, rate: f64) -> Duration {
        match self.burst {
            0 | 1 => SLACK,
            burst => secs(f64::from(burst - 1) / rate).max(SLACK),
        }
    }

    /// The last call was not sent after all.
    pub(super) fn recall(&mut self, at: Instant) {
        if let Some((_, slot, weight)) = self.last.take_if(|last| last.0 == at) {
            (self.slot, self.weight) = (slot, weight);
        }
    }

    /// No departure before `open_at`, and the first one then. What was in store is gone.
    pub(super) fn close(&mut self, open_at: Instant) {
        if self.open_at.is_none_or(|earlier| earlier < open_at) {
            self.open_at = Some(open_at);
            (self.slot, self.weight) = (Some(open_at), 0);
        }
    }

    /// How many seconds longer it is closed when it closes until `open_at`.
    pub(super) fn until(&self, open_at: Instant, now: Instant) -> f64 {
        since(open_at, self.open_at.map_or(now, |earlier| earlier.max(now)))
    }

    /// The same, with the gate open.
    pub(super) const fn reopened(self) -> Self {
        Self { open_at: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_longer_it_is_closed() {
        let (mut pace, now) = (Pace::new(1), Instant::now());
        let at = |seconds| later(now, secs(seconds));
        assert_eq!(pace.until(at(5.0), now), 5.0);
        pace.close(at(3.0));
        assert_eq!(pace.until(at(5.0), now), 2.0);
        assert_eq!(pace.until(at(2.0), now), 0.0);
        assert_eq!(pace.until(at(5.0), at(4.0)), 1.0);
    }
}
