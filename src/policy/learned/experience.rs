/// What the refusals so far have taught: how dear one is, how long the upstream stays closed, and how well the rate is
/// known.
#[derive(Clone, Debug)]
pub(super) struct Experience {
    /// Refused calls per event, smoothed. One event refuses everything that is on its way.
    refused: f64,
    /// For how long the upstream was closed, in seconds: the longest lately, the last time, and the shorter one of the
    /// last two times, because one alone may be that of a quota that has changed.
    closure: f64,
    last_closure: f64,
    usual_closure: f64,
    /// Cycles in a row that measured about the same.
    steady: u32,
    /// What two cycles or more have measured, if one alone has too few calls.
    accepted: f64,
    elapsed: f64,
    /// Refusals that can be paid for. Below zero, the rate does not rise above the plateau.
    credit: f64,
}

/// Of the budget, so much is spent on purpose. The rest is for what cannot be foreseen.
const PLANNED: f64 = 0.6;
/// A closure may cost that share of the calls between two of them.
const LOSS: f64 = 0.05;
/// So many calls make a measurement.
const ENOUGH: f64 = 24.0;
/// The credit begins with a few refusals, and is bounded, so that neither a bad hour nor a good one counts for ever.
const CREDIT: (f64, f64) = (-20.0, 20.0);

impl Experience {
    pub(super) const fn new() -> Self {
        Self {
            refused: 1.0,
            closure: 0.0,
            last_closure: 0.0,
            usual_closure: 0.0,
            steady: 0,
            accepted: 0.0,
            elapsed: 0.0,
            credit: 4.0,
        }
    }

    pub(super) const fn closure(&self) -> f64 {
        self.closure
    }

    pub(super) fn accepted(&mut self, budget: f64) {
        // Twice the budget for one upstream at its worst; the planned share is less than half of that.
        self.credit = (self.credit + 2.0 * budget).min(CREDIT.1);
    }

    pub(super) fn refused(&mut self) {
        self.credit = (self.credit - 1.0).max(CREDIT.0);
    }

    /// The mean rate of this cycle, and of those before if it had few calls; and over how many calls.
    pub(super) fn mean_rate(&mut self, accepted: f64, elapsed: f64) -> (f64, f64) {
        let keep = (1.0 - accepted / ENOUGH).max(0.0);
        self.accepted = self.accepted * keep + accepted;
        self.elapsed = self.elapsed * keep + elapsed;
        (self.accepted / self.elapsed, self.accepted)
    }

    /// An event is over: the upstream was closed for so many seconds and refused so many calls, and the measured
    /// rate is about what it was before, or not.
    pub(super) fn learn(&mut self, closed: f64, refused: u32, is_steady: bool) {
        self.refused += 0.3 * (f64::from(refused) - self.refused);
        self.closure = (0.95 * self.closure).max(closed);
        self.usual_closure = closed.min(self.last_closure);
        self.last_closure = closed;
        self.steady = if is_steady { self.steady.saturating_add(1) } else { 0 };
    }

    /// How many accepted calls pay for one refusal.
    pub(super) fn price(&self, budget: f64) -> f64 {
        if budget <= 0.0 || self.credit < 0.0 { f64::INFINITY } else { 1.0 / (PLANNED * budget) }
    }

    /// The fewest calls in which anything can be learned about a rate: those of eight round trips, or of a closure.
    pub(super) fn least(&self, rate: f64, latency: f64) -> f64 {
        (rate * (8.0 * latency).max(self.closure)).max(16.0)
    }

    /// How many calls are to be accepted before the next refusal is risked.
    pub(super) fn calls(&self, rate: f64, latency: f64, budget: f64) -> f64 {
        if budget <= 0.0 || self.credit < 0.0 {
            return f64::INFINITY;
        }
        let least = self.least(rate, latency);
        let paid = (self.refused * self.price(budget)).max(least);
        // Quickly at first, while the rate is uncertain.
        let early = least * f64::from(self.steady.min(10)).exp2();
        let calls = paid.min(early);
        if self.steady < 2 { calls } else { calls.max(self.usual_closure * rate / LOSS) }
    }
}
