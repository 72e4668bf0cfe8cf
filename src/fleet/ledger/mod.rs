//! The rules by which departures are given out, as plain functions of state and time. `turn.lua` does the same, field by
//! field and line by line; a test lets both play the same games.

use super::{
    counters::{Amounts, COUNTERS, Counter, hold},
    places::Places,
    turn::{Grant, Known, Turn},
};

/// What the fleet knows. Times are microseconds on the clock of whoever keeps it; all are 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    pub(super) epoch: f64,
    pub(super) closed: f64,
    /// The next departure that nobody has.
    pub(super) next: f64,
    /// Departures given out so far, and the tokens that were booked and taken.
    pub(super) seq: f64,
    pub(super) input: f64,
    pub(super) output: f64,
    /// A second.
    pub(super) pace: f64,
    /// Whether it was measured (1), or is the first guess (0).
    pub(super) measured: f64,
    /// Whether the last one who asked had to wait for its turn.
    pub(super) paced: f64,
    /// The cycle that is measured: since the first departure after the last opening. How many were accepted, and for how
    /// long nobody asked.
    pub(super) start: f64,
    pub(super) ok: f64,
    pub(super) idle: f64,
    /// Refusals in a row, one for each epoch; when the gate closed for the first one, and for how long for the last one.
    pub(super) failures: f64,
    pub(super) shut: f64,
    pub(super) wait: f64,
    /// The same, if nobody had said for how long; otherwise 0.
    pub(super) untold: f64,
    /// The first departure after the last closing.
    pub(super) reopened: f64,
    /// The rate that was refused last.
    pub(super) ceiling: f64,
    /// The pace when `start` was, and whether that was in the middle of a run.
    pub(super) base: f64,
    pub(super) anew: f64,
    /// So many calls until the pace may grow.
    pub(super) rest: f64,
    /// For how long the gate was closed last.
    pub(super) pause: f64,
    pub(super) round_trip: f64,
    /// Who finds out whether the upstream is open, and until when it has to be heard of.
    pub(super) probe: f64,
    pub(super) probe_until: f64,
    pub(super) accepted: f64,
    pub(super) refused: f64,
    pub(super) counters: [Counter; COUNTERS],
}

/// What the processes of a fleet agree on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Refused calls per accepted one.
    pub(super) budget: f64,
    /// Departures a second before anything is known.
    pub(super) first_pace: f64,
    /// Whether that is what the user says, so that nothing has to be measured first.
    pub(super) seeded: bool,
    /// The most calls in flight; 0 if there is no bound.
    pub(super) most: f64,
}

pub(super) const SECOND: f64 = 1e6;
/// A process may have departures for so long, if all do.
const LEASE: f64 = 0.1 * SECOND;
/// A pace that was taken over does not grow for so many seconds.
const REST: f64 = 10.0;
/// A timer may be this late, and it was still waiting for its turn.
const SLACK: f64 = 0.004 * SECOND;

/// The most that one process has at a time, where so many take part.
pub(super) fn lease(pace: f64, members: f64) -> f64 {
    (pace * LEASE / SECOND / members.max(1.0)).floor().max(1.0)
}

impl Ledger {
    /// What happens in one turn, with `members` processes alive.
    pub(super) fn turn(&mut self, turn: &Turn, members: f64, rules: &Rules, now: f64) -> Grant {
        self.turn_with(turn, &mut Places::default(), (members, &Rules { most: 0.0, ..*rules }), now)
    }

    /// The same, with the places of all.
    pub(super) fn turn_with(
        &mut self,
        turn: &Turn,
        places: &mut Places,
        (members, rules): (f64, &Rules),
        now: f64,
    ) -> Grant {
        if self.pace == 0.0 {
            self.pace = if turn.known.pace > 0.0 { turn.known.pace } else { rules.first_pace };
            self.measured = f64::from(u8::from(turn.known.pace > 0.0 || rules.seeded));
            self.ceiling = self.pace;
            if turn.known.pace > 0.0 {
                // The processes still have leases of a ledger that is lost; and whatever there was to pay for, too.
                self.next = now + LEASE;
                self.rest = REST * self.pace;
            }
            self.epoch = turn.known.epoch;
            self.closed = now + turn.known.closed;
        } else if turn.known.epoch > self.epoch {
            self.epoch = turn.known.epoch;
            self.closed = self.closed.max(now + turn.known.closed);
        }
        let news = self.report(turn, rules, now) | turn.opens;
        if turn.opens {
            self.open(now);
        }
        let mut grant = Grant::default();
        if turn.known.epoch == self.epoch && turn.back != 0.0 {
            self.next = (self.next - turn.back * SECOND / self.pace).max(now);
        }
        if places.turn(turn, rules.most, &mut grant) && turn.want > 0.0 {
            self.give(turn, members, now, &mut grant);
        }
        grant.known = Known { epoch: self.epoch, closed: (self.closed - now).max(0.0), pace: self.pace };
        grant.measured = self.measured == 1.0;
        grant.members = members;
        grant.accepted = self.accepted;
        grant.refused = self.refused;
        grant.news |= news;
        grant
    }

    /// In a new epoch, with the refusals forgotten, but not the pace.
    fn open(&mut self, now: f64) {
        self.epoch += 1.0;
        self.closed = now;
        self.next = now;
        self.failures = 0.0;
        self.wait = 0.0;
        self.probe = 0.0;
    }

    fn give(&mut self, turn: &Turn, members: f64, now: f64, grant: &mut Grant) {
        let mut first = self.next.max(self.closed).max(now);
        let mut count = turn.want.min(lease(self.pace, members));
        if self.is_probing() {
            // Whoever sends it sends no other one meanwhile: a refusal may be sooner back than what was granted before.
            let has_it_still = self.probe != turn.id as f64 || turn.back <= 0.0;
            if self.probe != 0.0 && has_it_still && self.probe_until > now {
                grant.hold = self.probe_until - now;
                return;
            }
            self.probe = turn.id as f64;
            self.probe_until = first + (3.0 * self.round_trip).max(SECOND);
            count = 1.0;
        }
        let used = Amounts { requests: self.seq, input: self.input, output: self.output };
        let each = Amounts { requests: 1.0, input: turn.input, output: turn.output };
        (count, first) = hold(&mut self.counters, (used, each), (count, first), now);
        self.paced = f64::from(u8::from(self.next >= now - SLACK && self.next > 0.0));
        if self.next > 0.0 && self.next.max(self.closed) < now {
            self.idle += now - self.next.max(self.closed);
        }
        if self.start == 0.0 {
            self.start = first;
        }
        if self.failures > 0.0 && self.reopened == 0.0 {
            self.reopened = first;
        }
        grant.count = count;
        grant.first = first - now;
        grant.gap = SECOND / self.pace;
        (grant.seq, grant.input, grant.output) = (self.seq, self.input, self.output);
        self.seq += count;
        self.input += count * turn.input;
        self.output += count * turn.output;
        self.next = first + count * SECOND / self.pace;
    }

    /// One call at a time finds out.
    pub(super) fn is_probing(&self) -> bool {
        self.failures > 1.0 || (self.failures > 0.0 && self.measured == 0.0)
    }
}

#[cfg(test)]
mod tests;
