//! How many calls of a process may be in flight, where the fleet has a bound.

use super::Process;
use crate::fleet::{snapshot::Mode, turn::Grant};
use std::time::Duration;
use tokio::time::Instant;

/// As [`places`](crate::fleet::places) has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    places: usize,
    /// By how many another process has fewer that needs one, and whether anybody needs one.
    lack: usize,
    short: bool,
    /// The ledger knows how many this process has, and whether it needs more.
    known: bool,
    queued: bool,
    /// When it got a place, and when a call ended.
    got: Instant,
    ended: Instant,
}

/// Where there is one for some, but not for all, it goes from one to another after that.
const TENURE: Duration = Duration::from_secs(4);
/// Who cannot be called asks that often.
const UNHEARD: Duration = Duration::from_millis(250);
/// The next call may come at once.
const LINGER: Duration = Duration::from_millis(20);

impl Flight {
    pub(super) const fn new(now: Instant) -> Self {
        Self { places: 0, lack: 0, short: false, known: false, queued: false, got: now, ended: now }
    }
}

impl Process {
    /// The most calls that may be in flight.
    pub(in crate::fleet) fn max_in_flight(&self) -> Option<usize> {
        if self.rules.most == 0.0 {
            return None;
        }
        let share = (self.rules.most / self.view.members.max(1.0)).max(1.0);
        Some(if self.mode == Mode::Shared { self.flight.places } else { share as usize })
    }

    /// How many calls can leave now, but for their turn; or in a tenth of a second.
    pub(super) fn room(&self, waiting: usize, now: Instant) -> usize {
        match self.max_in_flight() {
            None => usize::MAX,
            // With one that waits, it asks for a place as well.
            Some(0) => waiting.min(1),
            Some(_) if self.mode != Mode::Shared => usize::MAX,
            Some(places) => places.saturating_sub(self.flying) + self.lease.expected(now),
        }
    }

    /// Whether there is something to say of the places.
    pub(super) fn is_place_due(&self, waiting: usize) -> bool {
        let flight = &self.flight;
        let needs = waiting > 0 && self.flying >= flight.places && !flight.queued;
        self.rules.most > 0.0 && flight.places > 0 && needs
    }

    /// When places are given up for which there are no calls, while others need them.
    pub(super) fn idle_places(&self, waiting: usize) -> Option<Instant> {
        let flight = &self.flight;
        let idle = flight.short && flight.places > self.flying + waiting;
        (self.rules.most > 0.0 && idle).then(|| flight.ended + LINGER)
    }

    /// A call is not in flight any more. Its place goes to who has less.
    pub(in crate::fleet) fn landed(&mut self, at: Instant) {
        self.flying = self.flying.saturating_sub(1);
        let flight = &mut self.flight;
        flight.ended = at;
        let gives_way = flight.lack > 1 || (flight.lack == 1 && at >= flight.got + TENURE);
        if self.mode == Mode::Shared && gives_way && flight.places > self.flying {
            flight.lack -= 1;
            flight.got = at;
            self.drop_places(1);
            self.urgent = true;
        }
    }

    fn drop_places(&mut self, places: usize) {
        self.flight.places -= places;
        self.report.drops += places as f64;
        if self.flight.places == 0 {
            // A departure is of no use.
            self.report.back += self.lease.shorten(0) as f64;
        }
    }

    /// What it says of them.
    pub(super) fn speak_of_places(&mut self, waiting: usize, leaves: bool, now: Instant) {
        if self.rules.most == 0.0 {
            return;
        }
        if self.idle_places(waiting).is_some_and(|due| due <= now) {
            self.drop_places(self.flight.places - self.flying - waiting);
        }
        self.report.flying = self.flying as f64;
        self.report.need = if leaves { 0.0 } else { (self.flying + waiting) as f64 };
        self.report.anew = !self.flight.known;
        if leaves {
            self.forget_places();
        }
    }

    /// From now on the ledger is not asked.
    pub(super) fn forget_places(&mut self) {
        self.flight = Flight { ended: self.flight.ended, ..Flight::new(self.flight.got) };
    }

    /// The ledger answers. What was given up meanwhile it has not heard of.
    pub(super) fn hear_of_places(&mut self, grant: &Grant, need: f64, now: Instant) {
        let places = (grant.places - self.report.drops).max(0.0) as usize;
        let flight = &mut self.flight;
        if places > flight.places {
            flight.got = now;
        }
        flight.places = places;
        flight.lack = (grant.lack - self.report.drops).max(0.0) as usize;
        flight.short = grant.short;
        flight.known = true;
        flight.queued = need > grant.places;
        if places == 0 && !self.subscribed {
            // It would not hear that it has one.
            self.hold = self.hold.map(|hold| hold.min(now + UNHEARD));
        }
    }

    /// The connection is lost: it finds out at once, whatever it waits for.
    pub(in crate::fleet) fn look_again(&mut self) {
        self.hold = None;
    }

    /// All hear that somebody needs a place, or that one who waited has one.
    pub(in crate::fleet) fn called(&mut self, said: &Grant) {
        self.flight.short |= said.short;
        if said.to == self.id as f64 {
            self.flight.queued = false;
        }
        if said.to == 0.0 || said.to == self.id as f64 {
            self.hold = None;
        }
    }
}
