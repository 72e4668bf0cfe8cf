use crate::policy::later;
use std::time::Duration;
use tokio::time::Instant;

/// The refusals between two openings of the upstream: one event, however many calls it hit.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// When the first refused call left.
    pub(super) refused: Instant,
    /// When the last one left.
    last: Instant,
    /// Calls that were refused.
    pub(super) calls: u32,
    /// Times that the gate closed and the next call was refused again.
    row: u32,
    /// The upstream says when it opens.
    pub(super) is_told: bool,
    /// Until when the gate is closed.
    closed_until: Option<Instant>,
}

/// While nothing is known, the steps of [`Ladder`](crate::policy::Ladder), and then half as much again each time.
const STEPS: [f64; 3] = [1.5, 3.0, 7.0];
/// Nobody waits longer than this for a probe, in seconds.
const LONGEST: f64 = 600.0;

impl Flight {
    pub(super) const fn new(refused: Instant) -> Self {
        Self { refused, last: refused, calls: 0, row: 0, is_told: false, closed_until: None }
    }

    pub(super) const fn refused_again(&mut self, departed: Instant, is_told: bool) {
        self.last = departed;
        self.calls += 1;
        self.row += 1;
        self.is_told = is_told;
    }

    pub(super) fn closes_until(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }

    /// It was refused again after the first closing.
    pub(super) const fn is_long(&self) -> bool {
        self.row >= 2
    }

    /// How long to wait, in seconds, where the upstream says nothing: one and a half calls of the rate, doubled for
    /// each refusal in a row; the ladder, if there is no rate.
    pub(super) fn wait(&self, gap: Option<f64>, latency: f64) -> f64 {
        let again = self.row.saturating_sub(1).min(1000) as i32;
        let wait = match gap {
            Some(gap) => (1.5 * gap * 2_f64.powi(again)).max(latency / 2.0),
            None => match STEPS.get(again as usize) {
                Some(step) => *step,
                None => STEPS[2] * 1.5_f64.powi(again - 2),
            },
        };
        wait.min(LONGEST)
    }

    /// When the upstream opened, if the first call to be accepted left at `departed`. Nobody may have called for a
    /// while after the gate opened. If the upstream does not say when, it was anywhere between the last refusal and
    /// that call.
    pub(super) fn opened(&self, departed: Instant, gap: Duration) -> Instant {
        let opened = self.closed_until.map_or(departed, |until| departed.min(later(until, gap)));
        if self.is_told { opened } else { opened - opened.saturating_duration_since(self.last) / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::seconds_between, *};

    #[test]
    fn the_waits_without_a_hint() {
        let now = Instant::now();
        let mut flight = Flight::new(now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            flight.refused_again(now, false);
            waits.push((flight.wait(None, 0.0), flight.wait(Some(2.0), 0.1)));
        }
        assert_eq!(waits[..4], [(1.5, 3.0), (3.0, 6.0), (7.0, 12.0), (10.5, 24.0)]);
        (0..1000).for_each(|_| flight.refused_again(now, false));
        assert_eq!((flight.wait(None, 0.0), flight.wait(Some(1e-9), 0.0)), (600.0, 600.0));
    }

    #[test]
    fn idle_time_after_the_closing_is_no_closing() {
        let now = Instant::now();
        let mut flight = Flight::new(now);
        flight.refused_again(now, true);
        flight.closes_until(now + Duration::from_secs(5));
        let late = now + Duration::from_secs(90);
        assert_eq!(flight.opened(late, Duration::from_secs(1)), now + Duration::from_secs(6));
        assert_eq!(seconds_between(now, flight.opened(now, Duration::ZERO)), 0.0);
    }
}
