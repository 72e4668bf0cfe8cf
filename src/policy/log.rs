use super::later;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// A sliding log: what was taken becomes free one window later.
///
/// Its memory is bounded: for large quotas one stamp stands for several calls in a row, with the time of the last
/// of them, which errs on the safe side by at most one stamp.
#[derive(Clone, Debug)]
pub(super) struct Log {
    window: Duration,
    limit: u64,
    /// How much one stamp stands for at most, unless a single call is more.
    grain: u64,
    /// The sum of all stamps, some of which may be older than the window.
    used: u64,
    stamps: VecDeque<Stamp>,
}

#[derive(Clone, Copy, Debug)]
struct Stamp {
    at: Instant,
    amount: u64,
}

impl Log {
    /// Calls that take more than a grain have stamps of their own, so there can be up to twice as many.
    const GRAINS: u64 = 1024;

    pub(super) fn new(limit: u64, window: Duration) -> Self {
        let grain = limit.div_ceil(Self::GRAINS);
        let stamps = VecDeque::with_capacity(limit.min(Self::GRAINS) as usize + 1);
        Self { window, limit, grain, used: 0, stamps }
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// With the limit and window of `new`, and what was taken here. What was free here already stays free.
    pub(super) fn resized(self, new: &Self) -> Self {
        Self { window: new.window, limit: new.limit, grain: new.grain, ..self }
    }

    pub(super) fn rate(&self) -> f64 {
        self.limit as f64 / self.window.as_secs_f64()
    }

    /// From when on `amount` can be taken. More than the limit can be taken when nothing else is.
    pub(super) fn free_at(&self, amount: u64) -> Option<Instant> {
        let mut over = self.used.saturating_add(amount.min(self.limit)).saturating_sub(self.limit);
        if over == 0 {
            return None;
        }
        let last = self.stamps.iter().find(|stamp| {
            over = over.saturating_sub(stamp.amount);
            over == 0
        });
        last.map(|stamp| later(stamp.at, self.window))
    }

    pub(super) fn depart(&mut self, at: Instant, amount: u64) {
        while let Some(oldest) =
            self.stamps.front().filter(|oldest| at.saturating_duration_since(oldest.at) >= self.window)
        {
            self.used -= oldest.amount;
            self.stamps.pop_front();
        }
        if amount == 0 {
            return;
        }
        self.used = self.used.saturating_add(amount);
        match self.stamps.back_mut() {
            Some(newest) if newest.amount.saturating_add(amount) <= self.grain => {
                *newest = Stamp { at, amount: newest.amount + amount };
            }
            _ => self.stamps.push_back(Stamp { at, amount }),
        }
    }

    /// Gives back `amount` of what was taken at `at`. Where a stamp stands for several calls, its time stays.
    pub(super) fn recall(&mut self, at: Instant, amount: u64) {
        let Some(index) = self.index_of(at) else { return };
        // Of several calls that left together any may have been this one.
        let (mut left, together) = (amount, self.stamps[index].at);
        while let Some(stamp) = self.stamps.get_mut(index).filter(|stamp| left > 0 && stamp.at == together) {
            let taken = left.min(stamp.amount);
            stamp.amount -= taken;
            self.used -= taken;
            left -= taken;
            if stamp.amount > 0 {
                break;
            }
            self.stamps.remove(index);
        }
    }

    /// What was taken at `at` was `used`, not `booked`.
    pub(super) fn settle(&mut self, at: Instant, booked: u64, used: u64) {
        if used <= booked {
            return self.recall(at, booked - used);
        }
        if let Some(index) = self.index_of(at) {
            let more = (used - booked).min(u64::MAX - self.used);
            self.stamps[index].amount += more;
            self.used += more;
        }
    }

    /// The stamp that stands for a call at `at`, unless it has been free for long.
    fn index_of(&self, at: Instant) -> Option<usize> {
        let newest = self.stamps.back()?;
        let index = self.stamps.partition_point(|stamp| stamp.at < at);
        (at <= newest.at && later(at, self.window) > newest.at).then_some(index)
    }

    #[cfg(test)]
    pub(super) fn stamps(&self) -> usize {
        self.stamps.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn its_rate_is_that_of_calls_which_are_always_there() {
        assert_eq!(Log::new(120, MINUTE).rate(), 2.0);
    }

    #[test]
    fn what_took_more_than_was_booked_is_free_with_its_call() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut log = Log::new(10, MINUTE);
        log.depart(start, 3);
        log.depart(start + second, 5);
        log.settle(start, 3, 5);
        assert_eq!(log.used, 10);
        assert_eq!(log.free_at(5), Some(start + MINUTE));
        assert_eq!(log.free_at(6), Some(start + second + MINUTE));
    }

    #[test]
    fn what_took_less_than_was_booked_gives_back_the_difference() {
        let start = Instant::now();
        let mut log = Log::new(10, MINUTE);
        log.depart(start, 10);
        log.settle(start, 10, 7);
        assert_eq!(log.free_at(3), None);
        assert_eq!(log.free_at(4), Some(start + MINUTE));
    }
}
