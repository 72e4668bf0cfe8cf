use super::{
    Attempts, Calls, Coalesced, Cooldowns, Distribution, FallbackCounts, Snapshot, Tokens, Wait,
    tokens::TOKEN_CLASSES,
};
use crate::WaitReason;

/// The whole distributions behind the [`Times`](super::Times) of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detail {
    /// Inside the rollout, and outside.
    pub(crate) response: [Distribution; 2],
    pub(crate) service: [Distribution; 2],
    pub(crate) calls: Distribution,
    pub(crate) batched: Distribution,
    pub(crate) coalesced: Distribution,
    /// Calls for coalesced batches that failed, and that did not.
    pub(crate) batch_calls: [Distribution; 2],
    pub(crate) slips: Distribution,
    pub(crate) waits: [Distribution; WaitReason::ALL.len()],
    /// Reports by tokens in and out; see [`TOKEN_CLASSES`](super::tokens::TOKEN_CLASSES).
    pub(crate) tokens: [[u64; TOKEN_CLASSES]; 2],
}

/// How the numbers of two snapshots become one.
#[derive(Clone, Copy)]
struct Combine {
    count: fn(u64, u64) -> u64,
    times: fn(&Distribution, &Distribution) -> Distribution,
}

impl Combine {
    fn optional(self, a: Option<u64>, b: Option<u64>) -> Option<u64> {
        (a.is_some() || b.is_some()).then(|| (self.count)(a.unwrap_or(0), b.unwrap_or(0)))
    }
}

impl Snapshot {
    /// What happened between `earlier` and this one: two snapshots of the same [`Statistics`](super::Statistics).
    ///
    /// Counts and times are differences, and quantiles are those of the difference. The longest time in between is
    /// known to its bucket only, an eighth of it. [`last_minute`](Self::last_minute), the runs of 429s and the largest
    /// batch are those of this snapshot. What went down, because `earlier` is later or of another book, counts as zero.
    #[must_use]
    pub fn delta(&self, earlier: &Self) -> Self {
        self.combine(earlier, Combine { count: u64::saturating_sub, times: Distribution::minus })
    }

    /// Two books as one.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.combine(other, Combine { count: u64::wrapping_add, times: Distribution::plus });
        sum.last_minute = self.last_minute.combine(&other.last_minute, u64::wrapping_add);
        sum.consecutive_429s = self.consecutive_429s.max(other.consecutive_429s);
        sum.peak_consecutive_429s = self.peak_consecutive_429s.max(other.peak_consecutive_429s);
        sum
    }

    fn combine(&self, other: &Self, by: Combine) -> Self {
        let detail = Box::new(self.detail.combine(&other.detail, by));
        Self {
            calls: self.calls.combine(&other.calls, by),
            attempts: self.attempts.combine(&other.attempts, by),
            control: self.control.combine(&other.control, by),
            coalesced: self.coalesced.combine(&other.coalesced, by),
            keys_evicted: (by.count)(self.keys_evicted, other.keys_evicted),
            records_overwritten: by.optional(self.records_overwritten, other.records_overwritten),
            cooldowns: Cooldowns {
                rate_limit: (by.count)(self.cooldowns.rate_limit, other.cooldowns.rate_limit),
                adaptive: (by.count)(self.cooldowns.adaptive, other.cooldowns.adaptive),
            },
            tokens: Tokens {
                input: (by.count)(self.tokens.input, other.tokens.input),
                output: (by.count)(self.tokens.output, other.tokens.output),
                reports: (by.count)(self.tokens.reports, other.tokens.reports),
            },
            detail,
            ..self.clone()
        }
        .with_times()
    }

    /// Fills in the times that the detail has.
    pub(super) fn with_times(mut self) -> Self {
        let Detail { response, service, calls, batched, coalesced, batch_calls, slips, waits, .. } =
            &*self.detail;
        [self.attempts.response, self.control.response] = [response[0].times(), response[1].times()];
        [self.attempts.service, self.control.service] = [service[0].times(), service[1].times()];
        self.calls.response = calls.times();
        self.batched = batched.times();
        self.coalesced.waits = coalesced.times();
        [self.coalesced.failed, self.coalesced.succeeded] = [batch_calls[0].times(), batch_calls[1].times()];
        self.slips = slips.times();
        self.waits = WaitReason::ALL.map(|reason| Wait { reason, times: waits[reason as usize].times() });
        self
    }
}

impl Detail {
    fn combine(&self, other: &Self, Combine { times, count }: Combine) -> Self {
        let pair = |a: &[Distribution; 2], b: &[Distribution; 2]| [times(&a[0], &b[0]), times(&a[1], &b[1])];
        Self {
            response: pair(&self.response, &other.response),
            service: pair(&self.service, &other.service),
            calls: times(&self.calls, &other.calls),
            batched: times(&self.batched, &other.batched),
            coalesced: times(&self.coalesced, &other.coalesced),
            batch_calls: pair(&self.batch_calls, &other.batch_calls),
            slips: times(&self.slips, &other.slips),
            waits: std::array::from_fn(|reason| times(&self.waits[reason], &other.waits[reason])),
            tokens: std::array::from_fn(|way| {
                std::array::from_fn(|class| count(self.tokens[way][class], other.tokens[way][class]))
            }),
        }
    }
}

impl Attempts {
    fn combine(&self, other: &Self, Combine { count, .. }: Combine) -> Self {
        Self {
            accepted: count(self.accepted, other.accepted),
            throttled: count(self.throttled, other.throttled),
            overloaded: count(self.overloaded, other.overloaded),
            failed: count(self.failed, other.failed),
            refused: count(self.refused, other.refused),
            exhausted: count(self.exhausted, other.exhausted),
            rejected: count(self.rejected, other.rejected),
            cancelled: count(self.cancelled, other.cancelled),
            ..*self
        }
    }
}

impl Calls {
    fn combine(&self, other: &Self, Combine { count, .. }: Combine) -> Self {
        let mut fallbacks = self.fallbacks;
        for (counts, other) in fallbacks.iter_mut().zip(&other.fallbacks) {
            *counts = FallbackCounts {
                reason: counts.reason,
                served: count(counts.served, other.served),
                fallback_failed: count(counts.fallback_failed, other.fallback_failed),
                not_tried: count(counts.not_tried, other.not_tried),
            };
        }
        Self {
            primary: count(self.primary, other.primary),
            refused: count(self.refused, other.refused),
            cancelled: count(self.cancelled, other.cancelled),
            fallbacks,
            response: self.response,
        }
    }
}

impl Coalesced {
    fn combine(&self, other: &Self, Combine { count, .. }: Combine) -> Self {
        let mut triggers = self.triggers;
        for (mine, other) in triggers.iter_mut().zip(&other.triggers) {
            mine.batches = count(mine.batches, other.batches);
        }
        Self {
            batches: count(self.batches, other.batches),
            requests: count(self.requests, other.requests),
            calls: count(self.calls, other.calls),
            weight: count(self.weight, other.weight),
            largest: self.largest.max(other.largest),
            sizes: std::array::from_fn(|class| count(self.sizes[class], other.sizes[class])),
            triggers,
            ..*self
        }
    }
}
