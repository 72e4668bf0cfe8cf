use super::{Answer, Closing, Departure, Policy, Quota, escalation::Escalation, later};
use crate::WaitReason;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Keeps to a declared [`Quota`].
///
/// Calls leave at once while the quota allows, and wait for the next free place otherwise. If the upstream
/// refuses all the same (others use the quota too, or it is smaller than declared), the gate closes for as
/// long as the server says; where it says nothing, for 1500, 3000, then 7000 ms as in
/// [`Ladder`](super::Ladder). The declared number is believed all the same: after the closing the calls leave
/// at the same rate as before.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{
///     AdaptiveCooldownLayer, InvalidSetting,
///     policy::{Known, Quota},
/// };
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let quota = Quota::new(15, Duration::from_secs(30))?;
/// let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota));
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Known {
    shape: Shape,
    escalation: Escalation,
}

#[derive(Clone, Debug)]
enum Shape {
    Window(Log),
    Bucket(Bucket),
}

impl Known {
    /// A policy for this quota, none of which is used yet.
    pub fn new(quota: Quota) -> Self {
        let shape = match quota.burst {
            Some(burst) => Shape::Bucket(Bucket::new(quota.limit, quota.window, burst)),
            None => {
                let margin = quota.margin.unwrap_or(quota.window / 100);
                Shape::Window(Log::new(quota.limit as usize, quota.window.saturating_add(margin)))
            }
        };
        Self { shape, escalation: Escalation::default() }
    }

    /// How long the gate closes after 0, 1, 2, and 3 or more 429s in a row, where the server does not say. 0
    /// stands for a 503. Default: 500, 1500, 3000, 7000 ms.
    #[must_use]
    pub fn steps(mut self, steps: [Duration; 4]) -> Self {
        self.escalation = Escalation::new(steps);
        self
    }
}

impl Policy for Known {
    fn departure(&self, arrived: Instant) -> Departure {
        let free = match &self.shape {
            Shape::Window(log) => log.free_at(),
            Shape::Bucket(bucket) => bucket.free_at(),
        };
        match free {
            Some(free) if free > arrived => Departure::new(free, WaitReason::Preflight),
            _ => Departure::now(arrived),
        }
    }

    fn depart(&mut self, at: Instant) {
        match &mut self.shape {
            Shape::Window(log) => log.depart(at),
            Shape::Bucket(bucket) => bucket.depart(at),
        }
    }

    fn recall(&mut self, at: Instant) {
        match &mut self.shape {
            Shape::Window(log) => log.recall(at),
            Shape::Bucket(bucket) => bucket.recall(at),
        }
    }

    fn answered(&mut self, answer: &Answer) -> Option<Closing> {
        self.escalation.answered(answer)
    }

    fn reset(&mut self) {
        self.escalation.reset();
    }
}

/// A sliding log of departures: a place becomes free one window after the call that took it.
///
/// Its memory is bounded: for large quotas one stamp stands for `share` calls in a row, with the time of the
/// last of them, which errs on the safe side by at most one stamp.
#[derive(Clone, Debug)]
struct Log {
    window: Duration,
    share: usize,
    stamps: VecDeque<Instant>,
    max_stamps: usize,
    /// Calls that the newest stamp stands for.
    newest: usize,
}

impl Log {
    const MAX_STAMPS: usize = 1024;

    fn new(limit: usize, window: Duration) -> Self {
        let share = limit.div_ceil(Self::MAX_STAMPS);
        let max_stamps = limit / share;
        Self { window, share, stamps: VecDeque::with_capacity(max_stamps), max_stamps, newest: share }
    }

    fn free_at(&self) -> Option<Instant> {
        if self.newest < self.share || self.stamps.len() < self.max_stamps {
            return None;
        }
        self.stamps.front().map(|oldest| later(*oldest, self.window))
    }

    fn depart(&mut self, at: Instant) {
        if self.newest < self.share {
            self.newest += 1;
            if let Some(newest) = self.stamps.back_mut() {
                *newest = at;
            }
            return;
        }
        if self.stamps.len() == self.max_stamps {
            self.stamps.pop_front();
        }
        self.stamps.push_back(at);
        self.newest = 1;
    }

    /// Where a stamp stands for several calls, one of them cannot be taken out: it counts all the same.
    fn recall(&mut self, at: Instant) {
        if let (1, Ok(index)) = (self.share, self.stamps.binary_search(&at)) {
            self.stamps.remove(index);
        }
    }
}

/// A token bucket as a [generic cell rate algorithm][gcra]: `full_at` is the time at which it is full again.
///
/// [gcra]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
#[derive(Clone, Debug)]
struct Bucket {
    interval: Duration,
    /// How far `full_at` may lie ahead for one more call to leave.
    tolerance: Duration,
    full_at: Option<Instant>,
    /// The last departure, and `full_at` before it.
    last: Option<(Instant, Option<Instant>)>,
}

impl Bucket {
    fn new(limit: u32, window: Duration, burst: u32) -> Self {
        let interval = (window / limit).max(Duration::from_nanos(1));
        Self { interval, tolerance: interval.saturating_mul(burst - 1), full_at: None, last: None }
    }

    fn free_at(&self) -> Option<Instant> {
        self.full_at?.checked_sub(self.tolerance)
    }

    fn depart(&mut self, at: Instant) {
        self.last = Some((at, self.full_at));
        let full_at = self.full_at.map_or(at, |full_at| full_at.max(at));
        self.full_at = Some(later(full_at, self.interval));
    }

    /// Only the last departure can be taken back; an earlier one counts all the same, because the bucket may
    /// have been full since.
    fn recall(&mut self, at: Instant) {
        if let Some((_, before)) = self.last.take_if(|(last, _)| *last == at) {
            self.full_at = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Signal, Verdict};

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Books `calls` one after another, all there from the start, and returns when each leaves.
    fn book(policy: &mut Known, start: Instant, calls: usize) -> Vec<Duration> {
        let mut last = start;
        (0..calls)
            .map(|_| {
                last = policy.departure(start).at.max(last);
                policy.depart(last);
                last - start
            })
            .collect()
    }

    #[test]
    fn fifteen_in_thirty_seconds() {
        let start = Instant::now();
        let quota = Quota::new(15, secs(30)).unwrap().margin(Duration::ZERO);
        let times = book(&mut Known::new(quota), start, 40);
        assert!(times[..15].iter().all(|t| *t == secs(0)));
        assert!(times[15..30].iter().all(|t| *t == secs(30)));
        assert!(times[30..].iter().all(|t| *t == secs(60)));
    }

    #[test]
    fn never_more_than_the_limit_in_any_window() {
        // Arrivals spread over the window, so that an aligned counter would let almost twice the limit pass.
        for limit in [1u32, 2, 7, 1023, 1024, 1025, 5000] {
            let window = secs(60);
            let start = Instant::now();
            let mut known = Known::new(Quota::new(limit, window).unwrap().margin(Duration::ZERO));
            let mut times: Vec<Instant> = Vec::new();
            for call in 0..limit * 3 {
                let arrived = start + Duration::from_millis(u64::from(call) * 7919 % 50_000);
                let at = known.departure(arrived).at.max(times.last().copied().unwrap_or(start));
                known.depart(at);
                times.push(at);
            }
            for (k, at) in times.iter().enumerate().skip(limit as usize) {
                assert!(*at >= times[k - limit as usize] + window, "limit {limit}, call {k}");
            }
        }
    }

    #[test]
    fn large_quotas_take_little_memory_and_lose_little() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(1_000_000, secs(1)).unwrap());
        let at_once = book(&mut known, start, 1_000_001).iter().filter(|t| t.is_zero()).count();
        assert!(at_once >= 998_000, "{at_once}");
        let five_thousand = &mut Known::new(Quota::new(5000, secs(1)).unwrap());
        let at_once = book(five_thousand, start, 5001).iter().filter(|t| t.is_zero()).count();
        assert_eq!(at_once, 5000, "nothing is lost where the stamps divide the limit");
        let Shape::Window(log) = &known.shape else { panic!("a window") };
        assert!(log.stamps.len() <= Log::MAX_STAMPS);
    }

    #[test]
    fn the_margin_is_a_hundredth_of_the_window() {
        let start = Instant::now();
        let times = book(&mut Known::new(Quota::new(1, secs(30)).unwrap()), start, 2);
        assert_eq!(times[1], Duration::from_millis(30_300));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(2, secs(1)).unwrap().burst(3).unwrap());
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(book(&mut known, start, 6), [ms(0), ms(0), ms(0), ms(500), ms(1000), ms(1500)]);
        // An hour later it is full again, and holds no more than its burst.
        let hour = start + secs(3600);
        assert_eq!(book(&mut known, hour, 4), [ms(0), ms(0), ms(0), ms(500)]);
    }

    #[test]
    fn a_burst_of_one_spaces_evenly() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(4, secs(1)).unwrap().burst(1).unwrap());
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(book(&mut known, start, 4), [ms(0), ms(250), ms(500), ms(750)]);
    }

    #[test]
    fn a_recalled_call_gives_its_place_back() {
        let start = Instant::now();
        for quota in [Quota::new(2, secs(30)).unwrap(), Quota::new(2, secs(30)).unwrap().burst(2).unwrap()] {
            let mut known = Known::new(quota);
            known.depart(start);
            known.depart(start);
            assert!(known.departure(start).at > start);
            known.recall(start);
            assert_eq!(known.departure(start), Departure::now(start));
        }
        // A large quota loses one call for it, and nothing else.
        let mut known = Known::new(Quota::new(5000, secs(30)).unwrap());
        known.depart(start);
        known.recall(start);
        assert_eq!(known.departure(start), Departure::now(start));
    }

    #[test]
    fn a_refusal_closes_all_the_same() {
        let now = Instant::now();
        let mut known = Known::new(Quota::new(15, secs(30)).unwrap());
        let refused = Answer::new(Signal::new(Verdict::Throttled), now, now);
        assert_eq!(known.answered(&refused), Some(Closing::adaptive(Duration::from_millis(1500))));
    }

    #[test]
    fn the_steps_are_a_setting() {
        let now = Instant::now();
        let mut known = Known::new(Quota::new(15, secs(30)).unwrap()).steps([1, 2, 3, 4].map(secs));
        let refused = Answer::new(Signal::new(Verdict::Throttled), now, now);
        assert_eq!(known.answered(&refused), Some(Closing::adaptive(secs(2))));
    }

    #[test]
    fn extreme_quotas_do_not_overflow() {
        let start = Instant::now();
        for quota in [
            Quota::new(u32::MAX, Duration::from_nanos(1)).unwrap(),
            Quota::new(u32::MAX, secs(1)).unwrap().burst(u32::MAX).unwrap(),
            Quota::new(1, secs(86_400)).unwrap().burst(u32::MAX).unwrap(),
            Quota::new(1, secs(86_400)).unwrap().margin(Duration::MAX),
        ] {
            book(&mut Known::new(quota), start, 10);
        }
    }
}
