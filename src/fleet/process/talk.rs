//! When a process says something, what it says, and what it makes of what it hears.

use super::{Process, STALE, Tokens, duration, micros};
use crate::fleet::{
    lease::Slot,
    ledger::{Ledger, lease},
    snapshot::Mode,
    turn::{Grant, Known, Turn},
};
use std::time::Duration;
use tokio::time::Instant;

/// What the gate has to know after something was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::fleet) struct Heard {
    /// Nothing if it is open.
    pub(in crate::fleet) closed_for: Duration,
    pub(in crate::fleet) new_epoch: bool,
    /// The first answer after an outage.
    pub(in crate::fleet) back: bool,
}

/// A process that has nothing to say says so once in this time.
const BEAT: Duration = Duration::from_secs(8);
/// It goes home when there was nothing to do for so long.
pub(super) const IDLE: Duration = Duration::from_secs(4);
/// How often it asks when it is alone.
pub(super) const RETRY: Duration = Duration::from_millis(200);
pub(super) const EARLY: Duration = Duration::from_millis(25);
/// Alone, it goes a little below its share: the others cannot be seen.
const CARE: f64 = 0.95;

impl Process {
    /// A process begins to talk: what it heard long ago is not news.
    pub(in crate::fleet) fn join(&mut self, now: Instant) {
        (self.spoke, self.active, self.asking, self.retry) = (now, now, None, None);
    }

    /// How many departures it needs, with so many calls waiting.
    fn want(&self, waiting: usize, now: Instant) -> usize {
        let most = lease(self.view.known.pace, self.view.members) as usize;
        let demand = waiting.max(self.lease.expected(now));
        let (held, goal) = (self.lease.valid(now), demand.min(most).min(self.room(waiting, now)));
        if held > 0 && held > goal / 4 { 0 } else { goal.saturating_sub(held) }
    }

    /// Departures that nobody waits for, and that are worth giving back.
    fn surplus(&self, waiting: usize, now: Instant) -> usize {
        let keep = waiting.max(self.lease.expected(now));
        let far = self.lease.first().is_some_and(|slot| slot.at > now + 2 * EARLY);
        if far { self.lease.len().saturating_sub(keep) } else { 0 }
    }

    /// When it has to say something; `None` while it waits for an answer.
    pub(in crate::fleet) fn due(&self, waiting: usize, now: Instant) -> Option<Instant> {
        if self.asking.is_some() {
            return None;
        }
        let mut due = self.spoke + BEAT;
        let held = self.hold.filter(|hold| *hold > now);
        if self.want(waiting, now) > 0 {
            due = due.min(held.unwrap_or(now));
        }
        if self.urgent
            || self.surplus(waiting, now) > 0
            || self.mode != Mode::Shared
            || self.is_place_due(waiting)
        {
            due = now;
        }
        if let Some(idle) = self.idle_places(waiting) {
            due = due.min(idle.max(now));
        }
        if let Some(slot) = self.lease.first().filter(|_| !self.subscribed && waiting > 0) {
            if slot.at.max(now) > self.seen + STALE {
                due = due.min(slot.at.checked_sub(EARLY).unwrap_or(now));
            }
        }
        Some(match self.retry {
            Some(retry) => due.max(retry),
            None => due,
        })
    }

    /// Nothing is going on, and has not been for a while.
    pub(in crate::fleet) fn is_idle(&self, waiting: usize, now: Instant) -> bool {
        waiting == 0 && self.flying == 0 && now >= self.active + IDLE
    }

    /// What it says now.
    pub(in crate::fleet) fn speak(&mut self, waiting: usize, leaves: bool, now: Instant) -> Turn {
        self.report.back += self.lease.expire(now) as f64;
        let surplus = if leaves { self.lease.len() } else { self.surplus(waiting, now) };
        self.report.back += self.lease.shorten(self.lease.len() - surplus) as f64;
        self.speak_of_places(waiting, leaves, now);
        let mut turn = std::mem::take(&mut self.report);
        self.needs = turn.need;
        turn.id = self.id;
        turn.leaves = leaves;
        turn.want = if leaves { 0.0 } else { self.want(waiting, now) as f64 };
        self.speak_of_tokens(&mut turn);
        let alone = self.mode == Mode::Alone;
        let epoch = if alone { self.alone.epoch } else { self.refused_in.unwrap_or(self.epoch) };
        let closed = if alone { self.instant(self.alone.closed) } else { self.closed_until };
        let closed = micros(closed.saturating_duration_since(now));
        turn.known =
            Known { epoch, closed, pace: if self.view.measured { self.view.known.pace } else { 0.0 } };
        (self.asking, self.spoke, self.urgent, self.refused_in) = (Some(now), now, false, None);
        turn
    }

    /// The answer to what it said at `sent`.
    pub(in crate::fleet) fn granted(&mut self, grant: &Grant, sent: Instant, now: Instant) -> Heard {
        self.asking = None;
        let took = now.saturating_duration_since(sent);
        self.round_trip = Some(took);
        self.hear_of_tokens(grant.count);
        // In the middle, as near as can be known.
        let then = sent + took / 2;
        let in_time = took <= self.patience;
        let was_alone = self.mode == Mode::Alone;
        if was_alone {
            self.epoch = self.epoch.max(self.alone.epoch);
        }
        let old = grant.known.epoch < self.epoch;
        let heard = self.heard(grant, then, now);
        self.retry = (!in_time).then_some(now + RETRY);
        if !in_time {
            // Its departures are of the past.
            self.leave_alone(now);
            return heard;
        }
        (self.mode, self.announced) = (Mode::Shared, false);
        self.hold = (grant.hold > 0.0).then(|| then + duration(grant.hold));
        self.hear_of_places(grant, self.needs, now);
        if old {
            return heard;
        }
        if grant.count > 0.0 {
            self.needed = None;
        }
        for index in 0..grant.count as u32 {
            let after = grant.first + f64::from(index) * grant.gap;
            let before = Tokens { input: grant.input, output: grant.output };
            let (seq, booked) = (grant.seq + f64::from(index), self.each);
            let end = before + booked.times(f64::from(index) + 1.0);
            self.lease.push(Slot { at: then + duration(after), seq, booked, end });
        }
        // What was heard meanwhile may be newer than the answer.
        self.lease.void(self.closed_until);
        Heard { back: was_alone, ..heard }
    }

    /// Something was heard that was true at `then`.
    pub(in crate::fleet) fn heard(&mut self, grant: &Grant, then: Instant, now: Instant) -> Heard {
        let new_epoch = grant.known.epoch > self.epoch;
        if grant.known.epoch >= self.epoch {
            self.close_until(then + duration(grant.known.closed));
        }
        if new_epoch {
            self.epoch = grant.known.epoch;
            // A new epoch may also be one in which it was opened.
            self.closed_until = then + duration(grant.known.closed);
            self.unproved = true;
            // What was given out before is void, and what is to be told is of the epoch before.
            self.report.late += std::mem::take(&mut self.report.accepted);
            self.report.back = 0.0;
            self.hold = None;
            self.lease.shorten(0);
            self.urgent |= self.report.late > 0.0;
        }
        self.seen = self.seen.max(then);
        self.view = *grant;
        if self.mode != Mode::Alone {
            let share = grant.known.pace * CARE / grant.members.max(1.0);
            let next = self.alone.next;
            self.alone = Ledger {
                epoch: self.epoch,
                pace: share,
                ceiling: share,
                measured: f64::from(u8::from(grant.measured)),
                closed: self.time(self.closed_until),
                next,
                ..Ledger::default()
            };
        }
        let closed_for = self.closed_until.saturating_duration_since(now);
        Heard { closed_for, new_epoch, back: false }
    }

    /// There was no answer, or it was an error.
    pub(in crate::fleet) fn failed(&mut self, turn: &Turn, now: Instant) -> bool {
        self.asking = None;
        self.retry = Some(now + RETRY);
        let new = self.leave_alone(now);
        if turn.refused > 0.0 && new {
            // It is not lost: the own ledger closes for it.
            let own = Turn { refused: 1.0, told: turn.told, ..self.own_turn(0.0) };
            let time = self.time(now);
            self.alone.turn(&own, 1.0, &self.rules, time);
        }
        new
    }
}
