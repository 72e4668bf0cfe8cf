//! What an answer teaches.

use super::{FIRST_BURST, FIRST_RATE, Learned, MAX_WAIT, Probe, climb::STEP, secs};
use crate::policy::{Answer, Closing, escalation::Escalation};
use std::time::Duration;
use tokio::time::Instant;

/// Before the first refusal, an eighth of what was granted so far is in flight.
const START: f64 = 8.0;
/// The rate stays that much below what was measured.
const MARGIN: f64 = 0.005;

impl Learned {
    /// That many calls were accepted, which left at `departed`.
    pub(super) fn accepted(&mut self, departed: Instant, at: Instant, calls: u32) {
        self.reopen(departed);
        self.refusals = 0;
        self.overloads = 0;
        if matches!(self.probe, Probe::Out(sent) if departed >= sent) {
            self.probe = Probe::No;
        }
        if self.flight.cap().is_some() {
            self.flight.accepted(self.budget);
        } else if !self.paced {
            // The callers asked for less than they might have: nothing is known of more.
        } else if self.starting {
            let round_trip = self.round_trip.max(1e-6);
            // No more than four times as many as there are: they may never ask for more.
            let most = 4.0 * self.flight.mean();
            let in_flight = (self.granted as f64 / START).min(most).max(FIRST_BURST.into());
            self.set_rate((in_flight / round_trip).max(FIRST_RATE));
        } else if self.budget > 0.0 && self.probe == Probe::No {
            let growth = self.climb.grow(at, self.rate, self.hold(), self.budget);
            self.set_rate(self.rate * if calls == 1 { growth } else { growth.powi(calls as i32) });
        }
    }

    /// A call that left at `departed` was accepted. If the gate was closed before, it is open again.
    fn reopen(&mut self, departed: Instant) {
        let Some(measured) = self.cycle.reopen(departed) else { return };
        if self.refusals == 1 {
            self.first_wait *= 0.85;
        }
        self.memory = (0.95 * self.memory).max(measured.outage + measured.run.min(3.0 * measured.outage));
        if self.starting && measured.granted == 0 {
            // The quota was used up before the first call came. Nothing is known of it yet.
        } else if self.starting {
            self.starting = false;
            // After a short outage it was about right, or a bucket that ran empty.
            let short = measured.outage < 4.0 * self.round_trip;
            let rate = if short { measured.rate.max(0.7 * self.rate) } else { measured.rate };
            self.set_rate(rate * (1.0 - MARGIN));
            self.climb.start(rate, measured.reopened);
        } else {
            if measured.is_meaningful() {
                let rate = (measured.rate * (1.0 - MARGIN)).max(self.climb.floor(self.rate));
                self.set_rate(self.rate.min(rate));
            }
            self.climb.reopened(&measured, self.rate, self.budget);
        }
    }

    /// The first call of its flight was refused for a quota.
    pub(super) fn refused(&mut self, answer: &Answer<'_>, told: Option<Duration>) -> Closing {
        let said = answer.signal.hints.concurrency;
        // An attempt to find out whether the gate is open says nothing about the number in flight.
        if (said || self.refusals == 0) && self.flight.refused(answer.departed, said) {
            // One in flight too many. The bound is what counts now; the rate is out of its way.
            self.starting = false;
            self.set_rate(2.0 * f64::from(self.flight.cap().unwrap_or(1)) / self.round_trip.max(1e-6));
            return told.map_or(Closing::adaptive(secs((2.0 / self.rate).min(MAX_WAIT))), Closing::told);
        }
        self.refusals += 1;
        self.cycle.close(answer.departed, answer.at, told.is_some());
        let first = self.refusals == 1;
        if first {
            self.climb.refused(self.rate);
        }
        if first && !self.starting {
            self.set_rate(self.rate * (1.0 - STEP));
        } else {
            self.probe = Probe::Next;
        }
        told.map_or_else(|| Closing::adaptive(secs(self.next_wait())), Closing::told)
    }

    /// For how long the gate closes where the server does not say.
    fn next_wait(&mut self) -> f64 {
        let slot = 1.5 / self.rate;
        self.wait = match self.refusals {
            1 if self.starting => 1.5,
            1 => self.first_wait.min(self.memory).max(slot),
            _ => self.wait * 1.5,
        };
        if self.refusals == 2 {
            self.first_wait = (2.0 * self.first_wait).max(self.round_trip);
        }
        self.wait = self.wait.max(0.5 * self.round_trip).min(MAX_WAIT);
        self.wait
    }

    /// So many requests that left at `departed` were granted, as far as is known.
    pub(super) fn granted(&mut self, departed: Instant, requests: u32) {
        let calls = u64::from(requests);
        self.granted += calls;
        self.cycle.granted(departed, calls);
        self.climb.granted(calls);
    }

    /// The upstream is busy, which is not a quota.
    pub(super) fn overloaded(&mut self, told: Option<Duration>) -> Closing {
        let step = Escalation::STEPS[self.overloads.min(Escalation::STEPS.len() - 1)];
        self.overloads += 1;
        told.map_or(Closing::adaptive(step), Closing::told)
    }
}
