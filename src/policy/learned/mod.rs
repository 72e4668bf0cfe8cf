//! A quota that nobody told: found from the answers alone.
//!
//! [`Learned`] is the default policy of [`AdaptiveCooldownLayer`](crate::AdaptiveCooldownLayer). It sends calls at even
//! distances, measures what the upstream accepts, and keeps refusals inside a budget.
//!
//! ```
//! use std::time::Duration;
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer, InvalidSetting,
//!     policy::{Learned, Quota},
//! };
//!
//! # fn main() -> Result<(), InvalidSetting> {
//! let layer = AdaptiveCooldownLayer::new(); // this policy, and it knows nothing yet
//!
//! // About 300 calls a minute to begin with, and half as many refusals as usual.
//! let guess = Quota::new(300, Duration::from_secs(60))?;
//! let layer = AdaptiveCooldownLayer::with_policy(Learned::new().seed(guess).budget(0.005)?);
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!   rate
//!    ▲           refused              ╭ beyond: the quota may have been raised
//!    │              ▼                 │            refused: measured anew
//!    │     ╭────────┐        ╭────────╯               ▼
//!  q ┼─ ─ ╱─ ─ ─ ─ ─│─ ─ ─ ╱─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─│─ ─ ─  the quota
//!    │   ╱          │ ╭──╯     the plateau            │ ╭──
//!    │  ╱           └─╯                               └─╯  3 % below
//!    │ ╱            closed                            closed
//!    └────────────────────────────────────────────────────────▶ calls accepted
//!      few in flight        as many calls as pay for one flight of refusals
//! ```
//!
//! 1. **Even pace.** Calls leave `1 / rate` apart, and never two at once. Under a steady load an even pace gets the
//!    whole of a quota whatever its shape (bucket, fixed window, sliding window), so the shape need not be known, and
//!    waiters cannot rush out when the gate opens.
//! 2. **First calls.** While the rate is unknown, two calls may be in flight, and one more for every two that were
//!    accepted.
//! 3. **A flight of refusals is one event.** Calls that had left before the first refusal came back belong to it. The
//!    gate closes for as long as the server says; if it says nothing, for one and a half calls of the rate, and twice as
//!    long after each refusal in a row, with one call at a time to find out. While no rate is known these waits are
//!    1.5, 3 and 7 s, as in [`Ladder`](super::Ladder), and then half as much again each time, up to 10 minutes.
//! 4. **Measuring.** When the gate has opened again, the calls accepted since the opening before, over the time that
//!    took, is the quota: a window is new at both ends, a bucket empty at both ends. Time in which nobody wanted to call
//!    is left out, so a low demand is not mistaken for a low quota. If the last part of that time tells of a higher rate,
//!    the new plateau is the geometric mean of the two; never above the rate that was refused.
//! 5. **Climbing.** From 3 % below the plateau the rate returns to it as calls are accepted, at first quickly; if nothing
//!    is refused it goes beyond, and the excess doubles again and again. So a raised quota is found soon, and a lowered
//!    one at the first refusals. Calls that did not have to wait for their slot raise nothing.
//! 6. **The budget** sets how many calls lie between two events: as many as pay for a flight of the size that flights
//!    have here, at 60 % of the budget. No fewer than make up for the time that the upstream stays closed, and, while
//!    measurements still disagree, as few as say anything. If more was refused than twice the budget pays for, the rate
//!    does not rise until that has been made good.
//! 7. **Calls in flight.** If a refusal says that too many calls were in flight
//!    ([`Hints::concurrency`](crate::signal::Hints::concurrency)), or if three in a row without a hint come just when
//!    more are in flight than ever since the one before, it bounds those: one fewer than there were, and one more after
//!    as many accepted calls as pay for a refusal. The rate is left alone.
//!
//! 5xx answers, timeouts and 503s say nothing about a quota and do not move the rate (a 503 closes the gate for as long
//! as it says, or for half a second). Where the server tells its own counters, those decide alone as long as they can be
//! [relied upon](super::Policy::trusts_readings).
//!
//! # Limits
//!
//! - The first window of an unknown quota is used up as fast as callers call; with windows of an hour or a day a
//!   [`seed`](Learned::seed) spreads it.
//! - A quota of a few calls a minute gives a few measurements an hour: expect 90 to 97 % of it, against 99 and more of
//!   faster ones.
//! - An upstream that punishes refusals (a block of minutes) costs that block each time it is probed: give it a seed and
//!   a budget of 0.
//! - Stored burst after idle time is spent only where the server tells its counters.
//! - The pace is per gate. Several processes each learn their share, and disturb one another while they do.
//!
//! # Sources
//!
//! The measurement is that of BBR's policer detection (Linux, `tcp_bbr.c`); the shape of the climb is that of CUBIC
//! (RFC 9438); one event per flight is TCP's rule since NewReno (RFC 6582).

mod cap;
mod climb;
mod cycle;
mod experience;
mod flight;
mod pace;

use self::{cap::Cap, climb::Climb, cycle::Cycle, experience::Experience, flight::Flight, pace::Pace};
use super::{Answer, Closing, Departure, Policy, Quota, escalation::EXHAUSTED};
use crate::{Cost, InvalidSetting, WaitReason, signal::Verdict};
use std::{mem, time::Duration};
use tokio::time::Instant;

/// Finds the quota by itself. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Learned {
    budget: f64,
    seed: Option<f64>,
    pace: Pace,
    /// The rate, once it is known.
    climb: Option<Climb>,
    cycle: Option<Cycle>,
    /// The refusals since the last opening.
    flight: Option<Flight>,
    /// Calls of a flight before, whose refusals came when the upstream was open again.
    stragglers: u32,
    /// Answers to calls that left before this are of an earlier flight.
    last_event: Option<Instant>,
    experience: Experience,
    /// Of accepted calls, in seconds, smoothed.
    latency: f64,
    in_flight: usize,
    cap: Cap,
}

const DEFAULT_BUDGET: f64 = 0.01;
/// While the rate is unknown: so many calls in flight, and one more for every two that were accepted.
const FIRST_CALLS: usize = 2;
/// While the rate is unknown, calls leave no closer together than this.
const FIRST_GAP: Duration = Duration::from_millis(5);
/// What a 503 that says nothing closes the gate for.
const OVERLOADED: Duration = Duration::from_millis(500);

impl Learned {
    /// A policy that knows nothing yet, with a budget of 1 %.
    pub const fn new() -> Self {
        Self {
            budget: DEFAULT_BUDGET,
            seed: None,
            pace: Pace::new(),
            climb: None,
            cycle: None,
            flight: None,
            stragglers: 0,
            last_event: None,
            experience: Experience::new(),
            latency: 0.0,
            in_flight: 0,
            cap: Cap::new(),
        }
    }

    /// The share of calls that may be refused for the sake of learning, from 0 to 0.5. Default: 0.01.
    ///
    /// More finds a raised quota sooner and uses a little more of each. 0 never goes above what it knows, for upstreams
    /// that punish: give it a [`seed`](Self::seed), because without one even the first rate is found by a refusal.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn budget(mut self, share: f64) -> Result<Self, InvalidSetting> {
        if !(0.0..=0.5).contains(&share) {
            return Err(InvalidSetting::new("budget", format!("must be from 0 to 0.5, is {share}")));
        }
        self.budget = share;
        Ok(self)
    }

    /// A first guess at the quota, which saves the first refusals. It need not be right. Of a quota with a burst, only
    /// the rate counts.
    #[must_use]
    pub fn seed(mut self, quota: Quota) -> Self {
        let rate = quota.rate();
        self.seed = Some(rate);
        self.climb = Some(Climb::from(rate));
        self
    }

    /// The rate at which calls leave now, in requests per second. `None` until the first refusal, unless there is a
    /// [`seed`](Self::seed).
    pub fn rate(&self) -> Option<f64> {
        self.climb.as_ref().map(Climb::rate)
    }

    fn gap(&self) -> Duration {
        self.climb.as_ref().map_or(FIRST_GAP, |climb| duration(1.0 / climb.rate()))
    }

    /// How many calls are to be accepted before the next refusal is risked, and the fewest that say anything.
    fn calls(&self, rate: f64) -> (f64, f64) {
        let least = self.experience.least(rate, self.latency);
        (self.experience.calls(rate, self.latency, self.budget), least)
    }

    fn is_fresh(&self, departed: Instant) -> bool {
        self.last_event.is_none_or(|event| departed > event)
    }

    fn accepted(&mut self, answer: &Answer<'_>) {
        let took = seconds_between(answer.departed, answer.at);
        self.latency = if self.latency == 0.0 { took } else { self.latency + 0.1 * (took - self.latency) };
        self.experience.accepted(self.budget);
        self.cap.accepted(self.experience.price(self.budget));
        let fresh = self.is_fresh(answer.departed);
        if fresh {
            if let Some(flight) = self.flight.take() {
                self.opened(&flight, answer.departed);
            }
        }
        self.consumed(answer);
        let (true, true, Some(climb)) = (fresh, self.pace.is_full, &self.climb) else { return };
        let (calls, least) = self.calls(climb.rate());
        if let Some(climb) = &mut self.climb {
            climb.grow(calls, least / 2.0);
        }
    }

    /// A call took its part of the quota, whatever its answer.
    fn consumed(&mut self, answer: &Answer<'_>) {
        let every = (self.experience.closure() / 2.0).max(2.0 * self.latency);
        if let Some(cycle) = &mut self.cycle {
            cycle.count(answer.departed, answer.cost.requests, every);
        }
    }

    /// The call that left at `departed` is the first one to be accepted after a flight of refusals: what lies between
    /// this opening and the last one is measured.
    fn opened(&mut self, flight: &Flight, departed: Instant) {
        let opened = flight.opened(departed, self.gap());
        let Some(cycle) = self.cycle.replace(Cycle::new(opened)) else { return };
        let closed = seconds_between(flight.refused, opened);
        let was = self.climb.as_ref().map(|climb| (climb.plateau(), climb.rate()));
        let span = (1.5 * self.experience.closure().max(closed)).max(4.0 * self.latency);
        let measured = cycle.end(flight.refused, opened, span);
        let mut steady = false;
        if measured.accepted > 0.0 {
            let (mean, calls) = self.experience.mean_rate(measured.accepted, measured.elapsed);
            let plateau = match was {
                None => mean,
                // Too few calls to measure anything: a little slower, then.
                Some((_, rate)) if calls < 8.0 => rate * 0.9,
                Some((_, rate)) => {
                    // The quota lies between the two: the mean is too low if the rate has risen since, and the last
                    // part is too high if a bucket was emptied.
                    let recent = measured.recent.unwrap_or(mean).clamp(mean.min(rate), rate);
                    if mean < 0.98 * recent { (mean * recent).sqrt() } else { recent.min(rate * 0.995) }
                }
            };
            let climb = Climb::from(plateau);
            steady = was.is_some_and(|(before, _)| climb.is_near(before, measured.accepted));
            self.climb = Some(climb);
        }
        self.experience.learn(closed, flight.calls + mem::take(&mut self.stragglers), steady);
    }

    fn refused(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.experience.refused();
        let told = answer.signal.hints.retry_after;
        if !self.is_fresh(answer.departed) {
            // Another one of the same flight: it counts, and makes the closing longer if it says so.
            match &mut self.flight {
                Some(flight) => flight.calls += 1,
                None => self.stragglers += 1,
            }
            return told.map(Closing::told);
        }
        self.last_event = Some(answer.at);
        let (concurrency, is_silent) =
            (answer.signal.hints.concurrency, told.is_none() && self.flight.is_none());
        if self.cap.refused(self.in_flight + 1, concurrency, is_silent) {
            return told.map(Closing::told);
        }
        let gap = self.climb.as_ref().map(|climb| 1.0 / climb.rate());
        let flight = self.flight.get_or_insert_with(|| Flight::new(answer.departed));
        flight.refused_again(answer.departed, told.is_some());
        let closing =
            told.map_or_else(|| Closing::adaptive(duration(flight.wait(gap, self.latency))), Closing::told);
        flight.closes_until(super::later(answer.at, closing.wait));
        Some(closing)
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Learned {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        match self.pace.slot().filter(|slot| *slot > arrived) {
            Some(slot) => Departure::new(slot, WaitReason::Preflight),
            None => Departure::now(arrived),
        }
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        self.in_flight += 1;
        self.cap.departed(self.in_flight);
        let late = self.pace.depart(at, self.gap(), cost.requests).as_secs_f64();
        let Some(cycle) = &mut self.cycle else {
            self.cycle = Some(Cycle::new(at));
            return;
        };
        if self.flight.is_none() && self.climb.is_some() && late > 0.0 {
            cycle.idle(late);
            if let Some(rate) = self.rate().filter(|rate| late > (2.0 * self.latency).max(4.0 / rate)) {
                let (calls, _) = self.calls(rate);
                if let Some(climb) = &mut self.climb {
                    climb.rest(calls);
                }
            }
        }
    }

    fn recall(&mut self, at: Instant, _: Cost) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.pace.recall(at);
    }

    fn abandoned(&mut self, _: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn max_in_flight(&self) -> Option<usize> {
        let unknown = self.climb.is_none().then(|| match (&self.flight, &self.cycle) {
            (None, Some(cycle)) => FIRST_CALLS + cycle.accepted() as usize / 2,
            (None, None) => FIRST_CALLS,
            // One call at a time finds out when the upstream opens.
            (Some(_), _) => 1,
        });
        let probing = self.flight.as_ref().is_some_and(|flight| {
            flight.is_long() || !flight.is_told && self.experience.closure() > 8.0 * self.latency
        });
        [unknown, probing.then_some(1), self.cap.most()].into_iter().flatten().min()
    }

    fn trusts_readings(&self) -> bool {
        true
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let told = answer.signal.hints.retry_after.map(Closing::told);
        match answer.signal.verdict {
            // A refusal for another reason than a quota took its part of the quota all the same.
            Verdict::Accepted | Verdict::Refused => {
                self.accepted(answer);
                None
            }
            Verdict::Throttled => self.refused(answer),
            // These say nothing about the rate.
            Verdict::Overloaded if answer.current => Some(told.unwrap_or(Closing::adaptive(OVERLOADED))),
            Verdict::Exhausted if answer.current => Some(told.unwrap_or(Closing::adaptive(EXHAUSTED))),
            Verdict::Overloaded | Verdict::Exhausted => told,
            Verdict::Failed => {
                self.consumed(answer);
                None
            }
            Verdict::Rejected => None,
        }
    }

    fn reset(&mut self) {
        let learned = Self { budget: self.budget, seed: self.seed, ..Self::new() };
        let climb = self.seed.map(Climb::from);
        *self = Self { climb, in_flight: self.in_flight, pace: self.pace.clone(), ..learned };
    }
}

/// From `from` to `to`, zero where that is backwards.
fn seconds_between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// So many seconds, up to ten years.
fn duration(seconds: f64) -> Duration {
    const TEN_YEARS: f64 = 10.0 * 366.0 * 86_400.0;
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, TEN_YEARS) } else { TEN_YEARS })
}

#[cfg(test)]
mod tests;
