//! What happened: one [`CallRecord`] per attempt, counted in [`Statistics`], read as a [`Snapshot`].
//!
//! [`AdaptiveCooldown`](crate::AdaptiveCooldown) writes a record for every attempt that passes through it,
//! [`Fallback`](crate::Fallback) an outcome for every call, [`MicroBatch`](crate::MicroBatch) the time
//! that calls waited for their group, and [`Coalesce`](crate::Coalesce) its batches and the calls that they saved. Give the layers of one stack the same [`Statistics`] and they keep one
//! book; nothing in it is counted twice. Without that, each layer keeps its own.
//!
//! ```
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_cooldown::{AdaptiveCooldownLayer, record::Statistics};
//! # use std::convert::Infallible;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let statistics = Statistics::new();
//! let mut client = ServiceBuilder::new()
//!     .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
//!     .service_fn(|_request: &str| async { Ok::<_, Infallible>(http::Response::new("hello")) });
//!
//! client.ready().await?.call("GET /").await?;
//!
//! let snapshot = statistics.snapshot();
//! assert_eq!(snapshot.success_rate(), Some(1.0));
//! println!("{snapshot}"); // a table to read
//! snapshot.log(); // the same as `tracing` events
//! # Ok(())
//! # }
//! ```
//!
//! The rates count from the start; those of the [last minute](Snapshot::last_minute), and of any span
//! [between two snapshots](Snapshot::delta), say how it is now. [`Snapshot::arms`] shows the two sides of a
//! [`Rollout`](crate::Rollout). Who wants each record takes them from a [`RecordRing`].
//!
//! Records are written by a drop guard, so a call that its caller gave up is counted too. Memory is fixed:
//! counters and histograms, about 40 KiB, and another 2.3 KiB for each processor, so that threads do not have to
//! take turns; however many calls there are.

mod arms;
mod coalesced;
mod detail;
mod display;
mod distribution;
mod histogram;
mod recent;
mod ring;
mod snapshot;
mod statistics;
mod tokens;
mod usage;

pub use self::{
    arms::{ArmSummary, Arms},
    coalesced::{Coalesced, TriggerCount},
    distribution::Times,
    recent::{Recent, RecentAttempts, RecentCalls},
    ring::{RecordReader, RecordRing},
    snapshot::{Attempts, Calls, Cooldowns, FallbackCounts, Snapshot, Tokens, Wait},
    statistics::Statistics,
    usage::Usage,
};

pub(crate) use self::{detail::Detail, distribution::Distribution, usage::Settle};

#[cfg(feature = "serde")]
pub(crate) use self::snapshot::optional_seconds;

use crate::{WaitReason, signal::Verdict};
use http::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// See [`Verdict::Accepted`].
    Accepted,
    /// See [`Verdict::Throttled`].
    Throttled,
    /// See [`Verdict::Overloaded`].
    Overloaded,
    /// See [`Verdict::Failed`].
    Failed,
    /// See [`Verdict::Refused`].
    Refused,
    /// See [`Verdict::Exhausted`].
    Exhausted,
    /// See [`Verdict::Rejected`]. It was not sent.
    Rejected,
    /// The caller gave it up, waiting or in flight, or the service below panicked.
    Cancelled,
}

impl Outcome {
    pub(crate) const COUNT: usize = 8;

    /// All outcomes, in the order of the tables.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Accepted,
        Self::Throttled,
        Self::Overloaded,
        Self::Failed,
        Self::Refused,
        Self::Exhausted,
        Self::Rejected,
        Self::Cancelled,
    ];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted => Self::Accepted,
            Verdict::Throttled => Self::Throttled,
            Verdict::Overloaded => Self::Overloaded,
            Verdict::Failed => Self::Failed,
            Verdict::Refused => Self::Refused,
            Verdict::Exhausted => Self::Exhausted,
            Verdict::Rejected => Self::Rejected,
        }
    }
}

/// On which side of a [`Rollout`](crate::Rollout) a call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Arm {
    /// Inside: the layer did its work.
    Treated,
    /// Outside: the call went straight through.
    Control,
}

impl Arm {
    /// Both arms, in the order of the tables.
    pub const ALL: [Self; 2] = [Self::Treated, Self::Control];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Treated => "treated",
            Self::Control => "control",
        }
    }
}

/// One attempt. Fixed size, `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallRecord {
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status, where there was a response.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::status"))]
    pub status: Option<StatusCode>,
    /// Why it waited. [`WaitReason::Normal`] where `waited` is zero.
    pub wait_reason: WaitReason,
    /// How long it waited before it was sent.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub waited: Duration,
    /// From sending to the response's head; where no layer made the call wait, from its coming, so that the time
    /// in which the inner service got ready is in it. Zero where it was not sent.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::snapshot::seconds"))]
    pub service: Duration,
    /// On which side of the rollout it was.
    pub arm: Arm,
    /// When it ended.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub finished: Instant,
}

impl CallRecord {
    /// A record of an attempt that did not wait and took no time; set the rest by its fields.
    pub fn new(outcome: Outcome, finished: Instant) -> Self {
        Self {
            outcome,
            status: None,
            wait_reason: WaitReason::Normal,
            waited: Duration::ZERO,
            service: Duration::ZERO,
            arm: Arm::Treated,
            finished,
        }
    }

    /// A record of an attempt that came at `arrived` and waited for `reason` until it was sent, if it was.
    #[inline]
    pub(crate) fn timed(
        outcome: Outcome,
        arrived: Instant,
        sent: Option<Instant>,
        finished: Instant,
        reason: WaitReason,
    ) -> Self {
        let mut record = Self::new(outcome, finished);
        let mut let_go = arrived;
        // Where no layer made it wait, the inner service did, by not being ready: that is its own time.
        if reason != WaitReason::Normal && sent != Some(arrived) {
            let_go = sent.unwrap_or(finished);
            record.waited = let_go.saturating_duration_since(arrived);
            if !record.waited.is_zero() {
                record.wait_reason = reason;
            }
        }
        record.service = sent.map(|_| finished.saturating_duration_since(let_go)).unwrap_or_default();
        record
    }
}

/// Why a call went to the fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FallbackReason {
    /// Over a quota (429, or whatever the classifier calls throttled or exhausted).
    TooManyRequests,
    /// 500.
    InternalServerError,
    /// 503, or whatever the classifier calls overloaded.
    ServiceUnavailable,
    /// Another 5xx.
    OtherServerError,
    /// A 4xx that is the caller's fault. Not sent to the fallback unless asked for.
    ClientError,
    /// The service below failed with an error: no connection, a time-out.
    Transport,
    /// A gate would have made the call wait for too long.
    Rejected,
    /// Anything else that the classifier calls failed.
    Unknown,
}

impl FallbackReason {
    /// All reasons, in the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::TooManyRequests,
        Self::InternalServerError,
        Self::ServiceUnavailable,
        Self::OtherServerError,
        Self::ClientError,
        Self::Transport,
        Self::Rejected,
        Self::Unknown,
    ];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyRequests => "429",
            Self::InternalServerError => "500",
            Self::ServiceUnavailable => "503",
            Self::OtherServerError => "5xx_other",
            Self::ClientError => "client_error",
            Self::Transport => "transport",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

/// How one call through [`Fallback`](crate::Fallback) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The primary service served it.
    Primary,
    /// The primary refused it as the caller's fault, and that answer went to the caller.
    Refused,
    /// The fallback served it.
    Fallback(FallbackReason),
    /// The primary could not serve it and the fallback failed too.
    FallbackFailed(FallbackReason),
    /// The primary could not serve it and it was not sent to the fallback.
    Failed(FallbackReason),
    /// The caller gave it up.
    Cancelled,
}
