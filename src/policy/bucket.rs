use super::later;
use std::time::Duration;
use tokio::time::Instant;

/// A token bucket as a [generic cell rate algorithm][gcra]: `full_at` is the time at which it is full again.
///
/// [gcra]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u32,
    window: Duration,
    burst: u32,
    full_at: Option<Instant>,
    last: Option<Taken>,
}

/// The last departure.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    amount: u64,
    /// `full_at` before it.
    before: Option<Instant>,
}

impl Bucket {
    pub(super) const fn new(limit: u32, window: Duration, burst: u32) -> Self {
        Self { limit, window, burst, full_at: None, last: None }
    }

    /// How long it takes to refill by that much.
    fn refill(&self, amount: u64) -> Duration {
        let window = self.window.as_nanos();
        // Nearly always; dividing twice as many bits takes several times as long.
        if let Some(nanos) = u64::try_from(window).ok().and_then(|window| window.checked_mul(amount)) {
            return Duration::from_nanos(nanos / u64::from(self.limit));
        }
        let nanos = window.saturating_mul(amount.into()) / u128::from(self.limit);
        Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
    }

    pub(super) const fn burst(&self) -> u64 {
        self.burst as u64
    }

    /// With the size and rate of `new`, and as much missing as was missing here when the last call left. (Where that was
    /// taken back, the time until it is full stays.)
    pub(super) fn resized(self, new: Self) -> Self {
        let (Some(full_at), Some(last)) = (self.full_at, self.last) else {
            return Self { full_at: self.full_at, ..new };
        };
        let missing = full_at.saturating_duration_since(last.at).as_secs_f64() * self.rate();
        let refill = Duration::try_from_secs_f64(missing / new.rate()).unwrap_or(Duration::MAX);
        Self { full_at: Some(later(last.at, refill)), last: None, ..new }
    }

    pub(super) fn rate(&self) -> f64 {
        f64::from(self.limit) / self.window.as_secs_f64()
    }

    /// From when on `amount` can be taken. More than the burst can be taken when the bucket is full.
    pub(super) fn free_at(&self, amount: u64) -> Option<Instant> {
        let rest = u64::from(self.burst).saturating_sub(amount);
        self.full_at?.checked_sub(self.refill(rest))
    }

    pub(super) fn depart(&mut self, at: Instant, amount: u64) {
        self.last = Some(Taken { at, amount, before: self.full_at });
        let full_at = self.full_at.map_or(at, |full_at| full_at.max(at));
        self.full_at = Some(later(full_at, self.refill(amount)));
    }

    /// Only the last departure can be taken back; an earlier one counts all the same, because the bucket may
    /// have been full since.
    pub(super) fn recall(&mut self, at: Instant, amount: u64) {
        if let Some(taken) = self.last.take_if(|last| last.at == at && last.amount == amount) {
            self.full_at = taken.before;
        }
    }

    /// What was taken at `at` was `used`, not `booked`. It never makes the bucket fuller than if it had been full
    /// before the last departure.
    pub(super) fn settle(&mut self, at: Instant, booked: u64, used: u64) {
        let (Some(full_at), Some(mut last)) = (self.full_at, self.last) else { return };
        if last.at == at && last.amount == booked {
            last.amount = used;
        }
        self.last = Some(last);
        let fullest = later(last.at, self.refill(last.amount));
        let settled = |full_at: Instant| {
            if used > booked {
                later(full_at, self.refill(used - booked))
            } else {
                full_at.checked_sub(self.refill(booked - used)).unwrap_or(full_at)
            }
        };
        self.full_at = Some(settled(full_at).max(fullest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_into_64_bits_is_as_exact() {
        // 100 windows of 10⁹ seconds, in nanoseconds, are more.
        let bucket = Bucket::new(50, Duration::from_secs(1_000_000_000), 1);
        assert_eq!(bucket.refill(100), Duration::from_secs(2_000_000_000));
        assert_eq!(bucket.refill(1), Duration::from_secs(20_000_000));
    }
}
