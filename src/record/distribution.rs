use super::histogram::{BUCKETS, Histogram, bounds_of};
use std::{fmt, time::Duration};

/// One or more histograms at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_us: u64,
    pub(super) max_us: u64,
}

impl Distribution {
    pub(super) const EMPTY: Self = Self { buckets: [0; BUCKETS], sum_us: 0, max_us: 0 };

    pub(super) fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut total = Self::EMPTY;
        for histogram in histograms {
            histogram.add_to(&mut total);
        }
        total
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    pub(super) fn times(&self) -> Times {
        let count = self.count();
        Times {
            count,
            sum: self.sum(),
            p50: self.quantile(0.50, count),
            p95: self.quantile(0.95, count),
            p99: self.quantile(0.99, count),
            max: Duration::from_micros(self.max_us),
        }
    }

    /// The middle of the bucket that holds the quantile; never above the longest time seen.
    fn quantile(&self, q: f64, count: u64) -> Duration {
        let rank = (q * count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= rank {
                let (low, width) = bounds_of(index);
                return Duration::from_micros((low + width / 2).min(self.max_us));
            }
        }
        Duration::ZERO
    }

    /// How many times lie up to each of `bounds`, in seconds, and beyond. Exact where bounds are such of buckets, but for
    /// times that are exactly as long as a bound, which count above it.
    pub(crate) fn count_into(&self, bounds: &[f64], counts: &mut [u64]) {
        let mut bounds = bounds.iter().map(|bound| (bound * 1e6).round() as u64).peekable();
        let mut place = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            while bounds.next_if(|bound| bounds_of(index).0 >= *bound).is_some() {
                place += 1;
            }
            counts[place] += count;
        }
    }

    /// What is here and in `other`.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|index| self.buckets[index].wrapping_add(other.buckets[index])),
            sum_us: self.sum_us.wrapping_add(other.sum_us),
            max_us: self.max_us.max(other.max_us),
        }
    }

    /// What is here and was not in `earlier`. Of the longest time only its bucket is known.
    pub(super) fn minus(&self, earlier: &Self) -> Self {
        let buckets: [u64; BUCKETS] =
            std::array::from_fn(|index| self.buckets[index].saturating_sub(earlier.buckets[index]));
        let top = buckets.iter().rposition(|count| *count > 0).map_or(0, |index| {
            let (low, width) = bounds_of(index);
            low + width - 1
        });
        Self { buckets, sum_us: self.sum_us.saturating_sub(earlier.sum_us), max_us: top.min(self.max_us) }
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// A distribution of times. Quantiles are right to within a sixteenth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Times {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub sum: Duration,
    /// Half of them were no longer than this.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub p50: Duration,
    /// 95 % of them were no longer than this.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub p95: Duration,
    /// 99 % of them were no longer than this.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub p99: Duration,
    /// The longest, exactly.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub max: Duration,
}

impl Times {
    /// The mean, exactly (to the microsecond); `None` where there were none.
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.sum.as_nanos().checked_div(self.count.into())?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}
