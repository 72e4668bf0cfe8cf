//! Distributions for those who take single values only.

use super::{Kind, Point, Sources, Value};
use std::{collections::HashMap, mem};

/// What the distributions were at when they were handed on last.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    last: HashMap<Series, Last>,
    /// Those that were seen in this round.
    now: HashMap<Series, Last>,
}

/// A metric and the values of its labels.
type Series = (&'static str, Vec<Box<str>>);

#[derive(Debug, Default)]
struct Last {
    counts: Vec<u64>,
    sum: f64,
}

impl Deltas {
    /// A round begins. What was not seen in the last one is forgotten.
    pub(super) fn next_round(&mut self) {
        self.last = mem::take(&mut self.now);
    }

    /// What is there already is not handed on: it may be millions of values.
    pub(super) fn since(sources: &Sources) -> Self {
        let mut deltas = Self::default();
        sources.visit(|point| deltas.take(point, |_, _| {}));
        deltas
    }

    /// Values that lie in the buckets in which values have come since, and have the same sum: `record` gets each with how
    /// often it occurs.
    pub(super) fn take(&mut self, point: &Point<'_>, mut record: impl FnMut(f64, u64)) {
        let (Value::Buckets(buckets), Kind::Histogram(bounds)) = (point.value, point.instrument.kind) else {
            return;
        };
        let series = (point.instrument.name, point.labels.iter().map(|(_, value)| (*value).into()).collect());
        let mut last = self.last.remove(&series).unwrap_or_default();
        last.counts.resize(buckets.counts.len(), 0);
        if last.counts.iter().zip(buckets.counts).any(|(last, now)| last > now) {
            // Another book.
            last = Last { counts: vec![0; buckets.counts.len()], sum: 0.0 };
        }
        let new: Vec<u64> = last.counts.iter().zip(buckets.counts).map(|(last, now)| now - last).collect();
        let spread = Spread::new(bounds, &new, buckets.sum - last.sum);
        for (index, count) in new.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            record(spread.value(index), count);
        }
        self.now.insert(series, Last { counts: buckets.counts.to_vec(), sum: buckets.sum });
    }
}

/// Where in their buckets the values lie: all at the same share of the width, so that their sum is right.
struct Spread<'a> {
    bounds: &'a [f64],
    share: f64,
}

impl<'a> Spread<'a> {
    fn new(bounds: &'a [f64], counts: &[u64], sum: f64) -> Self {
        let (mut lowest, mut width) = (0.0, 0.0);
        for (index, count) in counts.iter().enumerate() {
            let (low, high) = edges(bounds, index);
            lowest += low * *count as f64;
            width += (high - low) * *count as f64;
        }
        // Not on an edge, where it would count in the bucket below. Beyond the last bound anything may be.
        let beyond = counts.last().is_some_and(|count| *count > 0);
        let share = if width > 0.0 { (sum - lowest) / width } else { 0.5 };
        Self { bounds, share: share.clamp(0.001, if beyond { 1e6 } else { 0.999 }) }
    }

    fn value(&self, index: usize) -> f64 {
        let (low, high) = edges(self.bounds, index);
        let share = if index == self.bounds.len() { self.share } else { self.share.min(0.999) };
        low + (high - low) * share
    }
}

/// The last bucket has no upper edge; it is taken to be as wide as all others together.
fn edges(bounds: &[f64], index: usize) -> (f64, f64) {
    let low = index.checked_sub(1).map_or(0.0, |below| bounds[below]);
    (low, bounds.get(index).copied().unwrap_or(low * 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bounds: &[f64], counts: &[u64], sum: f64) -> Vec<f64> {
        let spread = Spread::new(bounds, counts, sum);
        (0..counts.len()).filter(|index| counts[*index] > 0).map(|index| spread.value(index)).collect()
    }

    #[test]
    fn values_are_in_their_buckets_and_have_the_sum() {
        let bounds = [1.0, 2.0, 4.0];
        for (counts, sum) in [([3, 0, 0, 0], 1.5), ([2, 1, 4, 0], 15.0), ([0, 0, 0, 2], 100.0)] {
            let values = values(&bounds, &counts, sum);
            let places = values.iter().map(|value| bounds.iter().filter(|bound| value > *bound).count());
            let expected = (0..4).filter(|index| counts[*index] > 0);
            assert!(places.eq(expected), "{values:?}");
            let counts = counts.iter().filter(|count| **count > 0);
            let total: f64 = values.iter().zip(counts).map(|(value, count)| value * *count as f64).sum();
            assert!((total - sum).abs() < 1e-9, "{total} for {sum}");
        }
        // A sum that cannot be: as near as the buckets allow.
        assert_eq!(values(&bounds, &[0, 1, 0, 0], 100.0), [1.999]);
        assert_eq!(values(&bounds, &[0, 0, 0, 0], 0.0), Vec::<f64>::new());
    }
}
