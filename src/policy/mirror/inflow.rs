//! What comes back to a counter: measured.

use std::time::Duration;
use tokio::time::Instant;

/// What the server adds to a counter, less what others take, per second.
///
/// Whatever the shape: what is left now, less what was left before, plus what was taken in between, over that time. A
/// token bucket gives its refill rate, a window nothing until its end, a sliding window what expires.
#[derive(Clone, Debug)]
pub(super) struct Inflow {
    /// The last ones, the newest first.
    samples: [f64; 3],
    len: usize,
    /// The measurement that runs: since when, what was left then, what was taken since.
    from: Instant,
    left: f64,
    taken: f64,
    calls: u32,
    /// The last reset that was told, in seconds, and the rate at which the missing rest would be there by then.
    reset: f64,
    told: f64,
    /// Twice the same rate: the reset is the time until a bucket is full.
    is_bucket: bool,
}

/// A measurement takes so many calls, or so many seconds.
const CALLS: u32 = 8;
const LONGEST: f64 = 30.0;
const SHORTEST: f64 = 0.5;

impl Inflow {
    pub(super) const fn new(from: Instant, left: f64) -> Self {
        Self {
            samples: [0.0; 3],
            len: 0,
            from,
            left,
            taken: 0.0,
            calls: 0,
            reset: 0.0,
            told: 0.0,
            is_bucket: false,
        }
    }

    /// What can be relied on: the least of the last measurements, because in a sliding window it is as uneven as its
    /// use was a window before. Zero while there are too few.
    pub(super) fn least(&self) -> f64 {
        match self.len {
            0 | 1 => 0.0,
            3 if self.is_bucket => self.median().max(0.0),
            len => self.samples[..len].iter().copied().fold(f64::INFINITY, f64::min).max(0.0),
        }
    }

    /// What is likely. Below zero where others take more than there comes.
    pub(super) fn likely(&self) -> f64 {
        if self.len == 3 { self.median() } else { self.least() }
    }

    fn median(&self) -> f64 {
        let [a, b, c] = self.samples;
        a.min(b).max(a.max(b).min(c))
    }

    /// A call took this.
    pub(super) fn take(&mut self, amount: f64) {
        self.taken += amount;
        self.calls = self.calls.saturating_add(1);
    }

    /// What a call took was so much more than was thought.
    pub(super) fn settle(&mut self, more: f64) {
        self.taken += more;
    }

    /// So much was left, at that time. At least `least` seconds make a measurement. If the counter is full, something
    /// may have been lost: then it is no less than that.
    pub(super) fn measure(&mut self, at: Instant, left: f64, least: f64, is_full: bool) {
        let span = at.saturating_duration_since(self.from).as_secs_f64();
        if span <= least.max(SHORTEST) || self.calls < CALLS && span <= LONGEST {
            return;
        }
        let rate = (left - self.left + self.taken) / span;
        if !is_full || rate > self.least() {
            self.sample(rate);
        }
        self.restart(at, left);
    }

    /// So much is missing, and the next reset comes in that time. In a token bucket one goes with the other, which
    /// tells the rate before it can be measured.
    pub(super) fn told(&mut self, missing: f64, reset: Duration) {
        let reset = reset.as_secs_f64();
        if missing < 4.0 || reset <= 0.0 || (reset / self.reset - 1.0).abs() <= 0.25 {
            return;
        }
        let rate = missing / reset;
        self.is_bucket = (rate / self.told - 1.0).abs() < 0.1;
        if self.is_bucket && self.len < self.samples.len() {
            self.sample(rate);
        }
        (self.reset, self.told) = (reset, rate);
    }

    /// Measures from here on.
    pub(super) const fn restart(&mut self, from: Instant, left: f64) {
        (self.from, self.left, self.taken, self.calls) = (from, left, 0.0, 0);
    }

    /// The counter jumped: what was measured before is of another time.
    pub(super) const fn forget(&mut self, from: Instant, left: f64) {
        self.len = 0;
        self.restart(from, left);
    }

    fn sample(&mut self, rate: f64) {
        self.samples.rotate_right(1);
        self.samples[0] = rate;
        self.len = (self.len + 1).min(self.samples.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(readings: impl IntoIterator<Item = (f64, f64)>) -> Inflow {
        let start = Instant::now();
        let mut inflow = Inflow::new(start, 0.0);
        for (at, left) in readings {
            inflow.take(1.0);
            inflow.measure(start + Duration::from_secs_f64(at), left, 0.0, false);
        }
        inflow
    }

    #[test]
    fn what_is_left_and_what_was_taken_tell_what_came() {
        // Two a second come, one a second is taken.
        let inflow = measured((1..=30).map(|second| (f64::from(second), f64::from(second))));
        assert!((1.9..2.1).contains(&inflow.least()), "{inflow:?}");
        // In a window nothing comes.
        let inflow = measured((1..=30).map(|second| (f64::from(second), -f64::from(second))));
        assert_eq!(inflow.least(), 0.0);
    }

    #[test]
    fn what_calls_took_in_truth_came_in_as_well() {
        let start = Instant::now();
        let mut inflow = Inflow::new(start, 100.0);
        for n in 1..=16_u8 {
            inflow.take(1.0);
            inflow.settle(9.0);
            inflow.measure(start + Duration::from_secs(n.into()), 100.0, 0.0, false);
        }
        assert!((inflow.least() - 10.0).abs() < 1e-9, "{inflow:?}");
    }

    #[test]
    fn while_the_counter_is_full_only_more_than_was_thought_counts() {
        let start = Instant::now();
        let mut inflow = Inflow::new(start, 0.0);
        // Ten seconds each: the counter before and after, and what is thought to come in a second.
        for (n, (gain, is_full, least)) in
            [(10.0, false, 0.0), (10.0, false, 1.0), (5.0, true, 1.0), (20.0, true, 1.0), (20.0, true, 1.0)]
                .into_iter()
                .enumerate()
        {
            let left = inflow.left + gain;
            inflow.calls = CALLS;
            inflow.measure(start + Duration::from_secs(10 * (n as u64 + 1)), left, 0.0, is_full);
            assert_eq!(inflow.least(), least, "{n}");
        }
        assert_eq!(inflow.likely(), 2.0, "{inflow:?}");
    }

    #[test]
    fn too_few_measurements_say_nothing() {
        assert_eq!(measured((1..=9).map(|second| (f64::from(second), 0.0))).likely(), 0.0);
    }

    #[test]
    fn one_measurement_that_is_far_off_does_not_count() {
        let jump = |second: f64| if second > 9.0 { 1000.0 } else { 0.0 };
        let inflow = measured((1..=30).map(|second| (f64::from(second), jump(f64::from(second)))));
        assert!((0.9..1.1).contains(&inflow.likely()), "{inflow:?}");
    }

    #[test]
    fn in_a_bucket_what_is_missing_goes_with_the_reset() {
        let mut inflow = Inflow::new(Instant::now(), 0.0);
        for missing in [5.0, 8.0, 20.0, 50.0] {
            inflow.told(missing, Duration::from_secs_f64(missing / 10.0));
        }
        assert!((9.9..10.1).contains(&inflow.least()), "{inflow:?}");
        // Four missing are enough.
        let mut inflow = Inflow::new(Instant::now(), 0.0);
        for missing in [4.0, 8.0, 16.0] {
            inflow.told(missing, Duration::from_secs_f64(missing / 10.0));
        }
        assert_eq!((inflow.len, inflow.is_bucket), (2, true), "{inflow:?}");
        // In a window it does not.
        let mut inflow = Inflow::new(Instant::now(), 0.0);
        for used in 5..60 {
            inflow.told(f64::from(used), Duration::from_secs(60 - used as u64));
        }
        assert_eq!(inflow.least(), 0.0, "{inflow:?}");
    }
}
