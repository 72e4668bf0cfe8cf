use super::units::Unit;
use std::time::Duration;

/// What became of one call at the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// Whether it was admitted.
    pub granted: bool,
    /// How long after its arrival the same call would be admitted, if no other one came before it. `None` for
    /// a call that was granted; for one that is too large for the limit, ever; and for a concurrency limit,
    /// which does not know when the calls in it will end.
    pub retry_after: Option<Duration>,
    /// Which limit refused it, by position; the one with the longest wait where there are several.
    pub refused_by: Option<usize>,
    /// It came during a [penalty](super::Limit::penalty), or set one off.
    pub penalty: bool,
    /// It set one off.
    pub sets_off_penalty: bool,
}

/// How much of one limit is left, as a server would tell it in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// What it counts.
    pub unit: Unit,
    /// Its [name](super::Limit::name).
    pub name: Option<&'static str>,
    /// The limit; the depth of a bucket.
    pub limit: u64,
    /// What is left of it, rounded down; 0 during a penalty.
    pub remaining: u64,
    /// The length of the window; the time in which an empty bucket fills. `None` for concurrency limits, and
    /// for buckets that never fill.
    pub window: Option<Duration>,
    /// The time until more is left than now. Zero where all is left. `None` where it is not known.
    pub more_in: Option<Duration>,
    /// The time until all is left; for a fixed window, until it ends. `None` where it is not known.
    pub full_in: Option<Duration>,
}

/// How many calls came, and what they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that were admitted.
    pub granted: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// The tokens of the calls that were admitted.
    pub tokens: u64,
    /// The [penalties](super::Limit::penalty) that these calls set off.
    pub penalties: u64,
}

impl Counts {
    /// All calls that came.
    pub const fn offered(self) -> u64 {
        self.granted + self.refused
    }

    /// The share of calls that were refused, from 0 to 1; 0 where there were none.
    pub fn refused_share(self) -> f64 {
        match self.offered() {
            0 => 0.0,
            offered => self.refused as f64 / offered as f64,
        }
    }

    /// What was counted after `earlier`, for a look at a part of a run.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            granted: self.granted.saturating_sub(earlier.granted),
            refused: self.refused.saturating_sub(earlier.refused),
            tokens: self.tokens.saturating_sub(earlier.tokens),
            penalties: self.penalties.saturating_sub(earlier.penalties),
        }
    }

    pub(super) const fn count(&mut self, decision: &Decision, tokens: u64) {
        self.penalties += decision.sets_off_penalty as u64;
        if decision.granted {
            self.granted += 1;
            self.tokens = self.tokens.saturating_add(tokens);
        } else {
            self.refused += 1;
        }
    }
}
