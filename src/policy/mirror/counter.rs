//! One of the server's counters, as it is thought to stand.

use super::{amount, flight::Flight, inflow::Inflow};
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
    /// When it was told for the first and for the last time.
    known: Instant,
    told: Instant,
    /// As told, or the most that was left.
    limit: f64,
    /// What was left for the call that left at `since`, after it; its answer came at `heard`.
    left: f64,
    since: Instant,
    heard: Instant,
    /// What is in flight and may not be counted in `left`.
    pending: f64,
    inflow: Inflow,
    /// When it is reset, rather too late than too early.
    reset: Option<Instant>,
    /// When one call finds out, whatever else is thought: the reset, but for the cap.
    probe: Instant,
    /// At the reset all is there again, until the next one a window later. Seen to be so, and not refuted since.
    refills: bool,
    window: Option<Duration>,
    /// The longest that was told of resets and windows.
    span: Duration,
    /// The last reset that was gone by; the first answer from after it is yet to come.
    rolled: Option<Instant>,
    /// The last reset that a call went by, and how much later than it is told the next one is expected.
    edge: Option<Instant>,
    guard: Duration,
    /// How much sooner than it left a call may come to the server, compared with others, in seconds.
    jitter: f64,
    /// What a call takes, smoothed.
    typical: f64,
    /// So many calls are held back, because some were refused that should not have been.
    reserve: f64,
    /// The part of a told mean rate that is left by others.
    share: f64,
    /// In about so many of the last readings no more was missing than is in flight.
    alike: u8,
    /// No call leaves before that, so that what is left lasts until the reset.
    slot: Option<Instant>,
}

/// Nothing is held back for longer than this without a look.
const MAX_HOLD: Duration = Duration::from_secs(600);
/// What is left is spread over an hour at most: those who have few calls for a day should not wait for hours.
const SPREAD: f64 = 3600.0;
/// So much of the limit is not spread, if it was not used for a while.
const CREDIT: f64 = 1.0 / 16.0;
/// Of the mean rate of a window that may slide, so much is used.
const OF_MEAN: f64 = 0.99;
/// Windows are told in whole seconds, so the mean rate of a short one is not exact.
const SHORTEST_MEAN: Duration = Duration::from_secs(10);
/// Resets are told in whole seconds, too.
const ROUNDING: f64 = 1.0;
/// After so many the counter is one of calls at a time.
const ALIKE: u8 = 32;
const MAX_RESERVE: f64 = 8.0;
const MAX_GUARD: Duration = Duration::from_millis(1500);

impl Counter {
    pub(super) fn new(reading: &Reading, left: u64, departed: Instant, at: Instant) -> Self {
        let left = left as f64;
        let mut counter = Self {
            unit: reading.unit,
            policy: reading.policy,
            known: at,
            told: at,
            limit: left,
            left,
            since: departed,
            heard: at,
            pending: 0.0,
            inflow: Inflow::new(departed, left),
            reset: None,
            probe: at,
            refills: false,
            window: None,
            span: Duration::ZERO,
            rolled: None,
            edge: None,
            guard: Duration::ZERO,
            jitter: 0.0,
            typical: 1.0,
            reserve: 0.0,
            share: 1.0,
            alike: 0,
            slot: None,
        };
        counter.tell(reading, at);
        counter
    }

    pub(super) fn is_of(&self, reading: &Reading) -> bool {
        (self.unit, self.policy) == (reading.unit, reading.policy)
    }

    pub(super) const fn unit(&self) -> Unit {
        self.unit
    }

    /// When it was told last.
    pub(super) const fn told(&self) -> Instant {
        self.told
    }

    /// Whether it was not told for so long that the server seems to have stopped.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.told) > MAX_HOLD.max(self.span.saturating_mul(2))
    }

    /// Whether it can be gone by. Not if it moves so fast that what an answer tells is no longer true when it comes; and
    /// not if it counts calls at a time: what is in flight comes back by itself.
    pub(super) fn is_usable(&self, latency: f64) -> bool {
        let is_fleeting = !self.span.is_zero() && self.span.as_secs_f64() < 2.0 * latency;
        let is_of_calls_at_a_time = self.span.is_zero() && self.alike >= ALIKE;
        !is_fleeting && !is_of_calls_at_a_time
    }

    // ===== when =====

    /// From when on a call of that cost may leave.
    pub(super) fn free_at(&self, cost: Cost) -> Instant {
        if self.unit == Unit::Requests && cost.requests == 0 {
            return self.since;
        }
        let free = match self.mean() {
            Some(rate) => {
                // Little is left all the time, and more soon is: only if it is not soon, it is waited for.
                let soon = later(self.since, seconds(3.0 / rate + 2.0 * ROUNDING + 4.0 * self.jitter));
                let is_dry = self.left < self.least(cost) && self.probe > soon;
                if is_dry { self.probe } else { self.since }
            }
            None => self.enough_at(self.needed(cost)),
        };
        self.slot.map_or(free, |slot| slot.max(free))
    }

    fn enough_at(&self, needed: f64) -> Instant {
        let (missing, rate) = (needed - self.level(self.since), self.inflow.least());
        if missing <= 0.0 {
            return self.since;
        }
        if rate <= 0.0 {
            return self.probe;
        }
        later(self.since, seconds((missing + self.typical) / rate + self.jitter)).min(self.probe)
    }

    /// What is thought to be left for a call that leaves then. What comes in counts one call late, so that the server's
    /// counter stays a little above zero.
    fn level(&self, at: Instant) -> f64 {
        let elapsed = at.saturating_duration_since(self.since).as_secs_f64();
        let gained = (self.inflow.least() * (elapsed - self.jitter) - self.typical).max(0.0);
        (self.left + gained).min(self.limit) - self.pending
    }

    /// The least that a call takes. Of tokens each takes some, even if nobody said how many.
    fn least(&self, cost: Cost) -> f64 {
        let amount = amount(self.unit, cost);
        if self.unit == Unit::Requests { amount } else { amount.max(1.0) }
    }

    /// A call that takes more than the limit leaves when all is there.
    fn needed(&self, cost: Cost) -> f64 {
        (self.least(cost) * (1.0 + self.reserve.floor())).min(self.limit.max(1.0))
    }

    /// The rate to keep to where a window is told that does not come back all at once.
    fn mean(&self) -> Option<f64> {
        let window = self.window.filter(|window| !self.refills && *window >= SHORTEST_MEAN)?;
        Some(self.share * OF_MEAN * self.limit / window.as_secs_f64()).filter(|rate| *rate > 0.0)
    }

    // ===== calls leave =====

    pub(super) fn depart(&mut self, at: Instant, cost: Cost, latency: f64) {
        let amount = amount(self.unit, cost);
        self.roll(at);
        let level = self.level(at);
        if level < self.needed(cost) && at >= self.probe {
            // This one finds out. If nothing is heard of it, another one does.
            self.edge = Some(self.probe);
            self.probe = later(at, seconds(ROUNDING + 2.0 * latency).min(MAX_HOLD));
        }
        self.pending += amount;
        let gap = self.gap(at, level, amount, latency);
        let credit = if self.mean().is_some() { 0.0 } else { (self.limit * CREDIT).min(1e6) };
        let idle = at.checked_sub(gap.mul_f64(credit)).unwrap_or(at);
        // A call that did not go by this counter may have left before its slot.
        let slot = self.slot.map_or(idle, |slot| slot.max(idle).min(at));
        self.slot = Some(later(slot, gap));
    }

    /// How long the next call waits for its slot, so that what is left, and what comes in, lasts until the reset.
    fn gap(&self, at: Instant, level: f64, amount: f64, latency: f64) -> Duration {
        if amount == 0.0 {
            return Duration::ZERO;
        }
        if let Some(mean) = self.mean() {
            return seconds(amount / mean.max(level / SPREAD)).min(MAX_HOLD);
        }
        let until =
            self.reset.map(|reset| reset.saturating_duration_since(at)).filter(|time| !time.is_zero());
        // The reset is told too late rather than too early; and what cannot be heard of in time is not spread.
        let spread = until.map_or(0.0, |until| until.as_secs_f64()) - ROUNDING - latency;
        let even = level.max(amount) / spread.clamp(2.0 * latency, SPREAD.max(2.0 * latency));
        let rate = (even + self.inflow.likely()).max(even / 4.0);
        seconds(amount / rate).min(until.unwrap_or(MAX_HOLD)).min(MAX_HOLD)
    }

    /// The reset has passed: all is there again, if that is how it is.
    fn roll(&mut self, at: Instant) {
        let Some(reset) = self.reset.take_if(|reset| self.refills && *reset <= at) else { return };
        let mut began = reset;
        if let Some(window) = self.window {
            let whole = (at.saturating_duration_since(reset).as_secs_f64() / window.as_secs_f64()).floor();
            began = later(reset, seconds(whole * window.as_secs_f64()));
            self.reset = Some(later(began, window));
        }
        (self.left, self.since, self.heard, self.pending) = (self.limit, began, began, 0.0);
        self.probe = self.reset.unwrap_or(began).min(later(at, MAX_HOLD));
        (self.rolled, self.edge) = (Some(began), Some(began));
        // Those who waited for it do not rush out.
        self.slot = self.slot.max(Some(began));
        self.inflow.restart(began, self.limit);
    }

    pub(super) fn recall(&mut self, cost: Cost) {
        self.pending = (self.pending - amount(self.unit, cost)).max(0.0);
        self.slot = None;
    }

    // ===== answers come =====

    /// What is in flight has changed.
    pub(super) fn refresh(&mut self, flight: &Flight) {
        self.pending = flight.since(self.since, self.unit);
    }

    /// A call took from it whose answer does not tell what is left.
    pub(super) fn took(&mut self, departed: Instant, cost: Cost) {
        let amount = amount(self.unit, cost);
        self.inflow.take(amount);
        if departed > self.since {
            self.left -= amount;
        }
    }

    /// A call took something else than was thought. What is left is known from later answers, if there are any.
    pub(super) fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        let more = amount(self.unit, used) - amount(self.unit, booked);
        self.inflow.settle(more);
        if departed > self.since {
            self.left = (self.left - more).min(self.limit);
        }
    }

    /// The answer to the call that left at `departed` tells what is left, after it `took` that.
    pub(super) fn read(
        &mut self,
        reading: &Reading,
        (departed, at): (Instant, Instant),
        took: Option<Cost>,
        flight: &Flight,
        latency: f64,
    ) {
        let Some(left) = reading.remaining.map(|left| left as f64) else { return };
        self.told = at;
        self.jitter = latency / 4.0;
        let took = took.map_or(0.0, |cost| amount(self.unit, cost));
        if took > 0.0 {
            self.inflow.take(took);
            self.typical += 0.1 * (took - self.typical);
        }
        let is_alike = self.limit - left <= flight.all(self.unit) + 2.0;
        self.alike =
            if is_alike { (self.alike + 1).min(2 * ALIKE) } else { self.alike.saturating_sub(ALIKE / 4) };
        self.roll(departed);
        // Answers come in another order than the server made them. One to a call that left after this was heard is
        // newer. Of the others the one counts that leaves less: nothing was taken that it does not know of, but what is
        // still in flight.
        self.refresh(flight);
        let pending = flight.since(departed, self.unit);
        let now_left = |left: f64, since: Instant| {
            left + self.inflow.least() * at.saturating_duration_since(since).as_secs_f64()
        };
        let is_lower = now_left(left, departed) - pending < now_left(self.left, self.since) - self.pending;
        if departed < self.heard && !is_lower {
            return;
        }
        let jumped = left - self.left > (self.limit - self.left) / 2.0 + 1.0;
        self.judge_reset(reading, at, jumped, latency);
        if self.rolled.take_if(|rolled| departed >= *rolled).is_some() {
            self.refills = left + pending + took > self.limit / 2.0;
        }
        (self.left, self.since, self.heard, self.pending) = (left, departed, at, pending);
        self.tell(reading, at);
        if jumped {
            self.inflow.forget(departed, left);
        } else {
            let is_full = left + 2.0 * took.max(1.0) > self.limit;
            self.inflow.measure(departed, left, 2.0 * latency, is_full);
        }
        if let Some(reset) = reading.reset {
            self.inflow.told(self.limit - left, reset);
        }
    }

    /// Whether it is a window that begins anew at its reset: most of it is there just after, and the next reset is far.
    /// (That of a bucket which is nearly full is near.)
    fn judge_reset(&mut self, reading: &Reading, at: Instant, jumped: bool, latency: f64) {
        let Some(reset) = self.reset.filter(|_| jumped) else { return };
        // It may have been told too late.
        let distance = at.saturating_duration_since(reset).max(reset.saturating_duration_since(at));
        let is_prompt = distance.as_secs_f64() < ROUNDING + 2.0 * latency;
        let is_far = reading.reset.is_some_and(|next| next > self.span / 2);
        if is_prompt && is_far {
            self.refills = true;
            self.window = self.window.or(Some(self.span));
        }
    }

    /// What a reading says beside what is left.
    fn tell(&mut self, reading: &Reading, at: Instant) {
        self.limit = reading.limit.map_or(self.limit, |limit| limit as f64).max(self.left);
        self.window = reading.window.filter(|window| !window.is_zero()).or(self.window);
        // At zero it is about to come, or nothing is meant by it.
        let reset = reading.reset.filter(|reset| !reset.is_zero());
        let told = reset.map(|reset| later(at, reset.saturating_add(self.guard)));
        self.reset = match self.reset.filter(|known| self.refills && *known > at) {
            // Of all the times that were told for the end of one window, the earliest is the least late.
            Some(known) if told.is_none_or(|told| self.is_same_reset(known, told)) => Some(known),
            _ => told,
        };
        let hold = reset.map_or(Duration::from_secs(1), |reset| reset.min(MAX_HOLD));
        self.probe = self.reset.map_or(later(at, hold), |reset| reset.min(later(at, MAX_HOLD)));
        let longest = reading.reset.max(reading.window).unwrap_or_default();
        self.span = longest.max(self.span);
    }

    fn is_same_reset(&self, known: Instant, told: Instant) -> bool {
        let late = told.saturating_duration_since(known).as_secs_f64();
        told >= known && late < ROUNDING.min(self.span.as_secs_f64() / 2.0) + 4.0 * self.jitter
    }

    /// A call was refused. Whether this counter explains it.
    pub(super) fn refused(&mut self, reading: &Reading, departed: Instant, cost: Cost) -> bool {
        let explains = reading.remaining.is_some_and(|left| (left as f64) < self.least(cost));
        if explains && departed >= self.known {
            self.reserve = (self.reserve + 1.0).min(MAX_RESERVE).min(self.limit / 2.0);
            self.share = (self.share * 0.9).max(1.0 / 64.0);
            let edge = self.edge.map(|edge| departed.saturating_duration_since(edge).as_secs_f64());
            if edge.is_some_and(|since| since < ROUNDING) {
                // The reset was told too early.
                self.guard = (self.guard + Duration::from_millis(500)).min(MAX_GUARD);
            }
        }
        explains
    }

    /// A call was not refused.
    pub(super) fn granted(&mut self) {
        self.reserve -= self.reserve / 512.0;
        self.share = (self.share + 1.0 / 4096.0).min(1.0);
    }

    /// Until when the whole upstream may be taken to be closed, if nothing is left and nothing comes before.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        (self.left <= 0.0 && self.mean().is_none()).then(|| self.enough_at(1.0))
    }
}

/// So many seconds, up to ten years.
fn seconds(seconds: f64) -> Duration {
    const TEN_YEARS: f64 = 10.0 * 366.0 * 86_400.0;
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, TEN_YEARS) } else { TEN_YEARS })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(unit: Unit, remaining: u64, reset: u64) -> Reading {
        let mut reading = Reading::new(unit);
        (reading.limit, reading.remaining) = (Some(100), Some(remaining));
        reading.reset = Some(Duration::from_secs(reset));
        reading
    }

    /// The counter after one call that left at the beginning, and one that left so many seconds later and was answered at
    /// once.
    fn told_twice(first: Reading, after: f64, second: Reading) -> Counter {
        let now = Instant::now();
        let mut counter = Counter::new(&first, first.remaining.unwrap(), now, now);
        let then = later(now, seconds(after));
        counter.read(&second, (then, then), Some(Cost::one()), &Flight::default(), 0.01);
        counter
    }

    #[test]
    fn what_came_back_at_the_reset_and_nothing_else_is_a_window() {
        let refills = |first, after, second| {
            let [first, second] = [first, second].map(|(left, reset)| reading(Unit::Requests, left, reset));
            told_twice(first, after, second).refills
        };
        assert!(refills((10, 60), 60.5, (99, 60)));
        assert!(!refills((10, 60), 40.0, (99, 60)), "not at the reset");
        assert!(!refills((99, 60), 60.5, (99, 60)), "nothing had been taken");
        assert!(!refills((10, 60), 60.5, (99, 30)), "a bucket that is nearly full again");
        assert!(refills((10, 60), 60.5, (99, 31)));
    }

    #[test]
    fn a_counter_that_is_full_says_nothing_of_what_comes_in() {
        let now = Instant::now();
        let mut counter = Counter::new(&reading(Unit::Requests, 10, 0), 10, now, now);
        for (after, left) in
            [(31.0, 40), (62.0, 70), (76.0, 84), (83.0, 91), (87.0, 95), (90.0, 98), (124.0, 99)]
        {
            let at = later(now, seconds(after));
            counter.read(
                &reading(Unit::Requests, left, 0),
                (at, at),
                Some(Cost::one()),
                &Flight::default(),
                0.0,
            );
        }
        assert!((counter.inflow.least() - 1.0).abs() < 1e-9, "one a second: {:?}", counter.inflow);
    }

    #[test]
    fn a_reset_that_is_told_a_little_later_is_the_same() {
        let now = Instant::now();
        let mut counter = Counter::new(&reading(Unit::Requests, 10, 60), 10, now, now);
        counter.jitter = 0.25;
        let is_same = |late| counter.is_same_reset(now, later(now, seconds(late)));
        assert!(is_same(0.0) && is_same(1.9) && !is_same(2.0) && !is_same(3.0));
        assert!(!counter.is_same_reset(later(now, seconds(1.0)), now), "one that is told earlier");
    }

    #[test]
    fn a_refusal_while_enough_is_left_has_another_reason() {
        let now = Instant::now();
        let counter = Counter::new(&reading(Unit::Requests, 10, 60), 10, now, now);
        let explains = |left| counter.clone().refused(&reading(Unit::Requests, left, 60), now, Cost::one());
        assert!(explains(0) && !explains(1));

        let mut small = Counter::new(&Reading::new(Unit::Requests), 4, now, now);
        for _ in 0..10 {
            assert!(small.refused(&reading(Unit::Requests, 0, 60), now, Cost::one()));
        }
        assert_eq!(small.reserve, 2.0, "half of it can be used at least");
    }

    #[test]
    fn what_a_call_took_in_truth_counts_unless_the_server_told_since() {
        let now = Instant::now();
        let mut counter = Counter::new(&reading(Unit::Tokens, 90, 60), 90, now, now);
        let tokens = |tokens| Cost { input_tokens: tokens, ..Cost::one() };
        counter.settle(now, tokens(10), tokens(40));
        assert_eq!(counter.left, 90.0, "the answer to that call told it");
        counter.settle(later(now, seconds(1.0)), tokens(10), tokens(40));
        assert_eq!(counter.left, 60.0);
        counter.settle(later(now, seconds(1.0)), tokens(90), tokens(10));
        assert_eq!(counter.left, 100.0, "and no more than there can be");
    }

    #[test]
    fn where_little_is_left_of_a_window_it_is_waited_for_what_does_not_come_soon() {
        let now = Instant::now();
        let mut first = reading(Unit::Requests, 0, 60);
        first.window = Some(Duration::from_secs(10));
        let mut counter = Counter::new(&first, 0, now, now);
        counter.jitter = 0.1;
        let is_waited_for = |probe: f64| {
            let probe = later(now, seconds(probe));
            Counter { probe, ..counter.clone() }.free_at(Cost::one()) == probe
        };
        // Three calls of 9.9 a second, twice the rounding of resets, four times the jitter: 2.703 s.
        assert!(!is_waited_for(2.65));
        assert!(is_waited_for(2.75));
    }

    #[test]
    fn a_single_reading_does_not_make_it_another_kind_of_counter() {
        let now = Instant::now();
        let mut counter = Counter::new(&Reading::new(Unit::Requests), 100, now, now);
        counter.alike = 2 * ALIKE;
        for (left, usable) in [(50, false), (50, false), (50, false), (50, false), (50, true)] {
            let mut reading = Reading::new(Unit::Requests);
            reading.remaining = Some(left);
            counter.read(&reading, (now, now), None, &Flight::default(), 0.1);
            assert_eq!(counter.is_usable(0.1), usable, "{}", counter.alike);
        }
    }

    #[test]
    fn a_window_of_which_less_than_half_is_there_after_its_reset_did_not_begin_anew() {
        for (left, refills) in [(30, false), (48, false), (60, true)] {
            let now = Instant::now();
            let mut counter = Counter::new(&reading(Unit::Requests, 10, 60), 10, now, now);
            (counter.refills, counter.rolled) = (true, Some(now));
            let then = later(now, seconds(1.0));
            let told = reading(Unit::Requests, left, 60);
            counter.read(&told, (then, then), Some(Cost::one()), &Flight::default(), 0.01);
            assert_eq!(counter.refills, refills, "{left}");
        }
    }

    #[test]
    fn one_that_is_half_full_says_what_comes_in() {
        let now = Instant::now();
        let mut counter = Counter::new(&reading(Unit::Requests, 10, 0), 10, now, now);
        // One a second, half, and less and less.
        for (after, left) in [(31.0, 40), (62.0, 55), (93.0, 60)] {
            let at = later(now, seconds(after));
            let told = reading(Unit::Requests, left, 0);
            counter.read(&told, (at, at), Some(Cost::one()), &Flight::default(), 0.0);
        }
        assert!((counter.inflow.least() - 6.0 / 31.0).abs() < 1e-9, "{:?}", counter.inflow);
    }

    #[test]
    fn no_time_is_longer_than_ten_years() {
        let ten_years = Duration::from_secs(10 * 366 * 86_400);
        assert_eq!([seconds(1e20), seconds(f64::INFINITY), seconds(f64::NAN)], [ten_years; 3]);
        assert_eq!([seconds(1.5), seconds(-1.0)], [Duration::from_millis(1500), Duration::ZERO]);
    }
}
