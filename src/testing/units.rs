use crate::Cost;
use std::time::Duration;

impl Unit {
    /// How many units a call takes.
    pub(super) fn of(self, cost: Cost) -> u64 {
        match self {
            Self::Requests => cost.requests.into(),
            Self::Tokens => cost.tokens(),
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// [`Cost::requests`](crate::Cost::requests).
    Requests,
    /// [`Cost::tokens`](crate::Cost::tokens).
    Tokens,
}

/// Nanoseconds since the start: integers, so that nothing drifts. 584 years and more count as 584.
pub(super) type Nanos = u64;

pub(super) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `value`, or the largest time that there is.
pub(super) fn clamped(value: u128) -> Nanos {
    u64::try_from(value).unwrap_or(u64::MAX)
}
