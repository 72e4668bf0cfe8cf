use super::{Answer, Closing, Departure, Policy, escalation::Escalation, later};
use crate::{Cost, InvalidSetting, WaitReason};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Fixed waits, for an upstream of which nothing is known.
///
/// Before a call (preflight):
/// - a 429 or 503 in the last 3000 ms: wait 1500 ms;
/// - else two or more calls in the last 2000 ms: wait 1000 ms;
/// - else go.
///
/// After a 429 the gate closes: 1500 ms after the first, 3000 ms after the second in a row, 7000 ms after the
/// third and every further one; a success starts over. A 503 closes it for the present step, which is 500 ms
/// where no 429 preceded, and climbs none. A quota that is [exhausted](crate::signal::Verdict::Exhausted) closes it
/// for a minute. Where the server says how long to wait, that counts instead.
///
/// The waits run from the moment the call came, and run at the same time: a call that came while the gate was
/// closed leaves at the later of the two times, not at their sum. A call that waits counts as a call from the
/// moment it is booked, so of many callers at once two leave together every 1000 ms, and no more.
///
/// The rules and numbers are those of the system that this crate grew out of, where they served bulk jobs on a
/// free tier; all of them can be set:
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{AdaptiveCooldownLayer, InvalidSetting, policy::Ladder};
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let ms = Duration::from_millis;
/// let ladder = Ladder::new()
///     .after_refusal(ms(3000), ms(1500))
///     .pace(2, ms(2000), ms(1000))?
///     .steps([ms(500), ms(1500), ms(3000), ms(7000)]);
/// let layer = AdaptiveCooldownLayer::with_policy(ladder);
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Ladder {
    refusal_window: Duration,
    refusal_wait: Duration,
    busy_calls: usize,
    busy_window: Duration,
    busy_wait: Duration,
    escalation: Escalation,
    /// The last departures, oldest first: twice as many as count, so that some can be recalled.
    departures: VecDeque<Instant>,
    last_refusal: Option<Instant>,
}

/// Each of them takes memory: 16 bytes, twice.
const MAX_CALLS: usize = 1_000_000;

impl Ladder {
    /// The default numbers.
    pub fn new() -> Self {
        Self {
            refusal_window: Duration::from_millis(3000),
            refusal_wait: Duration::from_millis(1500),
            busy_calls: 2,
            busy_window: Duration::from_millis(2000),
            busy_wait: Duration::from_millis(1000),
            escalation: Escalation::default(),
            departures: VecDeque::with_capacity(4),
            last_refusal: None,
        }
    }

    /// A refusal (429, 503) in the last `window` makes a call wait for `wait`. Default: 3000 ms, 1500 ms.
    #[must_use]
    pub fn after_refusal(mut self, window: Duration, wait: Duration) -> Self {
        self.refusal_window = window;
        self.refusal_wait = wait;
        self
    }

    /// `calls` or more in the last `window` make a call wait for `wait`. Default: 2, 2000 ms, 1000 ms.
    ///
    /// # Errors
    /// If `calls` is zero or above a million.
    pub fn pace(mut self, calls: usize, window: Duration, wait: Duration) -> Result<Self, InvalidSetting> {
        InvalidSetting::positive("calls", calls)?;
        if calls > MAX_CALLS {
            return Err(InvalidSetting::new("calls", format!("must be at most {MAX_CALLS}, is {calls}")));
        }
        self.busy_calls = calls;
        self.busy_window = window;
        self.busy_wait = wait;
        let too_many = self.departures.len().saturating_sub(calls * 2);
        self.departures.drain(..too_many);
        self.departures.reserve_exact(calls * 2 - self.departures.len());
        Ok(self)
    }

    /// How long the gate closes after 0, 1, 2, and 3 or more 429s in a row. Default: 500, 1500, 3000, 7000 ms.
    #[must_use]
    pub fn steps(mut self, steps: [Duration; 4]) -> Self {
        self.escalation = self.escalation.with_steps(steps);
        self
    }

    fn preflight(&self, arrived: Instant) -> (Duration, WaitReason) {
        // The turn of this call: calls that are booked before it push it back, and the refusal into the past.
        let turn = self.departures.back().map_or(arrived, |last| arrived.max(*last));
        let within = |since: Option<&Instant>, until: Instant, window: Duration| {
            since.is_some_and(|since| until.saturating_duration_since(*since) < window)
        };
        if within(self.last_refusal.as_ref(), turn, self.refusal_window) {
            (self.refusal_wait, WaitReason::RateLimit)
        } else if within(self.oldest(), arrived, self.busy_window) {
            (self.busy_wait, WaitReason::Preflight)
        } else {
            (Duration::ZERO, WaitReason::Normal)
        }
    }

    /// The departure `busy_calls` before the next one.
    fn oldest(&self) -> Option<&Instant> {
        self.departures.get(self.departures.len().checked_sub(self.busy_calls)?)
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Ladder {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        let (wait, reason) = self.preflight(arrived);
        let mut at = later(arrived, wait);
        if let Some(oldest) = self.oldest() {
            at = at.max(later(*oldest, wait));
        }
        Departure::new(at, reason)
    }

    /// The pace is looked at call by call, if there is one.
    fn has_room_for(&self, _: usize, now: Instant) -> bool {
        let paced = !self.busy_window.is_zero() && !self.busy_wait.is_zero();
        !paced && self.departure(now, Cost::one()).at <= now
    }

    fn depart(&mut self, at: Instant, _: Cost) {
        if self.departures.len() >= self.busy_calls * 2 {
            self.departures.pop_front();
        }
        self.departures.push_back(at);
    }

    fn recall(&mut self, at: Instant, _: Cost) {
        if let Ok(index) = self.departures.binary_search(&at) {
            self.departures.remove(index);
        }
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        if answer.signal.verdict.is_pushback() {
            self.last_refusal = Some(answer.at);
        }
        self.escalation.answered(answer)
    }

    /// That of calls that are always there.
    fn rate(&self) -> Option<f64> {
        (!self.busy_wait.is_zero()).then(|| self.busy_calls as f64 / self.busy_wait.as_secs_f64())
    }

    fn needs_success(&self) -> bool {
        self.escalation.needs_success()
    }

    fn reset(&mut self) {
        self.last_refusal = None;
        self.escalation.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Signal, Verdict};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answer(verdict: Verdict, at: Instant) -> Answer<'static> {
        static SIGNALS: [Signal; 5] = [
            Signal::new(Verdict::Throttled),
            Signal::new(Verdict::Overloaded),
            Signal::new(Verdict::Accepted),
            Signal::new(Verdict::Failed),
            Signal::new(Verdict::Refused),
        ];
        let signal = SIGNALS.iter().find(|signal| signal.verdict == verdict).unwrap();
        Answer::new(signal, at, at)
    }

    /// Books `calls` that all came at `arrived`, in their order, and returns how long each of them waits.
    fn book(ladder: &mut Ladder, arrived: Instant, calls: usize) -> Vec<u128> {
        let mut at = arrived;
        (0..calls)
            .map(|_| {
                at = at.max(ladder.departure(arrived, Cost::one()).at);
                ladder.depart(at, Cost::one());
                at.duration_since(arrived).as_millis()
            })
            .collect()
    }

    #[test]
    fn the_first_call_does_not_wait() {
        let now = Instant::now();
        assert_eq!(Ladder::new().departure(now, Cost::one()), Departure::now(now));
    }

    #[test]
    fn two_calls_in_two_seconds_make_the_third_wait_a_second() {
        let start = Instant::now();
        let mut ladder = Ladder::new();
        ladder.depart(start, Cost::one());
        ladder.depart(start + ms(100), Cost::one());
        let late = start + ms(1999);
        assert_eq!(
            ladder.departure(late, Cost::one()),
            Departure::new(late + ms(1000), WaitReason::Preflight)
        );
        let later = start + ms(2000);
        assert_eq!(ladder.departure(later, Cost::one()), Departure::now(later));
    }

    #[test]
    fn a_refusal_in_three_seconds_makes_a_call_wait_a_second_and_a_half() {
        for verdict in [Verdict::Throttled, Verdict::Overloaded] {
            let start = Instant::now();
            let mut ladder = Ladder::new();
            ladder.answered(&answer(verdict, start));
            let late = start + ms(2999);
            assert_eq!(
                ladder.departure(late, Cost::one()),
                Departure::new(late + ms(1500), WaitReason::RateLimit)
            );
            let later = start + ms(3000);
            assert_eq!(ladder.departure(later, Cost::one()), Departure::now(later));
        }
    }

    #[test]
    fn callers_at_once_leave_in_pairs() {
        let mut ladder = Ladder::new();
        let waits = book(&mut ladder, Instant::now(), 7);
        assert_eq!(waits, [0, 0, 1000, 1000, 2000, 2000, 3000]);
    }

    #[test]
    fn pairs_are_further_apart_while_a_refusal_is_recent() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.answered(&answer(Verdict::Throttled, now));
        // At 3000 ms the refusal is no longer recent.
        assert_eq!(book(&mut ladder, now, 6), [1500, 1500, 3000, 3000, 4000, 4000]);
    }

    #[test]
    fn the_steps() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        let mut step = |verdict| ladder.answered(&answer(verdict, now)).map(|c| c.wait.as_millis());
        assert_eq!(step(Verdict::Overloaded), Some(500));
        assert_eq!(step(Verdict::Throttled), Some(1500));
        assert_eq!(step(Verdict::Throttled), Some(3000)); // two in a row: 3000 ms
        assert_eq!(step(Verdict::Overloaded), Some(3000));
        assert_eq!(step(Verdict::Throttled), Some(7000));
        assert_eq!(step(Verdict::Throttled), Some(7000));
        assert_eq!(step(Verdict::Failed), None);
        assert_eq!(step(Verdict::Refused), None);
        assert_eq!(step(Verdict::Accepted), None);
        assert_eq!(step(Verdict::Throttled), Some(1500));
    }

    #[test]
    fn an_exhausted_quota_is_asked_again_once_a_minute() {
        let now = Instant::now();
        let exhausted = Signal::new(Verdict::Exhausted);
        let mut ladder = Ladder::new();
        for _ in 0..5 {
            let closing = ladder.answered(&Answer::new(&exhausted, now, now));
            assert_eq!(closing, Some(Closing::adaptive(ms(60_000))));
        }
        assert_eq!(ladder.answered(&answer(Verdict::Throttled, now)), Some(Closing::adaptive(ms(1500))));
    }

    #[test]
    fn the_server_knows_better() {
        let now = Instant::now();
        let told = Signal::new(Verdict::Throttled).retry_after(ms(200));
        let mut ladder = Ladder::new();
        assert_eq!(ladder.answered(&Answer::new(&told, now, now)), Some(Closing::told(ms(200))));
        // and the step was climbed all the same
        assert_eq!(ladder.answered(&answer(Verdict::Throttled, now)), Some(Closing::adaptive(ms(3000))));
    }

    #[test]
    fn late_answers_neither_climb_nor_clear() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        let throttled = answer(Verdict::Throttled, now);
        ladder.answered(&throttled);
        assert_eq!(ladder.answered(&throttled.late()), None);
        assert_eq!(ladder.answered(&answer(Verdict::Accepted, now).late()), None);
        assert_eq!(ladder.answered(&throttled), Some(Closing::adaptive(ms(3000))));
        let told = Signal::new(Verdict::Throttled).retry_after(ms(9000));
        assert_eq!(ladder.answered(&Answer::new(&told, now, now).late()), Some(Closing::told(ms(9000))));
    }

    #[test]
    fn reset_forgets_refusals_but_not_calls() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.depart(now, Cost::one());
        ladder.depart(now, Cost::one());
        ladder.answered(&answer(Verdict::Throttled, now));
        ladder.reset();
        assert_eq!(ladder.departure(now, Cost::one()), Departure::new(now + ms(1000), WaitReason::Preflight));
        assert_eq!(ladder.answered(&answer(Verdict::Throttled, now)), Some(Closing::adaptive(ms(1500))));
    }

    #[test]
    fn all_numbers_are_settings() {
        let now = Instant::now();
        let ladder = || {
            Ladder::new().pace(3, ms(100), ms(10)).unwrap().after_refusal(ms(50), ms(40)).steps([
                ms(1),
                ms(2),
                ms(3),
                ms(4),
            ])
        };
        assert_eq!(book(&mut ladder(), now, 7), [0, 0, 0, 10, 10, 10, 20]);
        let mut refused = ladder();
        assert_eq!(refused.answered(&answer(Verdict::Throttled, now)), Some(Closing::adaptive(ms(2))));
        assert_eq!(refused.departure(now, Cost::one()).at, now + ms(40));
        assert_eq!(refused.departure(now + ms(50), Cost::one()).at, now + ms(50));
        assert_eq!(Ladder::new().pace(0, ms(1), ms(1)).unwrap_err().field(), "calls");
        assert_eq!(Ladder::new().pace(usize::MAX, ms(1), ms(1)).unwrap_err().field(), "calls");
    }

    #[test]
    fn a_recalled_call_does_not_count() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.depart(now, Cost::one());
        ladder.depart(now + ms(10), Cost::one());
        ladder.recall(now + ms(10), Cost::one());
        assert_eq!(ladder.departure(now + ms(20), Cost::one()), Departure::now(now + ms(20)));
        // Older ones are not forgotten for it.
        for at in [20, 30, 40] {
            ladder.depart(now + ms(at), Cost::one());
        }
        ladder.recall(now + ms(40), Cost::one());
        assert_eq!(ladder.departure(now + ms(50), Cost::one()).at, now + ms(1050));
    }

    #[test]
    fn absurd_waits_do_not_overflow() {
        let now = Instant::now();
        let mut ladder = Ladder::new().after_refusal(Duration::MAX, Duration::MAX);
        ladder.answered(&answer(Verdict::Throttled, now));
        assert!(ladder.departure(now, Cost::one()).at > now + Duration::from_secs(1_000_000));
    }

    #[test]
    fn its_rate_is_that_of_calls_which_are_always_there() {
        let ladder = |calls, wait| Ladder::new().pace(calls, ms(2000), wait).unwrap();
        assert_eq!(Ladder::new().rate(), Some(2.0));
        assert_eq!(ladder(3, ms(500)).rate(), Some(6.0));
        assert_eq!(ladder(3, ms(0)).rate(), None);
    }

    #[test]
    fn where_there_is_no_pace_there_is_room_unless_a_refusal_is_recent() {
        let now = Instant::now();
        let mut ladder = Ladder::new().pace(2, ms(0), ms(0)).unwrap();
        assert!(ladder.has_room_for(100, now));
        assert!(!Ladder::new().has_room_for(1, now), "the pace is looked at call by call");
        ladder.answered(&answer(Verdict::Throttled, now));
        assert!(!ladder.has_room_for(1, now + ms(2999)));
        assert!(ladder.has_room_for(1, now + ms(3000)));
    }
}
