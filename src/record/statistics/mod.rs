mod reading;

use super::{
    Arm, CallOutcome, CallRecord, FallbackReason, Outcome, Recent, RecentAttempts, RecentCalls, RecordRing,
    coalesced::CoalesceBook, histogram::Histogram, recent::Notes, tokens::TokenBook,
};
use crate::{
    WaitReason,
    coalesce::Trigger,
    lanes::{Lane, Lanes, LazyLanes},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The book that the layers keep: lock-free, of fixed size, shared by its clones.
///
/// See the [module docs](super). Counting never blocks. It never allocates, but for the
/// first [`record_call`](Self::record_call) where there is no [`Fallback`](crate::Fallback).
#[derive(Clone)]
pub struct Statistics {
    book: Arc<Book>,
}

struct Book {
    arms: [ArmBook; 2],
    waits: [Histogram; WaitReason::ALL.len()],
    /// From coming to a micro-batch to the answer.
    batched: LazyLanes<Histogram>,
    coalesced: CoalesceBook,
    /// How late calls left that had waited.
    slips: Histogram,
    calls: CallBook,
    tokens: TokenBook,
    /// That the server asked for, and that the policy chose.
    cooldowns: [AtomicU64; 2],
    keys_evicted: AtomicU64,
    consecutive_429s: AtomicU64,
    peak_consecutive_429s: AtomicU64,
    /// A cooldown writes its attempts here; see `claim_attempts`.
    attempts_claimed: AtomicBool,
    notes: Notes,
    observer: Option<Observer>,
    /// In which the observer writes, if it does.
    ring: Option<RecordRing>,
}

type Observer = Box<dyn Fn(&CallRecord) + Send + Sync>;

struct ArmBook {
    straight: Lanes<Straight>,
    /// Of the calls that waited or have no answer.
    outcomes: [AtomicU64; Outcome::COUNT],
    waited_service: Histogram,
    waited_response: Histogram,
}

/// Calls that were answered and did not wait: nearly all, in good times. They are in one histogram only, because
/// their response time is their service time.
struct Straight {
    outcomes: [AtomicU64; Outcome::COUNT],
    times: Histogram,
}

struct CallBook {
    answered: LazyLanes<Answered>,
    refused: AtomicU64,
    cancelled: AtomicU64,
    served: [AtomicU64; FallbackReason::ALL.len()],
    fallback_failed: [AtomicU64; FallbackReason::ALL.len()],
    failed: [AtomicU64; FallbackReason::ALL.len()],
}

/// Calls that were not cancelled, and nearly all are served by the first service.
struct Answered {
    primary: AtomicU64,
    response: Histogram,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl ArmBook {
    fn new(straight: Lanes<Straight>) -> Self {
        Self {
            straight,
            outcomes: zeros(),
            waited_service: Histogram::new(),
            waited_response: Histogram::new(),
        }
    }

    fn count(&self, outcome: Outcome) -> u64 {
        let straight = self.straight.iter().map(|straight| &straight.outcomes);
        straight.chain([&self.outcomes]).map(|outcomes| outcomes[outcome as usize].load(Relaxed)).sum()
    }
}

impl Straight {
    fn new() -> Self {
        Self { outcomes: zeros(), times: Histogram::new() }
    }
}

impl Answered {
    fn new() -> Self {
        Self { primary: AtomicU64::new(0), response: Histogram::new() }
    }
}

impl CallBook {
    fn primary(&self) -> u64 {
        self.answered.iter().map(|answered| answered.primary.load(Relaxed)).sum()
    }
}

impl Book {
    fn counts(&self) -> Recent {
        let [attempts, control] =
            self.arms.each_ref().map(|arm| RecentAttempts::from_counts(|o| arm.count(o)));
        let sum = |counters: &[AtomicU64]| counters.iter().map(|counter| counter.load(Relaxed)).sum();
        let calls = RecentCalls {
            primary: self.calls.primary(),
            fallback: sum(&self.calls.served),
            fallback_failed: sum(&self.calls.fallback_failed),
            failed: sum(&self.calls.failed),
            refused: self.calls.refused.load(Relaxed),
            cancelled: self.calls.cancelled.load(Relaxed),
        };
        Recent { attempts, control, calls }
    }
}

impl Statistics {
    /// An empty book.
    pub fn new() -> Self {
        Self::build(None, None)
    }

    /// An empty book that also shows every record to `observer`, after counting it.
    ///
    /// The observer runs where the call ends, or in its `drop`: it has to be quick and must not panic.
    pub fn with_observer(observer: impl Fn(&CallRecord) + Send + Sync + 'static) -> Self {
        Self::build(Some(Box::new(observer)), None)
    }

    /// An empty book that also writes every record into this ring.
    pub fn with_ring(ring: &RecordRing) -> Self {
        let written = ring.clone();
        Self::build(Some(Box::new(move |record| written.push(record))), Some(ring.clone()))
    }

    fn build(observer: Option<Observer>, ring: Option<RecordRing>) -> Self {
        let book = Book {
            arms: [ArmBook::new(Lanes::new(Straight::new)), ArmBook::new(Lanes::shared(Straight::new))],
            waits: [const { Histogram::new() }; WaitReason::ALL.len()],
            batched: LazyLanes::new(Histogram::new),
            coalesced: CoalesceBook::new(),
            slips: Histogram::new(),
            calls: CallBook {
                answered: LazyLanes::new(Answered::new),
                refused: AtomicU64::new(0),
                cancelled: AtomicU64::new(0),
                served: zeros(),
                fallback_failed: zeros(),
                failed: zeros(),
            },
            tokens: TokenBook::new(),
            cooldowns: zeros(),
            keys_evicted: AtomicU64::new(0),
            consecutive_429s: AtomicU64::new(0),
            peak_consecutive_429s: AtomicU64::new(0),
            attempts_claimed: AtomicBool::new(false),
            notes: Notes::new(),
            observer,
            ring,
        };
        Self { book: Arc::new(book) }
    }

    /// Counts one attempt.
    #[inline]
    pub fn record(&self, record: &CallRecord) {
        self.book.notes.pass(record.finished, || self.book.counts());
        // A cancelled call has no response time, and a rejected one was never sent.
        let answered = !matches!(record.outcome, Outcome::Cancelled | Outcome::Rejected);
        if answered && record.waited.is_zero() {
            let lane = if record.arm == Arm::Treated { Lane::of_this_thread() } else { Lane::SHARED };
            let straight = self.book.arms[record.arm as usize].straight.get(lane);
            lane.add(&straight.outcomes[record.outcome as usize], 1);
            straight.times.record_in(lane, record.service);
        } else {
            self.record_other(record, answered);
        }
        if record.arm == Arm::Treated {
            self.count_consecutive(record.outcome);
        }
        if let Some(observer) = &self.book.observer {
            observer(record);
        }
    }

    #[cold]
    fn record_other(&self, record: &CallRecord, answered: bool) {
        let arm = &self.book.arms[record.arm as usize];
        add_one(&arm.outcomes[record.outcome as usize]);
        if answered {
            arm.waited_service.record(record.service);
            arm.waited_response.record(record.waited.saturating_add(record.service));
        }
        self.record_wait(record.wait_reason, record.waited);
    }

    /// Counts the time that a call waited.
    pub(crate) fn record_wait(&self, reason: WaitReason, waited: Duration) {
        if !waited.is_zero() {
            self.book.waits[reason as usize].record(waited);
        }
    }

    /// A micro-batch will count here: what that takes is allocated now and not for a call.
    pub(crate) fn expect_batched(&self) {
        self.book.batched.all();
    }

    /// Counts the time that a call took from when it came to a micro-batch.
    pub(crate) fn record_batched(&self, response: Duration) {
        let lane = Lane::of_this_thread();
        self.book.batched.get(lane).record_in(lane, response);
    }

    /// A coalesced batch has closed.
    pub(crate) fn record_batch(&self, trigger: Trigger, requests: usize, weight: u64, waited: Duration) {
        self.book.coalesced.record(trigger, requests, weight, waited);
    }

    /// A call is made for a coalesced batch, or for a part of it.
    pub(crate) fn record_batch_call(&self) {
        self.book.coalesced.record_call();
    }

    /// It has ended; it succeeded if a request of it was answered well.
    pub(crate) fn record_batch_call_ended(&self, succeeded: bool, took: Duration) {
        self.book.coalesced.record_call_ended(succeeded, took);
    }

    /// A call that had waited at a gate leaves, this much after it could have.
    pub(crate) fn record_slip(&self, late: Duration) {
        self.book.slips.record(late);
    }

    /// A key was forgotten to make room for another.
    #[cfg(feature = "keyed")]
    pub(crate) fn record_eviction(&self) {
        add_one(&self.book.keys_evicted);
    }

    #[inline]
    fn count_consecutive(&self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted if self.book.consecutive_429s.load(Relaxed) != 0 => {
                self.book.consecutive_429s.store(0, Relaxed);
            }
            Outcome::Throttled | Outcome::Exhausted => {
                let count = self.book.consecutive_429s.fetch_add(1, Relaxed) + 1;
                self.book.peak_consecutive_429s.fetch_max(count, Relaxed);
            }
            _ => {}
        }
    }

    /// The same for a fallback.
    pub(crate) fn expect_calls(&self) {
        self.book.calls.answered.all();
    }

    /// Counts one call through a fallback, and how long it took from the caller's side.
    pub fn record_call(&self, outcome: CallOutcome, response: Duration) {
        self.record_call_at(outcome, response, Instant::now());
    }

    /// The same for one that ended just `now`.
    pub(crate) fn record_call_at(&self, outcome: CallOutcome, response: Duration, now: Instant) {
        self.book.notes.pass(now, || self.book.counts());
        let calls = &self.book.calls;
        if outcome == CallOutcome::Cancelled {
            return add_one(&calls.cancelled);
        }
        let lane = Lane::of_this_thread();
        let answered = calls.answered.get(lane);
        answered.response.record_in(lane, response);
        match outcome {
            CallOutcome::Primary => lane.add(&answered.primary, 1),
            CallOutcome::Refused => add_one(&calls.refused),
            CallOutcome::Fallback(reason) => add_one(&calls.served[reason as usize]),
            CallOutcome::FallbackFailed(reason) => add_one(&calls.fallback_failed[reason as usize]),
            CallOutcome::Failed(reason) => add_one(&calls.failed[reason as usize]),
            CallOutcome::Cancelled => {}
        }
    }

    /// A gate has closed.
    pub(crate) fn record_cooldown(&self, reason: WaitReason) {
        add_one(&self.book.cooldowns[usize::from(reason != WaitReason::RateLimit)]);
    }

    pub(crate) fn add_tokens(&self, input: u64, output: u64) {
        self.book.tokens.add(input, output);
    }

    /// A cooldown claims the attempts in this book: other layers that share it leave them to the cooldown.
    pub(crate) fn claim_attempts(&self) {
        self.book.attempts_claimed.store(true, Relaxed);
    }

    pub(crate) fn attempts_claimed(&self) -> bool {
        self.book.attempts_claimed.load(Relaxed)
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}
