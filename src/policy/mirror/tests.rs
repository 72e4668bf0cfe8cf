use super::*;
use crate::{
    policy::{Known, Ladder, Learned, Quota},
    signal::{Reading, Signal},
};
use std::time::Duration;

/// A policy that never waits, so that the mirror alone is seen.
fn unpaced() -> Box<dyn Policy> {
    Box::new(Known::new(Quota::new(1_000_000, Duration::from_millis(1)).unwrap()))
}

/// Times are seconds from the start on.
struct World {
    mirrored: Mirrored,
    start: Instant,
}

impl World {
    fn new(policy: Box<dyn Policy>) -> Self {
        Self { mirrored: Mirrored::new(policy), start: Instant::now() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn since_start(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    fn depart(&mut self, at: f64) {
        self.mirrored.depart(self.at(at), Cost::one());
    }

    /// The answer to the call that left at `departed`.
    fn answer(&mut self, departed: f64, at: f64, signal: &Signal) -> Option<Closing> {
        self.mirrored.answered(&Answer::new(signal, self.at(departed), self.at(at)))
    }

    /// A call leaves at that time, and its answer comes a tenth of a second later and tells this.
    fn call(&mut self, at: f64, signal: &Signal) -> Option<Closing> {
        self.depart(at);
        self.answer(at, at + 0.1, signal)
    }

    /// When a call leaves that comes then.
    fn departure(&self, at: f64) -> f64 {
        self.since_start(self.mirrored.departure(self.at(at), Cost::one()).at)
    }

    /// When so many calls leave that all came then, on a copy, as waiting calls are booked.
    fn book(&self, at: f64, calls: usize) -> Vec<f64> {
        let (mut tail, mut last) = (self.mirrored.clone(), self.at(at));
        let mut book = || {
            last = tail.departure(self.at(at), Cost::one()).at.max(last);
            tail.depart(last, Cost::one());
            self.since_start(last)
        };
        (0..calls).map(|_| book()).collect()
    }

    fn counter(&self) -> &Counter {
        &self.mirrored.told.as_ref().unwrap().counters[0]
    }
}

fn reading(unit: Unit, limit: u64, remaining: u64, reset: Option<f64>) -> Reading {
    let mut reading = Reading::new(unit);
    reading.limit = Some(limit);
    reading.remaining = Some(remaining);
    reading.reset = reset.map(Duration::from_secs_f64);
    reading
}

fn told(limit: u64, remaining: u64, reset: f64) -> Signal {
    Signal::new(Verdict::Accepted).reading(reading(Unit::Requests, limit, remaining, Some(reset)))
}

fn refused(limit: u64, remaining: u64, reset: f64) -> Signal {
    Signal { verdict: Verdict::Throttled, ..told(limit, remaining, reset) }
}

/// Told with the window of a policy, as the IETF's fields do.
fn with_window(limit: u64, remaining: u64, reset: f64, window: u64) -> Signal {
    let mut reading = reading(Unit::Requests, limit, remaining, Some(reset));
    reading.window = Some(Duration::from_secs(window));
    Signal::new(Verdict::Accepted).reading(reading)
}

#[test]
fn without_readings_the_policy_alone_decides_and_nothing_is_kept() {
    let mut world = World::new(unpaced());
    world.call(0.0, &Signal::new(Verdict::Accepted));
    // A limit alone is not a counter.
    let mut limit = Reading::new(Unit::Requests);
    limit.limit = Some(10);
    world.call(0.1, &Signal::new(Verdict::Accepted).reading(limit));
    assert_eq!(world.departure(0.2), 0.2);
    assert!(world.mirrored.told.is_none());
}

#[test]
fn a_success_that_used_up_the_last_one_closes_until_the_reset() {
    let mut world = World::new(unpaced());
    let closing = world.call(0.0, &told(10, 0, 30.0));
    assert_eq!(closing, Some(Closing::told(Duration::from_secs(30))));
    assert_eq!(world.departure(1.0), 30.1);
    assert_eq!(world.departure(40.0), 40.0, "and no longer");
}

#[test]
fn of_a_window_that_slides_the_last_one_may_leave_and_no_other() {
    let next = |limit, remaining| {
        let mut world = World::new(unpaced());
        world.call(0.0, &with_window(limit, remaining, 30.0, 60));
        world.departure(2.0)
    };
    assert_eq!(next(60, 1), 2.0);
    assert_eq!(next(60, 0), 30.1);
    assert_eq!(next(0, 0), 30.1);
}

#[test]
fn at_the_reset_one_call_finds_out() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(10, 0, 30.0));
    let times = world.book(1.0, 3);
    assert_eq!(times[0], 30.1);
    assert!(times[1] > 31.0 && times[2] > times[1] + 1.0, "{times:?}");
}

#[test]
fn a_reset_while_something_is_left_closes_nothing() {
    let mut world = World::new(unpaced());
    assert_eq!(world.call(0.0, &told(600, 595, 3000.0)), None);
    assert_eq!(world.departure(1.0), 1.0);
}

#[test]
fn a_reset_at_once_closes_for_a_second() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(10, 0, 0.0));
    assert_eq!(world.departure(0.2), 1.1);
}

#[test]
fn a_counter_at_zero_for_a_second_or_less_closes_nothing() {
    let closing = |reset| World::new(unpaced()).call(0.0, &told(10, 0, reset));
    assert_eq!(closing(1.0), None);
    assert_eq!(closing(1.5), Some(Closing::told(Duration::from_millis(1500))));
}

#[test]
fn of_what_the_policy_and_the_counters_say_the_longer_closing_counts() {
    let closing = |reset| World::new(Box::new(Ladder::new())).call(0.0, &refused(10, 0, reset));
    assert_eq!(closing(1.2), Some(Closing::adaptive(Duration::from_millis(1500))));
    assert_eq!(closing(30.0), Some(Closing::told(Duration::from_secs(30))));
}

#[test]
fn calls_that_left_an_eighth_of_an_answers_time_apart_are_told_apart() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(100, 99, 60.0));
    let in_flight = |world: &World, departed| {
        let flight = &world.mirrored.told.as_ref().unwrap().flight;
        flight.since(world.at(departed), Unit::Requests)
    };
    // An answer takes a tenth of a second.
    for at in [1.0, 1.05, 1.10, 1.15] {
        world.depart(at);
    }
    assert_eq!(in_flight(&world, 1.15), 2.0, "and one that may have been overtaken");
    for at in [2.0, 2.01, 2.012] {
        world.depart(at);
    }
    assert_eq!(in_flight(&world, 2.012), 4.0, "together, and the one before");
}

#[test]
fn nothing_is_held_back_for_longer_than_ten_minutes() {
    let mut world = World::new(unpaced());
    let closing = world.call(0.0, &told(1000, 0, 86_400.0));
    assert_eq!(closing, Some(Closing::told(Duration::from_secs(600))));
    assert_eq!(world.departure(1.0), 600.1);
}

#[test]
fn calls_in_flight_are_subtracted() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(7, 6, 30.0));
    for _ in 0..5 {
        world.depart(1.0);
    }
    world.answer(1.0, 1.1, &told(7, 5, 29.0));
    // One may leave, four are on their way.
    let times = world.book(1.2, 2);
    assert!(times[0] < 30.0 && times[1] > 30.0, "{times:?}");
}

#[test]
fn of_calls_that_left_together_the_lowest_reading_counts() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(51, 50, 31.0));
    for _ in 0..32 {
        world.depart(1.0);
    }
    // Their answers come in any order.
    for left in [49, 20, 47, 19, 48] {
        world.answer(1.0, 1.3, &told(51, left, 30.0));
    }
    let left = world.book(1.4, 40).iter().filter(|time| **time < 31.0).count();
    assert!(left <= 20, "{left} leave");
    for left in (18..50).filter(|left| ![19, 20, 47, 48, 49].contains(left)) {
        world.answer(1.0, 1.4, &told(51, left, 30.0));
    }
    let left = world.book(1.5, 40).iter().filter(|time| **time < 31.0).count();
    assert_eq!(left, 18, "all are answered");
}

#[test]
fn how_long_answers_take_does_not_matter() {
    let mut world = World::new(unpaced());
    // A call each second, the answers come 20 seconds later: those in flight have long been counted.
    for second in 0..60 {
        world.depart(f64::from(second));
        if second >= 20 {
            let left = 100 - second as u64;
            world.answer(f64::from(second - 20), f64::from(second), &told(100, left, 1000.0));
        }
    }
    // 41 were left when the call of second 39 came; 20 have left since.
    let times = world.book(60.0, 40);
    let left = times.iter().filter(|time| **time < 1000.0).count();
    assert!((16..=21).contains(&left), "{left}");
}

#[test]
fn an_older_answer_that_comes_late_changes_nothing() {
    let mut world = World::new(unpaced());
    world.depart(0.0);
    world.call(1.0, &told(10, 0, 30.0));
    world.answer(0.0, 1.2, &told(10, 9, 31.0));
    assert_eq!(world.departure(1.3), 31.1);
}

/// Sixty in each minute, told in whole seconds; the first minute ends at second 60.
fn window(calls: &[(f64, u64)]) -> World {
    let mut world = World::new(unpaced());
    for (at, left) in calls {
        let reset = 60.0 - (at % 60.0).floor();
        world.call(*at, &told(60, *left, reset));
    }
    world
}

#[test]
fn a_window_that_was_seen_to_begin_anew_does_so_again() {
    let mut world = window(&[(0.0, 59), (59.0, 0), (61.0, 59)]);
    world.call(110.0, &told(60, 0, 10.0));
    let times = world.book(110.2, 5);
    assert!((120.0..121.2).contains(&times[0]), "{times:?}");
    assert!(times[4] < 125.0, "not one alone: {times:?}");
}

#[test]
fn waiting_calls_are_booked_over_several_windows() {
    let mut world = window(&[(0.0, 59), (59.0, 0), (61.0, 59)]);
    world.call(110.0, &told(60, 0, 10.0));
    let times = world.book(110.2, 130);
    for window in [120.0, 180.0] {
        let inside = times.iter().filter(|time| (window..window + 60.0).contains(*time)).count();
        assert!((55..=60).contains(&inside), "{inside} in the window from {window}");
    }
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "none together: {times:?}");
}

#[test]
fn what_is_left_is_spread_over_the_rest_of_a_window() {
    let world = window(&[(0.0, 59), (59.0, 0), (61.0, 59), (62.0, 58), (63.0, 57), (64.0, 56), (65.0, 55)]);
    let times = world.book(65.2, 50);
    let gap = (times[49] - times[20]) / 29.0;
    assert!((0.85..1.1).contains(&gap), "{gap}");
}

#[test]
fn a_window_that_does_not_begin_anew_is_refuted() {
    let mut world = window(&[(0.0, 59), (59.0, 0), (61.0, 59)]);
    world.call(110.0, &told(60, 0, 10.0));
    world.depart(121.0);
    world.answer(121.0, 121.1, &refused(60, 0, 30.0));
    let times = world.book(121.2, 3);
    assert!(times[0] > 150.0 && times[1] > times[0] + 1.0, "one call finds out: {times:?}");
}

#[test]
fn a_reset_that_was_told_too_early_is_expected_later_from_then_on() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(10, 0, 5.0));
    world.call(5.1, &refused(10, 0, 1.0));
    assert_eq!(world.departure(5.3), 6.2);
    world.call(6.3, &told(10, 0, 5.0));
    assert_eq!(world.departure(6.5), 11.9, "half a second later than told");
}

/// Ten a second, sixty in store, first used up and then as fast as it goes.
fn bucket(mut tell: impl FnMut(f64) -> Signal) -> World {
    let mut world = World::new(unpaced());
    let (mut level, mut last) = (60.0_f64, 0.0);
    for _ in 0..150 {
        let at = world.departure(last + 0.02).max(last + 0.02);
        level = (level + (at - last) * 10.0).min(60.0);
        last = at;
        let signal = if level >= 1.0 {
            level -= 1.0;
            tell(level)
        } else {
            Signal { verdict: Verdict::Throttled, ..tell(level) }
        };
        assert_eq!(signal.verdict, Verdict::Accepted, "at {at}");
        world.call(at, &signal);
    }
    world
}

#[test]
fn a_bucket_is_used_at_its_rate_however_it_is_told() {
    let styles: [fn(f64) -> Signal; 3] = [
        // The time until it is full, until there is one more, and no time at all.
        |level| told(60, level as u64, (60.0 - level) / 10.0),
        |level| told(60, level as u64, 1.0),
        |level| Signal::new(Verdict::Accepted).reading(reading(Unit::Requests, 60, level as u64, None)),
    ];
    for style in styles {
        let world = bucket(style);
        let now = world.since_start(world.counter().told());
        let times = world.book(now, 40);
        let rate = 30.0 / (times[39] - times[9]);
        assert!((8.0..11.0).contains(&rate), "{rate}");
    }
}

#[test]
fn the_window_of_a_policy_gives_the_mean_rate() {
    let mut world = World::new(Box::new(Learned::new()));
    world.call(0.0, &with_window(300, 299, 60.0, 60));
    world.call(0.3, &with_window(300, 298, 60.0, 60));
    let times = world.book(0.4, 2);
    assert!((0.2..0.21).contains(&(times[1] - times[0])), "five a second, less a hundredth: {times:?}");
    // That nothing is left just now closes nothing, if more is soon there.
    assert_eq!(world.call(0.6, &with_window(300, 0, 1.0, 60)), None);
    assert!(world.departure(0.7) < 1.0);
    world.call(0.9, &with_window(300, 0, 20.0, 60));
    assert_eq!(world.departure(1.1), 21.0);
}

#[test]
fn few_calls_for_a_day_do_not_wait_for_hours() {
    for signal in [told(100, 99, 80_000.0), with_window(100, 99, 80_000.0, 86_400)] {
        let mut world = World::new(unpaced());
        world.call(0.0, &signal);
        let times = world.book(1.0, 20);
        assert!(times[19] < 1200.0, "{times:?}");
    }
}

#[test]
fn after_idle_time_a_part_goes_at_once() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(5000, 4990, 3600.0));
    let times = world.book(600.0, 100);
    assert_eq!(times[99], 600.0);
}

#[test]
fn the_later_of_the_two_times_counts_under_a_policy_that_does_not_stand_back() {
    let mut world = World::new(Box::new(Ladder::new()));
    world.call(0.0, &told(300, 299, 60.0));
    world.call(0.3, &told(300, 298, 60.0));
    assert_eq!(world.departure(0.4), 1.4, "two calls in two seconds: a second's wait");
    world.call(1.4, &told(300, 0, 60.0));
    assert_eq!(world.departure(1.6), 61.5);
}

#[test]
fn refusals_without_a_reason_bring_the_policy_back() {
    /// It would let nothing go for an hour.
    #[derive(Clone, Debug)]
    struct Slow(bool);
    impl Policy for Slow {
        fn departure(&self, arrived: Instant, _: Cost) -> Departure {
            Departure::new(arrived + Duration::from_secs(3600), WaitReason::Preflight)
        }
        fn depart(&mut self, _: Instant, _: Cost) {}
        fn answered(&mut self, _: &Answer<'_>) -> Option<Closing> {
            None
        }
        fn trusts_readings(&self) -> bool {
            self.0
        }
        fn reset(&mut self) {}
    }
    let mut doubter = World::new(Box::new(Slow(false)));
    doubter.call(0.0, &told(300, 200, 60.0));
    assert_eq!(doubter.departure(1.0), 3601.0);
    let mut world = World::new(Box::new(Slow(true)));
    world.call(0.0, &told(300, 200, 60.0));
    assert_eq!(world.departure(1.0), 1.0);
    for second in 1..=3 {
        world.call(f64::from(second), &refused(300, 200, 60.0));
    }
    assert_eq!(world.departure(4.0), 3604.0, "something else is the reason");
    for second in 4..200 {
        world.call(f64::from(second), &told(300, 200, 60.0));
    }
    assert!(world.departure(200.0) < 300.0, "and it is trusted again");
}

#[test]
fn each_unit_is_a_counter_of_its_own() {
    let mut world = World::new(unpaced());
    let signal = Signal::new(Verdict::Accepted)
        .reading(reading(Unit::Requests, 100, 50, Some(60.0)))
        .reading(reading(Unit::Tokens, 1000, 300, Some(20.0)))
        .reading(reading(Unit::OutputTokens, 1000, 100, Some(40.0)));
    world.call(0.0, &signal);
    let departure = |cost| world.since_start(world.mirrored.departure(world.at(1.0), cost).at);
    assert_eq!(departure(Cost::one().input(200).output(100)), 1.0);
    assert_eq!(departure(Cost::one().input(300).output(1)), 20.1);
    assert_eq!(departure(Cost::one().output(101)), 40.1);
    assert_eq!(departure(Cost::one().requests(0)), 1.0);
}

#[test]
fn an_answer_that_tells_only_other_counters_took_nothing_from_this_one() {
    let tokens = |signal: Signal| signal.reading(reading(Unit::Tokens, 1000, 900, Some(60.0)));
    for (next, leaves) in
        [(tokens(Signal::new(Verdict::Accepted)), 3.0), (Signal::new(Verdict::Accepted), 60.1)]
    {
        let mut world = World::new(unpaced());
        world.call(0.0, &tokens(told(100, 2, 60.0)));
        world.call(1.0, &next);
        world.call(2.0, &next);
        assert_eq!(world.departure(3.0), leaves, "{next:?}");
    }
}

#[test]
fn where_nothing_is_left_of_the_tokens_a_call_of_unknown_cost_waits() {
    for unit in [Unit::Tokens, Unit::InputTokens, Unit::Other] {
        let mut world = World::new(unpaced());
        let signal = Signal::new(Verdict::Accepted).reading(reading(unit, 1000, 0, Some(20.0)));
        world.call(0.0, &signal);
        assert_eq!(world.departure(1.0), 20.1, "{unit:?}");
    }
}

#[test]
fn a_call_that_takes_more_than_the_limit_leaves_when_all_is_there() {
    let mut world = World::new(unpaced());
    let tokens = |left| Signal::new(Verdict::Accepted).reading(reading(Unit::Tokens, 1000, left, Some(20.0)));
    world.call(0.0, &tokens(900));
    let huge = Cost::one().input(5000);
    assert_eq!(world.mirrored.departure(world.at(1.0), huge).at, world.at(20.1));
    world.call(30.0, &tokens(1000));
    assert_eq!(world.mirrored.departure(world.at(31.0), huge).at, world.at(31.0));
}

#[test]
fn what_a_call_took_in_truth_is_settled() {
    let mut world = World::new(unpaced());
    let signal = Signal::new(Verdict::Accepted).reading(reading(Unit::Tokens, 1000, 600, Some(60.0)));
    world.call(0.0, &signal);
    // The next answer tells nothing.
    let booked = Cost::one().input(500);
    world.mirrored.depart(world.at(1.0), booked);
    let silent = Signal::new(Verdict::Accepted);
    world.mirrored.answered(&Answer::new(&silent, world.at(1.0), world.at(1.1)).cost(booked));
    let large = |world: &World| world.mirrored.departure(world.at(50.0), Cost::one().input(400)).at;
    assert_eq!(large(&world), world.at(60.1));
    world.mirrored.settle(world.at(1.0), booked, Cost::one().input(100));
    assert_eq!(large(&world), world.at(50.0));
}

#[test]
fn calls_that_were_recalled_or_given_up() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(100, 2, 30.0));
    world.depart(0.2);
    world.depart(0.2);
    assert!(world.departure(0.3) > 30.0);
    world.mirrored.recall(world.at(0.2), Cost::one());
    assert_eq!(world.departure(10.0), 10.0, "it did not leave");
    world.depart(10.0);
    world.mirrored.abandoned(world.at(10.0), Cost::one());
    assert!(world.departure(11.0) > 30.0, "it may have been counted");
}

#[test]
fn a_refused_call_takes_nothing() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(100, 1, 30.0));
    world.depart(0.2);
    world.answer(0.2, 0.3, &Signal::new(Verdict::Throttled));
    assert_eq!(world.departure(29.0), 29.0);
}

#[test]
fn a_counter_that_moves_faster_than_answers_come_is_left_to_the_policy() {
    let mut world = World::new(unpaced());
    world.depart(0.0);
    assert_eq!(world.answer(0.0, 1.0, &told(50, 0, 0.8)), None);
    assert_eq!(world.departure(1.0), 1.0);
}

#[test]
fn a_counter_of_calls_at_a_time_is_left_to_the_policy() {
    let mut world = World::new(unpaced());
    // Ten at a time: what is missing is what is in flight.
    let left = |left| Signal::new(Verdict::Accepted).reading(reading(Unit::Requests, 10, left, None));
    world.call(0.0, &left(9));
    for _ in 0..10 {
        world.depart(1.0);
    }
    for second in 1..60 {
        world.answer(f64::from((second - 9).max(1)), f64::from(second) + 0.5, &left(0));
        world.depart(f64::from(second + 1));
    }
    assert_eq!(world.departure(60.0), 60.0);
    assert!(!world.mirrored.told.as_ref().unwrap().is_sure());
}

#[test]
fn a_counter_that_others_use_up_is_not_one_of_calls_at_a_time() {
    let mut world = World::new(unpaced());
    let left = |left| Signal::new(Verdict::Accepted).reading(reading(Unit::Requests, 10, left, None));
    for second in 0..40 {
        world.call(f64::from(second), &left(9));
    }
    assert!(!world.counter().is_usable(0.1), "what was missing was in flight");
    for second in 40..42 {
        world.call(f64::from(second), &left(2));
    }
    assert!(world.counter().is_usable(0.1), "it was not, twice");
}

#[test]
fn counters_that_the_server_stops_telling_are_forgotten() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(10, 1, 30.0));
    world.call(500.0, &Signal::new(Verdict::Accepted));
    assert!(world.mirrored.told.is_some());
    world.call(700.0, &Signal::new(Verdict::Accepted));
    assert!(world.mirrored.told.is_none());
}

#[test]
fn no_more_than_eight_counters_are_kept() {
    let mut world = World::new(unpaced());
    for policy in 0..20 {
        let mut reading = reading(Unit::Requests, 10, 5, Some(30.0));
        reading.policy = policy;
        world.call(policy as f64, &Signal::new(Verdict::Accepted).reading(reading));
    }
    assert_eq!(world.mirrored.told.as_ref().unwrap().counters.len(), MAX_COUNTERS);
}

#[test]
fn reset_forgets_the_counters() {
    let mut world = World::new(unpaced());
    world.call(0.0, &told(10, 0, 30.0));
    world.mirrored.reset();
    assert_eq!(world.departure(1.0), 1.0);
}

fn any_reading(random: &mut fastrand::Rng) -> Reading {
    let units = [Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::Other];
    let mut reading = Reading::new(units[random.u64(..4) as usize]);
    let mut number = || match random.u64(..4) {
        0 => None,
        1 => Some(random.u64(..5)),
        2 => Some(random.u64(..100_000)),
        _ => Some(u64::MAX >> random.u64(..64)),
    };
    (reading.limit, reading.remaining) = (number(), number());
    let reset = number().map(Duration::from_millis);
    reading.window = number().map(Duration::from_secs);
    reading.reset = if random.u64(..50) == 0 { Some(Duration::MAX) } else { reset };
    reading.policy = random.u64(..10);
    reading
}

#[test]
fn whatever_is_told_nothing_stalls_and_memory_is_bounded() {
    const LONGEST: Duration = Duration::from_secs(600);
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = if seed % 2 == 0 { Box::new(Learned::new()) } else { unpaced() };
        let mut world = World::new(policy);
        let mut now = world.start;
        let mut in_flight: Vec<(Instant, Cost)> = Vec::new();
        for _ in 0..500 {
            now += Duration::from_millis(random.u64(..3000));
            let cost = Cost::one().input(random.u64(..1000) as u32).requests(random.u64(..3) as u32);
            let at = world.mirrored.departure(now, cost).at;
            let told = world.mirrored.told.as_ref().and_then(|told| told.departure(cost));
            // From when it was last heard of.
            assert!(told.is_none_or(|at| at <= now + LONGEST), "seed {seed}");
            now = now.max(at.min(now + LONGEST));
            world.mirrored.depart(now, cost);
            in_flight.push((now, cost));
            while in_flight.len() as u64 > random.u64(..20) {
                now += Duration::from_millis(random.u64(..500));
                let (departed, cost) = in_flight.swap_remove(random.u64(..in_flight.len() as u64) as usize);
                let verdicts = [Verdict::Throttled, Verdict::Accepted, Verdict::Accepted, Verdict::Failed];
                let mut signal = Signal::new(verdicts[random.u64(..4) as usize]);
                for _ in 0..random.u64(..4) {
                    signal = signal.reading(any_reading(&mut random));
                }
                match random.u64(..10) {
                    0 => world.mirrored.abandoned(departed, cost),
                    1 => world.mirrored.recall(departed, cost),
                    _ => {
                        let closing =
                            world.mirrored.answered(&Answer::new(&signal, departed, now).cost(cost));
                        assert!(seed % 2 == 0 || closing.is_none_or(|closing| closing.wait <= LONGEST));
                        world.mirrored.settle(departed, cost, Cost::one().input(random.u64(..5000) as u32));
                    }
                }
            }
        }
        assert!(world.mirrored.told.is_none_or(|told| told.counters.len() <= MAX_COUNTERS));
    }
}
