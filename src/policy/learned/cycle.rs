use super::since;
use tokio::time::Instant;

/// What the upstream granted from one re-opening of the gate to the next, or in the last part of that.
///
/// Over such a cycle the calls granted, by the time elapsed, *are* the quota, whatever its shape: a window was used
/// up and came back, a bucket was empty and is empty again. (Times are those at which calls left.) Policers are
/// recognised in the same way by [BBR](https://datatracker.ietf.org/doc/draft-ietf-ccwg-bbr/).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cycle {
    /// Two halves of it, the second one open. A long cycle forgets its first half: the quota may have changed.
    early: Span,
    recent: Span,
    /// Calls granted that left after the gate opened again.
    after: u64,
    closing: Option<Closing>,
    /// When the first call left after the gate closed.
    reopened: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: Option<Instant>,
    granted: u64,
    /// Seconds in which the callers asked for less than they might have.
    idle: f64,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    /// When the first refused call left.
    first: Instant,
    /// When the last one left that nobody told how long to wait.
    untold: Option<Instant>,
    /// When the gate closed.
    at: Instant,
    /// Refused calls.
    refused: u64,
}

/// What a cycle that has ended says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Calls a second.
    pub(super) rate: f64,
    /// Calls granted.
    pub(super) granted: u64,
    /// Calls refused in the flight, and in the attempts after it.
    pub(super) refused: u64,
    /// Seconds from the first refused call to the first one after the gate opened again.
    pub(super) outage: f64,
    /// Seconds from the start to the first refused call.
    pub(super) run: f64,
    /// Seconds for which the gate was closed.
    pub(super) pause: f64,
    pub(super) reopened: Instant,
}

impl Measured {
    /// Too few calls say nothing: the cycle goes on.
    pub(super) const fn is_meaningful(&self) -> bool {
        self.granted >= 8
    }
}

impl Cycle {
    /// A call leaves, `idle` seconds later than it might have. A half is at least `half` seconds long.
    pub(super) fn depart(&mut self, at: Instant, idle: f64, half: f64) {
        self.idle(idle);
        if self.closing.is_some() {
            self.reopened.get_or_insert(at);
        } else if since(at, *self.recent.start.get_or_insert(at)) > half {
            self.early = self.recent;
            self.recent = Span { start: Some(at), ..Span::default() };
        }
    }

    /// A call was refused, and none has been granted since.
    pub(super) const fn is_closed(&self) -> bool {
        self.closing.is_some()
    }

    /// For so many seconds nothing could leave, or nothing was asked for.
    pub(super) fn idle(&mut self, secs: f64) {
        self.recent.idle += secs;
    }

    /// Calls that left at `departed` were granted.
    pub(super) fn granted(&mut self, departed: Instant, calls: u64) {
        let departed = Some(departed);
        if self.reopened.is_some() && departed >= self.reopened {
            self.after += calls;
        } else if departed >= self.recent.start {
            self.recent.granted += calls;
        } else if self.early.start.is_some() && departed >= self.early.start {
            self.early.granted += calls;
        }
    }

    /// The gate closes because a call was refused.
    pub(super) fn close(&mut self, departed: Instant, at: Instant, told: bool) {
        let closing = Closing { first: departed, untold: None, at, refused: 0 };
        let closing = self.closing.get_or_insert(closing);
        closing.refused += 1;
        closing.untold = (!told).then_some(departed);
        self.recent.granted += self.after;
        self.after = 0;
        self.reopened = None;
    }

    /// Another call of the flight was refused.
    pub(super) fn refused(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.refused += 1;
        }
    }

    /// The gate has been open again since the call that left at `departed`, which was granted. Ends the cycle.
    pub(super) fn reopen(&mut self, departed: Instant) -> Option<Measured> {
        let closing = self.closing.take()?;
        let reopened = self.reopened.take().unwrap_or(departed);
        let start = self.early.start.or(self.recent.start).unwrap_or(reopened);
        let pause = since(reopened, closing.at);
        // The quota was there again at some time between the last attempt that failed and the one that did not. A
        // time that is told is rounded up, to whole seconds mostly.
        let late = closing.untold.map_or(pause.min(1.0), |failed| since(reopened, failed) / 2.0);
        let elapsed = since(reopened, start) - self.early.idle - self.recent.idle - late;
        let granted = self.early.granted + self.recent.granted;
        let measured = Measured {
            rate: granted as f64 / elapsed.max(1e-3),
            granted,
            refused: closing.refused,
            outage: since(reopened, closing.first),
            run: since(closing.first, start),
            pause,
            reopened,
        };
        if measured.is_meaningful() || granted == 0 {
            self.early = Span::default();
            self.recent = Span { start: Some(reopened), granted: self.after, idle: 0.0 };
        } else {
            self.recent.granted += self.after;
        }
        self.after = 0;
        Some(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::secs, *};

    fn at(start: Instant, time: f64) -> Instant {
        start + secs(time)
    }

    #[test]
    fn a_window_that_was_used_up_and_came_back_is_measured_exactly() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        for call in 0..15 {
            cycle.depart(at(start, f64::from(call)), 0.0, 1e9);
            cycle.granted(at(start, f64::from(call)), 1);
        }
        cycle.depart(at(start, 15.0), 0.0, 1e9);
        cycle.close(at(start, 15.0), at(start, 16.0), true);
        cycle.refused();
        cycle.depart(at(start, 61.0), 0.0, 1e9);
        let measured = cycle.reopen(at(start, 61.0)).unwrap();
        assert_eq!((measured.granted, measured.refused), (15, 2));
        assert!((measured.rate - 15.0 / 60.0).abs() < 1e-9, "{measured:?}");
        assert!((measured.outage - 46.0).abs() < 1e-9 && (measured.run - 15.0).abs() < 1e-9);
        assert!(cycle.reopen(at(start, 62.0)).is_none());
    }

    #[test]
    fn what_nobody_told_lies_between_the_last_attempt_that_failed_and_the_one_that_did_not() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        for call in 0..20 {
            cycle.depart(at(start, f64::from(call)), 0.0, 1e9);
            cycle.granted(at(start, f64::from(call)), 1);
        }
        cycle.close(at(start, 20.0), at(start, 20.0), false);
        cycle.depart(at(start, 50.0), 0.0, 1e9);
        cycle.close(at(start, 50.0), at(start, 50.0), false);
        cycle.depart(at(start, 70.0), 0.0, 1e9);
        let measured = cycle.reopen(at(start, 70.0)).unwrap();
        assert!((measured.rate - 20.0 / 60.0).abs() < 1e-9, "{measured:?}");
    }

    #[test]
    fn a_cycle_of_a_few_calls_goes_on() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        let mut now = start;
        for round in 0..3 {
            for _ in 0..3 {
                cycle.depart(now, 0.0, 1e9);
                cycle.granted(now, 1);
                now += secs(1.0);
            }
            cycle.close(now, now, false);
            cycle.depart(now, 0.0, 1e9);
            let measured = cycle.reopen(now).unwrap();
            assert_eq!(measured.granted, 3 * (round + 1));
            assert_eq!(measured.is_meaningful(), round == 2);
        }
    }

    #[test]
    fn a_long_cycle_forgets_its_beginning() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        // 10 a second for a minute, then 4 a second.
        let times = (0..600).map(|k| f64::from(k) * 0.1).chain((0..240).map(|k| 60.0 + f64::from(k) * 0.25));
        for time in times {
            cycle.depart(at(start, time), 0.0, 9.99);
            cycle.granted(at(start, time), 1);
        }
        cycle.close(at(start, 120.0), at(start, 120.0), false);
        let measured = cycle.reopen(at(start, 120.0)).unwrap();
        assert!((measured.rate - 4.0).abs() < 0.2, "{measured:?}");
    }

    #[test]
    fn the_time_in_which_nobody_asked_does_not_count() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        for call in 0..20 {
            let (time, idle) = if call < 10 { (f64::from(call), 0.0) } else { (f64::from(call) + 80.0, 0.0) };
            cycle.depart(at(start, time), if call == 10 { 80.0 } else { idle }, 1e9);
            cycle.granted(at(start, time), 1);
        }
        cycle.close(at(start, 100.0), at(start, 100.0), false);
        let measured = cycle.reopen(at(start, 100.0)).unwrap();
        assert!((measured.rate - 1.0).abs() < 1e-9, "{measured:?}");
    }

    #[test]
    fn nor_does_it_where_it_lies_in_the_first_half() {
        let start = Instant::now();
        let mut cycle = Cycle::default();
        // A call a second; but from the third to the fourth a minute in which nobody asked.
        for (call, idle) in (0..60).map(|call| (call, if call == 3 { 60.0 } else { 0.0 })) {
            let time = at(start, f64::from(call) + if call < 3 { 0.0 } else { 60.0 });
            cycle.depart(time, idle, 70.0);
            cycle.granted(time, 1);
        }
        assert!(cycle.early.start.is_some());
        cycle.close(at(start, 120.0), at(start, 120.0), false);
        let measured = cycle.reopen(at(start, 120.0)).unwrap();
        assert!((measured.rate - 1.0).abs() < 1e-9, "{measured:?}");
    }
}
