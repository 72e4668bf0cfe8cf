/// The rate between two refusals: from a little below the plateau back to it, and when it holds, beyond.
///
/// The shape is that of [CUBIC](https://www.rfc-editor.org/rfc/rfc9438) (steep, flat at the plateau, then steep
/// again), counted in calls that were accepted, not in time: so callers who do not use the rate do not raise it.
#[derive(Clone, Debug)]
pub(super) struct Climb {
    /// The rate that the upstream is believed to allow, in requests per second.
    plateau: f64,
    rate: f64,
    /// Calls accepted since the last refusal, while there were more of them than might leave.
    calls: f64,
}

/// How far below the plateau the rate begins.
const STEP: f64 = 0.03;
/// The excess is as much again after a quarter of the calls that led to the plateau, and doubles from there.
const SLOW: f64 = 0.25;
/// Rates are kept between one call in four months and as many as nobody sends.
const RATES: (f64, f64) = (1e-7, 1e7);

impl Climb {
    /// From a plateau; see [`grow`](Self::grow).
    pub(super) fn from(plateau: f64) -> Self {
        let plateau = if plateau.is_finite() { plateau.clamp(RATES.0, RATES.1) } else { RATES.0 };
        Self { plateau, rate: plateau * (1.0 - STEP), calls: 0.0 }
    }

    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) const fn plateau(&self) -> f64 {
        self.plateau
    }

    /// A call was accepted. The plateau is reached after `calls` of them, and a quarter of them later the excess over
    /// it begins to double every `doubling` calls. `calls` may be infinite.
    pub(super) fn grow(&mut self, calls: f64, doubling: f64) {
        // What was accepted while nothing was to be risked pays for no risk later.
        self.calls = if calls.is_finite() { self.calls + 1.0 } else { 0.0 };
        let part = self.calls / calls;
        let factor = if part < 1.0 {
            1.0 - STEP * (1.0 - part).powi(2)
        } else if part < 1.0 + SLOW {
            1.0 + STEP * ((part - 1.0) / SLOW).powi(2)
        } else {
            1.0 + STEP * ((self.calls - (1.0 + SLOW) * calls) / doubling).exp2()
        };
        self.rate = (self.plateau * factor.min(2.0)).min(RATES.1);
        if factor >= 2.0 {
            // A new plateau, near the top, so that the excess does not double for ever.
            self.plateau = self.rate / (1.0 + 3.0 * STEP);
            self.calls = (1.0 + SLOW) * calls + 1.5 * doubling;
        }
    }

    /// Nobody called for a while, and a bucket may have filled meanwhile: what follows says nothing about higher
    /// rates.
    pub(super) fn rest(&mut self, calls: f64) {
        self.calls = self.calls.min(calls);
    }

    /// Whether two plateaus are about the same, measured over so many calls.
    pub(super) fn is_near(&self, other: f64, calls: f64) -> bool {
        (self.plateau / other - 1.0).abs() < 2.0 * STEP + 0.5 / calls.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(calls: f64, doubling: f64, by: u32) -> Climb {
        let mut climb = Climb::from(10.0);
        (0..by).for_each(|_| climb.grow(calls, doubling));
        climb
    }

    #[test]
    fn it_begins_below_the_plateau_and_returns_to_it() {
        assert_eq!(grown(100.0, 10.0, 0).rate(), 9.7);
        assert!((grown(100.0, 10.0, 50).rate() - 9.925).abs() < 1e-9);
        assert!((grown(100.0, 10.0, 100).rate() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn beyond_the_plateau_the_excess_doubles() {
        assert!((grown(100.0, 10.0, 125).rate() - 10.3).abs() < 1e-9);
        assert!((grown(100.0, 10.0, 135).rate() - 10.6).abs() < 1e-9);
        assert!((grown(100.0, 10.0, 145).rate() - 11.2).abs() < 1e-9);
        let far = grown(100.0, 10.0, 400);
        assert!(far.rate() > 100.0 && far.plateau() > 90.0, "{far:?}");
    }

    #[test]
    fn without_a_budget_it_stays_at_the_plateau() {
        let climb = grown(f64::INFINITY, 10.0, 1_000_000);
        assert_eq!(climb.rate(), 9.7);
    }

    #[test]
    fn after_a_rest_the_excess_is_gone() {
        let mut climb = grown(100.0, 10.0, 130);
        climb.rest(100.0);
        climb.grow(100.0, 10.0);
        assert!(climb.rate() < 10.1, "{climb:?}");
    }

    #[test]
    fn rates_stay_finite() {
        for plateau in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, 1e-300] {
            let mut climb = Climb::from(plateau);
            (0..10_000).for_each(|_| climb.grow(1.0, 0.01));
            assert!(climb.rate().is_finite() && climb.rate() > 0.0, "{plateau}: {climb:?}");
        }
    }
}
