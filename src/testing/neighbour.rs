use super::units::{Nanos, nanos};
use crate::{Cost, InvalidSetting};
use std::time::Duration;

/// Someone else who uses the same quota: other processes, other users of one account.
///
/// A neighbour sends at its rate, whatever the answers are, and sends nothing again.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{InvalidSetting, testing::Neighbour};
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let second = Duration::from_secs(1);
/// let steady = Neighbour::new(2, second)?;
/// let cron_job = Neighbour::new(3, second)?.on_off(second * 60, second * 240).random(7);
/// # let _ = (steady, cron_job);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Neighbour {
    interval: Nanos,
    on: Nanos,
    off: Nanos,
    start: Nanos,
    end: Nanos,
    pub(super) cost: Cost,
    pub(super) work: Nanos,
    seed: Option<u64>,
}

impl Neighbour {
    /// Sends `calls` in each `per`, evenly, the first one after one interval.
    ///
    /// # Errors
    /// If `calls` or `per` is zero, or if that is more than one call per nanosecond.
    pub fn new(calls: u32, per: Duration) -> Result<Self, InvalidSetting> {
        InvalidSetting::positive("calls", calls as usize)?;
        let interval = nanos(per / calls);
        if interval == 0 {
            return Err(InvalidSetting::new("per", format!("{per:?} is too short for {calls} calls")));
        }
        Ok(Self {
            interval,
            on: Nanos::MAX,
            off: 0,
            start: 0,
            end: Nanos::MAX,
            cost: Cost::one(),
            work: 0,
            seed: None,
        })
    }

    /// Sends for this long, then pauses for that long, and so on. Default: always on. If it is on for no time
    /// at all, it sends nothing.
    #[must_use]
    pub fn on_off(mut self, on: Duration, off: Duration) -> Self {
        (self.on, self.off) = (nanos(on), nanos(off));
        self
    }

    /// Comes at `start` after the start, and leaves at `end`. Default: there all the time.
    #[must_use]
    pub fn between(mut self, start: Duration, end: Duration) -> Self {
        (self.start, self.end) = (nanos(start), nanos(end));
        self
    }

    /// What each of its calls takes. Default: one request, no tokens.
    #[must_use]
    pub const fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// How long each of its calls is in flight, for concurrency limits. Default: 0.
    #[must_use]
    pub fn work(mut self, work: Duration) -> Self {
        self.work = nanos(work);
        self
    }

    /// Draws each gap between two calls at random, from 0 to twice the interval. The same seed gives the same
    /// gaps.
    #[must_use]
    pub const fn random(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The times of its calls, in order.
    pub(super) fn calls(&self) -> Calls {
        let mut calls = Calls {
            neighbour: self.clone(),
            active: 0,
            next: None,
            random: self.seed.map(fastrand::Rng::with_seed),
        };
        calls.step();
        calls
    }

    /// Its calls per second, at this time and later: 0 once it has left, the mean of on and off otherwise.
    pub(super) fn rate(&self, at: Nanos) -> f64 {
        if at < self.start || at >= self.end {
            return 0.0;
        }
        let share = match self.off {
            0 => 1.0,
            off => self.on as f64 / (self.on as f64 + off as f64),
        };
        share * 1e9 / self.interval as f64
    }
}

#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) neighbour: Neighbour,
    /// The time that it has been on.
    active: Nanos,
    pub(super) next: Option<Nanos>,
    random: Option<fastrand::Rng>,
}

impl Calls {
    /// To the call after this one.
    pub(super) fn step(&mut self) {
        let Neighbour { interval, on, off, start, end, .. } = self.neighbour;
        let gap = match &mut self.random {
            Some(random) => random.u64(0..=interval.saturating_mul(2)),
            None => interval,
        };
        self.active = self.active.saturating_add(gap);
        let cycles = match off {
            0 => Some(0),
            // On until the cycle is full: the call at its very end still belongs to it.
            _ => self.active.saturating_sub(1).checked_div(on),
        };
        self.next = cycles
            .map(|cycles| start.saturating_add(self.active).saturating_add(cycles.saturating_mul(off)))
            .filter(|next| *next < end && *next < Nanos::MAX);
    }
}
