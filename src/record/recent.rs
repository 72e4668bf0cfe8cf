//! The last minute, without a task and without a cost per call: now and then the call that ends just then notes what
//! the counters are at.

use super::{Arm, Outcome, snapshot::share};
use std::{
    array,
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::time::Instant;

/// In seconds.
const SPAN: u64 = 60;
/// As far apart are two notes, in seconds. All calls after one and before the next ended in that time.
const STEP: u64 = 5;
const MAX_NOTES: usize = (SPAN / STEP) as usize + 2;

/// What the counters were at, when some call came.
#[derive(Debug)]
pub(super) struct Notes {
    start: Instant,
    /// When the next one is due, in seconds from the start.
    due: AtomicU64,
    notes: Mutex<VecDeque<Note>>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    at: u64,
    counts: Recent,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            due: AtomicU64::new(0),
            notes: Mutex::new(VecDeque::with_capacity(MAX_NOTES)),
        }
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    /// Before a call is counted that ended `now`.
    #[inline]
    pub(super) fn pass(&self, now: Instant, counts: impl FnOnce() -> Recent) {
        let at = self.seconds(now);
        if at >= self.due.load(Relaxed) {
            self.note(at, counts);
        }
    }

    #[cold]
    fn note(&self, at: u64, counts: impl FnOnce() -> Recent) {
        // A record from outside may say that it ended in the future; no note does.
        let at = at.min(self.seconds(Instant::now()));
        // Where another call does it, there is nothing left to do.
        let Ok(mut notes) = self.notes.try_lock() else { return };
        if at < self.due.load(Relaxed) {
            return;
        }
        if notes.len() == MAX_NOTES {
            notes.pop_front();
        }
        notes.push_back(Note { at, counts: counts() });
        self.due.store(at + STEP, Relaxed);
    }

    /// What was counted in the last minute, if the counters are at `counts` now.
    pub(super) fn since(&self, counts: &Recent, now: Instant) -> Recent {
        let now = self.seconds(now);
        let notes = self.lock();
        // The calls after a note ended within a step of it.
        let first = notes.iter().find(|note| note.at + STEP + SPAN > now);
        first.map_or_else(Recent::default, |note| counts.combine(&note.counts, u64::saturating_sub))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ended in the last minute; up to five seconds more may be in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Recent {
    /// Attempts inside the rollout.
    pub attempts: RecentAttempts,
    /// Attempts outside the rollout.
    pub control: RecentAttempts,
    /// Calls through [`Fallback`](crate::Fallback).
    pub calls: RecentCalls,
}

/// How the attempts of the last minute ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[allow(missing_docs, reason = "the counts are named after the variants of `Outcome`")]
pub struct RecentAttempts {
    pub accepted: u64,
    pub throttled: u64,
    pub overloaded: u64,
    pub failed: u64,
    pub refused: u64,
    pub exhausted: u64,
    pub rejected: u64,
    pub cancelled: u64,
}

/// How the calls of the last minute ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecentCalls {
    /// Served by the primary.
    pub primary: u64,
    /// Served by the fallback.
    pub fallback: u64,
    /// The fallback failed too.
    pub fallback_failed: u64,
    /// Not served by the primary, and not sent to the fallback.
    pub failed: u64,
    /// Refused by the primary as the caller's fault.
    pub refused: u64,
    /// Given up by the caller.
    pub cancelled: u64,
}

impl RecentAttempts {
    pub(super) fn from_counts(count: impl Fn(Outcome) -> u64) -> Self {
        let [accepted, throttled, overloaded, failed, refused, exhausted, rejected, cancelled] =
            Outcome::ALL.map(count);
        Self { accepted, throttled, overloaded, failed, refused, exhausted, rejected, cancelled }
    }

    const fn counts(&self) -> [u64; Outcome::COUNT] {
        let Self { accepted, throttled, overloaded, failed, refused, exhausted, rejected, cancelled } = *self;
        [accepted, throttled, overloaded, failed, refused, exhausted, rejected, cancelled]
    }

    /// Those that ended so.
    pub const fn count(&self, outcome: Outcome) -> u64 {
        self.counts()[outcome as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// All that were not given up by their caller.
    pub fn finished(&self) -> u64 {
        self.total() - self.cancelled
    }

    /// Accepted ones as a share of the finished; `None` if there were none.
    pub fn success_rate(&self) -> Option<f64> {
        share(self.accepted, self.finished())
    }

    /// 429s as a share of the finished; `None` if there were none.
    pub fn throttled_rate(&self) -> Option<f64> {
        share(self.throttled, self.finished())
    }

    fn combine(&self, other: &Self, count: fn(u64, u64) -> u64) -> Self {
        let (mine, other) = (self.counts(), other.counts());
        Self::from_counts(|outcome| count(mine[outcome as usize], other[outcome as usize]))
    }
}

impl RecentCalls {
    /// All that were not given up by their caller.
    pub const fn finished(&self) -> u64 {
        self.primary + self.fallback + self.fallback_failed + self.failed + self.refused
    }
}

impl Recent {
    /// As [`Snapshot::success_rate`](super::Snapshot::success_rate), of the last minute.
    pub fn success_rate(&self) -> Option<f64> {
        let finished = self.calls.finished();
        if finished > 0 { share(self.calls.primary, finished) } else { self.attempts.success_rate() }
    }

    /// As [`Snapshot::fallback_rate`](super::Snapshot::fallback_rate), of the last minute.
    pub fn fallback_rate(&self) -> Option<f64> {
        share(self.calls.fallback + self.calls.fallback_failed, self.calls.finished())
    }

    /// The attempts on this side of the rollout.
    pub const fn arm(&self, arm: Arm) -> &RecentAttempts {
        match arm {
            Arm::Treated => &self.attempts,
            Arm::Control => &self.control,
        }
    }

    pub(super) fn combine(&self, other: &Self, count: fn(u64, u64) -> u64) -> Self {
        let calls = |of: &Self| {
            let RecentCalls { primary, fallback, fallback_failed, failed, refused, cancelled } = of.calls;
            [primary, fallback, fallback_failed, failed, refused, cancelled]
        };
        let (mine, others) = (calls(self), calls(other));
        let [primary, fallback, fallback_failed, failed, refused, cancelled] =
            array::from_fn(|index| count(mine[index], others[index]));
        Self {
            attempts: self.attempts.combine(&other.attempts, count),
            control: self.control.combine(&other.control, count),
            calls: RecentCalls { primary, fallback, fallback_failed, failed, refused, cancelled },
        }
    }
}
