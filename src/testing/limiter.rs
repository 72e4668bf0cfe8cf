use super::{
    Counts, Decision, Limit, Neighbour, Reading,
    neighbour::Calls,
    state::Enforced,
    units::{Nanos, nanos},
};
use crate::Cost;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// The limits of one upstream, in force: a pure function of the calls that come and of when they come.
///
/// It has no clock. Times are given as the time since the start, and should not go backwards: one that lies
/// before the last one counts as the last one. The same calls at the same times give the same answers.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{
///     Cost, InvalidSetting,
///     testing::{Limit, Limiter},
/// };
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
/// let mut limiter = Limiter::new([Limit::sliding_log(2, minute)?]);
///
/// assert!(limiter.offer(second, Cost::one()).granted);
/// assert!(limiter.offer(second * 5, Cost::one()).granted);
/// let refused = limiter.offer(second * 11, Cost::one());
/// assert_eq!(refused.retry_after, Some(second * 50)); // the first call came a minute before that
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Limiter {
    pub(super) limits: Vec<Limit>,
    enforced: Vec<Enforced>,
    /// When, which one, and what comes in its place; the next one last.
    changes: Vec<(Nanos, usize, Limit)>,
    /// When which calls end.
    finishes: BinaryHeap<Reverse<(Nanos, Cost)>>,
    pub(super) neighbours: Vec<Calls>,
    now: Nanos,
    /// When the first of the changes, finishes and neighbours' calls is due.
    next: Nanos,
    counts: Counts,
    neighbour_counts: Counts,
}

impl Limiter {
    /// Calls must be admitted by all of these limits. With none, everything is admitted.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        let limits: Vec<Limit> = limits.into_iter().collect();
        let mut changes: Vec<(Nanos, usize, Limit)> = Vec::new();
        for (index, limit) in limits.iter().enumerate() {
            changes.extend(limit.changes.iter().map(|(at, next)| (*at, index, next.clone())));
        }
        changes.reverse(); // so that of two at the same time the one that was added last wins
        changes.sort_by_key(|(at, ..)| Reverse(*at));
        let mut limiter = Self {
            enforced: limits.iter().map(|limit| Enforced::new(limit, 0)).collect(),
            limits,
            changes,
            finishes: BinaryHeap::new(),
            neighbours: Vec::new(),
            now: 0,
            next: 0,
            counts: Counts::default(),
            neighbour_counts: Counts::default(),
        };
        limiter.next = limiter.next_event();
        limiter
    }

    /// Adds someone who uses the same limits.
    #[must_use]
    pub fn neighbour(mut self, neighbour: &Neighbour) -> Self {
        self.neighbours.push(neighbour.calls());
        self.next = self.next_event();
        self
    }

    /// A call that arrives at this time.
    pub fn offer(&mut self, at: Duration, cost: Cost) -> Decision {
        self.advance(at);
        let decision = self.decide(cost);
        self.counts.count(&decision, cost.tokens());
        decision
    }

    /// A call that was granted ends at this time, which may lie ahead. Only concurrency limits need to know.
    pub fn finish(&mut self, at: Duration, cost: Cost) {
        self.finish_at(nanos(at), cost);
    }

    fn finish_at(&mut self, at: Nanos, cost: Cost) {
        if at <= self.now {
            self.enforced.iter_mut().for_each(|limit| limit.finish(cost));
        } else {
            self.finishes.push(Reverse((at, cost)));
            self.next = self.next.min(at);
        }
    }

    /// Lets the time pass: neighbours send, calls end, limits change.
    pub fn advance(&mut self, to: Duration) {
        let to = nanos(to);
        // `MAX` stands for nothing: without that, the end of time would never be over.
        while self.next <= to && self.next < Nanos::MAX {
            self.now = self.now.max(self.next);
            self.event();
            self.next = self.next_event();
        }
        self.now = self.now.max(to);
    }

    /// What is left of each limit now, in the order in which they were given. "Now" is the last time that it
    /// heard of.
    pub fn readings(&mut self) -> Vec<Reading> {
        let now = self.now;
        self.enforced.iter_mut().map(|limit| limit.reading(now)).collect()
    }

    /// The calls that were [offered](Self::offer).
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The neighbours' calls.
    pub const fn neighbour_counts(&self) -> Counts {
        self.neighbour_counts
    }

    /// How long until this call would be admitted.
    pub(super) fn wait(&mut self, cost: Cost) -> Option<Duration> {
        let now = self.now;
        let mut longest = 0;
        for limit in &mut self.enforced {
            longest = limit.wait(now, cost)?.max(longest);
        }
        Some(Duration::from_nanos(longest))
    }

    /// When something happens by itself.
    pub(super) fn next_event_at(&self) -> Option<Duration> {
        (self.next < Nanos::MAX).then(|| Duration::from_nanos(self.next))
    }

    fn decide(&mut self, cost: Cost) -> Decision {
        let now = self.now;
        // `None` for a wait that does not end counts as the longest.
        let mut longest = 0;
        let mut refused_by = None;
        for (index, limit) in self.enforced.iter_mut().enumerate() {
            let wait = limit.wait(now, cost).unwrap_or(Nanos::MAX);
            if wait > longest {
                (longest, refused_by) = (wait, Some(index));
            }
        }
        if refused_by.is_none() {
            self.enforced.iter_mut().for_each(|limit| limit.take(now, cost));
            return Decision {
                granted: true,
                retry_after: None,
                refused_by,
                penalty: false,
                sets_off_penalty: false,
            };
        }
        let (mut penalty, mut sets_off_penalty) = (false, false);
        for limit in &mut self.enforced {
            let (wait, before) = (limit.wait(now, cost), limit.is_penalty(now));
            limit.refused(now, cost, wait);
            penalty |= limit.is_penalty(now);
            sets_off_penalty |= !before && limit.is_penalty(now);
        }
        // Again: a penalty, or a refusal that counts, makes it longer.
        Decision { granted: false, retry_after: self.wait(cost), refused_by, penalty, sets_off_penalty }
    }

    fn next_event(&self) -> Nanos {
        let change = self.changes.last().map(|(at, ..)| *at);
        let finish = self.finishes.peek().map(|Reverse((at, ..))| *at);
        let neighbour = self.neighbours.iter().filter_map(|calls| calls.next).min();
        [change, finish, neighbour].into_iter().flatten().min().unwrap_or(Nanos::MAX)
    }

    /// The one thing that is due: a change first, then a call that ends, then a neighbour's call.
    fn event(&mut self) {
        let now = self.now;
        if let Some((_, index, limit)) = self.pop_due(now) {
            self.enforced[index].change(&limit, now);
            return;
        }
        if let Some(Reverse((at, cost))) = self.finishes.peek().copied() {
            if at <= now {
                self.finishes.pop();
                self.finish_at(at, cost);
                return;
            }
        }
        let due = self.neighbours.iter().position(|calls| calls.next.is_some_and(|at| at <= now));
        if let Some(index) = due {
            let calls = &mut self.neighbours[index];
            calls.step();
            let (cost, work) = (calls.neighbour.cost, calls.neighbour.work);
            let decision = self.decide(cost);
            self.neighbour_counts.count(&decision, cost.tokens());
            if decision.granted {
                self.finish_at(now.saturating_add(work), cost);
            }
        }
    }

    fn pop_due(&mut self, now: Nanos) -> Option<(Nanos, usize, Limit)> {
        let is_due = self.changes.last().is_some_and(|(at, ..)| *at <= now);
        if is_due { self.changes.pop() } else { None }
    }
}
