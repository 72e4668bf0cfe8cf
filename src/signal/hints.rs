use super::Verdict;
use std::{fmt, time::Duration};

/// What the server advises. Every number in it has been checked and capped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// How long to wait before the next call, never zero. `None` where the server said nothing usable.
    pub retry_after: Option<Duration>,
    /// When a quota that waiting does not cure is there again, if the server says so: next midnight for a daily
    /// quota, for one. Not capped as [`retry_after`](Self::retry_after) is: nobody waits for it.
    pub exhausted_for: Option<Duration>,
    /// The server says whether to send this call again (`x-should-retry`, a negative push-back of gRPC).
    pub should_retry: Option<bool>,
    /// The server says that too many calls are in flight, not too many in so much time.
    pub concurrency: bool,
    /// Where the server's own counters stand.
    pub readings: Readings,
}

/// What the body of a refused answer says, for those services that say it nowhere else.
///
/// A layer that has read the body puts it into the response's extensions, and
/// [`HttpClassifier`](super::HttpClassifier) finds it there. What the header fields say goes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyHints {
    /// What happened, if the body knows better than the status.
    pub verdict: Option<Verdict>,
    /// What the server advises.
    pub hints: Hints,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Calls.
    #[default]
    Requests,
    /// Tokens, in and out.
    Tokens,
    /// Tokens that go in.
    InputTokens,
    /// Tokens that come out.
    OutputTokens,
    /// Anything else (bytes, points): it is not counted down, but closes the gate where it is used up.
    Other,
}

/// Where one of the server's counters stands: one quota, as a response tells it. What the response does not say is
/// `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// What it counts.
    pub unit: Unit,
    /// Tells this counter from others of the same unit: a hash of the policy's name, its partition key, its bucket
    /// or resource. 0 where the server names none.
    pub policy: u64,
    /// How much the quota is.
    pub limit: Option<u64>,
    /// How much of it is left.
    pub remaining: Option<u64>,
    /// How long it takes until it is reset, from when the answer came. Zero where the server's time is past.
    pub reset: Option<Duration>,
    /// The span of time that the limit is for.
    pub window: Option<Duration>,
}

impl Reading {
    /// A counter that says nothing yet; set the rest by its fields.
    pub const fn new(unit: Unit) -> Self {
        Self { unit, policy: 0, limit: None, remaining: None, reset: None, window: None }
    }

    /// Whether the quota is used up.
    pub fn is_exhausted(&self) -> bool {
        self.remaining == Some(0)
    }
}

/// Up to [`Readings::MAX`] readings, in the order in which the response told them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Readings {
    /// `None` in most answers, which costs them less than an empty array.
    told: Option<Told>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    readings: [Reading; Readings::MAX],
    len: u8,
}

impl Readings {
    /// The most that are kept. (Anthropic tells of four.)
    pub const MAX: usize = 4;

    /// None.
    pub const fn new() -> Self {
        Self { told: None }
    }

    /// Adds one. Beyond [`MAX`](Self::MAX) it takes the place of the one with the most left, or is dropped if it has
    /// more left itself.
    pub fn push(&mut self, reading: Reading) {
        let Some(told) = &mut self.told else {
            self.told = Some(Told { readings: [reading; Self::MAX], len: 1 });
            return;
        };
        if let Some(free) = told.readings.get_mut(usize::from(told.len)) {
            *free = reading;
            told.len += 1;
            return;
        }
        let left = |reading: &Reading| reading.remaining.unwrap_or(u64::MAX);
        if let Some(loosest) = told.readings.iter_mut().max_by_key(|kept| left(kept)) {
            if left(&reading) < left(loosest) {
                *loosest = reading;
            }
        }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Reading] {
        self.told.as_ref().map_or(&[], |told| &told.readings[..usize::from(told.len)])
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.told.is_none()
    }

    /// The first one that counts this.
    pub fn get(&self, unit: Unit) -> Option<&Reading> {
        self.as_slice().iter().find(|reading| reading.unit == unit)
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<'a> IntoIterator for &'a Readings {
    type Item = &'a Reading;
    type IntoIter = std::slice::Iter<'a, Reading>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}
