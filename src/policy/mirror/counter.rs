//! One of the server's counters.

use super::flight::Flight;
use crate::{
    Cost,
    policy::later,
    signal::{Reading, Unit},
};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Counter {
    unit: Unit,
    policy: u64,
    /// As told, or the most that was ever left.
    limit: f64,
    /// What was left as the call that left at `since` saw it; that was heard at `heard`.
    left: f64,
    since: Instant,
    heard: Instant,
    /// When it was first heard of.
    known: Instant,
    /// What left since then and may not be counted in `left`.
    pending: f64,
    /// The reset that was told, on the late side.
    reset: Option<Instant>,
    /// When to look again, whatever the counter is thought to be: the reset, but for the cap.
    probe: Instant,
    /// How long it takes from one reset to the next.
    window: Option<Duration>,
    /// The longest time to a reset, or the window.
    span: Option<Duration>,
    /// At the reset all is there again.
    refills: bool,
    /// The last time that this was assumed, until an answer shows whether it is so.
    rolled: Option<Instant>,
    inflow: Inflow,
    /// One call may come to the server so much earlier after another than it left, in seconds.
    late: f64,
    /// What a call takes, smoothed.
    typical: f64,
    /// Calls that are held back for the sake of surprises.
    reserve: f64,
    /// The part of the mean rate that is ours.
    share: f64,
    /// The next call leaves no earlier than that, to spread what is left.
    slot: Option<Instant>,
}

/// What the server adds to the counter, less what others take: measured.
#[derive(Clone, Debug)]
struct Inflow {
    /// The last ones, per second.
    samples: [f64; 3],
    len: usize,
    from: Instant,
    left: f64,
    /// What was answered up to then, and since then.
    taken: f64,
    calls: u32,
    /// The last time until all is there, and the rate that it tells if this is a bucket.
    full_in: f64,
    told: f64,
    agrees: bool,
}

impl Inflow {
    fn restart(&mut self, from: Instant, left: f64) {
        (self.from, self.left, self.taken, self.calls) = (from, left, 0.0, 0);
    }

    /// What is missing, and the time until all is there: in a bucket, one goes with the other.
    fn told(&mut self, missing: f64, reset: Option<Duration>) {
        let Some(reset) = reset.map(|reset| reset.as_secs_f64()).filter(|reset| *reset > 0.0) else { return };
        if missing < 4.0 {
            return;
        }
        let (before, rate) = (self.full_in, missing / reset);
        if (reset / before - 1.0).abs() > 0.25 {
            self.agrees = (rate / self.told - 1.0).abs() < 0.1;
            if self.agrees && self.len < self.samples.len() {
                self.sample(rate);
            }
            (self.full_in, self.told) = (reset, rate);
        }
    }

    /// If it is full, something may have been lost: it is more, then.
    fn measure(&mut self, at: Instant, left: f64, least: f64, is_full: bool) {
        let span = at.saturating_duration_since(self.from).as_secs_f64();
        if span > least.max(0.5) && (self.calls >= 8 || span > 30.0) {
            let rate = (left - self.left + self.taken) / span;
            if !is_full || rate > self.rate() {
                self.sample(rate);
            }
            self.restart(at, left);
        }
    }

    fn sample(&mut self, rate: f64) {
        self.samples.rotate_right(1);
        self.samples[0] = rate;
        self.len = (self.len + 1).min(self.samples.len());
    }

    /// The least of the last ones: what can be relied on.
    fn rate(&self) -> f64 {
        if self.len < 2 {
            return 0.0;
        }
        if self.agrees && self.len == 3 {
            return self.median();
        }
        self.samples[..self.len].iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The one in the middle: what is likely.
    fn likely(&self) -> f64 {
        if self.len < 3 { self.rate() } else { self.median() }
    }

    fn median(&self) -> f64 {
        let [a, b, c] = self.samples;
        a.min(b).max(a.max(b).min(c))
    }
}

/// No longer than this is a counter believed to be empty without a look.
const MAX_HOLD: Duration = Duration::from_secs(600);
/// What is left is not spread over more than this.
const SPREAD: f64 = 3600.0;
/// Of the mean rate that a policy tells, so much is used.
const OF_MEAN: f64 = 0.99;
/// Windows are told in whole seconds, so the rate of a short one is not exact.
const SHORTEST_MEAN: Duration = Duration::from_secs(10);
/// After idle time, this part of the limit is not spread.
const CREDIT: f64 = 1.0 / 16.0;

pub(super) fn amount(unit: Unit, cost: Cost) -> f64 {
    match unit {
        Unit::Requests => cost.requests.into(),
        Unit::Tokens => cost.tokens() as f64,
        Unit::InputTokens => cost.input_tokens.into(),
        Unit::OutputTokens => cost.output_tokens.into(),
        Unit::Other => 0.0,
    }
}

impl Counter {
    pub(super) fn new(reading: &Reading, left: u64, departed: Instant, at: Instant) -> Self {
        let left = left as f64;
        let mut counter = Self {
            unit: reading.unit,
            policy: reading.policy,
            limit: left,
            left,
            since: departed,
            heard: at,
            known: at,
            pending: 0.0,
            reset: None,
            probe: at,
            window: None,
            span: None,
            refills: false,
            rolled: None,
            inflow: Inflow {
                samples: [0.0; 3],
                len: 0,
                from: departed,
                left,
                taken: 0.0,
                calls: 0,
                full_in: 0.0,
                told: 0.0,
                agrees: false,
            },
            late: 0.0,
            typical: 1.0,
            reserve: 0.0,
            share: 1.0,
            slot: None,
        };
        counter.tell(reading, at);
        counter
    }

    pub(super) fn is(&self, reading: &Reading) -> bool {
        (self.unit, self.policy) == (reading.unit, reading.policy)
    }

    pub(super) const fn unit(&self) -> Unit {
        self.unit
    }

    fn tell(&mut self, reading: &Reading, at: Instant) {
        self.limit = reading.limit.map_or(self.limit, |limit| limit as f64).max(self.left);
        self.reset = reading.reset.filter(|reset| !reset.is_zero()).map(|reset| later(at, reset));
        let hold = reading.reset.unwrap_or(Duration::from_secs(1));
        self.probe = later(at, hold.min(MAX_HOLD));
        if let Some(window) = reading.window {
            self.window = Some(window);
        }
        self.span = self.span.max(reading.window).max(reading.reset);
    }

    /// Whether it moves so fast that what an answer tells is old when it comes.
    pub(super) fn is_fleeting(&self, latency: f64) -> bool {
        self.span.is_some_and(|span| span.as_secs_f64() < 2.0 * latency)
    }

    /// What is thought to be left for a call that leaves at `at`.
    fn level(&self, at: Instant) -> f64 {
        let elapsed = at.saturating_duration_since(self.since).as_secs_f64();
        let gained = (self.inflow.rate().max(0.0) * (elapsed - self.late) - self.typical).max(0.0);
        (self.left + gained).min(self.limit) - self.pending
    }

    /// The rate of a policy whose window does not come back all at once.
    fn mean(&self) -> Option<f64> {
        let window = self.window.filter(|window| !self.refills && *window >= SHORTEST_MEAN)?;
        let mean = self.limit * OF_MEAN / window.as_secs_f64();
        Some(mean * self.share)
    }

    fn need(&self, cost: Cost) -> f64 {
        let need = match self.unit {
            Unit::Requests => amount(self.unit, cost),
            // A call of which nothing is known needs something.
            _ => amount(self.unit, cost).max(1.0),
        };
        (need * (1.0 + self.reserve.floor())).min(self.limit.max(1.0))
    }

    /// From when on there is enough for a call of that cost.
    pub(super) fn free_at(&self, cost: Cost) -> Instant {
        if self.unit == Unit::Requests && cost.requests == 0 {
            return self.since;
        }
        if let Some(rate) = self.mean() {
            // Nothing is left most of the time, and something soon is.
            let soon = later(self.since, seconds(3.0 / rate + 2.0 + 4.0 * self.late));
            let dry = (self.left < amount(self.unit, cost) && self.probe > soon).then_some(self.probe);
            return self.slot.unwrap_or(self.since).max(dry.unwrap_or(self.since));
        }
        let missing = self.need(cost) - self.level(self.since);
        let rate = self.inflow.rate();
        let mut free = self.since;
        if missing > 0.0 {
            let refilled =
                (rate > 0.0).then(|| later(self.since, seconds((missing + self.typical) / rate + self.late)));
            free = refilled.map_or(self.probe, |refilled| refilled.min(self.probe));
        }
        self.slot.map_or(free, |slot| free.max(slot))
    }

    pub(super) fn depart(&mut self, at: Instant, cost: Cost, latency: f64) {
        let amount = amount(self.unit, cost);
        if self.reset.is_some_and(|reset| reset <= at) {
            self.roll(at);
        }
        let level = self.level(at);
        if level < self.need(cost) && at >= self.probe {
            // One call finds out. If nothing is heard of it, another one.
            self.probe = later(at, seconds(1.0 + 2.0 * latency));
        }
        self.pending += amount;
        let gap = self.gap(at, level, amount, latency);
        let credit = if self.mean().is_some() { 0.0 } else { (self.limit * CREDIT).min(1e6) };
        let credit = gap.mul_f64(credit);
        let idle = at.checked_sub(credit).unwrap_or(at);
        self.slot = Some(later(self.slot.map_or(idle, |slot| slot.max(idle)), gap));
    }

    fn roll(&mut self, at: Instant) {
        let Some(reset) = self.reset.take_if(|_| self.refills) else { return };
        let mut began = reset;
        if let Some(window) = self.window {
            let over = at.saturating_duration_since(reset).as_secs_f64();
            let times = (over / window.as_secs_f64()).floor();
            began = later(reset, seconds(times * window.as_secs_f64()));
            self.reset = Some(later(began, window));
        }
        (self.left, self.since, self.heard, self.pending) = (self.limit, began, began, 0.0);
        self.probe = self.reset.unwrap_or(began);
        self.rolled = Some(began);
        self.inflow.restart(began, self.limit);
    }

    /// How long the next call waits, so that what is left lasts until the reset.
    fn gap(&self, at: Instant, level: f64, amount: f64, latency: f64) -> Duration {
        let until = self.reset.map_or(0.0, |reset| reset.saturating_duration_since(at).as_secs_f64());
        let spread = until - 1.0 - latency;
        let inflow = self.inflow.likely();
        if let Some(rate) = self.mean() {
            return seconds(amount / rate);
        }
        let even = level.max(amount).max(f64::MIN_POSITIVE) / spread.max(2.0 * latency).clamp(0.001, SPREAD);
        let rate = (even + inflow).max(even / 4.0);
        let gap = seconds(amount / rate);
        if until > 0.0 { gap.min(seconds(until)) } else { gap }
    }

    pub(super) fn recall(&mut self, cost: Cost) {
        self.pending = (self.pending - amount(self.unit, cost)).max(0.0);
        self.slot = None;
    }

    /// An answer told nothing of this counter, but took from it.
    pub(super) fn took(&mut self, departed: Instant, cost: Cost) {
        let amount = amount(self.unit, cost);
        self.inflow.taken += amount;
        if departed >= self.since {
            self.left -= amount;
        }
    }

    /// An answer told of this counter.
    pub(super) fn read(
        &mut self,
        reading: &Reading,
        (departed, at): (Instant, Instant),
        (cost, took): (Cost, bool),
        flight: &Flight,
        latency: f64,
    ) {
        let Some(left) = reading.remaining else { return };
        let left = left as f64;
        let amount = amount(self.unit, cost);
        self.late = latency / 4.0;
        self.typical += 0.1 * (amount - self.typical);
        if took {
            self.inflow.taken += amount;
            self.inflow.calls += 1;
        }
        if self.reset.is_some_and(|reset| reset <= departed) {
            self.roll(departed);
        }
        self.pending = flight.since(self.since, self.unit);
        let pending = flight.since(departed, self.unit);
        let rate = self.inflow.rate().max(0.0);
        let heard_of =
            |left: f64, since: Instant| left + rate * at.saturating_duration_since(since).as_secs_f64();
        let is_later = departed >= self.heard;
        let is_lower = heard_of(left, departed) - pending < heard_of(self.left, self.since) - self.pending;
        if !is_later && !is_lower {
            return;
        }
        let before = self.left;
        let jumped = left - before > (self.limit - before) / 2.0 + 1.0;
        if let Some(reset) = self.reset.filter(|reset| at >= *reset) {
            let prompt = at.saturating_duration_since(reset).as_secs_f64() < 1.0 + 2.0 * latency;
            // In a bucket that is nearly full, the time until all is there is short.
            let next = reading.reset.filter(|next| self.span.is_some_and(|span| *next > span / 2));
            if jumped && prompt && next.is_some() {
                self.refills = true;
                self.window = self.window.or(next);
            }
        }
        if self.rolled.is_some_and(|rolled| departed >= rolled) {
            // The first answer from the time after it.
            self.rolled = None;
            self.refills = left + pending + amount > self.limit / 2.0;
        }
        (self.left, self.since, self.heard, self.pending) = (left, departed, at, pending);
        self.tell(reading, at);
        self.inflow.told(self.limit - left, reading.reset);
        // The inflow.
        let full = left + 2.0 * amount.max(1.0) > self.limit;
        if jumped {
            self.inflow.len = 0;
            self.inflow.restart(departed, left);
        } else {
            self.inflow.measure(departed, left, 2.0 * latency, full);
        }
    }

    pub(super) fn refresh(&mut self, flight: &Flight) {
        self.pending = flight.since(self.since, self.unit);
    }

    /// A call was refused. Whether this counter explains it.
    pub(super) fn refused(&mut self, reading: &Reading, departed: Instant, cost: Cost) -> bool {
        let explains = reading.remaining.is_some_and(|left| (left as f64) < amount(self.unit, cost).max(1.0));
        if explains && departed >= self.known {
            self.reserve = (self.reserve + 1.0).min(8.0);
            self.share = (self.share * 0.9).max(1.0 / 64.0);
        }
        explains
    }

    pub(super) fn calm(&mut self) {
        self.reserve -= self.reserve / 512.0;
        self.share = (self.share + 1.0 / 4096.0).min(1.0);
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }
}

fn seconds(seconds: f64) -> Duration {
    const TEN_YEARS: f64 = 10.0 * 366.0 * 86_400.0;
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, TEN_YEARS) } else { TEN_YEARS })
}
