//! The policy of a gate that is shared: what [`Process`] says, for the gate to go by.

use super::{
    hook::Hook,
    process::{Process, duration, micros},
    snapshot::Mode,
    turn::Turn,
};
use crate::{
    Cost, WaitReason,
    policy::{Answer, Closing, Departure, Policy},
    signal::Verdict,
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The one that decides shares its state with the task that talks to Redis; its clones, on which those who wait are
/// booked, have a copy.
pub(super) enum FleetPolicy {
    Live(Arc<Hook>),
    Copy(Box<Process>),
}

/// How long the gate closes where the upstream is busy, or a quota is spent, and nobody said until when.
const BUSY: Duration = Duration::from_millis(1500);
const EXHAUSTED: Duration = Duration::from_secs(60);
/// Until anything is known.
const FIRST_WAIT: Duration = Duration::from_millis(250);

impl FleetPolicy {
    fn with<T>(&mut self, work: impl FnOnce(&mut Process) -> T) -> T {
        match self {
            Self::Live(hook) => work(&mut hook.process()),
            Self::Copy(process) => work(process),
        }
    }

    fn look<T>(&self, look: impl FnOnce(&Process) -> T) -> T {
        match self {
            Self::Live(hook) => look(&hook.process()),
            Self::Copy(process) => look(process),
        }
    }
}

impl Clone for FleetPolicy {
    fn clone(&self) -> Self {
        Self::Copy(Box::new(self.look(Process::sketch)))
    }
}

impl fmt::Debug for FleetPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.look(|process| {
            f.debug_struct("Fleet")
                .field("mode", &process.mode)
                .field("pace", &process.view.known.pace)
                .field("members", &process.view.members)
                .finish_non_exhaustive()
        })
    }
}

impl Policy for FleetPolicy {
    fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        if cost.requests == 0 {
            return Departure::now(arrived);
        }
        let at = match self {
            // It may have waited elsewhere since it came; from now on it waits for Redis.
            Self::Live(hook) => hook.process().ask(arrived, Instant::now(), cost),
            Self::Copy(process) => process.departure(arrived),
        };
        if at > arrived { Departure::new(at, WaitReason::Preflight) } else { Departure::now(arrived) }
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        self.with(|process| process.depart(at, cost));
    }

    fn recall(&mut self, at: Instant, cost: Cost) {
        self.with(|process| process.recall(at, cost));
    }

    fn abandoned(&mut self, departed: Instant) {
        self.with(|process| {
            // Its answer is not to come: what is known of its end is that it is over.
            process.landed(Instant::now());
            process.take_number(departed);
            // The upstream may have counted it.
            process.report.late += 1.0;
        });
    }

    fn settle(&mut self, _: Instant, booked: Cost, used: Cost) {
        self.with(|process| process.took_more(booked, used));
    }

    fn max_in_flight(&self) -> Option<usize> {
        self.look(Process::max_in_flight)
    }

    fn keeps_counters(&self) -> bool {
        true
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.with(|process| process.answered(answer))
    }

    /// Opens it for the whole fleet.
    fn reset(&mut self) {
        self.with(|process| process.open(Instant::now()));
    }
}

impl Process {
    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.landed(answer.at);
        self.touch(answer.at);
        if let Some(slot) = self.take_number(answer.departed) {
            self.read(answer, &slot);
        }
        let told = answer.signal.hints.retry_after;
        let requests = f64::from(answer.cost.requests);
        match answer.signal.verdict {
            Verdict::Accepted | Verdict::Refused => {
                self.accepted(answer, requests);
                None
            }
            Verdict::Failed => {
                self.report.late += requests;
                None
            }
            Verdict::Throttled if answer.current => Some(self.refused(answer.at, told)),
            Verdict::Throttled => {
                self.report.also_refused += 1.0;
                self.closed_for(told?, answer.at)
            }
            Verdict::Overloaded if answer.current => {
                let wait = told.unwrap_or(BUSY);
                let closing = if told.is_some() { Closing::told(wait) } else { Closing::adaptive(wait) };
                self.closed_for(wait, answer.at).map(|_| closing)
            }
            Verdict::Exhausted if answer.current => self.closed_for(told.unwrap_or(EXHAUSTED), answer.at),
            Verdict::Overloaded | Verdict::Exhausted => self.closed_for(told?, answer.at),
            Verdict::Rejected => None,
        }
    }

    fn accepted(&mut self, answer: &Answer<'_>, requests: f64) {
        let took = micros(answer.at.saturating_duration_since(answer.departed)).max(1.0);
        if self.mode == Mode::Alone {
            let (accepted, late) = if answer.current { (requests, 0.0) } else { (0.0, requests) };
            let turn = Turn { accepted, late, round_trip: took, ..self.own_turn(0.0) };
            self.tell_own(&turn, answer.at);
            return;
        }
        let report = &mut self.report;
        report.round_trip = if report.round_trip == 0.0 {
            took
        } else {
            report.round_trip + (took - report.round_trip) / 8.0
        };
        if answer.current && self.refused_in.is_none() {
            report.accepted += requests;
            // While nothing is known, the pace waits for it.
            self.urgent |= std::mem::take(&mut self.unproved) || !self.view.measured;
        } else {
            report.late += requests;
        }
    }

    /// The first call of its flight, as far as is known here.
    fn refused(&mut self, at: Instant, told: Option<Duration>) -> Closing {
        let wait = told.map_or(0.0, micros);
        let closing = |wait: Duration| told.map_or(Closing::adaptive(wait), Closing::told);
        if self.mode == Mode::Alone {
            let turn = Turn { refused: 1.0, told: wait, ..self.own_turn(0.0) };
            let closed = self.tell_own(&turn, at);
            return closing(closed);
        }
        if self.refused_in.is_some() {
            // Redis has not heard of the last one yet.
            self.report.also_refused += 1.0;
        } else {
            self.refused_in = Some(self.epoch);
            self.report.refused = 1.0;
        }
        self.report.told = self.report.told.max(wait);
        self.epoch += 1.0;
        self.unproved = true;
        self.urgent = true;
        self.lease.shorten(0);
        self.report.back = 0.0;
        let guess =
            if self.view.measured { duration(1.5e6 / self.view.known.pace.max(1e-3)) } else { FIRST_WAIT };
        let closing = closing(guess);
        self.close_until(at + closing.wait);
        closing
    }

    /// Somebody said how long it takes: all have to know.
    fn closed_for(&mut self, wait: Duration, at: Instant) -> Option<Closing> {
        if self.mode == Mode::Alone {
            let turn = Turn { told: micros(wait), ..self.own_turn(0.0) };
            self.tell_own(&turn, at);
        } else {
            self.report.told = self.report.told.max(micros(wait));
            self.urgent = true;
        }
        self.close_until(crate::policy::later(at, wait));
        Some(Closing::told(wait))
    }

    /// For how long the own ledger is closed after it was told that.
    fn tell_own(&mut self, turn: &Turn, at: Instant) -> Duration {
        let now = self.time(at);
        let rules = self.rules;
        duration(self.alone.turn(turn, 1.0, &rules, now).known.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fleet::ledger::Rules, signal::Signal};

    /// The whole fleet hears of it, but for a refusal of its quota that does not say for how long: the ledger knows that.
    #[test]
    fn how_long_which_refusal_closes_the_gate() {
        const TOLD: Duration = Duration::from_secs(7);
        let now = Instant::now();
        let told = Some(Closing::told(TOLD));
        for (verdict, current, by_itself, told) in [
            (Verdict::Overloaded, true, Some(Closing::adaptive(BUSY)), told),
            (Verdict::Overloaded, false, None, told),
            (Verdict::Exhausted, true, Some(Closing::told(EXHAUSTED)), told),
            (Verdict::Exhausted, false, None, told),
            (Verdict::Throttled, true, Some(Closing::adaptive(FIRST_WAIT)), told),
            (Verdict::Throttled, false, None, told),
            (Verdict::Failed, true, None, None),
            (Verdict::Rejected, true, None, None),
        ] {
            let refusal = Signal::new(verdict);
            for (signal, closing) in [(refusal, by_itself), (refusal.retry_after(TOLD), told)] {
                let rules = Rules { budget: 0.01, first_pace: 100.0, seeded: true, most: 0.0 };
                let mut process = Process::new(7, rules, Duration::from_millis(50), now);
                process.depart(now, Cost::one());
                process.mode = Mode::Shared;
                let answer = Answer { current, ..Answer::new(&signal, now, now) };
                assert_eq!(process.answered(&answer), closing, "{signal:?}, current: {current}");
                let of_quota = closing == Some(Closing::adaptive(FIRST_WAIT));
                let heard = closing.filter(|_| !of_quota).map_or(0.0, |closing| micros(closing.wait));
                assert_eq!(process.report.told, heard, "{signal:?}, current: {current}");
                let refused = f64::from(verdict == Verdict::Throttled && current);
                assert_eq!(process.report.refused, refused, "{signal:?}, current: {current}");
            }
        }
    }
}
