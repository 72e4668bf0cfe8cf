//! What a gate and its calls say to one another.

use crate::{
    Cost, InvalidSetting, WaitReason,
    policy::{Closing, Departure, Mirrored, later},
    signal::Rejected,
};
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// Why and until when the whole upstream is cooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) until: Instant,
    pub(super) reason: WaitReason,
}

impl Closed {
    /// A departure while the gate is closed so, or not at all.
    pub(super) fn hold(closed: Option<Self>, departure: Departure) -> Departure {
        match closed {
            Some(closed) if closed.until > departure.at => Departure::new(closed.until, closed.reason),
            _ => departure,
        }
    }
}

/// A place in the queue: when the call came, and a number that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) arrived: Instant,
    pub(super) ticket: u64,
}

/// A time after another one, in half the memory of an `Instant`. There may be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After(u64);

impl After {
    /// Later than all.
    pub(super) const NEVER: Self = Self(u64::MAX);

    /// `at`, which is after `start`.
    pub(super) fn new(start: Instant, at: Instant) -> Self {
        Self(at.saturating_duration_since(start).as_nanos().try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn since(self, start: Instant) -> Instant {
        later(start, Duration::from_nanos(self.0))
    }

    /// `None` if it is [never](Self::NEVER).
    pub(super) fn known_since(self, start: Instant) -> Option<Instant> {
        (self != Self::NEVER).then(|| self.since(start))
    }
}

/// What a call puts up with. All but its deadline is the same for all calls at a gate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// The longest wait of a call.
    pub(super) max_wait: Option<Duration>,
    /// The most calls that wait at a time.
    pub(super) max_waiting: Option<usize>,
    /// When the call's own time is over.
    pub(super) deadline: Option<Instant>,
}

impl Bounds {
    /// The latest time at which a call that came at `arrived` is willing to leave.
    pub(super) fn latest(&self, arrived: Instant) -> Option<Instant> {
        let bound = self.max_wait.map(|max_wait| later(arrived, max_wait));
        bound.into_iter().chain(self.deadline).min()
    }
}

/// What is the same for all calls at a gate, changeable while they pass.
#[derive(Debug)]
pub(super) struct SharedBounds {
    /// In nanoseconds.
    max_wait: AtomicU64,
    max_waiting: AtomicUsize,
    /// Whether the layer has an answer for calls that are rejected.
    can_reject: bool,
}

impl SharedBounds {
    pub(super) fn get(&self) -> Bounds {
        let (max_wait, max_waiting) = (self.max_wait.load(Relaxed), self.max_waiting.load(Relaxed));
        Bounds {
            max_wait: (max_wait != u64::MAX).then(|| Duration::from_nanos(max_wait)),
            max_waiting: (max_waiting != usize::MAX).then_some(max_waiting),
            deadline: None,
        }
    }

    /// While the layer is built. It then has an answer.
    pub(super) fn build(&mut self) -> &mut Self {
        self.can_reject = true;
        self
    }

    pub(super) fn set_max_wait(&self, max_wait: Option<Duration>) -> Result<(), InvalidSetting> {
        self.check("max_wait", max_wait.is_some())?;
        let nanos = max_wait.map_or(u64::MAX, |wait| wait.as_nanos().min(u128::from(u64::MAX - 1)) as u64);
        self.max_wait.store(nanos, Relaxed);
        Ok(())
    }

    pub(super) fn set_max_waiting(&self, calls: Option<usize>) -> Result<(), InvalidSetting> {
        self.check("max_waiting", calls.is_some())?;
        self.max_waiting.store(calls.unwrap_or(usize::MAX), Relaxed);
        Ok(())
    }

    fn check(&self, field: &'static str, is_bound: bool) -> Result<(), InvalidSetting> {
        if is_bound && !self.can_reject {
            let problem = "the layer was made without `max_wait` and `max_waiting`, and has no answer for calls that \
                           are not sent";
            return Err(InvalidSetting::new(field, problem));
        }
        Ok(())
    }
}

impl Default for SharedBounds {
    fn default() -> Self {
        Self {
            max_wait: AtomicU64::new(u64::MAX),
            max_waiting: AtomicUsize::new(usize::MAX),
            can_reject: false,
        }
    }
}

impl Clone for SharedBounds {
    fn clone(&self) -> Self {
        Self {
            max_wait: self.max_wait.load(Relaxed).into(),
            max_waiting: self.max_waiting.load(Relaxed).into(),
            can_reject: self.can_reject,
        }
    }
}

/// A call has left, or may leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    pub(super) epoch: u64,
    pub(super) at: Instant,
    pub(super) cost: Cost,
    pub(super) reason: WaitReason,
    /// A success need not be told to the policy.
    pub(super) quiet: bool,
    /// It may be told a little later.
    pub(super) late: bool,
}

/// What becomes of a call at the gate: it leaves, or it would wait for too long.
pub(super) type Settled = Result<Leave, Rejected>;

/// The answer to a call that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Booking {
    Settled(Settled),
    Wait { place: Place, booked: Departure },
}

/// The answer to a call that looks again.
pub(super) enum Look {
    Settled(Settled),
    /// It will be woken, or has to look again then.
    Wait {
        until: Instant,
    },
}

/// What an answer did to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    No,
    /// Closed in a new epoch.
    Closed(Closing),
    /// The closing in force was made longer.
    Extended,
}

/// When a call leaves that comes after the one which is booked `last`, with `tail` the policy after that one.
pub(super) fn book_on(
    tail: &Mirrored,
    (arrived, cost): (Instant, Cost),
    closed: Option<Closed>,
    last: Option<Departure>,
    now: Instant,
) -> Departure {
    let mut booked = Closed::hold(closed, tail.departure(arrived, cost));
    if let Some(last) = last.filter(|last| last.at > booked.at) {
        booked = last;
    }
    booked.at = booked.at.max(now);
    booked
}
