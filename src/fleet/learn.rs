//! What the fleet learns from what its processes tell.

use super::{
    counters::read,
    ledger::{Ledger, Rules, SECOND},
    turn::Turn,
};

/// What a refusal takes from the pace: this share of the share of time for which the gate is closed, from run to run. A
/// long closing after a short run says that the run was paid from what had been in store.
const OF_CLOSED: f64 = 0.25;
const LEAST_STEP: f64 = 0.02;
const MOST_STEP: f64 = 0.2;
/// The pace stays that much below what was measured.
const MARGIN: f64 = 0.995;
/// So few calls say nothing; what processes tell may be late by a call or two each.
const MEANINGFUL: f64 = 32.0;
/// A pace that has grown so much since it was measured is measured anew, from then on; which counts if the gate is closed
/// for no more than this share of that time.
const GROWN: f64 = 1.15;
const PART: f64 = 0.5;
/// A refusal of the first pace that was over so soon came from a bucket, or a short window: not much less is right.
const SHORT: f64 = 1.1 * SECOND;
const SHORT_SHARE: f64 = 0.7;
/// The first measurement is that much too low, for all that is known.
const FIRST_CEILING: f64 = 1.25;
/// Growth by one call at the ceiling, with a budget of 1 %; away from it, so many times as much for each time that it is
/// away; and never more than this in the time in which a pace that is too high is refused.
const GROWTH: f64 = 0.00025;
const AWAY: f64 = 20.0;
const MOST_GROWTH: f64 = 0.04;
/// That is no less than this: how much is in store at the upstream is not known.
const SHORTEST_HOLD: f64 = 5.0 * SECOND;
/// Below this share of the ceiling it is 25 times as much.
const FAR: f64 = 0.75;
const FAR_GROWTH: f64 = 1.0;
/// A closed gate costs as much as so many times the calls that it held up would.
const PAUSE: f64 = 50.0;
/// Before the first refusal, an eighth of what was granted so far is in flight.
const START: f64 = 8.0;
const FIRST_WAIT: f64 = 0.25 * SECOND;
const SLOWER: f64 = 4.0 * SECOND;
const MAX_WAIT: f64 = 600.0 * SECOND;
const MIN_PACE: f64 = 1.0 / 600.0;
const MAX_PACE: f64 = 1e6;

impl Ledger {
    /// Takes in what a process tells. Whether all have to hear of it.
    pub(super) fn report(&mut self, turn: &Turn, rules: &Rules, now: f64) -> bool {
        let mut news = false;
        let accepted = turn.accepted + turn.late;
        if turn.round_trip > 0.0 {
            let first = self.round_trip == 0.0;
            let change = (turn.round_trip - self.round_trip) / 8.0;
            self.round_trip = if first { turn.round_trip } else { self.round_trip + change };
        }
        read(&mut self.counters, turn, now);
        self.input = (self.input + turn.more_input).max(0.0);
        self.output = (self.output + turn.more_output).max(0.0);
        self.accepted += accepted;
        self.refused += turn.also_refused;
        self.rest += turn.also_refused / rules.budget.max(1e-9) - accepted;
        let current = turn.known.epoch == self.epoch;
        if turn.accepted > 0.0
            && current
            && self.failures > 0.0
            && self.reopened > 0.0
            && now >= self.reopened
        {
            news = self.is_probing();
            self.reopen(rules);
        }
        self.ok += accepted;
        if turn.accepted > 0.0 && current && self.failures == 0.0 && self.paced == 1.0 {
            self.grow(turn.accepted, rules, now);
        }
        if turn.refused > 0.0 && current {
            self.refuse(turn.told, rules, now);
            return true;
        }
        // Another process was first.
        self.refused += turn.refused;
        self.rest += turn.refused / rules.budget.max(1e-9);
        if turn.told > 0.0 && now + turn.told > self.closed {
            self.closed = now + turn.told;
            self.next = self.next.max(self.closed);
            news = true;
        }
        news
    }

    /// The first call of its flight was refused.
    fn refuse(&mut self, told: f64, rules: &Rules, now: f64) {
        self.epoch += 1.0;
        self.refused += 1.0;
        self.failures += 1.0;
        if self.failures == 1.0 {
            self.shut = now;
            self.ceiling = self.pace;
        }
        self.rest = self.rest.max(0.0) + 1.0 / rules.budget.max(1e-9);
        self.wait = if self.failures > 1.0 {
            self.wait * if self.wait < SLOWER { 2.0 } else { 1.5 }
        } else if self.measured == 1.0 {
            1.5 * SECOND / self.pace
        } else {
            FIRST_WAIT
        };
        self.wait = self.wait.max(self.round_trip / 2.0).min(MAX_WAIT);
        if self.failures == 1.0 && self.measured == 1.0 {
            let closing = if told > 0.0 { told } else { self.wait };
            let since = if self.reopened > 0.0 { self.reopened } else { self.start };
            let run = (now - since).max(0.0);
            let step = (OF_CLOSED * closing / (closing + run)).clamp(LEAST_STEP, MOST_STEP);
            self.pace = (self.pace * (1.0 - step)).max(MIN_PACE);
        }
        self.untold = if told > 0.0 { 0.0 } else { self.wait };
        self.closed = self.closed.max(now + if told > 0.0 { told } else { self.wait });
        self.next = self.closed;
        self.reopened = 0.0;
        self.probe = 0.0;
    }

    /// A call that left after the closing was accepted. What was granted from opening to opening, by the time that took,
    /// is the quota.
    fn reopen(&mut self, rules: &Rules) {
        self.pause = (self.reopened - self.shut).max(0.0);
        // Where nobody said until when, it was there again at some time since the last attempt. A time that is told is
        // rounded up, to whole seconds mostly.
        let late = if self.untold > 0.0 { self.untold / 2.0 } else { self.pause.min(SECOND) };
        let elapsed = (self.reopened - late - self.start - self.idle) / SECOND;
        let measured = MARGIN * self.ok / elapsed.max(1e-3);
        // What remembers for longer than that may have been used up before.
        let partial = self.anew == 1.0 && self.pause > PART * (self.shut - self.start);
        let meaningful = self.ok >= MEANINGFUL && !partial;
        let first = self.measured == 0.0;
        if first {
            let short = self.failures == 1.0 && self.pause < SHORT.max(4.0 * self.round_trip);
            let least = if short { SHORT_SHARE * self.pace } else { MIN_PACE };
            self.measured = 1.0;
            self.pace = measured.max(least).clamp(MIN_PACE, self.pace.max(MIN_PACE));
            let refused = if meaningful { 0.0 } else { self.ceiling };
            self.ceiling = refused.max(FIRST_CEILING * self.pace);
        } else if meaningful {
            if measured < self.pace {
                self.pace = measured.max(self.pace / 2.0).max(MIN_PACE);
                self.ceiling = self.pace;
            }
            self.rest = self.rest.max(PAUSE * self.pause / SECOND * self.pace);
        }
        self.failures = 0.0;
        self.wait = 0.0;
        self.base = self.pace;
        if meaningful || partial {
            (self.start, self.ok, self.idle, self.anew) = (self.reopened, 0.0, 0.0, 0.0);
        } else {
            // It was there and nobody took it.
            self.idle += late;
        }
        if first || !(meaningful || partial) {
            // What is refused while so little is known is not paid for.
            self.rest = self.rest.min(1.0 / rules.budget.max(1e-9));
        }
    }

    fn grow(&mut self, accepted: f64, rules: &Rules, now: f64) {
        if self.measured == 0.0 {
            let in_flight = self.ok / START;
            self.pace = self.pace.max(in_flight * SECOND / self.round_trip.max(1.0)).min(MAX_PACE);
            self.ceiling = self.pace;
        } else if self.rest <= 0.0 && rules.budget > 0.0 {
            let away = (self.pace / self.ceiling - 1.0).abs();
            let growth = GROWTH * rules.budget / 0.01 * (1.0 + AWAY * away);
            let hold = self.pause.max(4.0 * self.round_trip).max(SHORTEST_HOLD).max(8.0 * SECOND / self.pace);
            let share = if self.pace < FAR * self.ceiling { FAR_GROWTH } else { MOST_GROWTH };
            let most = share * SECOND / (hold * self.pace);
            self.pace = (self.pace * (growth.min(most) * accepted).exp()).min(MAX_PACE);
            if self.pace > GROWN * self.base {
                // What was granted at a lower pace says nothing of the quota.
                self.base = self.pace;
                (self.start, self.ok, self.idle, self.anew) = (now, 0.0, 0.0, 1.0);
            }
        }
    }
}
