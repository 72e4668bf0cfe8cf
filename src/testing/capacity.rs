//! What the limits would have allowed: the measure for a caller.

use super::{Limit, Limiter, Neighbour, limit::Shape, units::nanos};
use crate::Cost;
use std::{ops::Range, time::Duration};

impl Limiter {
    /// How many calls of this cost the limits would have granted in a span of time, to someone who asks at
    /// every first instant from the start on, without latency and without a refusal. What neighbours ask for
    /// in the span is subtracted. `work` is how long each call is in flight, for concurrency limits.
    ///
    /// The measure for goodput: `granted / capacity`. It can exceed 1 where a caller takes from neighbours;
    /// and a little where a span begins inside of a window, because this ideal caller spends each window at its
    /// beginning. So measure over whole windows, or against [`sustained_rate`](Self::sustained_rate).
    ///
    /// It always looks at the limits as they were at the start; calls that were offered make no difference.
    /// Takes a time in proportion to the number of calls.
    pub fn capacity(&self, span: Range<Duration>, cost: Cost, work: Duration) -> u64 {
        let granted = self.ideal(span.start, span.end, cost, work);
        granted.saturating_sub(self.neighbours_take(&span, cost))
    }

    fn ideal(&self, from: Duration, until: Duration, cost: Cost, work: Duration) -> u64 {
        let mut limiter = Self::new(self.limits.iter().cloned());
        let (mut at, mut granted) = (Duration::ZERO, 0);
        if !self.is_limited(cost, work) {
            return u64::MAX;
        }
        while at < until {
            limiter.advance(at);
            let wait = limiter.wait(cost);
            if wait == Some(Duration::ZERO) {
                limiter.offer(at, cost);
                limiter.finish(at.saturating_add(work), cost);
                granted += u64::from(at >= from);
                continue;
            }
            let free = wait.map(|wait| at.saturating_add(wait));
            match [free, limiter.next_event_at()].into_iter().flatten().min() {
                Some(next) => at = next,
                None => break,
            }
        }
        granted
    }

    /// Whether there is an end to how many calls of this cost it grants.
    fn is_limited(&self, cost: Cost, work: Duration) -> bool {
        self.limits.iter().any(|limit: &Limit| {
            let counts = limit.unit.of(cost) > 0;
            counts && (!matches!(limit.shape, Shape::Concurrency { .. }) || !work.is_zero())
        })
    }

    /// How many calls of this cost are worth what the neighbours ask for in this span.
    fn neighbours_take(&self, span: &Range<Duration>, cost: Cost) -> u64 {
        let (start, end) = (nanos(span.start), nanos(span.end));
        let calls = |neighbour: &Neighbour| {
            let mut calls = neighbour.calls();
            let mut count = 0;
            while let Some(at) = calls.next.filter(|at| *at < end) {
                count += u64::from(at >= start);
                calls.step();
            }
            count * u64::from(neighbour.cost.requests) / u64::from(cost.requests.max(1))
        };
        self.neighbours.iter().map(|asked| calls(&asked.neighbour)).sum()
    }

    /// Calls per second that the limits sustain at this time, whatever is in store: the lowest of their rates, less what
    /// neighbours ask for on average. Infinite where no limit has a rate.
    pub fn sustained_rate(&self, at: Duration, cost: Cost) -> f64 {
        let now = nanos(at);
        let rates = self.limits.iter().filter_map(|limit| {
            let in_force =
                limit.changes.iter().rev().find(|(from, _)| *from <= now).map_or(limit, |(_, next)| next);
            let units = in_force.unit.of(cost);
            in_force.rate().filter(|_| units > 0).map(|rate| rate / units as f64)
        });
        let neighbours: f64 = self.neighbours.iter().map(|calls| calls.neighbour.rate(now)).sum();
        (rates.fold(f64::INFINITY, f64::min) - neighbours).max(0.0)
    }
}
