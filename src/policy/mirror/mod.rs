//! The server's own counters, counted down here: the mirror.
//!
//! Where responses tell how much is left of a quota, nothing has to be guessed: a call leaves when the server's counter
//! has room for it, and a 200 that used up the last one holds the next call back without spending a 429. It works under
//! every policy; a call leaves at the later of the two times, except where the policy
//! [stands back](super::Policy::trusts_readings).
//!
//! A counter is what a response says ([`Reading`](crate::signal::Reading)), less the calls that are in flight, because
//! the server may not have counted those yet. How it goes on from there depends on its shape, which is told by how the
//! readings move: if the end stays where it is, it is a window; if what is missing divided by the time until all is there
//! is always the same, a bucket; if a policy tells its window, at least the mean rate is known. What contradicts that,
//! or is refused all the same, puts the counter back among the unknown ones, of which only one thing is believed: when
//! nothing is left, nothing goes until the reset.

mod counter;

use self::counter::{Counter, Told};
use super::{Answer, Closing, Departure, Policy};
use crate::{
    Cost, WaitReason,
    signal::{Unit, Verdict},
};
use tokio::time::Instant;

/// A policy, and beside it the counters that the server tells.
#[derive(Debug)]
pub(crate) struct Mirrored {
    policy: Box<dyn Policy>,
    in_flight: InFlight,
    counters: Vec<Counter>,
}

/// What the calls in flight cost.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    requests: u64,
    input: u64,
    output: u64,
}

/// More than this nobody tells.
const MAX_COUNTERS: usize = 6;

impl Mirrored {
    pub(crate) const fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy, in_flight: InFlight { requests: 0, input: 0, output: 0 }, counters: Vec::new() }
    }

    pub(crate) fn policy(&self) -> &dyn Policy {
        self.policy.as_ref()
    }

    pub(crate) fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        if self.counters.is_empty() {
            return self.policy.departure(arrived, cost);
        }
        let (mut at, mut is_sure) = (arrived, false);
        for counter in &self.counters {
            match counter.departure(arrived, units(counter.unit(), cost)) {
                Told::Nothing => {}
                Told::NotBefore(time) => at = at.max(time),
                Told::At(time) => {
                    at = at.max(time);
                    is_sure |= counter.unit() == Unit::Requests;
                }
            }
        }
        if !is_sure || !self.policy.trusts_readings() {
            let own = self.policy.departure(arrived, cost);
            if own.at >= at {
                return own;
            }
        }
        if at > arrived { Departure::new(at, WaitReason::Preflight) } else { Departure::now(arrived) }
    }

    pub(crate) fn depart(&mut self, at: Instant, cost: Cost) {
        self.policy.depart(at, cost);
        self.in_flight.add(cost);
        for counter in &mut self.counters {
            counter.depart(at, units(counter.unit(), cost));
        }
    }

    pub(crate) fn recall(&mut self, at: Instant, cost: Cost) {
        self.policy.recall(at, cost);
        self.in_flight.remove(cost);
        for counter in &mut self.counters {
            counter.give_back(units(counter.unit(), cost));
        }
    }

    pub(crate) fn abandoned(&mut self, departed: Instant, cost: Cost) {
        self.policy.abandoned(departed);
        self.in_flight.remove(cost);
    }

    pub(crate) fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        // The counters need no settlement: the readings that come tell what is left in truth.
        self.policy.settle(departed, booked, used);
    }

    pub(crate) fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.in_flight.remove(answer.cost);
        let readings = &answer.signal.hints.readings;
        if !readings.is_empty() {
            let counters = &mut self.counters;
            for reading in readings {
                let known = counters.iter().position(|counter| counter.is_of(reading));
                let index = known.unwrap_or_else(|| {
                    if counters.len() == MAX_COUNTERS {
                        counters.remove(0);
                    }
                    counters.push(Counter::new(reading));
                    counters.len() - 1
                });
                counters[index].read(reading, answer, self.in_flight.units(reading.unit));
            }
        }
        let refused = answer.signal.verdict == Verdict::Throttled && answer.current;
        self.counters.iter_mut().for_each(|counter| counter.judge(refused, answer));
        self.policy.answered(answer)
    }

    pub(crate) fn max_in_flight(&self) -> Option<usize> {
        self.policy.max_in_flight().filter(|_| {
            // A policy that stands back does so here, too.
            let sure = |counter: &Counter| counter.unit() == Unit::Requests && counter.is_sure();
            !self.policy.trusts_readings() || !self.counters.iter().any(sure)
        })
    }

    pub(crate) fn reset(&mut self) {
        self.policy.reset();
        self.counters = Vec::new();
    }
}

impl Clone for Mirrored {
    fn clone(&self) -> Self {
        Self { policy: self.policy.boxed_clone(), in_flight: self.in_flight, counters: self.counters.clone() }
    }
}

impl InFlight {
    const fn add(&mut self, cost: Cost) {
        self.requests += cost.requests as u64;
        self.input += cost.input_tokens as u64;
        self.output += cost.output_tokens as u64;
    }

    const fn remove(&mut self, cost: Cost) {
        self.requests = self.requests.saturating_sub(cost.requests as u64);
        self.input = self.input.saturating_sub(cost.input_tokens as u64);
        self.output = self.output.saturating_sub(cost.output_tokens as u64);
    }

    const fn units(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.input + self.output,
            Unit::InputTokens => self.input,
            Unit::OutputTokens => self.output,
            Unit::Other => 0,
        }
    }
}

/// What a call takes from a counter of this unit.
fn units(unit: Unit, cost: Cost) -> u64 {
    match unit {
        Unit::Requests => cost.requests.into(),
        Unit::Tokens => cost.tokens(),
        Unit::InputTokens => cost.input_tokens.into(),
        Unit::OutputTokens => cost.output_tokens.into(),
        Unit::Other => 0,
    }
}

#[cfg(test)]
mod tests;
