use super::Distribution;
use crate::lanes::Lane;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Steps per doubling: a bucket is at most an eighth of its value wide.
const STEPS: u64 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Times are counted in microseconds, up to 2^36 of them (19 hours); longer ones fall into the last bucket.
const MAX_BITS: u32 = 36;
pub(super) const BUCKETS: usize = ((MAX_BITS - STEP_BITS + 1) as u64 * STEPS) as usize;

/// A log-linear histogram of times: fixed memory, lock-free, 2 to 3 additions per time.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Histogram {
    pub(super) const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self, time: Duration) {
        self.record_in(Lane::SHARED, time);
    }

    /// The same where the histogram is one of a lane's.
    #[inline]
    pub(super) fn record_in(&self, lane: Lane, time: Duration) {
        let us = time.as_secs().saturating_mul(1_000_000).saturating_add(time.subsec_micros().into());
        let us = us.min((1 << MAX_BITS) - 1);
        lane.add(&self.buckets[bucket_of(us)], 1);
        lane.add(&self.sum_us, us);
        lane.max(&self.max_us, us);
    }

    /// Adds what is here to `total`.
    pub(super) fn add_to(&self, total: &mut Distribution) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        total.sum_us += self.sum_us.load(Relaxed);
        total.max_us = total.max_us.max(self.max_us.load(Relaxed));
    }
}

#[inline]
fn bucket_of(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let exponent = us.ilog2() - STEP_BITS;
    ((u64::from(exponent) + 1) * STEPS + (us >> exponent) - STEPS) as usize
}

/// The lowest value of a bucket, and its width.
pub(super) const fn bounds_of(index: usize) -> (u64, u64) {
    let index = index as u64;
    if index < STEPS {
        return (index, 1);
    }
    let exponent = index / STEPS - 1;
    ((STEPS + index % STEPS) << exponent, 1 << exponent)
}

#[cfg(test)]
mod tests {
    use super::{super::Times, *};

    #[test]
    fn buckets_follow_on_one_another() {
        let mut next = 0;
        for index in 0..BUCKETS {
            let (low, width) = bounds_of(index);
            assert_eq!(low, next, "bucket {index}");
            assert_eq!(bucket_of(low), index);
            assert_eq!(bucket_of(low + width - 1), index);
            next = low + width;
        }
        assert_eq!(next, 1 << MAX_BITS);
    }

    /// So that exporters put nothing into the wrong bucket.
    #[test]
    fn exported_bounds_are_bounds_of_buckets() {
        use crate::export::{INSTRUMENTS, Kind};
        for instrument in INSTRUMENTS.iter().filter(|instrument| instrument.unit == "s") {
            let Kind::Histogram(bounds) = instrument.kind else { continue };
            for bound in bounds {
                let us = (bound * 1e6).round() as u64;
                assert_eq!(bounds_of(bucket_of(us)).0, us, "{}: {bound}", instrument.name);
            }
        }
    }

    #[test]
    fn quantiles_are_right_to_a_sixteenth() {
        let histogram = Histogram::new();
        for ms in 1..=1000 {
            histogram.record(Duration::from_millis(ms));
        }
        let times = Distribution::of([&histogram]).times();
        assert_eq!(times.count, 1000);
        assert_eq!(times.mean(), Some(Duration::from_micros(500_500)));
        assert_eq!(times.max, Duration::from_secs(1));
        for (quantile, exact) in [(times.p50, 0.5), (times.p95, 0.95), (times.p99, 0.99)] {
            let error = (quantile.as_secs_f64() - exact).abs() / exact;
            assert!(error <= 1.0 / 16.0, "{quantile:?} for {exact}");
        }
    }

    #[test]
    fn nothing_and_too_much() {
        let histogram = Histogram::new();
        assert_eq!(Distribution::of([&histogram]).times(), Times::default());
        assert_eq!(Times::default().mean(), None);
        histogram.record(Duration::MAX);
        histogram.record(Duration::ZERO);
        assert_eq!(Distribution::of([&histogram]).times().count, 2);
    }

    #[test]
    fn distributions_add_up() {
        let (a, b) = (Histogram::new(), Histogram::new());
        a.record(Duration::from_millis(10));
        b.record(Duration::from_millis(30));
        let times = Distribution::of([&a, &b]).times();
        assert_eq!((times.count, times.mean()), (2, Some(Duration::from_millis(20))));
    }
}
