use super::units::{Nanos, Unit, nanos};
use crate::InvalidSetting;
use std::time::Duration;

/// One limit of an upstream, as its documentation would state it.
///
/// A limit is a description. [`Limiter`](super::Limiter) and [`Upstream`](super::Upstream) enforce it, several
/// at once where there are several. All of them start unused.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{InvalidSetting, testing::Limit};
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
///
/// let gemini = Limit::fixed_window(15, minute)?;
/// let aws = Limit::token_bucket(20, second, 100)?;
/// let tokens = Limit::token_bucket(40_000, minute, 40_000)?.tokens();
/// let drops = Limit::sliding_log(300, minute)?.then(minute * 7, Limit::sliding_log(120, minute)?);
/// let cloudflare = Limit::fixed_window(1200, minute * 5)?.penalty(minute * 5);
/// # let _ = (gemini, aws, tokens, drops, cloudflare);
/// # Ok(())
/// # }
/// ```
///
/// A limit of 0 is possible: it refuses everything.
#[derive(Clone, Debug)]
pub struct Limit {
    pub(super) shape: Shape,
    pub(super) unit: Unit,
    pub(super) name: Option<&'static str>,
    pub(super) penalty: Nanos,
    pub(super) counts_refusals: bool,
    pub(super) changes: Vec<(Nanos, Limit)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    TokenBucket { limit: u64, per: Nanos, depth: u64 },
    FixedWindow { limit: u64, window: Nanos, phase: Nanos },
    SlidingLog { limit: u64, window: Nanos },
    SlidingCounter { limit: u64, window: Nanos, phase: Nanos },
    Concurrency { limit: u64 },
}

impl Limit {
    const fn new(shape: Shape) -> Self {
        Self {
            shape,
            unit: Unit::Requests,
            name: None,
            penalty: 0,
            counts_refusals: false,
            changes: Vec::new(),
        }
    }

    /// A token bucket: it holds `depth`, is full at the start, and gains `limit` in the course of each `per`.
    ///
    /// # Errors
    /// If `per` is zero.
    pub fn token_bucket(limit: u64, per: Duration, depth: u64) -> Result<Self, InvalidSetting> {
        Ok(Self::new(Shape::TokenBucket { limit, per: positive("per", per)?, depth }))
    }

    /// At most `limit` in each window; the windows follow one another from the start on. See
    /// [`phase`](Self::phase).
    ///
    /// # Errors
    /// If `window` is zero.
    pub fn fixed_window(limit: u64, window: Duration) -> Result<Self, InvalidSetting> {
        Ok(Self::new(Shape::FixedWindow { limit, window: positive("window", window)?, phase: 0 }))
    }

    /// At most `limit` in any span of time as long as `window`, exactly.
    ///
    /// # Errors
    /// If `window` is zero.
    pub fn sliding_log(limit: u64, window: Duration) -> Result<Self, InvalidSetting> {
        Ok(Self::new(Shape::SlidingLog { limit, window: positive("window", window)? }))
    }

    /// At most `limit` in a window up to now, estimated from two counters: that of this window, and that of the
    /// last one as if its calls had been spread evenly. See [`phase`](Self::phase).
    ///
    /// # Errors
    /// If `window` is zero.
    pub fn sliding_counter(limit: u64, window: Duration) -> Result<Self, InvalidSetting> {
        Ok(Self::new(Shape::SlidingCounter { limit, window: positive("window", window)?, phase: 0 }))
    }

    /// At most `limit` at the same time. A call counts from its grant to its
    /// [`finish`](super::Limiter::finish).
    pub const fn concurrency(limit: u64) -> Self {
        Self::new(Shape::Concurrency { limit })
    }

    /// Counts [tokens](crate::Cost::tokens) in place of requests.
    #[must_use]
    pub const fn tokens(mut self) -> Self {
        self.unit = Unit::Tokens;
        self
    }

    /// When, after the start, a fixed window or that of a sliding counter begins: a caller's start is seldom
    /// the start of a window. Default: 0. Other limits have no phase and ignore it.
    #[must_use]
    pub fn phase(mut self, at: Duration) -> Self {
        if let Shape::FixedWindow { phase, .. } | Shape::SlidingCounter { phase, .. } = &mut self.shape {
            *phase = nanos(at);
        }
        self
    }

    /// Once this limit has refused a call, it refuses every call for this long. Calls that come in that time do
    /// not make it longer.
    #[must_use]
    pub fn penalty(mut self, penalty: Duration) -> Self {
        self.penalty = nanos(penalty);
        self
    }

    /// A refused call takes from this limit all the same (as far as there is something left), whichever limit
    /// refused it.
    #[must_use]
    pub const fn counts_refusals(mut self) -> Self {
        self.counts_refusals = true;
        self
    }

    /// From `at` after the start on, `next` is in force in place of this limit. May be called several times.
    ///
    /// What was used stays used, if the shape is the same: a bucket keeps its level as far as it fits, a log
    /// its calls, a window its count if the windows are the same ones. Other shapes start unused. Changes of
    /// `next` itself are ignored.
    #[must_use]
    pub fn then(mut self, at: Duration, next: Self) -> Self {
        self.changes.push((nanos(at), Self { changes: Vec::new(), ..next }));
        self
    }

    /// A name, for [hints](super::HintStyle) that carry one. Default: `default`, and where there are several
    /// limits, `default-1` and so on.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// The rate that it can sustain, in units per second; `None` where it depends on how long calls take.
    pub(super) fn rate(&self) -> Option<f64> {
        let (limit, per) = match self.shape {
            // Nothing fits into a bucket without depth.
            Shape::TokenBucket { depth: 0, per, .. } => (0, per),
            Shape::TokenBucket { limit, per, .. } => (limit, per),
            Shape::FixedWindow { limit, window, .. }
            | Shape::SlidingLog { limit, window }
            | Shape::SlidingCounter { limit, window, .. } => (limit, window),
            Shape::Concurrency { .. } => return None,
        };
        Some(limit as f64 * 1e9 / per as f64)
    }
}

fn positive(field: &'static str, time: Duration) -> Result<Nanos, InvalidSetting> {
    match nanos(time) {
        0 => Err(InvalidSetting::new(field, "must be longer than zero")),
        time => Ok(time),
    }
}
