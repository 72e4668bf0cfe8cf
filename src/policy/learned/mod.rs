//! A quota that nobody told: found from the answers alone.
//!
//! [`Learned`] is the default policy of [`AdaptiveCooldownLayer`](crate::AdaptiveCooldownLayer). It sends calls at even
//! distances, measures what the upstream grants, and keeps refusals inside a budget.
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
//!  rate
//!   ▲      refused                              ╭─╮ refused
//!   │     ╭──╮                                ╭─╯ │
//!   │    ╱   │                              ╭─╯   │  ╭──────  the new quota
//!   │   ╱    │                            ╭─╯     └──╯
//!   │  ╱     │           refused         ╱ above the ceiling, and nothing is refused:
//!   │ ╱      │  ╭──────╮       ╭──────╮ ╱  it was wrong, and zeal doubles the growth
//! q ┼╱─ ─ ─ ─│─╱─ ─ ─ ─│─╭─────╯─ ─ ─ ─╯─ ─ ─ ─ ─ ─ ─  the ceiling: what was refused last
//!   │        │╱        └─╯ 2 % below; it rests until the refusals are paid for
//!   │        ╰ measured, from opening to opening
//!   └──────────────────────────────────────────────────────────────▶ time
//! ```
//!
//! 1. **Even pace.** Calls leave `1 / rate` apart. Under a steady load that gets all of a quota, whatever its shape
//!    (bucket, fixed window, sliding window), so the shape need not be known, and waiters never leave in a crowd.
//! 2. **First calls.** Four at once, and then an eighth of what was granted so far is in flight.
//! 3. **One event a flight.** Calls that left before the gate closed belong to the refusal that closed it. The gate
//!    closes for as long as the server says. If it does not say, for one and a half calls, or for as long as such a
//!    wait has had to be before; and if that was not enough, for half as much again each time, with one call at a
//!    time to find out. While no rate is known the first wait is 1.5 s, as in [`Ladder`](super::Ladder).
//! 4. **Measuring.** When a call is granted again, the calls granted since the opening before, by the time that took,
//!    are the quota: a window is new at both ends, a bucket empty at both ends. That is the new rate if it is lower
//!    than the old one less 2 %. Seconds in which the callers asked for less are left out, so that a low demand is not
//!    taken for a low quota; of a long cycle only the last part counts, because the quota may have changed.
//! 5. **Climbing.** The rate that was refused last is the *ceiling*. The rate grows back to it with each accepted call
//!    that had waited for its turn, by 2 % in about 80 calls, and beyond. *Zeal* says how unsure it is: it doubles
//!    that growth with each unit. It is 5 in the beginning; each refusal takes 2, and 2 are added when the rate is
//!    above the ceiling and nothing is refused for as long as the upstream was ever seen to remember. Far below the
//!    ceiling (which falls slowly) nothing is known of what lies between, and the rate grows by a tenth in that time,
//!    then faster. So a raised quota is found soon, and a lowered one at the first refusals.
//!    What was granted during a steep climb says little of the new quota: a refusal that ends one halves the rate at most.
//! 6. **The budget.** After refusals the rate rests until enough calls were granted to pay for them; and also until the
//!    time for which the gate was closed is made up for, in case refusals are punished.
//! 7. **Calls in flight.** If a refusal says that too many calls are in flight
//!    ([`Hints::concurrency`](crate::signal::Hints::concurrency)), or if five in a row hit calls that left among
//!    unusually many, those are bounded to one fewer. One more is tried each time a refusal is paid for, later and later.
//!
//! 5xx answers, timeouts and 503s say nothing about a quota and do not move the rate. (A 503 closes the gate for as long
//! as it says, or for half a second and longer if another follows.) Where the server tells its own counters, those decide
//! alone as long as they can be [relied upon](super::Policy::trusts_readings).
//!
//! # Limits
//!
//! - The first window of an unknown quota is used up as fast as callers call; with windows of an hour or a day a
//!   [`seed`](Learned::seed) spreads it.
//! - A window of a minute and a few calls a second allow for one refusal in two windows: that a quota was raised is
//!   noticed after two to five windows.
//! - An upstream that punishes refusals (a block of minutes) costs that block about twice an hour: give it a seed and a
//!   budget of 0.
//! - A stored burst is spent only where it was declared with the seed, or where the server tells its counters.
//! - The pace is per gate. Several processes each learn their share, and disturb one another while they do.
//!
//! # Sources
//!
//! The measurement is that of BBR's policer detection (Linux, `tcp_bbr.c`); one event per flight is TCP's rule since
//! NewReno (RFC 6582).

mod answers;
mod climb;
mod cycle;
mod flight;
mod pace;

use self::{climb::Climb, cycle::Cycle, flight::Flight, pace::Pace};
use super::{Answer, Closing, Departure, Passed, Policy, Quota, escalation::EXHAUSTED, later};
use crate::{Cost, InvalidSetting, WaitReason, signal::Verdict};
use std::time::Duration;
use tokio::time::Instant;

/// Finds the quota by itself. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Learned {
    budget: f64,
    seed: Option<Quota>,
    /// Calls a second.
    rate: f64,
    /// Nothing is known yet.
    starting: bool,
    probe: Probe,
    pace: Pace,
    cycle: Cycle,
    climb: Climb,
    flight: Flight,
    /// Whether the last departure had waited for its turn.
    paced: bool,
    /// Calls that the upstream granted.
    granted: u64,
    /// Seconds from departure to answer, as a moving average.
    round_trip: f64,
    /// The longest outage so far, and what led to it: for about so long the upstream remembers.
    memory: f64,
    /// Refusals in a row.
    refusals: u32,
    /// How long the gate was closed after the last of them, and is at first after the next one. In seconds.
    wait: f64,
    first_wait: f64,
    /// 503s in a row.
    overloads: usize,
}

/// While the gate was closed for nothing, or nothing is known, one call is sent to see whether it is open again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    No,
    /// The next call that leaves.
    Next,
    /// The one that left then, and has not been granted yet.
    Out(Instant),
}

const DEFAULT_BUDGET: f64 = 0.01;
/// Until the first answer: so many calls at once, and then so many a second.
const FIRST_BURST: u32 = 4;
const FIRST_RATE: f64 = 4.0;
/// Never slower than a call in ten minutes, and never closed for longer, unless the server says so.
const MAX_WAIT: f64 = 600.0;
const MIN_RATE: f64 = 1.0 / MAX_WAIT;
const MAX_RATE: f64 = 1e7;

fn secs(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
}

fn since(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64()
}

impl Learned {
    /// A policy that knows nothing yet, with a budget of 1 %.
    pub fn new() -> Self {
        Self::with(DEFAULT_BUDGET, None)
    }

    /// The share of the calls that may be refused for the sake of learning, from 0 to 0.5. Default: 0.01.
    ///
    /// With a tenth of it a raised quota is found ten times as late. With 0 the rate never grows, for upstreams that
    /// punish: give it a [`seed`](Self::seed), because without one even the first rate is found by a refusal. What is
    /// refused while nothing is known, or when a quota drops, comes in addition.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn budget(self, share: f64) -> Result<Self, InvalidSetting> {
        if !(0.0..=0.5).contains(&share) {
            return Err(InvalidSetting::new("budget", format!("must be from 0 to 0.5, is {share}")));
        }
        Ok(Self { budget: share, ..self })
    }

    /// A first guess at the quota, which saves the first refusals. Default: none. It need not be right. (On a policy
    /// that has learned already it is a fresh start.) Of a quota with a
    /// [burst](Quota::burst) so many calls leave at once after a time in which fewer were asked for, as long as
    /// nothing is refused.
    #[must_use]
    pub fn seed(self, quota: Quota) -> Self {
        Self::with(self.budget, Some(quota))
    }

    /// The rate at which calls leave now, in requests per second. `None` until the first refusal, unless there is a
    /// [`seed`](Self::seed).
    pub fn rate(&self) -> Option<f64> {
        (!self.starting).then_some(self.rate)
    }

    fn with(budget: f64, seed: Option<Quota>) -> Self {
        let rate = seed.map(|quota| quota.rate().clamp(MIN_RATE, MAX_RATE));
        Self {
            budget,
            seed,
            rate: rate.unwrap_or(FIRST_RATE),
            starting: rate.is_none(),
            probe: Probe::No,
            pace: Pace::new(seed.and_then(|quota| quota.burst).unwrap_or(1)),
            cycle: Cycle::default(),
            climb: rate.map_or(Climb::new(), Climb::seeded),
            flight: Flight::default(),
            paced: false,
            granted: 0,
            round_trip: 0.0,
            memory: 0.0,
            refusals: 0,
            wait: 0.0,
            first_wait: 0.0,
            overloads: 0,
        }
    }

    /// Calls a second at present.
    fn pace(&self) -> f64 {
        match self.probe {
            // If there is no answer to it, another one is sent.
            Probe::Out(_) => self.rate.min(1.0 / (3.0 * self.round_trip).clamp(1.0, MAX_WAIT)),
            _ if self.starting && self.granted == 0 && self.flight.now() < FIRST_BURST => f64::INFINITY,
            _ => self.rate,
        }
    }

    fn set_rate(&mut self, rate: f64) {
        self.rate = rate.clamp(MIN_RATE, MAX_RATE);
    }

    /// The time in which a rate that is too high is refused, in seconds.
    fn hold(&self) -> f64 {
        self.memory.max(4.0 * self.round_trip).max(8.0 / self.rate)
    }

    /// The length of half a [`Cycle`], in seconds: enough calls to measure by, and so long that the gate was closed for
    /// a small part of it only.
    fn half(&self) -> f64 {
        let hold = self.hold();
        hold.max(32.0 / self.rate).max((20.0 * self.climb.pause()).min(3.0 * hold))
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Learned {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        match self.pace.next(self.pace()) {
            Some(next) if next > arrived => Departure::new(next, WaitReason::Preflight),
            _ => Departure::now(arrived),
        }
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        let late = self.pace.depart(at, cost.requests, self.pace());
        self.paced = late.is_none();
        let idle = late.unwrap_or(0.0);
        self.cycle.depart(at, idle, if self.starting { f64::INFINITY } else { self.half() });
        self.climb.idle(idle);
        self.flight.depart(at);
        if self.probe == Probe::Next {
            self.probe = Probe::Out(at);
        }
    }

    fn recall(&mut self, at: Instant, _: Cost) {
        self.flight.left();
        self.pace.recall(at);
        if self.probe == Probe::Out(at) {
            self.probe = Probe::Next;
        }
    }

    fn abandoned(&mut self, departed: Instant) {
        self.flight.left();
        // The upstream may have counted it.
        self.cycle.granted(departed, 1);
    }

    fn max_in_flight(&self) -> Option<usize> {
        self.flight.cap().map(|cap| cap as usize)
    }

    /// Where so many turns are over in no time, and nothing is being found out by single calls.
    fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        let is_calm = self.granted > 0
            && self.probe == Probe::No
            && self.flight.cap().is_none()
            && !self.cycle.is_closed();
        is_calm && self.pace.has_room_for(calls, self.rate, now)
    }

    fn hears_later(&self) -> bool {
        true
    }

    /// In one go: that many have room only where the rate is high, and one call or another is no matter.
    fn passed(&mut self, calls: &Passed) {
        let is_calm = self.probe == Probe::No && self.flight.cap().is_none() && self.granted > 0;
        if !is_calm {
            return calls.in_turn(self);
        }
        if calls.departures > 0 {
            let (idle, paced) = self.pace.pass(calls, self.rate);
            self.paced = paced;
            self.cycle.depart(calls.last, idle, if self.starting { f64::INFINITY } else { self.half() });
            self.climb.idle(idle);
        }
        self.flight.pass(calls);
        if calls.accepted > 0 {
            let took = since(calls.at, calls.departed);
            let rest = (7.0 / 8.0_f64).powi(calls.accepted as i32);
            self.round_trip = took + (self.round_trip - took) * rest;
            self.granted(calls.departed, calls.accepted);
            self.accepted(calls.departed, calls.at, calls.accepted);
        }
    }

    fn rate(&self) -> Option<f64> {
        Self::rate(self)
    }

    fn trusts_readings(&self) -> bool {
        true
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.flight.left();
        let verdict = answer.signal.verdict;
        let told = answer.signal.hints.retry_after;
        if !verdict.is_pushback() {
            let took = since(answer.at, answer.departed);
            let first = self.granted == 0;
            self.round_trip = if first { took } else { self.round_trip + (took - self.round_trip) / 8.0 };
            self.granted(answer.departed, answer.cost.requests);
        }
        let closing = match verdict {
            Verdict::Accepted | Verdict::Refused if answer.current => {
                self.accepted(answer.departed, answer.at, 1);
                return None;
            }
            Verdict::Throttled if answer.current => self.refused(answer, told),
            Verdict::Throttled => {
                self.cycle.refused();
                Closing::told(told?)
            }
            Verdict::Overloaded if answer.current => self.overloaded(told),
            Verdict::Exhausted if answer.current => told.map_or(Closing::adaptive(EXHAUSTED), Closing::told),
            Verdict::Overloaded | Verdict::Exhausted => Closing::told(told?),
            Verdict::Accepted | Verdict::Refused | Verdict::Failed | Verdict::Rejected => return None,
        };
        let open_at = later(answer.at, closing.wait);
        if verdict == Verdict::Overloaded {
            let pause = self.pace.until(open_at, answer.at);
            self.cycle.idle(pause);
            self.climb.idle(pause);
        }
        self.pace.close(open_at);
        Some(closing)
    }

    fn reset(&mut self) {
        let fresh = Self::with(self.budget, self.seed);
        let pace = self.pace.reopened();
        *self = Self { pace, flight: self.flight.reset(), ..fresh };
    }
}

#[cfg(test)]
mod tests;
