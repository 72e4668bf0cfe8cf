//! One process of a fleet, as plain functions of state, event and time: it holds the lease, collects what the ledger has
//! to be told, and knows when to ask. [`policy`](super::policy) asks it for the gate, [`member`](super::member) talks
//! to Redis for it.

mod flight;
mod talk;
mod tokens;

pub(super) use self::{talk::Heard, tokens::Tokens};

use self::{flight::Flight, tokens::Tally};

use super::{
    lease::{Lease, Slot},
    ledger::{Ledger, Rules, SECOND},
    snapshot::Mode,
    turn::{Grant, Known, Turn},
};
use crate::{Cost, policy::later};
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
    /// What it took, and what it asked for last.
    tally: Tally,
    each: Tokens,
    /// Calls in flight, and the slots of those that had one.
    pub(super) flying: usize,
    flight: Flight,
    /// What it said last that it needs, in places.
    needs: f64,
    pub(super) numbers: VecDeque<(Instant, Slot)>,
    asking: Option<Instant>,
    retry: Option<Instant>,
    spoke: Instant,
    active: Instant,
    pub(super) outages: u64,
    /// Somebody was told that it is alone.
    pub(super) announced: bool,
    pub(super) round_trip: Option<Duration>,
}

/// Processes that were not heard of for so long do not count any more.
pub(super) const ALIVE: Duration = Duration::from_secs(20);
/// Nobody leaves on older knowledge.
const STALE: Duration = Duration::from_millis(100);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Of so many calls in flight it is known which number they had.
const NUMBERS: usize = 4096;

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * SECOND
}

/// Of what came from outside, too: no longer than what can be added to a clock, and added again.
pub(super) fn duration(micros: f64) -> Duration {
    Duration::try_from_secs_f64(micros / SECOND).unwrap_or(Duration::from_secs(86_400)).min(CENTURY)
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
            flight: Flight::new(now),
            tally: Tally::default(),
            each: Tokens::default(),
            needs: 0.0,
            numbers: VecDeque::new(),
            asking: None,
            retry: None,
            spoke: now,
            active: now,
            outages: 0,
            announced: false,
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
    pub(super) fn ask(&mut self, arrived: Instant, now: Instant, cost: Cost) -> Instant {
        self.expect(cost);
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
            let leaves = slot.at.max(arrived);
            let known = self.subscribed || leaves <= self.seen + STALE;
            return if known { slot.at } else { leaves + self.patience };
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

    /// A call leaves.
    pub(super) fn depart(&mut self, at: Instant, cost: Cost) {
        let requests = cost.requests;
        self.took(cost);
        self.flying += 1;
        self.active = at;
        self.lease.count(at);
        self.needed = None;
        if self.mode != Mode::Alone {
            // One that came while the gate was held up is good all the same.
            if let Some(mut slot) = self.lease.take_for(at) {
                slot.serves(cost);
                if self.numbers.len() == NUMBERS {
                    self.numbers.pop_front();
                }
                self.numbers.push_back((at, slot));
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
    pub(super) fn recall(&mut self, at: Instant, cost: Cost) {
        self.took_more(cost, cost.input(0).output(0));
        self.landed(at);
        if self.take_number(at).is_some() {
            self.report.back += 1.0;
        }
    }

    /// Which slot the call had that left at `departed`.
    pub(super) fn take_number(&mut self, departed: Instant) -> Option<Slot> {
        let index = self.numbers.partition_point(|(at, _)| *at < departed);
        let (at, _) = *self.numbers.get(index)?;
        if at == departed { self.numbers.remove(index).map(|(_, slot)| slot) } else { None }
    }

    /// Redis does not serve. Whether that is new.
    pub(super) fn leave_alone(&mut self, now: Instant) -> bool {
        if self.mode == Mode::Alone {
            return false;
        }
        self.mode = Mode::Alone;
        self.outages += 1;
        self.forget_places();
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
}

#[cfg(test)]
mod tests;
