//! One process of a fleet, as plain functions of state, event and time: it holds the lease, collects what the ledger has
//! to be told, and knows when to ask. [`policy`](super::policy) asks it for the gate, [`member`](super::member) talks
//! to Redis for it.

use super::{
    lease::{Lease, Slot},
    ledger::{Ledger, Rules, SECOND, lease},
    snapshot::Mode,
    turn::{Grant, Known, Turn},
};
use crate::policy::later;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) id: u64,
    pub(super) rules: Rules,
    pub(super) patience: Duration,
    pub(super) mode: Mode,
    /// As last heard, but for the epoch, which a refusal of its own moves on at once.
    pub(super) view: Grant,
    pub(super) epoch: f64,
    closed_until: Instant,
    /// When that was heard, and whether whatever is new is heard at once.
    seen: Instant,
    pub(super) subscribed: bool,
    pub(super) lease: Lease,
    /// Since when there has been no slot, since when a call needs one, and when to ask again if there was none to be had.
    dry: Instant,
    needed: Option<Instant>,
    hold: Option<Instant>,
    /// The ledger that it goes by when it is alone, and the instant that is its second one.
    pub(super) alone: Ledger,
    base: Instant,
    /// What is to be told, and in which epoch a call was refused.
    pub(super) report: Turn,
    pub(super) refused_in: Option<f64>,
    pub(super) urgent: bool,
    /// Nothing has been accepted in this epoch yet.
    pub(super) unproved: bool,
    /// Calls in flight, and the numbers of those that had a slot.
    pub(super) flying: usize,
    pub(super) numbers: VecDeque<(Instant, f64)>,
    asking: Option<Instant>,
    retry: Option<Instant>,
    spoke: Instant,
    active: Instant,
    pub(super) outages: u64,
    pub(super) round_trip: Option<Duration>,
}

/// What the gate has to know after something was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Heard {
    /// Nothing if it is open.
    pub(super) closed_for: Duration,
    pub(super) new_epoch: bool,
    /// The first answer after an outage.
    pub(super) back: bool,
}

/// A process that has nothing to say says so once in this time.
const BEAT: Duration = Duration::from_secs(8);
/// Processes that were not heard of for so long do not count any more.
pub(super) const ALIVE: Duration = Duration::from_secs(20);
/// It goes home when there was nothing to do for so long.
const IDLE: Duration = Duration::from_secs(4);
/// How often it asks when it is alone.
const RETRY: Duration = Duration::from_millis(200);
/// Nobody leaves on older knowledge.
const STALE: Duration = Duration::from_millis(100);
const EARLY: Duration = Duration::from_millis(25);
/// Alone, it goes a little below its share: the others cannot be seen.
const CARE: f64 = 0.95;
/// Of so many calls in flight it is known which number they had.
const NUMBERS: usize = 4096;

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * SECOND
}

pub(super) fn duration(micros: f64) -> Duration {
    Duration::try_from_secs_f64(micros / SECOND).unwrap_or(Duration::from_secs(86_400))
}

impl Process {
    pub(super) fn new(id: u64, rules: Rules, patience: Duration, now: Instant) -> Self {
        Self {
            id,
            rules,
            patience,
            mode: Mode::Joining,
            view: Grant { members: 1.0, ..Grant::default() },
            epoch: 0.0,
            closed_until: now,
            seen: now,
            subscribed: false,
            lease: Lease::default(),
            dry: now,
            needed: None,
            hold: None,
            alone: Ledger::default(),
            base: now,
            report: Turn::default(),
            refused_in: None,
            urgent: false,
            unproved: true,
            flying: 0,
            numbers: VecDeque::new(),
            asking: None,
            retry: None,
            spoke: now,
            active: now,
            outages: 0,
            round_trip: None,
        }
    }

    /// For booking those who wait: without what a copy has no use for.
    pub(super) fn sketch(&self) -> Self {
        Self { lease: self.lease.clone(), numbers: VecDeque::new(), ..*self }
    }

    // ===== the clock of the own ledger =====

    pub(super) fn time(&self, at: Instant) -> f64 {
        SECOND + micros(at.saturating_duration_since(self.base))
    }

    fn instant(&self, time: f64) -> Instant {
        self.base + duration((time - SECOND).max(0.0))
    }

    // ===== departures =====

    /// A call that came at `arrived` asks when it may leave.
    pub(super) fn ask(&mut self, arrived: Instant, now: Instant) -> Instant {
        if self.lease.next(arrived).is_none() {
            self.needed.get_or_insert(now);
        }
        self.departure(arrived)
    }

    /// Nobody waits.
    pub(super) fn rest(&mut self) {
        self.needed = None;
    }

    /// When a call that came at `arrived` may leave.
    pub(super) fn departure(&self, arrived: Instant) -> Instant {
        if let Some(slot) = self.lease.next(arrived) {
            let known = self.subscribed || slot.at <= self.seen + STALE;
            return if known { slot.at } else { slot.at + self.patience };
        }
        let own = self.own_departure(arrived);
        if self.mode == Mode::Alone {
            return own;
        }
        // Redis may take so long to answer, and no longer.
        let asked = self.needed.unwrap_or(arrived).max(self.dry).max(self.hold.unwrap_or(self.dry));
        own.max(asked.max(self.closed_until) + self.patience)
    }

    fn own_departure(&self, arrived: Instant) -> Instant {
        let mut ledger = self.alone;
        let now = self.time(arrived);
        let grant = ledger.turn(&self.own_turn(1.0), 1.0, &self.rules, now);
        let wait = if grant.count > 0.0 { grant.first } else { grant.hold };
        if wait > 0.0 { self.instant(now + wait) } else { arrived }
    }

    /// What it would say to its own ledger.
    pub(super) fn own_turn(&self, want: f64) -> Turn {
        let known = Known { epoch: self.alone.epoch, ..Known::default() };
        Turn { id: self.id, want, known, ..Turn::default() }
    }

    /// A call of so many requests leaves.
    pub(super) fn depart(&mut self, at: Instant, requests: u32) {
        self.flying += 1;
        self.active = at;
        self.lease.count(at);
        self.needed = None;
        if self.mode != Mode::Alone {
            // One that came while the gate was held up is good all the same.
            if let Some(slot) = self.lease.take_for(at) {
                if self.numbers.len() == NUMBERS {
                    self.numbers.pop_front();
                }
                self.numbers.push_back((at, slot.seq));
                for _ in 1..requests {
                    self.report.back -= f64::from(u8::from(self.lease.take().is_none()));
                }
                self.dry = at;
                self.alone.next = self.time(at) + SECOND / self.alone.pace.max(1e-3);
                return;
            }
            if requests == 0 {
                return;
            }
            self.leave_alone(at);
        }
        let turn = self.own_turn(requests.into());
        let now = self.time(at);
        self.alone.turn(&turn, 1.0, &self.rules, now);
    }

    /// The call that left at `at` was not sent.
    pub(super) fn recall(&mut self, at: Instant) {
        self.flying = self.flying.saturating_sub(1);
        if self.take_number(at).is_some() {
            self.report.back += 1.0;
        }
    }

    /// Which number the call had that left at `departed`.
    pub(super) fn take_number(&mut self, departed: Instant) -> Option<f64> {
        let index = self.numbers.partition_point(|(at, _)| *at < departed);
        let (at, _) = *self.numbers.get(index)?;
        if at == departed { self.numbers.remove(index).map(|(_, number)| number) } else { None }
    }

    /// Redis does not serve. Whether that is new.
    pub(super) fn leave_alone(&mut self, now: Instant) -> bool {
        if self.mode == Mode::Alone {
            return false;
        }
        self.mode = Mode::Alone;
        self.outages += 1;
        self.lease.shorten(0);
        self.hold = None;
        // Own refusals count in the own ledger now.
        self.report = Turn::default();
        self.refused_in = None;
        self.alone.epoch = self.epoch;
        let closed = self.time(self.closed_until.max(now));
        self.alone.closed = self.alone.closed.max(closed);
        true
    }

    /// An answer came.
    pub(super) fn touch(&mut self, now: Instant) {
        self.active = self.active.max(now);
    }

    /// The ledger gives out what it had given out before that anew.
    pub(super) fn close_until(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(until);
        self.lease.void(until);
    }

    /// Somebody opens the gate by hand. All are told.
    pub(super) fn open(&mut self, now: Instant) {
        self.closed_until = now;
        self.report.opens = true;
        self.report.told = 0.0;
        self.urgent = true;
        self.alone = Ledger { epoch: self.alone.epoch, pace: self.alone.pace, ..Ledger::default() };
        self.lease.shorten(0);
    }

    /// Somebody closes it by hand.
    pub(super) fn cool(&mut self, wait: Duration, now: Instant) {
        self.report.told = self.report.told.max(micros(wait));
        self.urgent = true;
        self.close_until(later(now, wait));
    }

    // ===== talking =====

    /// A process begins to talk: what it heard long ago is not news.
    pub(super) fn join(&mut self, now: Instant) {
        (self.spoke, self.active, self.asking, self.retry) = (now, now, None, None);
    }

    /// How many departures it needs, with so many calls waiting.
    fn want(&self, waiting: usize, now: Instant) -> usize {
        let most = lease(self.view.known.pace, self.view.members) as usize;
        let demand = waiting.max(self.lease.expected(now));
        let (held, goal) = (self.lease.valid(now), demand.min(most));
        if held > 0 && held > goal / 4 { 0 } else { goal.saturating_sub(held) }
    }

    /// Departures that nobody waits for, and that are worth giving back.
    fn surplus(&self, waiting: usize, now: Instant) -> usize {
        let keep = waiting.max(self.lease.expected(now));
        let far = self.lease.first().is_some_and(|slot| slot.at > now + 2 * EARLY);
        if far { self.lease.len().saturating_sub(keep) } else { 0 }
    }

    /// When it has to say something; `None` while it waits for an answer.
    pub(super) fn due(&self, waiting: usize, now: Instant) -> Option<Instant> {
        if self.asking.is_some() {
            return None;
        }
        let mut due = self.spoke + BEAT;
        let held = self.hold.filter(|hold| *hold > now);
        if self.want(waiting, now) > 0 {
            due = due.min(held.unwrap_or(now));
        }
        if self.urgent || self.surplus(waiting, now) > 0 || self.mode != Mode::Shared {
            due = now;
        }
        if let Some(slot) = self.lease.first().filter(|_| !self.subscribed && waiting > 0) {
            if slot.at > self.seen + STALE {
                due = due.min(slot.at.checked_sub(EARLY).unwrap_or(now));
            }
        }
        Some(match self.retry {
            Some(retry) => due.max(retry),
            None => due,
        })
    }

    /// Nothing is going on, and has not been for a while.
    pub(super) fn is_idle(&self, waiting: usize, now: Instant) -> bool {
        waiting == 0 && self.flying == 0 && now >= self.active + IDLE
    }

    /// What it says now.
    pub(super) fn speak(&mut self, waiting: usize, leaves: bool, now: Instant) -> Turn {
        self.report.back += self.lease.expire(now) as f64;
        let surplus = if leaves { self.lease.len() } else { self.surplus(waiting, now) };
        self.report.back += self.lease.shorten(self.lease.len() - surplus) as f64;
        let mut turn = std::mem::take(&mut self.report);
        turn.id = self.id;
        turn.leaves = leaves;
        turn.want = if leaves { 0.0 } else { self.want(waiting, now) as f64 };
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
    pub(super) fn granted(&mut self, grant: &Grant, sent: Instant, now: Instant) -> Heard {
        self.asking = None;
        let took = now.saturating_duration_since(sent);
        self.round_trip = Some(took);
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
        self.mode = Mode::Shared;
        self.hold = (grant.hold > 0.0).then(|| then + duration(grant.hold));
        if old {
            return heard;
        }
        if grant.count > 0.0 {
            self.needed = None;
        }
        for index in 0..grant.count as u32 {
            let after = grant.first + f64::from(index) * grant.gap;
            self.lease.push(Slot { at: then + duration(after), seq: grant.seq + f64::from(index) });
        }
        Heard { back: was_alone, ..heard }
    }

    /// Something was heard that was true at `then`.
    pub(super) fn heard(&mut self, grant: &Grant, then: Instant, now: Instant) -> Heard {
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
    pub(super) fn failed(&mut self, turn: &Turn, now: Instant) -> bool {
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

    /// One call has found out that the upstream is open again, or somebody was refused: whoever holds back may ask.
    pub(super) fn ask_again(&mut self) {
        self.hold = None;
    }
}

#[cfg(test)]
mod tests;
