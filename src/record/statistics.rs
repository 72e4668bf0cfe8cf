use super::{
    Arm, Attempts, CallOutcome, CallRecord, Calls, FallbackCounts, FallbackReason, Outcome, Snapshot, Times,
    Tokens, Wait,
    coalesced::CoalesceBook,
    histogram::{Distribution, Histogram},
};
use crate::{WaitReason, coalesce::Trigger};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The book that the layers keep: lock-free, of fixed size, shared by its clones.
///
/// See the [module docs](super). Counting never blocks and never allocates.
#[derive(Clone)]
pub struct Statistics {
    book: Arc<Book>,
}

struct Book {
    arms: [ArmBook; 2],
    waits: [Histogram; WaitReason::ALL.len()],
    /// From coming to a micro-batch to the answer.
    batched: Histogram,
    coalesced: CoalesceBook,
    calls: CallBook,
    tokens: TokenBook,
    consecutive_429s: AtomicU64,
    peak_consecutive_429s: AtomicU64,
    /// A cooldown writes its attempts here; see `claim_attempts`.
    attempts_claimed: AtomicBool,
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(&CallRecord) + Send + Sync>;

/// Calls that did not wait are in one histogram only: their response time is their service time.
struct ArmBook {
    outcomes: [AtomicU64; Outcome::COUNT],
    straight: Histogram,
    waited_service: Histogram,
    waited_response: Histogram,
}

struct CallBook {
    primary: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    served: [AtomicU64; FallbackReason::ALL.len()],
    fallback_failed: [AtomicU64; FallbackReason::ALL.len()],
    failed: [AtomicU64; FallbackReason::ALL.len()],
    response: Histogram,
}

struct TokenBook {
    input: AtomicU64,
    output: AtomicU64,
    reports: AtomicU64,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl ArmBook {
    fn new() -> Self {
        Self {
            outcomes: zeros(),
            straight: Histogram::new(),
            waited_service: Histogram::new(),
            waited_response: Histogram::new(),
        }
    }

    fn attempts(&self) -> Attempts {
        let count = |outcome: Outcome| self.outcomes[outcome as usize].load(Relaxed);
        Attempts {
            accepted: count(Outcome::Accepted),
            throttled: count(Outcome::Throttled),
            overloaded: count(Outcome::Overloaded),
            failed: count(Outcome::Failed),
            refused: count(Outcome::Refused),
            exhausted: count(Outcome::Exhausted),
            rejected: count(Outcome::Rejected),
            cancelled: count(Outcome::Cancelled),
            response: Distribution::of([&self.straight, &self.waited_response]).times(),
            service: Distribution::of([&self.straight, &self.waited_service]).times(),
        }
    }
}

impl Statistics {
    /// An empty book.
    pub fn new() -> Self {
        Self::build(None)
    }

    /// An empty book that also shows every record to `observer`, after counting it.
    ///
    /// The observer runs where the call ends, or in its `drop`: it has to be quick and must not panic.
    pub fn with_observer(observer: impl Fn(&CallRecord) + Send + Sync + 'static) -> Self {
        Self::build(Some(Box::new(observer)))
    }

    fn build(observer: Option<Observer>) -> Self {
        let book = Book {
            arms: [ArmBook::new(), ArmBook::new()],
            waits: [const { Histogram::new() }; WaitReason::ALL.len()],
            batched: Histogram::new(),
            coalesced: CoalesceBook::new(),
            calls: CallBook {
                primary: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                cancelled: AtomicU64::new(0),
                served: zeros(),
                fallback_failed: zeros(),
                failed: zeros(),
                response: Histogram::new(),
            },
            tokens: TokenBook {
                input: AtomicU64::new(0),
                output: AtomicU64::new(0),
                reports: AtomicU64::new(0),
            },
            consecutive_429s: AtomicU64::new(0),
            peak_consecutive_429s: AtomicU64::new(0),
            attempts_claimed: AtomicBool::new(false),
            observer,
        };
        Self { book: Arc::new(book) }
    }

    /// Counts one attempt.
    pub fn record(&self, record: &CallRecord) {
        let arm = &self.book.arms[record.arm as usize];
        add_one(&arm.outcomes[record.outcome as usize]);
        // A cancelled call has no response time, and a rejected one was never sent.
        if !matches!(record.outcome, Outcome::Cancelled | Outcome::Rejected) {
            if record.waited.is_zero() {
                arm.straight.record(record.service);
            } else {
                arm.waited_service.record(record.service);
                arm.waited_response.record(record.waited.saturating_add(record.service));
            }
        }
        self.record_wait(record.wait_reason, record.waited);
        if record.arm == Arm::Treated {
            self.count_consecutive(record.outcome);
        }
        if let Some(observer) = &self.book.observer {
            observer(record);
        }
    }

    /// Counts the time that a call waited.
    pub(crate) fn record_wait(&self, reason: WaitReason, waited: Duration) {
        if !waited.is_zero() {
            self.book.waits[reason as usize].record(waited);
        }
    }

    /// Counts the time that a call took from when it came to a micro-batch.
    pub(crate) fn record_batched(&self, response: Duration) {
        self.book.batched.record(response);
    }

    /// A coalesced batch has closed.
    pub(crate) fn record_batch(&self, trigger: Trigger, requests: usize, weight: u64, waited: Duration) {
        self.book.coalesced.record(trigger, requests, weight, waited);
    }

    /// A call is made for a coalesced batch, or for a part of it.
    pub(crate) fn record_batch_call(&self) {
        self.book.coalesced.record_call();
    }

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

    /// Counts one call through a fallback, and how long it took from the caller's side.
    pub fn record_call(&self, outcome: CallOutcome, response: Duration) {
        let calls = &self.book.calls;
        add_one(match outcome {
            CallOutcome::Primary => &calls.primary,
            CallOutcome::Refused => &calls.refused,
            CallOutcome::Fallback(reason) => &calls.served[reason as usize],
            CallOutcome::FallbackFailed(reason) => &calls.fallback_failed[reason as usize],
            CallOutcome::Failed(reason) => &calls.failed[reason as usize],
            CallOutcome::Cancelled => &calls.cancelled,
        });
        if outcome != CallOutcome::Cancelled {
            calls.response.record(response);
        }
    }

    pub(crate) fn add_tokens(&self, input: u64, output: u64) {
        let tokens = &self.book.tokens;
        tokens.input.fetch_add(input, Relaxed);
        tokens.output.fetch_add(output, Relaxed);
        add_one(&tokens.reports);
    }

    /// A cooldown claims the attempts in this book: other layers that share it leave them to the cooldown.
    pub(crate) fn claim_attempts(&self) {
        self.book.attempts_claimed.store(true, Relaxed);
    }

    pub(crate) fn attempts_claimed(&self) -> bool {
        self.book.attempts_claimed.load(Relaxed)
    }

    /// What the book says now.
    ///
    /// The counters are read one after another while calls go on, so at a busy moment two of them may differ
    /// by the calls that ended in between. At rest they add up.
    pub fn snapshot(&self) -> Snapshot {
        let [attempts, control] =
            [Arm::Treated, Arm::Control].map(|arm| self.book.arms[arm as usize].attempts());
        let waits = WaitReason::ALL.map(|reason| Wait { reason, times: self.waits(reason) });
        Snapshot {
            calls: self.calls(),
            attempts,
            control,
            batched: Distribution::of([&self.book.batched]).times(),
            coalesced: self.book.coalesced.read(),
            waits,
            tokens: Tokens {
                input: self.book.tokens.input.load(Relaxed),
                output: self.book.tokens.output.load(Relaxed),
                reports: self.book.tokens.reports.load(Relaxed),
            },
            consecutive_429s: self.book.consecutive_429s.load(Relaxed),
            peak_consecutive_429s: self.book.peak_consecutive_429s.load(Relaxed),
        }
    }

    fn waits(&self, reason: WaitReason) -> Times {
        if reason == WaitReason::Normal {
            let straight = &self.book.arms[Arm::Treated as usize].straight;
            return Times { count: Distribution::of([straight]).times().count, ..Times::default() };
        }
        Distribution::of([&self.book.waits[reason as usize]]).times()
    }

    fn calls(&self) -> Calls {
        let calls = &self.book.calls;
        Calls {
            primary: calls.primary.load(Relaxed),
            refused: calls.refused.load(Relaxed),
            cancelled: calls.cancelled.load(Relaxed),
            fallbacks: FallbackReason::ALL.map(|reason| FallbackCounts {
                reason,
                served: calls.served[reason as usize].load(Relaxed),
                fallback_failed: calls.fallback_failed[reason as usize].load(Relaxed),
                not_tried: calls.failed[reason as usize].load(Relaxed),
            }),
            response: Distribution::of([&calls.response]).times(),
        }
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
