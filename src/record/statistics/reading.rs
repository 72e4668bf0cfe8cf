//! The book, read.

use super::{ArmBook, Book, Statistics};
use crate::{
    WaitReason,
    record::{
        Arm, Attempts, Calls, Cooldowns, Detail, Distribution, FallbackCounts, FallbackReason, Outcome,
        RecordRing, Snapshot, Times, Wait, histogram::Histogram,
    },
};
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

impl ArmBook {
    fn attempts(&self) -> Attempts {
        let count = |outcome| self.count(outcome);
        Attempts {
            accepted: count(Outcome::Accepted),
            throttled: count(Outcome::Throttled),
            overloaded: count(Outcome::Overloaded),
            failed: count(Outcome::Failed),
            refused: count(Outcome::Refused),
            exhausted: count(Outcome::Exhausted),
            rejected: count(Outcome::Rejected),
            cancelled: count(Outcome::Cancelled),
            ..Attempts::default()
        }
    }
}

impl Statistics {
    /// What the book says now.
    ///
    /// The counters are read one after another while calls go on, so at a busy moment two of them may differ
    /// by the calls that ended in between. At rest they add up.
    pub fn snapshot(&self) -> Snapshot {
        let [attempts, control] =
            [Arm::Treated, Arm::Control].map(|arm| self.book.arms[arm as usize].attempts());
        Snapshot {
            calls: self.calls(),
            attempts,
            control,
            batched: Times::default(),
            coalesced: self.book.coalesced.read(),
            waits: WaitReason::ALL.map(|reason| Wait { reason, times: Times::default() }),
            cooldowns: Cooldowns {
                rate_limit: self.book.cooldowns[0].load(Relaxed),
                adaptive: self.book.cooldowns[1].load(Relaxed),
            },
            slips: Times::default(),
            keys_evicted: self.book.keys_evicted.load(Relaxed),
            records_overwritten: self.book.ring.as_ref().map(RecordRing::missed),
            tokens: self.book.tokens.read(),
            consecutive_429s: self.book.consecutive_429s.load(Relaxed),
            peak_consecutive_429s: self.book.peak_consecutive_429s.load(Relaxed),
            last_minute: self.book.notes.since(&self.book.counts(), Instant::now()),
            detail: Box::new(self.detail()),
        }
        .with_times()
    }

    fn detail(&self) -> Detail {
        let Book { arms, waits, batched, coalesced, slips, calls, tokens, .. } = &*self.book;
        // The lanes are read once: there may be many.
        let straight = arms.each_ref().map(|arm| Distribution::of(arm.straight.iter().map(|s| &s.times)));
        let with = |waited: fn(&ArmBook) -> &Histogram| {
            std::array::from_fn(|arm| straight[arm].plus(&Distribution::of([waited(&arms[arm])])))
        };
        let mut waits = waits.each_ref().map(|waits| Distribution::of([waits]));
        waits[WaitReason::Normal as usize].buckets[0] = straight[Arm::Treated as usize].count();
        Detail {
            response: with(|arm| &arm.waited_response),
            service: with(|arm| &arm.waited_service),
            calls: Distribution::of(calls.answered.iter().map(|answered| &answered.response)),
            batched: Distribution::of(batched.iter()),
            coalesced: coalesced.waits(),
            batch_calls: coalesced.took(),
            slips: Distribution::of([slips]),
            waits,
            tokens: tokens.classes(),
        }
    }

    fn calls(&self) -> Calls {
        let calls = &self.book.calls;
        Calls {
            primary: calls.primary(),
            refused: calls.refused.load(Relaxed),
            cancelled: calls.cancelled.load(Relaxed),
            fallbacks: FallbackReason::ALL.map(|reason| FallbackCounts {
                reason,
                served: calls.served[reason as usize].load(Relaxed),
                fallback_failed: calls.fallback_failed[reason as usize].load(Relaxed),
                not_tried: calls.failed[reason as usize].load(Relaxed),
            }),
            response: Times::default(),
        }
    }
}
