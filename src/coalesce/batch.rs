//! What is sent: the requests of one call, put together from what is open, and who gets the answers.

use super::{
    BatchError,
    core::Cost,
    group::{Queued, SharedGroup},
};
use std::{task::Context, vec};
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
    /// Nothing else of its key was in flight, or a batch had just ended.
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
    groups: Vec<SharedGroup<Req, T, E>>,
    left: vec::IntoIter<Recipient>,
}

#[derive(Clone, Copy)]
struct Recipient {
    group: usize,
    caller: usize,
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
        let at_most = parts.iter().map(|part| part.requests.len()).sum();
        let (mut requests, mut recipients) = (Vec::new(), Vec::with_capacity(at_most));
        let mut cost = Cost::default();
        // Into the memory of the parts, and the requests into that of the first part's.
        let groups = parts.into_iter().enumerate().map(|(group, part)| {
            let callers = (part.first..).zip(&part.requests).filter(|(_, request)| request.is_some());
            recipients.extend(callers.map(|(caller, _)| Recipient { group, caller }));
            let more = part.requests.into_iter().flatten().map(|(request, _)| request);
            if group == 0 {
                requests = more.collect()
            } else {
                requests.extend(more)
            }
            cost = cost.plus(part.cost);
            part.group
        });
        let groups = groups.collect();
        let recipients = Recipients { groups, left: recipients.into_iter() };
        Some(Self { requests, recipients, cost, trigger, since, at: Instant::now() })
    }
}

impl<Req, T, E> Recipients<Req, T, E> {
    /// Gives the next callers their answers.
    pub(super) fn deliver(&mut self, mut answers: impl ExactSizeIterator<Item = Answer<T, E>>) {
        while answers.len() > 0 {
            let next = &self.left.as_slice()[..answers.len()];
            let group = next[0].group;
            let run = next.iter().take_while(|recipient| recipient.group == group).count();
            let callers = self.left.by_ref().take(run).map(|recipient| recipient.caller);
            self.groups[group].deliver(callers.zip(answers.by_ref()));
        }
    }

    /// Gives all that are left this one.
    pub(super) fn fail(&mut self, error: &BatchError<E>) {
        self.deliver((0..self.left.len()).map(|_| Err(error.share())));
    }

    /// Whether one of them still waits. If so, the task is woken when that may have changed.
    pub(super) fn are_there(&self, cx: &Context<'_>) -> bool {
        let of = |group| self.left.as_slice().iter().filter(move |recipient| recipient.group == group);
        let mut groups = self.groups.iter().enumerate();
        groups.any(|(n, group)| group.is_awaited_by(of(n).map(|recipient| recipient.caller), cx))
    }
}
