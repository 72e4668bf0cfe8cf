//! The server's own counters, of requests and of tokens, as one process or another was told. `turn.lua` does the same.
//!
//! The ledger counts what it has given out: departures, and the tokens for which those are booked. What a call took in truth
//! is put right with the next turn of its process. A counter is a place on that count: where it ends, until it is reset.

use super::{ledger::SECOND, turn::Turn};

/// More than these nobody tells.
pub(super) const COUNTERS: usize = 8;
/// The server's reset is told in round numbers.
const GUARD: f64 = 0.02 * SECOND;
/// A counter that is reset sooner than that is a bucket's, or moves too fast to go by.
const LASTING: f64 = 2.0 * SECOND;

/// What a process was told of one. All are 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Four times what tells it from others of its unit, and the unit: requests, tokens, those that go in, those that come
    /// out.
    pub(super) key: f64,
    /// Where it ends.
    pub(super) bound: f64,
    /// The number of the call that was told so, and how long it takes until the reset.
    pub(super) at: f64,
    pub(super) reset: f64,
    /// It seems to end that much later, and that is because calls overtake one another or are booked for too much.
    pub(super) slack: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counter {
    key: f64,
    bound: f64,
    at: f64,
    reset: f64,
    /// The least bound of its window, and whether it fills up meanwhile, so that it is not gone by.
    base: f64,
    flows: f64,
}

/// How much was given out, by unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Amounts {
    pub(super) requests: f64,
    pub(super) input: f64,
    pub(super) output: f64,
}

impl Amounts {
    fn of(&self, key: f64) -> f64 {
        match key % 4.0 {
            0.0 => self.requests,
            1.0 => self.input + self.output,
            2.0 => self.input,
            _ => self.output,
        }
    }
}

/// Takes in what was told. The call with the highest number knows best.
pub(super) fn read(counters: &mut [Counter; COUNTERS], turn: &Turn, now: f64) {
    for told in turn.counters.iter().filter(|told| told.key > 0.0) {
        let known = counters.iter().position(|counter| counter.key == told.key);
        let free = || counters.iter().position(|counter| counter.key == 0.0);
        let gone = || {
            let gone = (0..COUNTERS).filter(|index| counters[*index].reset < now);
            gone.min_by(|a, b| counters[*a].reset.total_cmp(&counters[*b].reset))
        };
        let Some(index) = known.or_else(free).or_else(gone) else { continue };
        let counter = &mut counters[index];
        if known.is_none() {
            *counter = Counter { key: told.key, ..Counter::default() };
        } else if told.at < counter.at {
            continue;
        }
        if counter.reset <= now {
            counter.base = told.bound;
        } else if told.bound > counter.base + told.slack {
            // More was there than had been left.
            counter.flows = 1.0;
        }
        counter.base = counter.base.min(told.bound);
        // Calls overtake one another, so that some find more left than there is for those before them.
        counter.bound = counter.base;
        counter.at = told.at;
        counter.reset = now + told.reset;
    }
}

/// How many of `count` departures the counters have room for, and from when on.
pub(super) fn hold(
    counters: &mut [Counter; COUNTERS],
    (used, each): (Amounts, Amounts),
    (mut count, mut first): (f64, f64),
    now: f64,
) -> (f64, f64) {
    for counter in counters {
        let amount = each.of(counter.key);
        if counter.bound == 0.0 || counter.reset <= now + LASTING || counter.flows == 1.0 || amount <= 0.0 {
            continue;
        }
        let left = ((counter.bound - used.of(counter.key)) / amount).floor();
        if left < 1.0 {
            // The next ones are of the next window.
            first = first.max(counter.reset + GUARD);
            counter.bound = 0.0;
        } else {
            count = count.min(left);
        }
    }
    (count, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: f64 = 5.0;
    const REQUESTS: f64 = 4.0;
    const EACH: Amounts = Amounts { requests: 1.0, input: 60.0, output: 40.0 };

    fn told(key: f64, bound: f64, at: f64) -> Turn {
        let mut turn = Turn::default();
        turn.counters[1] = Told { key, bound, at, reset: 60.0 * SECOND, slack: 10.0 };
        turn
    }

    fn used(calls: f64) -> Amounts {
        Amounts { requests: calls, input: 60.0 * calls, output: 40.0 * calls }
    }

    #[test]
    fn the_one_that_leaves_least_counts() {
        let mut counters = Default::default();
        read(&mut counters, &told(REQUESTS, 30.0, 9.0), SECOND);
        read(&mut counters, &told(TOKENS, 1450.0, 9.0), SECOND);
        assert_eq!(hold(&mut counters, (used(10.0), EACH), (9.0, 0.0), SECOND), (4.0, 0.0));
        // Calls that cost no tokens go by the requests alone.
        let free = Amounts { requests: 1.0, ..Amounts::default() };
        assert_eq!(hold(&mut counters, (used(28.0), free), (9.0, 0.0), SECOND), (2.0, 0.0));
        // An older call knows less.
        read(&mut counters, &told(TOKENS, 9000.0, 8.0), SECOND);
        assert_eq!(hold(&mut counters, (used(13.0), EACH), (9.0, 0.0), SECOND), (1.0, 0.0));
        let next = 61.0 * SECOND + GUARD;
        assert_eq!(
            hold(&mut counters, (used(14.0), EACH), (9.0, 0.0), SECOND),
            (9.0, next),
            "of the next window"
        );
    }

    #[test]
    fn what_fills_up_meanwhile_is_not_gone_by() {
        for (bound, flows) in [(1008.0, false), (1020.0, true)] {
            let mut counters = Default::default();
            read(&mut counters, &told(TOKENS, 1000.0, 1.0), SECOND);
            read(&mut counters, &told(TOKENS, bound, 2.0), 2.0 * SECOND);
            let (_, first) = hold(&mut counters, (used(10.0), EACH), (1.0, 0.0), 2.0 * SECOND);
            assert_eq!(first == 0.0, flows);
        }
        // In the next window there is more of course.
        let mut counters = Default::default();
        read(&mut counters, &told(TOKENS, 1000.0, 1.0), SECOND);
        read(&mut counters, &told(TOKENS, 2000.0, 2.0), 62.0 * SECOND);
        assert_eq!(hold(&mut counters, (used(10.0), EACH), (99.0, 0.0), 62.0 * SECOND).0, 10.0);
    }

    #[test]
    fn there_are_not_too_many() {
        let mut counters = [Counter::default(); COUNTERS];
        for key in 1..=9 {
            read(&mut counters, &told(f64::from(key) * 4.0, 10.0, 1.0), SECOND);
        }
        assert!(counters.iter().all(|counter| (4.0..=32.0).contains(&counter.key)), "{counters:?}");
        read(&mut counters, &told(400.0, 10.0, 1.0), 62.0 * SECOND);
        assert_eq!(counters[0].key, 400.0, "in place of one that is over");
    }
}
