use std::{error::Error, fmt, time::Duration};

/// The call was not sent: it would have had to wait longer than `max_wait`, or than its own
/// [deadline](crate::AdaptiveCooldownLayer::deadline) allows.
///
/// It reaches the caller as what [`reject_with`](crate::AdaptiveCooldownLayer::reject_with) makes of it.
/// [`HttpClassifier`](super::HttpClassifier) recognises it again further out in the stack, in the response of
/// [`TooManyRequests`](crate::cooldown::TooManyRequests), as an error, or in a `BoxError`, so that
/// [`RetryPolicy`](crate::retry::RetryPolicy) does not retry it and
/// [`FallbackLayer`](crate::FallbackLayer) serves it from the second service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The time after which a call could leave.
    pub retry_after: Duration,
    /// The call's own deadline would have passed by then.
    pub past_deadline: bool,
}

impl Rejected {
    /// A rejection that may be tried again after `retry_after`.
    pub const fn new(retry_after: Duration) -> Self {
        Self { retry_after, past_deadline: false }
    }

    /// `retry_after` in whole seconds, rounded up and at least 1: what a `Retry-After` header holds.
    pub fn retry_after_secs(&self) -> u64 {
        let round_up = u64::from(self.retry_after.subsec_nanos() > 0);
        self.retry_after.as_secs().saturating_add(round_up).max(1)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent: the upstream is cooling down, a call could leave in {:?}", self.retry_after)
    }
}

impl Error for Rejected {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_whole_seconds_is_never_too_short() {
        for (millis, secs) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2999, 3), (3000, 3)] {
            assert_eq!(Rejected::new(Duration::from_millis(millis)).retry_after_secs(), secs, "{millis} ms");
        }
    }
}
