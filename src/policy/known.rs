use super::{Answer, Closing, Departure, Policy, Quota, bucket::Bucket, escalation::Escalation, log::Log};
use crate::{Cost, WaitReason};
use std::time::Duration;
use tokio::time::Instant;

/// Keeps to a declared [`Quota`].
///
/// Calls leave at once while the quota allows, and wait for the next free place otherwise. If the upstream
/// refuses all the same (others use the quota too, or it is smaller than declared), the gate closes for as
/// long as the server says; where it says nothing, for 1500, 3000, then 7000 ms as in
/// [`Ladder`](super::Ladder). The declared number is believed all the same: after the closing the calls leave
/// at the same rate as before.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{
///     AdaptiveCooldownLayer, InvalidSetting,
///     policy::{Known, Quota},
/// };
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let quota = Quota::new(15, Duration::from_secs(30))?;
/// let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota));
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Known {
    requests: Counter,
    tokens: Option<Box<Counter>>,
    escalation: Escalation,
}

#[derive(Clone, Debug)]
enum Counter {
    Window(Log),
    Bucket(Bucket),
}

impl Known {
    /// A policy for this quota of requests, none of which is used yet.
    pub fn new(quota: Quota) -> Self {
        Self { requests: Counter::new(quota), tokens: None, escalation: Escalation::default() }
    }

    /// A quota of tokens beside that of requests. A call leaves when both have room for its
    /// [cost](crate::AdaptiveCooldownLayer::cost); one that costs more tokens than the whole quota leaves when
    /// nothing of it is in use. Default: tokens have no limit.
    ///
    /// ```
    /// use http::Request;
    /// use std::time::Duration;
    /// use tower_cooldown::{
    ///     AdaptiveCooldownLayer, Cost, InvalidSetting,
    ///     policy::{Known, Quota},
    /// };
    ///
    /// # fn main() -> Result<(), InvalidSetting> {
    /// let minute = Duration::from_secs(60);
    /// let quota = Known::new(Quota::new(500, minute)?).tokens(Quota::new(30_000, minute)?);
    /// let layer = AdaptiveCooldownLayer::with_policy(quota)
    ///     .cost(|request: &Request<String>| Cost::one().input(request.body().len() as u32 / 4));
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tokens(mut self, quota: Quota) -> Self {
        self.tokens = Some(Box::new(match self.tokens {
            Some(tokens) => tokens.resized(quota),
            None => Counter::new(quota),
        }));
        self
    }

    /// Another quota of requests, for [changing](crate::Handle::change_policy) it while the program runs, as
    /// [`tokens`](Self::tokens) does with that of tokens. What is in use of the old one is in use of the new one, if
    /// both are windows, or both are buckets; else nothing is.
    #[must_use]
    pub fn requests(mut self, quota: Quota) -> Self {
        self.requests = self.requests.resized(quota);
        self
    }

    /// How long the gate closes after 0, 1, 2, and 3 or more 429s in a row, where the server does not say. 0
    /// stands for a 503. Default: 500, 1500, 3000, 7000 ms.
    #[must_use]
    pub fn steps(mut self, steps: [Duration; 4]) -> Self {
        self.escalation = self.escalation.with_steps(steps);
        self
    }
}

impl Policy for Known {
    fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        let requests = self.requests.free_at(cost.requests.into());
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.free_at(cost.tokens()));
        match requests.max(tokens) {
            Some(free) if free > arrived => Departure::new(free, WaitReason::Preflight),
            _ => Departure::now(arrived),
        }
    }

    fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        let free = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        let (calls, most) = (calls as u64, self.requests.most());
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.free_at(0));
        calls <= most && free(self.requests.free_at(calls)) && free(tokens)
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        self.requests.depart(at, cost.requests.into());
        if let Some(tokens) = &mut self.tokens {
            tokens.depart(at, cost.tokens());
        }
    }

    fn recall(&mut self, at: Instant, cost: Cost) {
        self.requests.recall(at, cost.requests.into());
        if let Some(tokens) = &mut self.tokens {
            tokens.recall(at, cost.tokens());
        }
    }

    fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        self.requests.settle(departed, booked.requests.into(), used.requests.into());
        if let Some(tokens) = &mut self.tokens {
            tokens.settle(departed, booked.tokens(), used.tokens());
        }
    }

    fn rate(&self) -> Option<f64> {
        Some(self.requests.rate())
    }

    fn needs_success(&self) -> bool {
        self.escalation.needs_success()
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.escalation.answered(answer)
    }

    fn reset(&mut self) {
        self.escalation.reset();
    }
}

impl Counter {
    fn new(quota: Quota) -> Self {
        match quota.burst {
            Some(burst) => Self::Bucket(Bucket::new(quota.limit, quota.window, burst)),
            None => {
                let margin = quota.margin.unwrap_or(quota.window / 100);
                Self::Window(Log::new(quota.limit.into(), quota.window.saturating_add(margin)))
            }
        }
    }

    /// For another quota, with what is in use of this one.
    fn resized(self, quota: Quota) -> Self {
        match (self, Self::new(quota)) {
            (Self::Window(old), Self::Window(new)) => Self::Window(old.resized(&new)),
            (Self::Bucket(old), Self::Bucket(new)) => Self::Bucket(old.resized(new)),
            (_, new) => new,
        }
    }

    /// In the long run, per second.
    fn rate(&self) -> f64 {
        match self {
            Self::Window(log) => log.rate(),
            Self::Bucket(bucket) => bucket.rate(),
        }
    }

    /// The most that can be taken at a time.
    fn most(&self) -> u64 {
        match self {
            Self::Window(log) => log.limit(),
            Self::Bucket(bucket) => bucket.burst(),
        }
    }

    fn free_at(&self, amount: u64) -> Option<Instant> {
        match self {
            Self::Window(log) => log.free_at(amount),
            Self::Bucket(bucket) => bucket.free_at(amount),
        }
    }

    fn depart(&mut self, at: Instant, amount: u64) {
        match self {
            Self::Window(log) => log.depart(at, amount),
            Self::Bucket(bucket) => bucket.depart(at, amount),
        }
    }

    fn recall(&mut self, at: Instant, amount: u64) {
        match self {
            Self::Window(log) => log.recall(at, amount),
            Self::Bucket(bucket) => bucket.recall(at, amount),
        }
    }

    fn settle(&mut self, departed: Instant, booked: u64, used: u64) {
        match self {
            Self::Window(log) => log.settle(departed, booked, used),
            Self::Bucket(bucket) => bucket.settle(departed, booked, used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Signal, Verdict};

    const THROTTLED: Signal = Signal::new(Verdict::Throttled);

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Books `calls` one after another, all there from the start, and returns when each leaves.
    fn book(policy: &mut Known, start: Instant, calls: usize) -> Vec<Duration> {
        let mut last = start;
        (0..calls)
            .map(|_| {
                last = policy.departure(start, Cost::one()).at.max(last);
                policy.depart(last, Cost::one());
                last - start
            })
            .collect()
    }

    #[test]
    fn fifteen_in_thirty_seconds() {
        let start = Instant::now();
        let quota = Quota::new(15, secs(30)).unwrap().margin(Duration::ZERO);
        let times = book(&mut Known::new(quota), start, 40);
        assert!(times[..15].iter().all(|t| *t == secs(0)));
        assert!(times[15..30].iter().all(|t| *t == secs(30)));
        assert!(times[30..].iter().all(|t| *t == secs(60)));
    }

    #[test]
    fn never_more_than_the_limit_in_any_window() {
        // Arrivals spread over the window, so that an aligned counter would let almost twice the limit pass.
        for limit in [1u32, 2, 7, 1023, 1024, 1025, 5000] {
            let window = secs(60);
            let start = Instant::now();
            let mut known = Known::new(Quota::new(limit, window).unwrap().margin(Duration::ZERO));
            let mut times: Vec<Instant> = Vec::new();
            for call in 0..limit * 3 {
                let arrived = start + Duration::from_millis(u64::from(call) * 7919 % 50_000);
                let at = known.departure(arrived, Cost::one()).at.max(times.last().copied().unwrap_or(start));
                known.depart(at, Cost::one());
                times.push(at);
            }
            for (k, at) in times.iter().enumerate().skip(limit as usize) {
                assert!(*at >= times[k - limit as usize] + window, "limit {limit}, call {k}");
            }
        }
    }

    #[test]
    fn large_quotas_take_little_memory_and_lose_little() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(1_000_000, secs(1)).unwrap());
        let at_once = book(&mut known, start, 1_000_001).iter().filter(|t| t.is_zero()).count();
        assert!(at_once >= 998_000, "{at_once}");
        let five_thousand = &mut Known::new(Quota::new(5000, secs(1)).unwrap());
        for start in [start, start + secs(10)] {
            let at_once = book(five_thousand, start, 5001).iter().filter(|t| t.is_zero()).count();
            assert_eq!(at_once, 5000, "nothing is lost where the stamps divide the limit");
        }
        let Counter::Window(log) = &known.requests else { panic!("a window") };
        assert!(log.stamps() <= 1024, "{}", log.stamps());
    }

    #[test]
    fn the_margin_is_a_hundredth_of_the_window() {
        let start = Instant::now();
        let times = book(&mut Known::new(Quota::new(1, secs(30)).unwrap()), start, 2);
        assert_eq!(times[1], Duration::from_millis(30_300));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(2, secs(1)).unwrap().burst(3).unwrap());
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(book(&mut known, start, 6), [ms(0), ms(0), ms(0), ms(500), ms(1000), ms(1500)]);
        // An hour later it is full again, and holds no more than its burst.
        let hour = start + secs(3600);
        assert_eq!(book(&mut known, hour, 4), [ms(0), ms(0), ms(0), ms(500)]);
    }

    #[test]
    fn a_burst_of_one_spaces_evenly() {
        let start = Instant::now();
        let mut known = Known::new(Quota::new(4, secs(1)).unwrap().burst(1).unwrap());
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(book(&mut known, start, 4), [ms(0), ms(250), ms(500), ms(750)]);
    }

    #[test]
    fn a_recalled_call_gives_its_place_back() {
        let start = Instant::now();
        for quota in [Quota::new(2, secs(30)).unwrap(), Quota::new(2, secs(30)).unwrap().burst(2).unwrap()] {
            let mut known = Known::new(quota);
            known.depart(start, Cost::one());
            known.depart(start, Cost::one());
            assert!(known.departure(start, Cost::one()).at > start);
            known.recall(start, Cost::one());
            assert_eq!(known.departure(start, Cost::one()), Departure::now(start));
        }
        // So does one of a large quota, where a stamp stands for several calls.
        let mut known = Known::new(Quota::new(5000, secs(30)).unwrap());
        book(&mut known, start, 5000);
        assert!(known.departure(start, Cost::one()).at > start);
        known.recall(start, Cost::one());
        assert_eq!(known.departure(start, Cost::one()), Departure::now(start));
    }

    /// A quota of tokens, in both shapes: 1000 in ten seconds.
    fn tokens() -> [Known; 2] {
        let requests = Quota::new(1_000_000, secs(1)).unwrap();
        let tokens = Quota::new(1000, secs(10)).unwrap();
        [
            Known::new(requests).tokens(tokens.margin(Duration::ZERO)),
            Known::new(requests).tokens(tokens.burst(1000).unwrap()),
        ]
    }

    #[test]
    fn the_later_of_the_two_quotas_counts() {
        let start = Instant::now();
        for mut known in tokens() {
            let cost = Cost::one().input(300).output(100);
            known.depart(start, cost);
            known.depart(start, cost);
            assert_eq!(known.departure(start, cost.output(0).input(200)), Departure::now(start));
            assert!(known.departure(start, cost).at > start, "1200 are more than 1000");
            assert_eq!(known.departure(start, Cost::one()), Departure::now(start), "a call without tokens");
        }
        let [window, bucket] = &mut tokens();
        for known in [&mut *window, bucket] {
            known.depart(start, Cost::one().input(1000));
        }
        assert_eq!(window.departure(start, Cost::one().input(100)).at, start + secs(10));
        assert_eq!(bucket.departure(start, Cost::one().input(100)).at, start + secs(1));
    }

    #[test]
    fn a_call_that_costs_more_than_the_whole_quota_leaves_when_nothing_is_in_use() {
        let start = Instant::now();
        for mut known in tokens() {
            let huge = Cost::one().input(u32::MAX).output(u32::MAX);
            assert_eq!(known.departure(start, huge), Departure::now(start));
            known.depart(start, Cost::one().input(1000));
            assert_eq!(known.departure(start, huge).at, start + secs(10));
        }
    }

    #[test]
    fn what_a_call_cost_in_truth_is_settled() {
        let start = Instant::now();
        for mut known in tokens() {
            let booked = Cost::one().input(1000);
            known.depart(start, booked);
            known.settle(start, booked, Cost::one().input(400));
            assert_eq!(known.departure(start, Cost::one().input(600)), Departure::now(start));
            assert!(known.departure(start, Cost::one().input(601)).at > start);
            known.settle(start, Cost::one().input(400), Cost::one().input(1000));
            assert!(known.departure(start, Cost::one().input(1)).at > start, "and back");
        }
    }

    #[test]
    fn a_late_settlement_gives_nothing_that_is_not_there() {
        let start = Instant::now();
        for mut known in tokens() {
            let booked = Cost::one().input(1000);
            known.depart(start, booked);
            let later = start + secs(60);
            known.depart(later, Cost::one().input(700));
            known.settle(start, booked, Cost::one().input(0));
            assert_eq!(known.departure(later, Cost::one().input(300)), Departure::now(later));
            assert!(known.departure(later, Cost::one().input(301)).at > later, "{known:?}");
        }
    }

    #[test]
    fn any_span_of_one_window_holds_no_more_tokens_than_the_limit() {
        let start = Instant::now();
        let [mut known, _] = tokens();
        let mut taken: Vec<(Instant, u64)> = Vec::new();
        let mut last = start;
        for call in 0..5000u32 {
            let cost = Cost::one().input(call * 7919 % 97);
            last = last.max(known.departure(start, cost).at);
            known.depart(last, cost);
            taken.push((last, cost.tokens()));
        }
        for (index, (at, _)) in taken.iter().enumerate() {
            let span = taken[index..].iter().take_while(|(other, _)| *other < *at + secs(10));
            assert!(span.map(|(_, tokens)| tokens).sum::<u64>() <= 1000, "from call {index}");
        }
    }

    #[test]
    fn another_quota_counts_what_was_used_of_the_old_one() {
        let start = Instant::now();
        let window = |limit| Quota::new(limit, secs(10)).unwrap().margin(Duration::ZERO);
        let mut known = Known::new(window(10));
        book(&mut known, start, 6);
        // Fewer: nothing leaves until there is room, and then no more than the new limit.
        let mut fewer = known.clone().requests(window(3));
        assert_eq!(book(&mut fewer, start + secs(1), 4), [9, 9, 9, 19].map(secs));
        let mut more = known.requests(window(8));
        assert_eq!(book(&mut more, start + secs(1), 3), [0, 0, 9].map(secs));

        let bucket = |limit, burst| Quota::new(limit, secs(1)).unwrap().burst(burst).unwrap();
        let mut known = Known::new(bucket(1, 10));
        book(&mut known, start, 10);
        let mut quicker = known.clone().requests(bucket(10, 20));
        assert_eq!(
            book(&mut quicker, start, 11)[9..],
            [secs(0), Duration::from_millis(100)],
            "ten were in use"
        );
        known.recall(start, Cost::one());
        let recalled = known.requests(bucket(1, 10));
        assert_eq!(recalled.departure(start, Cost::one()), Departure::now(start));
        assert_eq!(recalled.departure(start, Cost { requests: 2, ..Cost::one() }).at, start + secs(1));

        // Of another shape: nothing is known.
        let mut other = recalled.requests(window(2)).tokens(window(5)).tokens(window(1000));
        assert_eq!(book(&mut other, start, 3), [0, 0, 10].map(secs));
    }

    #[test]
    fn a_refusal_closes_all_the_same() {
        let now = Instant::now();
        let mut known = Known::new(Quota::new(15, secs(30)).unwrap());
        let refused = Answer::new(&THROTTLED, now, now);
        assert_eq!(known.answered(&refused), Some(Closing::adaptive(Duration::from_millis(1500))));
    }

    #[test]
    fn the_steps_are_a_setting() {
        let now = Instant::now();
        let mut known = Known::new(Quota::new(15, secs(30)).unwrap()).steps([1, 2, 3, 4].map(secs));
        let refused = Answer::new(&THROTTLED, now, now);
        assert_eq!(known.answered(&refused), Some(Closing::adaptive(secs(2))));
    }

    #[test]
    fn extreme_quotas_do_not_overflow() {
        let start = Instant::now();
        for quota in [
            Quota::new(u32::MAX, Duration::from_nanos(1)).unwrap(),
            Quota::new(u32::MAX, secs(1)).unwrap().burst(u32::MAX).unwrap(),
            Quota::new(1, secs(86_400)).unwrap().burst(u32::MAX).unwrap(),
            Quota::new(1, secs(86_400)).unwrap().margin(Duration::MAX),
        ] {
            book(&mut Known::new(quota), start, 10);
        }
    }
}
