//! The server's own counters, counted down here: the mirror.
//!
//! Where responses tell how much is left of a quota, nothing has to be guessed. It works under every policy: a call
//! leaves at the later of the two times, or by the mirror alone where the policy
//! [stands back](super::Policy::trusts_readings). It takes nobody's word for the shape of a quota; it measures.
//!
//! - **What is left.** A reading is true for the moment at which its call came to the server. If calls take about the
//!   same time to get there, the calls that left after that one are what it does not know of, and what is in flight of
//!   those is subtracted; how long answers take does not matter. Calls that left almost together may overtake one
//!   another: of answers to such calls the lowest reading counts. So no call leaves for which there is no room.
//! - **What comes in** is measured: the difference of two readings, plus what was taken in between, over the time. A
//!   token bucket gives its rate (which its reset tells even before), a window nothing. What other processes take is
//!   subtracted by itself. Some of it is left as a cushion: a call's worth, and the jitter of the network.
//! - **The reset.** When nothing is left and nothing comes in, one call at the reset finds out. If most of the limit is
//!   there again just then, and the next reset is far, it is a window: from then on all is taken to be there at its end,
//!   until an answer refutes it. Resets are told late (in whole seconds, by an answer that took its time); the earliest
//!   of one window counts, and where it was too early the next are expected later.
//! - **The pace.** What is left is spread evenly until the reset, or over an hour, so that nobody rushes out at an
//!   opening, others find something, and those who come late in a window still can use it up; after idle time a
//!   sixteenth of the limit goes at once. Where a policy tells its window, and it is not one that comes back all at
//!   once, calls keep to its mean rate.
//! - **Mistakes.** Each refusal that a counter should have prevented holds one call more in reserve, up to eight, and
//!   takes a tenth from the mean rate; accepted calls give it back, slowly. Refusals for which no counter has a reason
//!   raise a doubt, in which the policy counts as well. Nothing is held back for longer than the reset that was told, or
//!   ten minutes, without a call to find out.
//!
//! Two kinds of counter are left to the policy: those that run through in less than two round trips, because what they
//! tell is no longer true when it is heard; and those of calls at a time, in which no more is missing than is in flight.
//!
//! # Sources
//! Even spending, refutable shapes and the reserve are of the prototype in the crate's own studies; what is left less
//! what is in flight is how TCP's sender counts its window (RFC 9293 §3.8.6).

mod counter;
mod flight;
mod inflow;

use self::{counter::Counter, flight::Flight};
use super::{Answer, Closing, Departure, Policy};
use crate::{
    Cost, WaitReason,
    policy::Passed,
    signal::{Reading, Unit, Verdict},
};
use std::time::Duration;
use tokio::time::Instant;

/// A policy, and beside it the counters that the server tells.
#[derive(Debug)]
pub(crate) struct Mirrored {
    policy: Box<dyn Policy>,
    told: Option<Box<Told>>,
}

/// What the server told of its counters.
#[derive(Clone, Debug, Default)]
struct Told {
    counters: Vec<Counter>,
    flight: Flight,
    /// Of answered calls, in seconds, smoothed.
    latency: f64,
    doubt: f64,
}

/// More than these nobody tells.
const MAX_COUNTERS: usize = 8;
/// A refusal raises the doubt by one, one without a reason by three. From here on the policy counts, too.
const DOUBTFUL: f64 = 8.0;
/// So many accepted calls settle most of it.
const CALM: f64 = 512.0;
/// A counter at zero closes the gate if that is for longer than this.
const SHORTEST_CLOSING: Duration = Duration::from_secs(1);

impl Mirrored {
    pub(crate) const fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy, told: None }
    }

    pub(crate) fn policy(&self) -> &dyn Policy {
        self.policy.as_ref()
    }

    /// Another policy. What the server told stays true.
    pub(crate) fn replace(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
    }

    pub(crate) fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        let Some(told) = &self.told else { return self.policy.departure(arrived, cost) };
        let at = told.departure(cost).map_or(arrived, |at| at.max(arrived));
        if !(self.policy.trusts_readings() && told.is_sure()) {
            let own = self.policy.departure(arrived, cost);
            if own.at >= at {
                return own;
            }
        }
        if at > arrived { Departure::new(at, WaitReason::Preflight) } else { Departure::now(arrived) }
    }

    #[inline]
    pub(crate) fn depart(&mut self, at: Instant, cost: Cost) {
        self.policy.depart(at, cost);
        if let Some(told) = &mut self.told {
            told.depart(at, cost);
        }
    }

    /// Only where nothing was told.
    pub(crate) fn passed(&mut self, calls: &Passed) {
        debug_assert!(self.told.is_none(), "there are no leases where the server tells");
        self.policy.passed(calls);
    }

    /// Whether anybody has to hear that a call which leaves now was accepted, if the answer tells of no counters.
    #[inline]
    pub(crate) fn needs_success(&self) -> bool {
        self.told.is_some() || self.policy.needs_success()
    }

    /// Whether that may be heard later, or not at all.
    #[inline]
    pub(crate) fn hears_later(&self) -> bool {
        self.told.is_none() && (self.policy.hears_later() || !self.policy.needs_success())
    }

    /// Where the server's counters are known, each call is weighed.
    pub(crate) fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        self.told.is_none() && self.policy.max_in_flight().is_none() && self.policy.has_room_for(calls, now)
    }

    pub(crate) fn recall(&mut self, at: Instant, cost: Cost) {
        self.policy.recall(at, cost);
        if let Some(told) = &mut self.told {
            told.flight.end(at, cost);
            told.counters.iter_mut().for_each(|counter| counter.recall(cost));
        }
    }

    pub(crate) fn abandoned(&mut self, departed: Instant, cost: Cost) {
        self.policy.abandoned(departed);
        if let Some(told) = &mut self.told {
            told.flight.end(departed, cost);
            for counter in &mut told.counters {
                counter.took(departed, cost);
                counter.refresh(&told.flight);
            }
        }
    }

    pub(crate) fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        self.policy.settle(departed, booked, used);
        if let Some(told) = &mut self.told {
            told.counters.iter_mut().for_each(|counter| counter.settle(departed, booked, used));
        }
    }

    pub(crate) fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        let told = self.read(answer);
        let own = self.policy.answered(answer);
        match (told, own) {
            (Some(told), Some(own)) if told.wait > own.wait => Some(told),
            (told, own) => own.or(told),
        }
    }

    /// Reads what the answer tells, and says for how long there is nothing left, if it is so.
    fn read(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        if self.told.is_none() {
            if answer.signal.hints.readings.is_empty() || self.policy.keeps_counters() {
                return None;
            }
            // Calls that are in flight already do not count: of some of them nothing will be heard.
            self.told = Some(Box::default());
        }
        let told = self.told.as_mut()?;
        told.read(answer);
        if told.counters.is_empty() {
            self.told = None;
            return None;
        }
        told.closing(answer)
    }

    pub(crate) fn max_in_flight(&self) -> Option<usize> {
        self.policy.max_in_flight()
    }

    pub(crate) fn reset(&mut self) {
        self.policy.reset();
        self.told = None;
    }
}

impl Clone for Mirrored {
    fn clone(&self) -> Self {
        Self { policy: self.policy.boxed_clone(), told: self.told.clone() }
    }
}

impl Told {
    fn departure(&self, cost: Cost) -> Option<Instant> {
        let lasting = self.counters.iter().filter(|counter| counter.is_usable(self.latency));
        lasting.map(|counter| counter.free_at(cost)).max()
    }

    /// Whether the counters can be relied on alone.
    fn is_sure(&self) -> bool {
        let requests =
            |counter: &Counter| counter.unit() == Unit::Requests && counter.is_usable(self.latency);
        self.doubt < DOUBTFUL && self.counters.iter().any(requests)
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        // Calls that leave closer together may overtake one another.
        let grain = Duration::from_secs_f64(self.latency / 8.0);
        self.flight.depart(at, cost, grain);
        for counter in &mut self.counters {
            counter.depart(at, cost, self.latency);
        }
    }

    fn read(&mut self, answer: &Answer<'_>) {
        let Answer { signal, departed, cost, at, current } = *answer;
        let readings = signal.hints.readings.as_slice();
        self.flight.end(departed, cost);
        let took = at.saturating_duration_since(departed).as_secs_f64();
        self.latency = if self.latency == 0.0 { took } else { self.latency + 0.1 * (took - self.latency) };
        // A refused call takes nothing, as a rule. If it does, the reading says so.
        let consumed = (!signal.verdict.is_pushback()).then_some(cost);
        let is_refused = signal.verdict == Verdict::Throttled && current;
        let mut is_explained = false;
        for counter in &mut self.counters {
            match (readings.iter().find(|reading| counter.is_of(reading)), consumed) {
                (Some(reading), _) => {
                    counter.read(reading, (departed, at), consumed, &self.flight, self.latency);
                    if is_refused {
                        is_explained |= counter.refused(reading, departed, cost);
                    } else if consumed.is_some() {
                        counter.granted();
                    }
                }
                // If others are told but not this one, the call was not of its kind.
                (None, Some(cost)) if readings.is_empty() => counter.took(departed, cost),
                (None, _) => {}
            }
        }
        if is_refused {
            self.doubt += if is_explained { 1.0 } else { 3.0 };
        } else if consumed.is_some() {
            self.doubt -= self.doubt / CALM;
        }
        self.counters.retain(|counter| !counter.is_stale(at));
        for reading in readings {
            self.meet(reading, departed, at);
        }
        self.counters.iter_mut().for_each(|counter| counter.refresh(&self.flight));
    }

    /// A reading of a counter that may be new.
    fn meet(&mut self, reading: &Reading, departed: Instant, at: Instant) {
        let Some(left) = reading.remaining else { return };
        if self.counters.iter().any(|counter| counter.is_of(reading)) {
            return;
        }
        if self.counters.len() == MAX_COUNTERS {
            let oldest = (0..MAX_COUNTERS).min_by_key(|index| self.counters[*index].told());
            oldest.map(|oldest| self.counters.swap_remove(oldest));
        }
        self.counters.push(Counter::new(reading, left, departed, at));
    }

    /// Nothing is left of a counter, and that for some time: the whole upstream is closed.
    fn closing(&self, answer: &Answer<'_>) -> Option<Closing> {
        let readings = answer.signal.hints.readings.as_slice();
        let is_zero = |counter: &Counter| {
            readings.iter().any(|reading| counter.is_of(reading) && reading.is_exhausted())
        };
        let lasting = self.counters.iter().filter(|counter| counter.is_usable(self.latency));
        let until = lasting.filter(|counter| is_zero(counter)).filter_map(Counter::closed_until).max()?;
        let wait = until.saturating_duration_since(answer.at);
        (wait > SHORTEST_CLOSING).then(|| Closing::told(wait))
    }
}

/// What a call takes from a counter of this unit.
fn amount(unit: Unit, cost: Cost) -> f64 {
    match unit {
        Unit::Requests => cost.requests.into(),
        Unit::Tokens => cost.tokens() as f64,
        Unit::InputTokens => cost.input_tokens.into(),
        Unit::OutputTokens => cost.output_tokens.into(),
        Unit::Other => 0.0,
    }
}

#[cfg(all(test, feature = "testing"))]
mod sim;
#[cfg(test)]
mod tests;
