//! The server's own counters, counted down here: the mirror.

mod counter;
mod flight;

use self::{counter::Counter, flight::Flight};
use super::{Answer, Closing, Departure, Policy};
use crate::{
    Cost, WaitReason,
    signal::{Unit, Verdict},
};
use std::time::Duration;
use tokio::time::Instant;

/// A policy, and beside it the counters that the server tells. A call leaves at the later of the two times.
#[derive(Debug)]
pub(crate) struct Mirrored {
    policy: Box<dyn Policy>,
    mirror: Mirror,
}

impl Mirrored {
    pub(crate) fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy, mirror: Mirror::default() }
    }

    pub(crate) fn policy(&self) -> &dyn Policy {
        self.policy.as_ref()
    }

    pub(crate) fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        let told = self.mirror.departure(arrived, cost);
        match told {
            Some(told) if self.policy.trusts_readings() && self.mirror.is_sure() => told,
            Some(told) => {
                let own = self.policy.departure(arrived, cost);
                if told.at > own.at { told } else { own }
            }
            None => self.policy.departure(arrived, cost),
        }
    }

    #[inline]
    pub(crate) fn depart(&mut self, at: Instant, cost: Cost) {
        // Of a call that nobody has to hear of again, the mirror would not hear that it has ended.
        if self.needs_success() {
            self.mirror.depart(at, cost);
        }
        self.policy.depart(at, cost);
    }

    /// Whether anybody has to hear that a call which leaves now was accepted, if the answer tells of no counters.
    #[inline]
    pub(crate) fn needs_success(&self) -> bool {
        self.mirror.told.is_some() || self.policy.needs_success()
    }

    /// Where the server's counters are known, each call is weighed.
    pub(crate) fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        self.mirror.told.is_none()
            && self.policy.max_in_flight().is_none()
            && self.policy.has_room_for(calls, now)
    }

    pub(crate) fn recall(&mut self, at: Instant, cost: Cost) {
        self.policy.recall(at, cost);
        self.mirror.recall(at, cost);
    }

    pub(crate) fn abandoned(&mut self, departed: Instant, cost: Cost) {
        self.policy.abandoned(departed);
        self.mirror.abandoned(departed, cost);
    }

    pub(crate) fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        self.policy.settle(departed, booked, used);
        self.mirror.settle(departed, booked, used);
    }

    pub(crate) fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.mirror.answered(answer);
        self.policy.answered(answer)
    }

    pub(crate) fn max_in_flight(&self) -> Option<usize> {
        self.policy.max_in_flight()
    }

    pub(crate) fn reset(&mut self) {
        self.policy.reset();
        self.mirror.reset();
    }
}

impl Clone for Mirrored {
    fn clone(&self) -> Self {
        Self { policy: self.policy.boxed_clone(), mirror: self.mirror.clone() }
    }
}

/// What the server told of its counters.
#[derive(Clone, Debug, Default)]
struct Mirror {
    told: Option<Box<Told>>,
}

#[derive(Clone, Debug)]
struct Told {
    counters: Vec<Counter>,
    flight: Flight,
    /// Of answered calls, in seconds, smoothed.
    latency: f64,
    doubt: f64,
}

impl Mirror {
    const COUNTERS: usize = 8;

    /// When a call of that cost may leave as far as the server's counters are concerned. `None` where they are not
    /// known.
    fn departure(&self, arrived: Instant, cost: Cost) -> Option<Departure> {
        let told = self.told.as_ref()?;
        let relevant = told.counters.iter().filter(|counter| !counter.is_fleeting(told.latency));
        let at = relevant.map(|counter| counter.free_at(cost)).max()?;
        Some(if at > arrived { Departure::new(at, WaitReason::Preflight) } else { Departure::now(arrived) })
    }

    /// Whether the counters can be relied on.
    fn is_sure(&self) -> bool {
        self.told.as_ref().is_some_and(|told| {
            let requests =
                |counter: &Counter| counter.unit() == Unit::Requests && !counter.is_fleeting(told.latency);
            told.doubt < 8.0 && told.counters.iter().any(requests)
        })
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        if let Some(told) = &mut self.told {
            told.flight.depart(at, cost, grain(told.latency));
            for counter in &mut told.counters {
                counter.depart(at, cost, told.latency);
            }
        }
    }

    fn recall(&mut self, at: Instant, cost: Cost) {
        if let Some(told) = &mut self.told {
            told.flight.end(at, cost);
            told.counters.iter_mut().for_each(|counter| counter.recall(cost));
        }
    }

    fn abandoned(&mut self, departed: Instant, cost: Cost) {
        if let Some(told) = &mut self.told {
            told.flight.end(departed, cost);
            for counter in &mut told.counters {
                counter.took(departed, cost);
                counter.refresh(&told.flight);
            }
        }
    }

    fn settle(&mut self, _departed: Instant, _booked: Cost, _used: Cost) {}

    fn answered(&mut self, answer: &Answer<'_>) {
        let readings = &answer.signal.hints.readings;
        if self.told.is_none() {
            if readings.as_slice().iter().all(|reading| reading.remaining.is_none()) {
                return;
            }
            // Calls that are in flight already are not counted: it is not heard how all of them end.
            let flight = Flight::default();
            self.told = Some(Box::new(Told { counters: Vec::new(), flight, latency: 0.0, doubt: 0.0 }));
        }
        if let Some(told) = &mut self.told {
            told.answered(answer);
        }
    }

    fn reset(&mut self) {
        self.told = None;
    }
}

impl Told {
    fn answered(&mut self, answer: &Answer<'_>) {
        let Answer { signal, departed, cost, at, .. } = *answer;
        self.flight.end(departed, cost);
        let took = at.saturating_duration_since(departed).as_secs_f64();
        self.latency = if self.latency == 0.0 { took } else { self.latency + 0.1 * (took - self.latency) };
        let consumed = !signal.verdict.is_pushback();
        let readings = signal.hints.readings.as_slice();
        let refused = signal.verdict == Verdict::Throttled && answer.current;
        let mut explained = false;
        for counter in &mut self.counters {
            match readings.iter().find(|reading| counter.is(reading)) {
                Some(reading) => {
                    counter.read(reading, (departed, at), (cost, consumed), &self.flight, self.latency);
                    if refused {
                        explained |= counter.refused(reading, departed, cost);
                    } else if consumed {
                        counter.calm();
                    }
                }
                None if consumed && readings.is_empty() => counter.took(departed, cost),
                None => {}
            }
        }
        if refused {
            self.doubt += if explained { 1.0 } else { 3.0 };
        } else if consumed {
            self.doubt -= self.doubt / 512.0;
        }
        for reading in readings {
            let Some(left) = reading.remaining else { continue };
            if self.counters.iter().any(|counter| counter.is(reading)) {
                continue;
            }
            if self.counters.len() == Mirror::COUNTERS {
                let oldest = self.counters.iter().enumerate().min_by_key(|(_, counter)| counter.heard());
                if let Some((oldest, _)) = oldest {
                    self.counters.swap_remove(oldest);
                }
            }
            self.counters.push(Counter::new(reading, left, departed, at));
        }
        self.counters.iter_mut().for_each(|counter| counter.refresh(&self.flight));
    }
}

/// Calls that leave so close together may overtake one another.
fn grain(latency: f64) -> Duration {
    Duration::from_secs_f64(latency / 8.0)
}

#[cfg(all(test, feature = "testing"))]
mod sim;
