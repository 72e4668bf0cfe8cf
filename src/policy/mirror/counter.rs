use crate::{
    policy::{Answer, later},
    signal::{Reading, Unit, Verdict},
};
use std::time::Duration;
use tokio::time::Instant;

/// One of the server's counters, as far as its readings tell.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    unit: Unit,
    policy: u64,
    limit: f64,
    window: Option<f64>,
    /// What is left, less what is in flight and what is kept back, at `at`.
    left: f64,
    at: Instant,
    /// When the call left whose answer told that.
    departed: Option<Instant>,
    /// When it is reset, if that was told.
    reset: Option<Instant>,
    shape: Shape,
    /// Even pace within a window or at a mean rate: no call before this.
    slot: Option<Instant>,
    evidence: Evidence,
    /// Units kept back, because calls were refused although there was room.
    reserve: f64,
    /// Calls answered since the last surprise, or, while it is in doubt, yet to be answered.
    calm: u32,
    doubt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Unknown,
    /// All at once at the reset, and then each `length` seconds, if that is known.
    Window {
        length: Option<f64>,
    },
    /// So many units a second.
    Bucket {
        rate: f64,
    },
    /// So many units a second on average; when exactly is not known.
    Mean {
        rate: f64,
    },
}

/// What the readings have shown.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    /// The end of the window stayed where it was for so many readings, since.
    end: Option<Instant>,
    same_end: u32,
    since: Option<Instant>,
    /// The refill rate, which was about the same for so many readings in which the end moved.
    rate: f64,
    same_rate: u32,
    end_moved: u32,
}

/// What a counter says about when a call may leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    Nothing,
    NotBefore(Instant),
    /// Then, and as far as this counter is concerned there is no need to ask anybody else.
    At(Instant),
}

/// Resets in whole seconds are up to a second late, and the answer takes its time.
const SLACK: f64 = 1.3;
/// Windows shorter than this are too short to be told from jitter.
const SHORTEST: f64 = 2.0;
/// So many readings that agree are enough.
const ENOUGH: u32 = 3;
/// The most that is kept back.
const MAX_RESERVE: f64 = 8.0;
/// So many calls are answered before a counter that was wrong is believed again.
const DOUBT: u32 = 50;
/// After so many quiet calls one unit less is kept back.
const CALM: u32 = 200;
/// Of a mean rate, so much is used: where the windows begin and end is not known.
const OF_MEAN: f64 = 0.99;
/// Nothing is held back for longer than this, whatever the server says.
const LONGEST: Duration = Duration::from_secs(600);

impl Counter {
    pub(super) fn new(reading: &Reading) -> Self {
        Self {
            unit: reading.unit,
            policy: reading.policy,
            limit: f64::INFINITY,
            window: None,
            left: f64::INFINITY,
            at: Instant::now(),
            departed: None,
            reset: None,
            shape: Shape::Unknown,
            slot: None,
            evidence: Evidence::default(),
            reserve: 0.0,
            calm: 0,
            doubt: 0,
        }
    }

    pub(super) const fn unit(&self) -> Unit {
        self.unit
    }

    pub(super) fn is_of(&self, reading: &Reading) -> bool {
        (self.unit, self.policy) == (reading.unit, reading.policy)
    }

    pub(super) fn is_sure(&self) -> bool {
        self.shape != Shape::Unknown && self.doubt == 0
    }

    /// When a call that takes `units` may leave.
    pub(super) fn departure(&self, arrived: Instant, units: u64) -> Told {
        // A call for more than the whole quota goes when all of it is there.
        let units = (units as f64).min(self.limit);
        if units == 0.0 && self.unit != Unit::Other {
            return Told::Nothing;
        }
        let bounded = |time: Instant| time.min(later(arrived.max(self.at), LONGEST));
        if !self.is_sure() || self.unit == Unit::Other {
            // `left` is not what is in store, but at nothing the reading is clear.
            return match self.reset {
                Some(reset) if self.left <= 0.0 && reset > arrived => Told::NotBefore(bounded(reset)),
                _ => Told::Nothing,
            };
        }
        let after = |rate: f64, missing: f64| later(self.at, seconds(missing / rate));
        let at = match self.shape {
            Shape::Unknown => return Told::Nothing,
            Shape::Bucket { rate } if self.left >= units => {
                self.slot.unwrap_or(self.at).min(after(rate, 0.0))
            }
            Shape::Bucket { rate } => after(rate, units - self.left),
            Shape::Mean { rate } => {
                // In a sliding window nothing is left most of the time, and something soon is.
                let dry = self
                    .reset
                    .filter(|reset| self.left <= 0.0 && between(self.at, *reset) > SLACK + 3.0 / rate);
                self.slot.unwrap_or(self.at).max(dry.unwrap_or(self.at))
            }
            Shape::Window { .. } if self.left >= units => self.slot.unwrap_or(self.at),
            Shape::Window { .. } => self.reset.unwrap_or(self.at),
        };
        Told::At(bounded(at))
    }

    pub(super) fn depart(&mut self, at: Instant, units: u64) {
        let units = units as f64;
        match self.shape {
            Shape::Unknown => {}
            Shape::Bucket { rate } => {
                self.left = (self.left + rate * between(self.at, at)).min(self.limit) - units;
                self.at = self.at.max(at);
                return;
            }
            Shape::Mean { rate } => {
                let slot = self.slot.filter(|slot| between(*slot, at) < 0.01).unwrap_or(at);
                self.slot = Some(later(slot, seconds(units / rate)));
                return;
            }
            Shape::Window { length } => {
                if let Some(reset) = self.reset.filter(|reset| at >= *reset) {
                    // A new window. Without its length, its first answer has to come before more is known.
                    self.left = if length.is_some() { self.limit - self.reserve } else { units };
                    self.reset = length.map(|length| {
                        let passed = (between(reset, at) / length).floor() + 1.0;
                        later(reset, seconds(passed * length))
                    });
                }
                let rest = self.left - units;
                let gap =
                    self.reset.map_or(0.0, |reset| between(at, reset)) / (rest / units.max(1.0)).max(1.0);
                self.slot = Some(later(at, seconds(gap)));
            }
        }
        self.left -= units;
    }

    /// A call has not left after all.
    pub(super) fn give_back(&mut self, units: u64) {
        self.left = (self.left + units as f64).min(self.limit);
    }

    /// A response tells of this counter; so many units are in flight.
    pub(super) fn read(&mut self, reading: &Reading, answer: &Answer<'_>, in_flight: u64) {
        let at = answer.at;
        self.limit = reading.limit.map_or(self.limit, |limit| limit as f64);
        self.window = reading.window.map(|window| window.as_secs_f64()).or(self.window);
        let Some(remaining) = reading.remaining.map(|remaining| remaining as f64) else { return };
        if self.limit.is_infinite() {
            self.limit = self.limit.min(f64::MAX);
        }
        let reset = reading.reset.map(|reset| later(at, reset));
        let shape = self.weigh(remaining, reading.reset.map(|reset| reset.as_secs_f64()), reset, at);
        let left = remaining - in_flight as f64 - self.reserve;
        if shape != self.shape {
            self.slot = None;
        }
        self.shape = shape;
        match shape {
            Shape::Window { .. } => {
                // Answers may overtake one another: the lowest one of a window is the newest.
                let same =
                    matches!((self.reset, reset), (Some(known), Some(new)) if between(known, new) < SLACK);
                self.left = if same { self.left.min(left) } else { left };
                self.reset = match (self.reset, reset) {
                    (Some(known), Some(new)) if same => Some(known.min(new)),
                    (known, new) => new.or(known),
                };
                if let Some(reset) = self.reset.filter(|_| self.left >= 1.0) {
                    let slot = later(at, seconds(between(at, reset) / (self.left + 1.0)));
                    self.slot = Some(self.slot.map_or(slot, |known| known.min(slot)));
                }
            }
            Shape::Unknown | Shape::Mean { .. } => {
                self.left = remaining;
                self.reset = reset;
            }
            Shape::Bucket { rate } => {
                // An answer that was overtaken tells of an earlier level.
                let overtaken = self.departed.is_some_and(|departed| answer.departed < departed);
                let known = self.left + rate * between(self.at, at);
                self.left = if overtaken { known.min(left) } else { left };
                self.reset = reset;
            }
        }
        self.departed = self.departed.max(Some(answer.departed));
        self.at = at;
    }

    /// What shape it has, with this reading.
    fn weigh(&mut self, remaining: f64, reset_in: Option<f64>, reset: Option<Instant>, at: Instant) -> Shape {
        // Windows are told in whole seconds, so the rate of a short one is not exact.
        let window = self.window.filter(|window| self.limit.is_finite() && *window >= 10.0);
        let mean = window.map(|window| self.limit / window * OF_MEAN);
        let by_mean = mean.map_or(Shape::Unknown, |rate| Shape::Mean { rate });
        let (Some(reset_in), Some(reset)) = (reset_in, reset) else { return by_mean };
        let evidence = &mut self.evidence;
        let known = self.reset;
        let stays = evidence.end.is_some_and(|end| distance(end, reset) < SLACK);
        let rolled = known.is_some_and(|known| between(known, at) > -SLACK && between(known, reset) > SLACK);
        if stays {
            evidence.same_end += 1;
            evidence.since.get_or_insert(at);
        } else {
            evidence.end = Some(reset);
            if !(rolled && evidence.same_end >= ENOUGH) {
                evidence.same_end = 0;
                evidence.since = None;
                evidence.end_moved += 1;
            }
        }
        // What is left is rounded down, which matters where little is missing.
        let missing = self.limit - remaining - 0.5;
        if reset_in > 0.0 && missing > 4.0 && missing.is_finite() {
            let rate = missing / reset_in;
            let agrees = (rate / evidence.rate - 1.0).abs() < 0.25;
            evidence.same_rate = if agrees { evidence.same_rate + 1 } else { 0 };
            evidence.rate = if agrees { 0.8 * evidence.rate + 0.2 * rate } else { rate };
        }
        let lasted = evidence.since.is_some_and(|since| between(since, at) >= SHORTEST);
        let is_window =
            evidence.same_end >= ENOUGH && lasted || matches!(self.shape, Shape::Window { .. }) && rolled;
        if is_window && reset_in.max(self.window.unwrap_or(0.0)) >= SHORTEST {
            let seen = match (self.shape, known) {
                (Shape::Window { length: Some(length) }, _) => Some(length),
                (Shape::Window { length: None }, Some(known)) if rolled => Some(between(known, reset)),
                _ => None,
            };
            return Shape::Window { length: self.window.or(seen) };
        }
        // Of a policy that tells its window, the reset may be the time until anything is there, not all.
        let is_full = mean.is_none_or(|mean| (evidence.rate / mean - 1.0).abs() < 0.25);
        if evidence.same_rate >= ENOUGH && evidence.end_moved >= ENOUGH && is_full {
            return Shape::Bucket { rate: evidence.rate };
        }
        by_mean
    }

    /// A call was answered: whether this counter was right about it.
    pub(super) fn judge(&mut self, refused: bool, answer: &Answer<'_>) {
        if refused && self.is_sure() {
            self.reserve = (self.reserve + 1.0).min(MAX_RESERVE);
            if self.calm < DOUBT / 2 {
                // Twice in so short a time: the shape is wrong.
                self.doubt = DOUBT;
                self.evidence = Evidence::default();
                self.shape = Shape::Unknown;
            }
            self.calm = 0;
        } else if answer.signal.verdict == Verdict::Accepted {
            self.calm = self.calm.saturating_add(1);
            self.doubt = self.doubt.saturating_sub(1);
            if self.calm % CALM == 0 {
                self.reserve = (self.reserve - 1.0).max(0.0);
            }
        }
    }
}

/// Seconds from one time to another; below zero where that is backwards.
fn between(from: Instant, to: Instant) -> f64 {
    let forward = to.saturating_duration_since(from).as_secs_f64();
    if forward > 0.0 { forward } else { -from.saturating_duration_since(to).as_secs_f64() }
}

fn distance(one: Instant, other: Instant) -> f64 {
    between(one, other).abs()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 1e9) } else { 1e9 })
}
