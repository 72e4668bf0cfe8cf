use crate::policy::Passed;
use tokio::time::Instant;

/// How many calls are in flight, and whether that is what the upstream refuses.
///
/// A quota of so many calls at a time refuses those that find many others in flight; a rate refuses whichever call
/// comes. So where one refusal after another hits a call that left among unusually many, the number is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    now: u32,
    /// How many there are when a call leaves, as a moving average, and the mean deviation from it.
    mean: f64,
    deviation: f64,
    /// The last calls that left among unusually many, and how many those were.
    crowded: [Option<(Instant, u32)>; 8],
    next: usize,
    /// Refusals in a row of such calls; each of another one takes two away.
    suspicion: u32,
    /// The most that may be in flight.
    cap: Option<u32>,
    /// Calls accepted since the last refusal while as many were in flight as may be.
    clean: u64,
    /// Attempts with one more that failed.
    tries: u32,
}

/// So many refusals in a row make it certain.
const CERTAIN: u32 = 5;

impl Flight {
    pub(super) fn depart(&mut self, at: Instant) {
        self.now = self.now.saturating_add(1);
        let level = f64::from(self.now);
        if self.mean == 0.0 {
            self.mean = level;
        }
        if level > self.mean + (1.2 * self.deviation).max(0.75) {
            self.crowd(at, self.now);
        }
        self.deviation += ((level - self.mean).abs() - self.deviation) / 32.0;
        self.mean += (level - self.mean) / 32.0;
    }

    /// Calls leave and are accepted in turn: as [`depart`](Self::depart) and [`left`](Self::left) for each.
    pub(super) fn pass(&mut self, calls: &Passed) {
        let Passed { departures, accepted, .. } = *calls;
        let most = self.now.saturating_add(1).saturating_add(departures.saturating_sub(accepted));
        self.now = self.now.saturating_add(departures).saturating_sub(accepted);
        if departures == 0 {
            return;
        }
        let level = f64::from(most);
        if level > self.mean + (1.2 * self.deviation).max(0.75) {
            self.crowd(calls.last, most);
        }
        let rest = (31.0 / 32.0_f64).powi(departures as i32);
        let off = (level - self.mean).abs();
        self.deviation = off + (self.deviation - off) * rest;
        self.mean = level + (self.mean - level) * rest;
    }

    /// A call leaves among unusually many.
    fn crowd(&mut self, at: Instant, level: u32) {
        self.crowded[self.next] = Some((at, level));
        self.next = (self.next + 1) % self.crowded.len();
    }

    pub(super) fn left(&mut self) {
        self.now = self.now.saturating_sub(1);
    }

    /// Whether a call that left at `departed`, the first of its flight to be refused, was refused because of the
    /// others in flight. `told` if the refusal says so.
    pub(super) fn refused(&mut self, departed: Instant, told: bool) -> bool {
        let full = self.cap.filter(|cap| self.mean > 0.9 * f64::from(*cap));
        let crowded = self.crowded.iter().flatten().find(|(at, _)| *at == departed).map(|(_, level)| *level);
        let level = full.or(crowded).or(told.then_some(self.now.saturating_add(1)));
        // With so many in flight it was all right for a while: then that is not the reason.
        let contradicted = full.is_some() && self.clean >= u64::from(level.unwrap_or(0)).max(96);
        self.clean = 0;
        self.suspicion = match level {
            _ if told => CERTAIN,
            Some(_) if !contradicted => (self.suspicion + 1).min(CERTAIN),
            _ => self.suspicion.saturating_sub(2),
        };
        if self.suspicion == 0 {
            self.cap = None;
        }
        let Some(level) = level.filter(|_| self.cap.is_some() || self.suspicion == CERTAIN) else {
            return false;
        };
        // It was one too many. The next attempt with one more comes twice as late.
        self.tries += u32::from(self.cap.is_some());
        self.cap = Some((level - 1).max(1));
        true
    }

    pub(super) const fn cap(&self) -> Option<u32> {
        self.cap
    }

    /// How many there are when a call leaves, on average.
    pub(super) const fn mean(&self) -> f64 {
        self.mean
    }

    pub(super) const fn now(&self) -> u32 {
        self.now
    }

    /// Forgets what was learned, but not the calls in flight.
    pub(super) fn reset(&self) -> Self {
        Self { now: self.now, ..Self::default() }
    }

    /// A call was accepted. When as many were as pay for a refusal, one more may be in flight.
    pub(super) fn accepted(&mut self, budget: f64) {
        let Some(cap) = self.cap else { return };
        self.clean += u64::from(self.now.saturating_add(1) >= cap);
        if self.clean as f64 * budget > 2f64.powi(self.tries.min(8) as i32) {
            self.cap = Some(cap.saturating_add(1));
            self.clean = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// So many leave, and then all are answered.
    fn wave(flight: &mut Flight, calls: u32, at: Instant) {
        (0..calls).for_each(|_| flight.depart(at));
        (0..calls).for_each(|_| flight.left());
    }

    #[test]
    fn what_is_crowded_depends_on_how_much_their_number_varies() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        for n in 0..100 {
            wave(&mut flight, 9, start + Duration::from_secs(n));
        }
        assert!((4.0..6.0).contains(&flight.mean), "of 1 to 9: {}", flight.mean);
        assert!((2.0..2.5).contains(&flight.deviation), "20 in 9: {}", flight.deviation);
        let later = start + Duration::from_secs(1000);
        wave(&mut flight, 7, later);
        assert!(flight.crowded.iter().flatten().all(|(at, _)| *at != later), "{flight:?}");
        wave(&mut flight, 12, later);
        assert!(flight.crowded.contains(&Some((later, 12))), "{flight:?}");
    }

    #[test]
    fn a_refusal_while_the_bound_is_used_up_lowers_it_and_another_raises_doubts() {
        let bounded = |mean| Flight { cap: Some(10), suspicion: CERTAIN, mean, ..Flight::default() };
        let mut full = bounded(9.5);
        assert!(full.refused(Instant::now(), false));
        assert_eq!((full.cap, full.tries), (Some(9), 1));
        assert!(full.refused(Instant::now(), false));
        assert_eq!((full.cap, full.tries), (Some(8), 2));

        let mut few = bounded(3.0);
        assert!(!few.refused(Instant::now(), false));
        assert_eq!((few.cap, few.suspicion), (Some(10), CERTAIN - 2));
    }
}
