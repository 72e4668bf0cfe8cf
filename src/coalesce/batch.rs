//! What is sent: the requests of one call, put together from what is open, and who gets the answers.

use super::{
    BatchError,
    core::Cost,
    group::{Queued, SharedGroup},
};
use std::{collections::VecDeque, ops::Range, sync::Arc, task::Context};
use tokio::time::Instant;

/// What made a batch close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// It had its number of items, or the next request would have been too many.
    Items,
    /// It had its weight, or the next request would have been too much.
    Weight,
    /// The tick ended.
    Tick,
    /// The linger was over.
    Linger,
    /// Nothing else of its key was in flight, or a batch had just ended; requests that come
    /// [one at a time](super#one-at-a-time).
    Idle,
    /// The waiting room was full.
    Exhausted,
    /// [`Handle::flush`](super::Handle::flush).
    Flush,
    /// [`Handle::drain`](super::Handle::drain).
    Drain,
    /// A request that makes a batch of its own: it is oversize, or there were too many keys.
    Alone,
}

impl Trigger {
    /// All triggers, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Items,
        Self::Weight,
        Self::Tick,
        Self::Linger,
        Self::Idle,
        Self::Exhausted,
        Self::Flush,
        Self::Drain,
        Self::Alone,
    ];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Weight => "weight",
            Self::Tick => "tick",
            Self::Linger => "linger",
            Self::Idle => "idle",
            Self::Exhausted => "exhausted",
            Self::Flush => "flush",
            Self::Drain => "drain",
            Self::Alone => "alone",
        }
    }
}

/// What a caller gets.
pub(super) type Answer<T, E> = Result<T, BatchError<E>>;

/// What was taken out of a group.
pub(super) struct Part<Req, T, E> {
    pub(super) group: SharedGroup<Req, T, E>,
    /// The number of the first caller in `requests`.
    pub(super) first: usize,
    pub(super) requests: Vec<Queued<Req>>,
    pub(super) cost: Cost,
    /// What closed the group, or would have.
    pub(super) trigger: Trigger,
    /// Nothing is left in the group.
    pub(super) is_last: bool,
}

/// The requests of a call, in the order in which they came, as far as there is one.
pub(super) struct Batch<Req, T, E> {
    pub(super) requests: Vec<Req>,
    pub(super) recipients: Recipients<Req, T, E>,
    pub(super) cost: Cost,
    pub(super) trigger: Trigger,
    /// When the first request came.
    pub(super) since: Instant,
    /// When it was taken, to be sent at once.
    pub(super) at: Instant,
}

/// Those who wait for the answers, in the order of the requests. Who has got one is no longer here.
pub(super) struct Recipients<Req, T, E> {
    runs: VecDeque<Run<Req, T, E>>,
}

/// Callers of one group whose requests follow one another, none of whom had left: a part is one of them, mostly.
struct Run<Req, T, E> {
    group: SharedGroup<Req, T, E>,
    callers: Range<usize>,
}

impl<Req, T, E> Part<Req, T, E> {
    /// Whether somebody waits for it: each request counts for an item.
    pub(super) fn is_awaited(&self) -> bool {
        self.cost.items > 0
    }
}

impl<Req, T, E> Batch<Req, T, E> {
    /// `None` if nobody waits for any of the parts.
    pub(super) fn of(parts: Vec<Part<Req, T, E>>) -> Option<Self> {
        let first = parts.iter().find(|part| part.is_awaited())?;
        let (trigger, since) = (first.trigger, first.group.since);
        let (mut requests, mut cost) = (Vec::new(), Cost::default());
        let mut runs = VecDeque::with_capacity(parts.len());
        for part in parts {
            add_runs(&mut runs, &part);
            cost = cost.plus(part.cost);
            let more = part.requests.into_iter().flatten().map(|(request, _)| request);
            if requests.is_empty() {
                requests = more.collect() // into the memory of the part
            } else {
                requests.extend(more)
            }
        }
        let recipients = Recipients { runs };
        Some(Self { requests, recipients, cost, trigger, since, at: Instant::now() })
    }
}

fn add_runs<Req, T, E>(runs: &mut VecDeque<Run<Req, T, E>>, part: &Part<Req, T, E>) {
    let mut next = part.first;
    for there in part.requests.chunk_by(|one, other| one.is_some() && other.is_some()) {
        let callers = next..next + there.len();
        next = callers.end;
        if there[0].is_some() {
            runs.push_back(Run { group: Arc::clone(&part.group), callers });
        }
    }
}

impl<Req, T, E> Default for Recipients<Req, T, E> {
    fn default() -> Self {
        Self { runs: VecDeque::new() }
    }
}

impl<Req, T, E> Recipients<Req, T, E> {
    /// The first caller of this group.
    pub(super) fn only(group: &SharedGroup<Req, T, E>) -> Self {
        Self { runs: VecDeque::from([Run { group: Arc::clone(group), callers: 0..1 }]) }
    }

    /// Gives the next callers their answers.
    pub(super) fn deliver(&mut self, mut answers: impl ExactSizeIterator<Item = Answer<T, E>>) {
        while answers.len() > 0 {
            let run = self.runs.front_mut().expect("no more answers than callers");
            let callers = run.callers.by_ref().take(answers.len());
            run.group.deliver(callers.zip(answers.by_ref()));
            if run.callers.is_empty() {
                self.runs.pop_front();
            }
        }
    }

    /// Gives all that are left this one.
    pub(super) fn fail(&mut self, error: &BatchError<E>) {
        let left = self.runs.iter().map(|run| run.callers.len()).sum::<usize>();
        self.deliver((0..left).map(|_| Err(error.share())));
    }

    /// Whether one of them still waits. If so, the task is woken when that may have changed.
    pub(super) fn are_there(&self, cx: &Context<'_>) -> bool {
        self.runs.iter().any(|run| run.group.is_awaited_by(run.callers.clone(), cx))
    }
}
