//! What one limit remembers.

use super::{
    bucket::Bucket,
    limit::{Limit, Shape},
    log::Log,
    reading::Reading,
    units::{Nanos, Unit},
    window::{Fixed, SlidingCounter},
};
use crate::Cost;
use std::time::Duration;

/// A limit in force.
#[derive(Clone, Debug)]
pub(super) struct Enforced {
    counter: Counter,
    unit: Unit,
    name: Option<&'static str>,
    penalty: Nanos,
    counts_refusals: bool,
    blocked_until: Nanos,
}

#[derive(Clone, Debug)]
enum Counter {
    Bucket(Bucket),
    Fixed(Fixed),
    Log(Log),
    Sliding(SlidingCounter),
    Concurrency { limit: u64, in_flight: u64 },
}

impl Enforced {
    pub(super) fn new(limit: &Limit, now: Nanos) -> Self {
        Self {
            counter: Counter::new(limit.shape, now),
            unit: limit.unit,
            name: limit.name,
            penalty: limit.penalty,
            counts_refusals: limit.counts_refusals,
            blocked_until: 0,
        }
    }

    pub(super) fn change(&mut self, limit: &Limit, now: Nanos) {
        if self.unit != limit.unit {
            *self = Self::new(limit, now);
            return;
        }
        self.counter.advance(now);
        self.counter.change(limit.shape, now);
        (self.name, self.penalty, self.counts_refusals) = (limit.name, limit.penalty, limit.counts_refusals);
    }

    /// How long until it admits this cost: zero now, `None` never or not known.
    ///
    /// Once it would admit a call it goes on admitting it, until something is taken.
    pub(super) fn wait(&mut self, now: Nanos, cost: Cost) -> Option<Nanos> {
        self.counter.advance(now);
        let blocked = self.blocked_until.saturating_sub(now);
        match self.unit.of(cost) {
            0 => Some(blocked),
            units => Some(self.counter.wait(now, units)?.max(blocked)),
        }
    }

    pub(super) fn take(&mut self, now: Nanos, cost: Cost) {
        match (&mut self.counter, self.unit.of(cost)) {
            (Counter::Bucket(bucket), units) => bucket.take(units),
            (Counter::Fixed(window), units) => window.take(units),
            (Counter::Log(log), units) => log.take(now, units),
            (Counter::Sliding(window), units) => window.take(units),
            (Counter::Concurrency { in_flight, .. }, units) => *in_flight = in_flight.saturating_add(units),
        }
    }

    /// A call was refused, by this limit or by another one. `wait` is what this one said.
    pub(super) fn refused(&mut self, now: Nanos, cost: Cost, wait: Option<Nanos>) {
        if self.counts_refusals && !matches!(self.counter, Counter::Concurrency { .. }) {
            self.take(now, cost);
        }
        if self.penalty > 0 && wait != Some(0) && self.blocked_until <= now {
            self.blocked_until = now.saturating_add(self.penalty);
        }
    }

    pub(super) fn finish(&mut self, cost: Cost) {
        if let Counter::Concurrency { in_flight, .. } = &mut self.counter {
            *in_flight = in_flight.saturating_sub(self.unit.of(cost));
        }
    }

    pub(super) const fn is_penalty(&self, now: Nanos) -> bool {
        self.blocked_until > now
    }

    pub(super) fn reading(&mut self, now: Nanos) -> Reading {
        self.counter.advance(now);
        let (limit, mut remaining, window) = self.counter.level(now);
        let full_in = self.counter.full_in(now);
        let mut more_in = match remaining < limit {
            true => self.counter.wait(now, remaining + 1),
            false => full_in.map(|_| 0),
        };
        let mut full_in = full_in;
        if self.is_penalty(now) {
            let left = self.blocked_until - now;
            remaining = 0;
            more_in = more_in.map(|time| time.max(left));
            full_in = full_in.map(|time| time.max(left));
        }
        Reading {
            unit: self.unit,
            name: self.name,
            limit,
            remaining,
            window: window.map(Duration::from_nanos),
            more_in: more_in.map(Duration::from_nanos),
            full_in: full_in.map(Duration::from_nanos),
        }
    }
}

impl Counter {
    fn new(shape: Shape, now: Nanos) -> Self {
        let mut counter = match shape {
            Shape::TokenBucket { limit, per, depth } => Self::Bucket(Bucket::new(limit, per, depth, now)),
            Shape::FixedWindow { limit, window, phase } => Self::Fixed(Fixed::new(limit, window, phase)),
            Shape::SlidingLog { limit, window } => Self::Log(Log::new(limit, window)),
            Shape::SlidingCounter { limit, window, phase } => {
                Self::Sliding(SlidingCounter::new(limit, window, phase))
            }
            Shape::Concurrency { limit } => Self::Concurrency { limit, in_flight: 0 },
        };
        counter.advance(now);
        counter
    }

    fn change(&mut self, shape: Shape, now: Nanos) {
        match (self, shape) {
            (Self::Bucket(bucket), Shape::TokenBucket { limit, per, depth }) => {
                bucket.change(limit, per, depth);
            }
            (Self::Fixed(fixed), Shape::FixedWindow { limit, window, phase }) => {
                fixed.change(limit, window, phase, now);
            }
            (Self::Log(log), Shape::SlidingLog { limit, window }) => log.change(limit, window),
            (Self::Sliding(sliding), Shape::SlidingCounter { limit, window, phase }) => {
                sliding.change(limit, window, phase, now);
            }
            (Self::Concurrency { limit, .. }, Shape::Concurrency { limit: new }) => *limit = new,
            (counter, shape) => *counter = Self::new(shape, now),
        }
    }

    fn advance(&mut self, now: Nanos) {
        match self {
            Self::Bucket(bucket) => bucket.advance(now),
            Self::Fixed(window) => window.advance(now),
            Self::Log(log) => log.advance(now),
            Self::Sliding(window) => window.advance(now),
            Self::Concurrency { .. } => {}
        }
    }

    fn wait(&self, now: Nanos, units: u64) -> Option<Nanos> {
        match self {
            Self::Bucket(bucket) => bucket.wait(units),
            Self::Fixed(window) => window.wait(now, units),
            Self::Log(log) => log.wait(now, units),
            Self::Sliding(window) => window.wait(now, units),
            Self::Concurrency { limit, in_flight } => {
                (in_flight.saturating_add(units) <= *limit).then_some(0)
            }
        }
    }

    /// The limit, what remains of it, and the window.
    fn level(&self, now: Nanos) -> (u64, u64, Option<Nanos>) {
        match self {
            Self::Bucket(bucket) => (bucket.depth(), bucket.remaining(), bucket.window()),
            Self::Fixed(window) => (window.limit(), window.remaining(), Some(window.window())),
            Self::Log(log) => (log.limit(), log.remaining(), Some(log.window())),
            Self::Sliding(window) => (window.limit(), window.remaining(now), Some(window.window())),
            Self::Concurrency { limit, in_flight } => (*limit, limit.saturating_sub(*in_flight), None),
        }
    }

    fn full_in(&self, now: Nanos) -> Option<Nanos> {
        match self {
            Self::Bucket(bucket) => bucket.full_in(),
            Self::Fixed(window) => Some(window.full_in(now)),
            Self::Log(log) => Some(log.full_in(now)),
            Self::Sliding(window) => Some(window.full_in(now)),
            Self::Concurrency { .. } => None,
        }
    }
}
