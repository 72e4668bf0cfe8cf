use super::{cycle::Measured, later, secs, since};
use tokio::time::Instant;

/// How fast the rate grows, from how sure the policy is of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Climb {
    /// Doubles the growth with each unit. 0 is certain.
    zeal: i32,
    /// The rate that was refused last; or a higher one that has proved it wrong since. After a fall that is deep it
    /// follows slowly.
    ceiling: f64,
    /// The ceiling has been proved wrong since the gate opened.
    raised: bool,
    /// Calls to go until it grows again, to pay for the last refusals.
    rest: f64,
    /// It does not grow before that.
    rest_until: Option<Instant>,
    /// Since when nothing was refused, and how many seconds of that the callers asked for less.
    since: Option<Instant>,
    idle: f64,
    /// For how long the gate was closed last.
    pause: f64,
}

/// What a refusal takes from the rate.
pub(super) const STEP: f64 = 0.02;
/// With a budget of 1 %, a step is regained in about 60 calls.
const REGAIN: f64 = 1.3;
/// At first, and at most: a refusal takes two away, and a ceiling that was wrong adds two.
const FIRST_ZEAL: i32 = 5;
const SEEDED_ZEAL: i32 = 2;
const MOST_ZEAL: i32 = 8;
/// It grows by this much in the time in which a rate that is too high is refused, and twice as much with each unit of
/// zeal above 4.
const GAIN: f64 = 0.1;
const MOST_GAIN: f64 = 1.0;
/// Below this share of the ceiling nothing is known of what lies between.
const FAR: f64 = 0.75;
/// What remains of the distance to a ceiling (of logarithms) after each refusal.
const FALL: f64 = 0.7;
/// What a refusal leaves at least of a rate that was above the ceiling.
const LEAST_LEFT: f64 = 0.5;
/// A closed gate costs as much as so many times the calls that it held up would.
const PAUSE: f64 = 25.0;

impl Climb {
    pub(super) const fn new() -> Self {
        Self {
            zeal: FIRST_ZEAL,
            ceiling: f64::INFINITY,
            raised: false,
            rest: 0.0,
            rest_until: None,
            since: None,
            idle: 0.0,
            pause: 0.0,
        }
    }

    pub(super) const fn seeded(rate: f64) -> Self {
        Self { zeal: SEEDED_ZEAL, ceiling: rate, ..Self::new() }
    }

    /// The callers asked for less for so many seconds: what they left may be in store, so that a higher rate would
    /// prove nothing.
    pub(super) fn idle(&mut self, secs: f64) {
        self.idle += secs;
    }

    /// The least that a refusal leaves of this rate. What was granted during a steep climb says little of what would
    /// have been.
    pub(super) fn floor(&self, rate: f64) -> f64 {
        if self.raised { rate * LEAST_LEFT } else { 0.0 }
    }

    pub(super) const fn pause(&self) -> f64 {
        self.pause
    }

    /// A call was accepted that had waited for its turn, at this rate. By how much it grows. `hold` is the time in
    /// which a rate that is too high is refused.
    pub(super) fn grow(&mut self, now: Instant, rate: f64, hold: f64, budget: f64) -> f64 {
        let clean = since(now, *self.since.get_or_insert(now)) - self.idle;
        let far = rate < FAR * self.ceiling;
        let disproved = rate > self.ceiling * (1.0 + STEP / 2.0);
        if (far || disproved) && clean > hold.max(4.0 * self.idle) {
            self.zeal = (self.zeal + 2).min(MOST_ZEAL);
            if disproved {
                self.ceiling = rate;
                self.raised = true;
            } else {
                self.since = Some(now);
                self.idle = 0.0;
            }
        }
        if (self.rest > 0.0 && !far) || self.rest_until.is_some_and(|until| now < until) {
            return 1.0;
        }
        let gain = (GAIN * 2f64.powi((self.zeal - 4).max(0))).min(MOST_GAIN);
        let most = gain / (hold * rate).max(1.0);
        let usual = REGAIN * STEP * budget * 2f64.powi(self.zeal);
        if far { most.exp() } else { usual.min(most).exp() }
    }

    /// Calls were granted, whether they had waited or not.
    pub(super) fn granted(&mut self, calls: u64) {
        self.rest -= calls as f64;
    }

    /// This rate was refused.
    pub(super) fn refused(&mut self, rate: f64) {
        self.ceiling =
            if self.ceiling.is_finite() { rate * (self.ceiling / rate).max(1.0).powf(FALL) } else { rate };
    }

    /// The first rate is known.
    pub(super) fn start(&mut self, rate: f64, now: Instant) {
        *self = Self { ceiling: rate, since: Some(now), ..Self::new() };
    }

    /// The gate is open again, at this rate.
    pub(super) fn reopened(&mut self, measured: &Measured, rate: f64, budget: f64) {
        if measured.is_meaningful() {
            self.zeal = (self.zeal - 2).max(0);
        }
        let lost = measured.refused as f64 - 0.5;
        let paid = (lost / budget.max(1e-9)).max(PAUSE * measured.pause * rate);
        self.rest = paid / 2f64.powi(self.zeal);
        self.rest_until = Some(later(measured.reopened, secs(3.0 * measured.pause)));
        self.since = Some(measured.reopened);
        self.idle = 0.0;
        self.raised = false;
        self.pause = measured.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was not asked for is in store, and may be why nothing is refused.
    #[test]
    fn time_in_which_less_was_asked_for_proves_no_ceiling_wrong() {
        let now = Instant::now();
        for (time, idle, ceiling) in
            [(12.0, 0.0, 11.0), (12.0, 10.0, 10.0), (5.5, 0.0, 11.0), (5.5, 1.0, 10.0)]
        {
            let mut climb = Climb::new();
            climb.start(10.0, now);
            climb.idle(idle);
            climb.grow(later(now, secs(time)), 11.0, 5.0, 0.01);
            assert!((climb.ceiling - ceiling).abs() < 1e-9, "{climb:?}");
        }
    }
}
