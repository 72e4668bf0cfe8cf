//! Time, and chance: the pace of the example, and numbers that are the same in every run.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tower_cooldown::record::Snapshot;

/// How many times faster than in reality everything runs. All times in the code are those of the real pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(u32);

impl Scale {
    pub(crate) const REAL: Self = Self(1);
    pub(crate) const FAST: Self = Self(10);

    /// From the real pace to the clock on the wall.
    pub(crate) fn down(self, real: Duration) -> Duration {
        real / self.0
    }

    /// From the clock on the wall to the real pace.
    pub(crate) fn up(self, wall: Duration) -> Duration {
        wall * self.0
    }

    /// All times of a snapshot at the real pace, so that they compare with the table.
    pub(crate) fn up_snapshot(self, mut snapshot: Snapshot) -> Snapshot {
        let times = [&mut snapshot.attempts, &mut snapshot.control]
            .into_iter()
            .flat_map(|attempts| [&mut attempts.response, &mut attempts.service])
            .chain([&mut snapshot.calls.response, &mut snapshot.batched])
            .chain(snapshot.waits.iter_mut().map(|wait| &mut wait.times));
        for times in times {
            for time in [&mut times.sum, &mut times.p50, &mut times.p95, &mut times.p99, &mut times.max] {
                *time = self.up(*time);
            }
        }
        snapshot
    }

    pub(crate) const fn factor(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("at the real pace"),
            times => write!(f, "{times} times faster than in reality"),
        }
    }
}

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c). It counts, so it needs no lock.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let mut bits = self.0.fetch_add(Self::STEP, Relaxed).wrapping_add(Self::STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number in `0..n`.
    pub(crate) fn below(&self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// A time between these two.
    pub(crate) fn between(&self, low: Duration, high: Duration) -> Duration {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low).mul_f64(unit)
    }
}
