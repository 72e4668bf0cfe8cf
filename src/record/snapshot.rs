use super::{Arm, Coalesced, Detail, FallbackReason, Outcome, Recent, Times};
use crate::WaitReason;
use std::time::Duration;

/// What [`Statistics`](super::Statistics) held at one moment: plain data.
///
/// Its `Display` is a table for people; [`log`](Self::log) writes it as `tracing` events; with the feature
/// `serde` it serializes, times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls through [`Fallback`](crate::Fallback). All zero where the stack has none.
    pub calls: Calls,
    /// Attempts through [`AdaptiveCooldown`](crate::AdaptiveCooldown), retries included.
    pub attempts: Attempts,
    /// Attempts outside the [`Rollout`](crate::Rollout), which went straight through.
    pub control: Attempts,
    /// How long calls through [`MicroBatch`](crate::MicroBatch) took, from when they came to it: the wait for the
    /// group, and whatever lies below. All zero where the stack has none.
    pub batched: Times,
    /// What [`Coalesce`](crate::Coalesce) made of single requests. All zero where the stack has none.
    pub coalesced: Coalesced,
    /// How long calls waited, by reason. [`WaitReason::Normal`] counts attempts that the layer which counts them
    /// (the cooldown, or a micro-batch that is alone) did not make wait; in a stack, one and the same call may
    /// have waited for its group as well.
    pub waits: [Wait; WaitReason::ALL.len()],
    /// How late calls left that had waited at a gate: after the time to which their timer was set, or at which they were
    /// let go before that. Some 1 ms is what tokio's timers take; more means that tasks do not get their turn in time. The
    /// waits of service handles, in `poll_ready`, are not in it.
    pub slips: Times,
    /// How often gates closed.
    pub cooldowns: Cooldowns,
    /// Keys of a keyed cooldown that were forgotten to make room for others. Those
    /// that were idle for long enough do not count.
    pub keys_evicted: u64,
    /// Records that readers of the [ring](super::RecordRing) came too late for, all readers together. `None` where the
    /// book [writes into no ring](super::Statistics::with_ring).
    pub records_overwritten: Option<u64>,
    /// What callers reported through [`Usage`](super::Usage).
    pub tokens: Tokens,
    /// 429s since the last success, inside the rollout.
    pub consecutive_429s: u64,
    /// The longest run of 429s without a success between, inside the rollout.
    pub peak_consecutive_429s: u64,
    /// What ended in the last minute.
    pub last_minute: Recent,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) detail: Box<Detail>,
}

/// How often gates closed, by what said for how long. One that is closed and closes for longer, because of an answer
/// to a call that left before, does not count again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cooldowns {
    /// The server.
    pub rate_limit: u64,
    /// The policy, or somebody [by hand](crate::Handle::cool_for).
    pub adaptive: u64,
}

impl Cooldowns {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.rate_limit.saturating_add(self.adaptive)
    }
}

/// How attempts ended, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[allow(missing_docs, reason = "the counts are named after the variants of `Outcome`")]
pub struct Attempts {
    pub accepted: u64,
    pub throttled: u64,
    pub overloaded: u64,
    pub failed: u64,
    pub refused: u64,
    pub exhausted: u64,
    pub rejected: u64,
    pub cancelled: u64,
    /// From when it came to the layer that counts it, its waiting there included.
    pub response: Times,
    /// From sending to the response's head.
    pub service: Times,
}

impl Attempts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.finished() + self.cancelled
    }

    /// Those that ended so.
    pub const fn count(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Accepted => self.accepted,
            Outcome::Throttled => self.throttled,
            Outcome::Overloaded => self.overloaded,
            Outcome::Failed => self.failed,
            Outcome::Refused => self.refused,
            Outcome::Exhausted => self.exhausted,
            Outcome::Rejected => self.rejected,
            Outcome::Cancelled => self.cancelled,
        }
    }

    /// All that were not given up by their caller.
    pub const fn finished(&self) -> u64 {
        self.accepted
            + self.throttled
            + self.overloaded
            + self.failed
            + self.refused
            + self.exhausted
            + self.rejected
    }

    /// Accepted ones as a share of the finished; `None` before the first.
    pub fn success_rate(&self) -> Option<f64> {
        share(self.accepted, self.finished())
    }
}

/// How calls through [`Fallback`](crate::Fallback) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Calls {
    /// Served by the primary.
    pub primary: u64,
    /// Refused by the primary as the caller's fault.
    pub refused: u64,
    /// Given up by the caller.
    pub cancelled: u64,
    /// Calls that the primary could not serve, by reason.
    pub fallbacks: [FallbackCounts; FallbackReason::ALL.len()],
    /// From when the call came to the fallback to its answer: retries and the waits below included, those of
    /// layers further out, such as a micro-batch, not.
    pub response: Times,
}

/// What became of the calls that the primary could not serve for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FallbackCounts {
    /// Why the primary could not serve them.
    pub reason: FallbackReason,
    /// Served by the fallback.
    pub served: u64,
    /// The fallback failed too.
    pub fallback_failed: u64,
    /// Not sent to the fallback.
    pub not_tried: u64,
}

impl FallbackCounts {
    /// Calls that were sent to the fallback.
    pub const fn tried(&self) -> u64 {
        self.served + self.fallback_failed
    }
}

impl Calls {
    /// All that were not given up by their caller.
    pub fn finished(&self) -> u64 {
        self.primary + self.refused + self.fallbacks.iter().map(|f| f.tried() + f.not_tried).sum::<u64>()
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.finished() + self.cancelled
    }

    /// Calls that were sent to the fallback.
    pub fn tried_fallback(&self) -> u64 {
        self.fallbacks.iter().map(FallbackCounts::tried).sum()
    }
}

/// How long calls waited for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Wait {
    /// Why they waited.
    pub reason: WaitReason,
    /// How long, and how many.
    pub times: Times,
}

/// Tokens that callers reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Tokens {
    /// Tokens sent.
    pub input: u64,
    /// Tokens received.
    pub output: u64,
    /// Reports, one per call.
    pub reports: u64,
}

impl Tokens {
    /// Sent and received.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl Snapshot {
    /// Calls that the primary served, as a share of all that ended. Where the stack has no
    /// [`Fallback`](crate::Fallback): accepted attempts as a share of all that ended, where each retry is an
    /// attempt of its own, and those outside the rollout do not count. `None` before the first.
    pub fn success_rate(&self) -> Option<f64> {
        let finished = self.calls.finished();
        if finished > 0 { share(self.calls.primary, finished) } else { self.attempts.success_rate() }
    }

    /// Calls that were sent to the fallback, as a share of all that ended. `None` before the first.
    pub fn fallback_rate(&self) -> Option<f64> {
        share(self.calls.tried_fallback(), self.calls.finished())
    }

    /// The mean response time, waiting included, as the outermost layer sees it that writes here: a micro-batch,
    /// or else a fallback, or else the cooldown. `None` before the first.
    pub fn mean_response(&self) -> Option<Duration> {
        [&self.batched, &self.calls.response, &self.attempts.response].into_iter().find_map(Times::mean)
    }

    /// The mean time of an attempt from sending to the response's head, without any waiting. `None` before the
    /// first.
    pub fn mean_service(&self) -> Option<Duration> {
        self.attempts.service.mean()
    }

    /// The attempts on this side of the rollout.
    pub const fn arm(&self, arm: Arm) -> &Attempts {
        match arm {
            Arm::Treated => &self.attempts,
            Arm::Control => &self.control,
        }
    }

    /// How long calls waited for this reason.
    pub fn wait(&self, reason: WaitReason) -> Times {
        self.waits[reason as usize].times
    }

    /// Writes the snapshot as `tracing` events: the rates at `info`, the histogram of waits at `debug`.
    pub fn log(&self) {
        tracing::info!(
            success_rate = self.success_rate(),
            fallback_rate = self.fallback_rate(),
            recent_success_rate = self.last_minute.success_rate(),
            recent_fallback_rate = self.last_minute.fallback_rate(),
            calls = self.calls.total(),
            attempts = self.attempts.total(),
            throttled = self.attempts.throttled,
            mean_response_ms = self.mean_response().map(millis),
            mean_service_ms = self.mean_service().map(millis),
            peak_consecutive_429s = self.peak_consecutive_429s,
            "statistics"
        );
        if self.coalesced.batches > 0 {
            tracing::info!(
                batches = self.coalesced.batches,
                mean_size = self.coalesced.mean_size(),
                calls_saved = self.coalesced.calls_saved(),
                "coalesced"
            );
        }
        for Wait { reason, times } in &self.waits {
            tracing::debug!(
                reason = reason.as_str(),
                count = times.count,
                mean_ms = times.mean().map(millis),
                p95_ms = millis(times.p95),
                max_ms = millis(times.max),
                "waits"
            );
        }
    }
}

pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(feature = "serde")]
pub(super) fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(feature = "serde")]
#[allow(clippy::ref_option, reason = "serde's signature")]
pub(crate) fn optional_seconds<S: serde::Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&time.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

#[cfg(feature = "serde")]
#[allow(clippy::ref_option, reason = "serde's signature")]
pub(super) fn status<S: serde::Serializer>(
    status: &Option<http::StatusCode>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match status {
        Some(status) => serializer.serialize_some(&status.as_u16()),
        None => serializer.serialize_none(),
    }
}
