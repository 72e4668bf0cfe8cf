//! What calls are booked for and what they took, and what the server tells of its counters.

use super::{Process, micros};
use crate::{
    Cost,
    fleet::{counters::Told, lease::Slot, turn::Turn},
    policy::Answer,
    signal::{Reading, Unit},
};
use std::ops::{Add, Sub};

/// Tokens that go in, and that come out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::fleet) struct Tokens {
    pub(in crate::fleet) input: f64,
    pub(in crate::fleet) output: f64,
}

/// The books of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// What its calls took, and what the ledger has booked for it.
    took: Tokens,
    booked: Tokens,
    /// What the next call takes, and what calls take on average.
    next: Tokens,
    typical: Tokens,
}

impl Tokens {
    pub(in crate::fleet) fn of(cost: Cost) -> Self {
        Self { input: cost.input_tokens.into(), output: cost.output_tokens.into() }
    }

    pub(super) fn times(self, by: f64) -> Self {
        Self { input: by * self.input, output: by * self.output }
    }

    fn amount(self, unit: Unit) -> f64 {
        match unit {
            Unit::InputTokens => self.input,
            Unit::OutputTokens => self.output,
            _ => self.input + self.output,
        }
    }
}

impl Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { input: self.input + other.input, output: self.output + other.output }
    }
}

impl Sub for Tokens {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + other.times(-1.0)
    }
}

impl Slot {
    /// A call has it, which takes something else than it was booked for.
    pub(super) fn serves(&mut self, cost: Cost) {
        let took = Tokens::of(cost);
        self.end = self.end + (took - self.booked);
        self.booked = took;
    }
}

impl Process {
    pub(super) fn expect(&mut self, cost: Cost) {
        self.tally.next = Tokens::of(cost);
    }

    pub(super) fn took(&mut self, cost: Cost) {
        let took = Tokens::of(cost);
        let tally = &mut self.tally;
        tally.took = tally.took + took;
        let first = tally.typical == Tokens::default();
        let change = (took - tally.typical).times(if first { 1.0 } else { 0.125 });
        tally.typical = tally.typical + change;
    }

    /// It took that much more, or less.
    pub(in crate::fleet) fn took_more(&mut self, booked: Cost, used: Cost) {
        self.tally.took = self.tally.took + (Tokens::of(used) - Tokens::of(booked));
    }

    /// What a turn says of tokens. Whatever became of departures: what was taken and what is held is what has to be booked.
    pub(super) fn speak_of_tokens(&mut self, turn: &mut Turn) {
        let tally = &mut self.tally;
        let due = self.lease.booked().fold(tally.took, Add::add);
        let more = due - tally.booked;
        (turn.more_input, turn.more_output) = (more.input, more.output);
        tally.booked = due;
        let each = if turn.want <= 1.0 { tally.next } else { tally.typical };
        (turn.input, turn.output) = (each.input.round(), each.output.round());
        self.each = Tokens { input: turn.input, output: turn.output };
    }

    /// The ledger has booked so many departures, as it was asked to.
    pub(super) fn hear_of_tokens(&mut self, count: f64) {
        self.tally.booked = self.tally.booked + self.each.times(count);
    }

    /// The server's counters, as the answer tells them to the call that had this slot.
    pub(in crate::fleet) fn read(&mut self, answer: &Answer<'_>, slot: &Slot) {
        let consumed = !answer.signal.verdict.is_pushback();
        for reading in answer.signal.hints.readings.as_slice() {
            let (Some(left), Some(reset)) =
                (reading.remaining, reading.reset.filter(|reset| !reset.is_zero()))
            else {
                continue;
            };
            let at = slot.seq + f64::from(u8::from(consumed));
            let end = if consumed { slot.end } else { slot.end - slot.booked };
            let (place, each) = match reading.unit {
                Unit::Requests => (at, 1.0),
                Unit::Other => continue,
                unit => (end.amount(unit), slot.booked.amount(unit)),
            };
            let slack = (reading.limit.unwrap_or(left) as f64 / 8.0).max(4.0 * each);
            // A bound of zero would say that nothing was told.
            let bound = (place + left as f64).max(1.0);
            self.tell(Told { key: key(reading), bound, at, reset: micros(reset), slack });
        }
    }

    fn tell(&mut self, told: Told) {
        let counters = &mut self.report.counters;
        let index = counters.iter().position(|known| known.key == told.key);
        let index = index.or_else(|| counters.iter().position(|known| known.key == 0.0));
        // There is room for as many as one answer tells; others of the same turn come with the next answer.
        if let Some(known) = index.and_then(|index| counters.get_mut(index)) {
            if told.at >= known.at {
                *known = told;
            }
        }
    }
}

/// Numbers in scripts have 53 bits.
fn key(reading: &Reading) -> f64 {
    let unit = match reading.unit {
        Unit::Tokens => 1,
        Unit::InputTokens => 2,
        Unit::OutputTokens => 3,
        _ => 0,
    };
    (((reading.policy % (1 << 48)) + 1) * 4 + unit) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::{ledger::Rules, turn::Grant},
        signal::{Signal, Verdict},
    };
    use std::time::Duration;
    use tokio::time::Instant;

    const CALL: Cost = Cost { requests: 1, input_tokens: 100, output_tokens: 20 };

    fn process(now: Instant) -> Process {
        let rules = Rules { budget: 0.01, first_pace: 100.0, seeded: true, most: 0.0 };
        let mut process = Process::new(7, rules, Duration::from_millis(50), now);
        process.subscribed = true;
        process.ask(now, now, CALL);
        let turn = process.speak(1, false, now);
        assert_eq!((turn.input, turn.output, turn.more_input), (100.0, 20.0, 0.0), "as it will be");
        let mut grant =
            Grant { count: 2.0, gap: 1e4, seq: 8.0, input: 5000.0, measured: true, ..Grant::default() };
        (grant.known.pace, grant.members) = (100.0, 1.0);
        process.granted(&grant, now, now);
        process
    }

    #[test]
    fn what_is_taken_is_what_is_booked() {
        let now = Instant::now();
        let mut process = process(now);
        assert_eq!(process.speak(1, false, now).more_input, 0.0, "two are held, of a hundred each");
        process.depart(now, Cost { input_tokens: 130, ..CALL });
        let turn = process.speak(1, false, now);
        assert_eq!((turn.more_input, turn.more_output), (30.0, 0.0));
        // It took less in truth, and the other departure was not used.
        process.took_more(Cost { input_tokens: 130, ..CALL }, CALL);
        let turn = process.speak(0, false, now + Duration::from_secs(1));
        assert_eq!((turn.more_input, turn.more_output), (-130.0, -20.0));
    }

    #[test]
    fn a_counter_ends_where_its_call_ended_and_what_is_left() {
        let now = Instant::now();
        for (verdict, ends) in [(Verdict::Accepted, [39.0, 5600.0]), (Verdict::Throttled, [38.0, 5500.0])] {
            let mut process = process(now);
            process.depart(now, CALL);
            let slot = process.take_number(now).expect("it had one");
            let mut signal = Signal::new(verdict);
            for (unit, left) in [(Unit::Requests, 30), (Unit::InputTokens, 500)] {
                let mut reading = Reading::new(unit);
                (reading.remaining, reading.reset) = (Some(left), Some(Duration::from_secs(9)));
                signal = signal.reading(reading);
            }
            process.read(&Answer::new(&signal, now, now).cost(CALL), &slot);
            let turn = process.speak(0, false, now);
            let told: Vec<_> =
                turn.counters.iter().filter(|told| told.key > 0.0).map(|told| told.bound).collect();
            assert_eq!(told, ends);
        }
    }
}
