use super::{Distribution, Times, histogram::Histogram};
use crate::coalesce::Trigger;
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Batches of 1, 2, up to 4, up to 8, and so on; the last one counts all that are larger.
const SIZES: usize = 13;

#[derive(Debug)]
pub(super) struct CoalesceBook {
    batches: AtomicU64,
    requests: AtomicU64,
    calls: AtomicU64,
    weight: AtomicU64,
    largest: AtomicU64,
    sizes: [AtomicU64; SIZES],
    triggers: [AtomicU64; Trigger::ALL.len()],
    waits: Histogram,
    /// How long calls took that failed, and that did not.
    took: [Histogram; 2],
}

impl CoalesceBook {
    pub(super) const fn new() -> Self {
        Self {
            batches: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            sizes: [const { AtomicU64::new(0) }; SIZES],
            triggers: [const { AtomicU64::new(0) }; Trigger::ALL.len()],
            waits: Histogram::new(),
            took: [const { Histogram::new() }; 2],
        }
    }

    pub(super) fn record(&self, trigger: Trigger, requests: usize, weight: u64, waited: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.requests.fetch_add(requests as u64, Relaxed);
        self.weight.fetch_add(weight, Relaxed);
        self.largest.fetch_max(requests as u64, Relaxed);
        self.sizes[size_class(requests)].fetch_add(1, Relaxed);
        self.triggers[trigger as usize].fetch_add(1, Relaxed);
        self.waits.record(waited);
    }

    pub(super) fn record_call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(super) fn record_call_ended(&self, succeeded: bool, took: Duration) {
        self.took[usize::from(succeeded)].record(took);
    }

    pub(super) fn read(&self) -> Coalesced {
        Coalesced {
            batches: self.batches.load(Relaxed),
            requests: self.requests.load(Relaxed),
            calls: self.calls.load(Relaxed),
            weight: self.weight.load(Relaxed),
            largest: self.largest.load(Relaxed),
            sizes: std::array::from_fn(|class| self.sizes[class].load(Relaxed)),
            triggers: Trigger::ALL.map(|trigger| TriggerCount {
                trigger,
                batches: self.triggers[trigger as usize].load(Relaxed),
            }),
            waits: Times::default(),
            succeeded: Times::default(),
            failed: Times::default(),
        }
    }

    pub(super) fn waits(&self) -> Distribution {
        Distribution::of([&self.waits])
    }

    /// Of the calls that failed, and of those that did not.
    pub(super) fn took(&self) -> [Distribution; 2] {
        self.took.each_ref().map(|took| Distribution::of([took]))
    }
}

/// The smallest class whose size, a power of two, is no less.
fn size_class(requests: usize) -> usize {
    (requests.max(1).next_power_of_two().trailing_zeros() as usize).min(SIZES - 1)
}

/// What [`Coalesce`](crate::Coalesce) made of single requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Coalesced {
    /// Batches that were closed with something in them.
    pub batches: u64,
    /// Requests in them. Those whose callers had gone before are not.
    pub requests: u64,
    /// Calls of the inner service: one per batch, more where batches were split, none where the inner service
    /// failed before the call.
    pub calls: u64,
    /// What they weighed, all together; zero where the layer has no weights.
    pub weight: u64,
    /// Requests in the largest batch.
    pub largest: u64,
    /// Batches by size: of 1, of 2, up to 4, up to 8, and so on up to 2048, and of more.
    pub sizes: [u64; SIZES],
    /// Batches by what made them close.
    pub triggers: [TriggerCount; Trigger::ALL.len()],
    /// How long the first request of each batch waited until it closed.
    pub waits: Times,
    /// How long those calls took that answered at least one of their requests well. A part of a batch that was split
    /// includes the time in which the inner service got ready for it.
    pub succeeded: Times,
    /// How long those took that did not: with an error, a panic, a wrong number of results, or until the time-out. Calls
    /// that all their callers gave up are in neither.
    pub failed: Times,
}

/// How many batches closed for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TriggerCount {
    /// What made them close.
    pub trigger: Trigger,
    /// How many.
    pub batches: u64,
}

impl Coalesced {
    /// Requests per batch; `None` before the first.
    pub fn mean_size(&self) -> Option<f64> {
        super::snapshot::share(self.requests, self.batches)
    }

    /// Requests that needed no call of their own.
    pub const fn calls_saved(&self) -> u64 {
        self.requests.saturating_sub(self.calls)
    }

    /// Batches that closed for this reason.
    pub const fn closed_by(&self, trigger: Trigger) -> u64 {
        self.triggers[trigger as usize].batches
    }

    pub(super) fn fmt_rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.mean_size().unwrap_or_default();
        write!(
            f,
            "coalesced        {} requests in {} batches ({mean:.1} each, {} at most), {} calls saved",
            self.requests,
            self.batches,
            self.largest,
            self.calls_saved()
        )?;
        let mut separator = "\n  closed by      ";
        for TriggerCount { trigger, batches } in self.triggers.iter().filter(|count| count.batches > 0) {
            write!(f, "{separator}{batches} {}", trigger.as_str())?;
            separator = ", ";
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_powers_of_two() {
        let classes = [0, 1, 2, 3, 4, 5, 8, 9, 2048, 2049, usize::MAX / 2].map(size_class);
        assert_eq!(classes, [0, 0, 1, 2, 2, 3, 3, 4, 11, 12, 12]);
    }
}
