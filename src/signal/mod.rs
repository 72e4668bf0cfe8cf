//! What a response says about the upstream's limit.
//!
//! A response is read once, into a [`Signal`]: a [`Verdict`] (what happened) and [`Hints`] (what the server
//! advises). Every other part of this crate works on signals, so teaching it a new service means teaching it
//! one [`Classify`].
//!
//! [`HttpClassifier`] is the default. It serves `http::Response<B>`, and any type that implements
//! [`HttpResponse`]:
//!
//! | answer | verdict |
//! |---|---|
//! | 1xx, 2xx, 3xx | [`Accepted`](Verdict::Accepted) |
//! | 429 | [`Throttled`](Verdict::Throttled) |
//! | 503, 529 | [`Overloaded`](Verdict::Overloaded) |
//! | other 5xx, an error of the transport | [`Failed`](Verdict::Failed) |
//! | other 4xx | [`Refused`](Verdict::Refused) |
//! | a [`Rejected`] made by this crate, as a response or as an error | [`Rejected`](Verdict::Rejected) |
//!
//! A 403 is throttled where something says that it is a limit, any other refusal where AWS or Envoy say so, and a gRPC
//! answer of trailers alone is judged by its status: RESOURCE_EXHAUSTED is throttled, UNAVAILABLE overloaded.
//!
//! # What is read
//!
//! [`services`] lists the header fields of all families, and who sends them. Limits that stand in the body only are read
//! by a layer that puts [`BodyHints`] into the response's extensions.
//!
//! # What goes before what
//!
//! 1. The wait of a refusal is the first of: a vendor's field in milliseconds, `Retry-After`, gRPC's push-back, gRPC's
//!    `RetryInfo`, what the body says, the reset of a counter that is used up. A reset while something is left is no
//!    wait.
//! 2. A reset of which nobody says what it is: with letters a Go duration or a date; from 10^14 on microseconds since
//!    1970, from 10^11 on milliseconds, from 10^9 on seconds; else seconds from now.
//! 3. Dates are read against the response's own `Date`; without one, against our clock. A past time is now.
//! 4. A wait that is too long ([`HttpClassifier::max_retry_after`]) makes the call [`Exhausted`](Verdict::Exhausted): it
//!    is not retried, and [`Hints::exhausted_for`] says how long. Numbers that make no sense say nothing.
//! 5. A counter of a day or longer that is used up is exhausted, too.
//! 6. 503s, 529s and other failures say nothing about a quota, whatever their counters say.
//! 7. −1, and 0 of 0, are not known. Counters in redirections and cached answers (`Age`) are those of another answer, and
//!    what others have used up (Discord's `shared` scope) is not ours.
//! 8. Counters are told apart by the name of their policy, their partition key, bucket or resource
//!    ([`Reading::policy`]).
//!
//! # Your own rules
//!
//! A rule comes before the table, and says what happened; what the server advises is read as usual, unless the rule says
//! that as well. Here a status and a field that only this service sends count as throttled, and everything else is
//! judged as usual:
//!
//! ```
//! use http::Response;
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer,
//!     signal::{HttpClassifier, Signal, Verdict},
//! };
//!
//! let classifier = HttpClassifier::new()
//!     .with(|result: Result<&Response<String>, &std::io::Error>| {
//!         (result.ok()?.status().as_u16() == 430).then(|| Signal::new(Verdict::Throttled))
//!     })
//!     .with(|result: Result<&Response<String>, &std::io::Error>| {
//!         let is_busy = result.ok()?.headers().contains_key("x-too-busy");
//!         is_busy.then(|| Signal::new(Verdict::Overloaded))
//!     });
//! let layer = AdaptiveCooldownLayer::new().classify(classifier);
//! # let _ = layer;
//! ```
//!
//! Give the same classifier to the other layers of the stack. For responses that are not HTTP at all, a closure
//! alone is a classifier:
//!
//! ```
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer,
//!     signal::{Signal, Verdict},
//! };
//!
//! let layer = AdaptiveCooldownLayer::new().classify(|result: Result<&String, &std::io::Error>| {
//!     Signal::new(match result {
//!         Ok(answer) if answer == "slow down" => Verdict::Throttled,
//!         Ok(_) => Verdict::Accepted,
//!         Err(_) => Verdict::Failed,
//!     })
//! });
//! # let _ = layer;
//! ```

mod aws;
mod classify;
mod clock;
mod collect;
mod counters;
mod fields;
mod go_duration;
mod grpc;
mod hints;
mod http_response;
mod ietf;
mod number;
mod packed;
mod policy_key;
mod protobuf;
mod read;
mod rejected;
mod retry_after;
mod rfc3339;
pub mod services;
mod structured;

pub use self::{
    classify::{Bypassed, Classify, HttpClassifier, WithRule},
    hints::{BodyHints, Hints, Reading, Readings, Unit},
    http_response::HttpResponse,
    rejected::Rejected,
    retry_after::{DEFAULT_MAX_RETRY_AFTER, parse_retry_after},
};

#[cfg(feature = "body")]
pub(crate) use self::policy_key::policy_id;

use crate::Cost;
use http::StatusCode;
use std::time::Duration;

/// What happened to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The upstream did the work.
    Accepted,
    /// The upstream refused because the caller is over a quota (429). Waiting cures it.
    Throttled,
    /// The upstream refused because it has too much to do (503, 529). It says nothing about a quota.
    Overloaded,
    /// The upstream or the way to it is broken (other 5xx, an error).
    Failed,
    /// The caller's fault (other 4xx). Sending it again gives the same answer.
    Refused,
    /// Over a quota that waiting does not cure, such as a spent balance. Not retried.
    Exhausted,
    /// The call was never sent: a gate of this crate would have made it wait for too long.
    Rejected,
}

impl Verdict {
    /// Whether the upstream asked for fewer calls: [`Throttled`](Self::Throttled),
    /// [`Overloaded`](Self::Overloaded) or [`Exhausted`](Self::Exhausted).
    pub const fn is_pushback(self) -> bool {
        matches!(self, Self::Throttled | Self::Overloaded | Self::Exhausted)
    }
}

/// What one response (or error) says: a [`Verdict`], and the server's [`Hints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signal {
    /// What happened.
    pub verdict: Verdict,
    /// What the server advises.
    pub hints: Hints,
    /// The HTTP status, where there was a response.
    pub status: Option<StatusCode>,
    /// What the call took from the quotas, where the response says so.
    pub used: Option<Cost>,
    /// The call was outside the rollout of a layer further in; see [`Bypassed`].
    pub bypassed: bool,
}

impl Signal {
    /// A signal without hints or status.
    #[inline]
    pub const fn new(verdict: Verdict) -> Self {
        let hints = Hints {
            retry_after: None,
            exhausted_for: None,
            should_retry: None,
            concurrency: false,
            readings: Readings::new(),
        };
        Self { verdict, hints, status: None, used: None, bypassed: false }
    }

    /// Adds the time that the server asks to wait. Zero says nothing and is dropped. The caller caps it.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.hints.retry_after = (!wait.is_zero()).then_some(wait);
        self
    }

    /// Adds where one of the server's counters stands.
    #[must_use]
    pub fn reading(mut self, reading: Reading) -> Self {
        self.hints.readings.push(reading);
        self
    }

    /// Adds what the call took from the quotas, as the response says. It takes the place of the estimate.
    #[must_use]
    pub const fn used(mut self, cost: Cost) -> Self {
        self.used = Some(cost);
        self
    }

    /// Adds the HTTP status, for the records and for the fallback's reasons.
    #[must_use]
    pub const fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}
