use super::*;
use crate::{
    policy::{Known, Ladder, Learned, Quota},
    signal::{Reading, Signal},
};
use std::time::Duration;

/// A policy that never waits, so that the mirror alone is seen.
fn mirrored() -> Mirrored {
    Mirrored::new(Box::new(Known::new(Quota::new(1_000_000, Duration::from_millis(1)).unwrap())))
}

struct World {
    mirrored: Mirrored,
    start: Instant,
}

impl World {
    fn new(mirrored: Mirrored) -> Self {
        Self { mirrored, start: Instant::now() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// A call leaves at that time, and its answer comes a tenth of a second later and tells this.
    fn call(&mut self, at: f64, signal: &Signal) {
        let departed = self.at(at);
        self.mirrored.depart(departed, Cost::one());
        self.mirrored.answered(&Answer::new(signal, departed, departed + Duration::from_millis(100)));
    }

    /// How many seconds from the start on a call leaves that comes then.
    fn departure(&self, at: f64) -> f64 {
        let departure = self.mirrored.departure(self.at(at), Cost::one());
        departure.at.saturating_duration_since(self.start).as_secs_f64()
    }
}

fn told(limit: u64, remaining: u64, reset: f64, window: Option<u64>) -> Signal {
    let mut reading = Reading::new(Unit::Requests);
    reading.limit = Some(limit);
    reading.remaining = Some(remaining);
    reading.reset = Some(Duration::from_secs_f64(reset));
    reading.window = window.map(Duration::from_secs);
    Signal::new(Verdict::Accepted).reading(reading)
}

#[test]
fn without_readings_the_policy_alone_decides() {
    let mut world = World::new(mirrored());
    world.call(0.0, &Signal::new(Verdict::Accepted));
    assert_eq!(world.departure(0.2), 0.2);
    assert!(world.mirrored.counters.is_empty());
}

#[test]
fn a_success_that_used_up_the_last_one_closes_until_the_reset() {
    let mut world = World::new(mirrored());
    world.call(0.0, &told(10, 0, 30.0, None));
    assert_eq!(world.departure(1.0), 30.1);
    assert_eq!(world.departure(40.0), 40.0, "and no longer");
}

#[test]
fn a_reset_while_something_is_left_closes_nothing() {
    let mut world = World::new(mirrored());
    world.call(0.0, &told(600, 595, 3000.0, None));
    assert_eq!(world.departure(1.0), 1.0);
}

#[test]
fn nothing_is_held_back_for_longer_than_ten_minutes() {
    let mut world = World::new(mirrored());
    world.call(0.0, &told(1000, 0, 86_400.0, None));
    assert!(world.departure(1.0) <= 602.0, "{}", world.departure(1.0));
}

#[test]
fn a_window_is_spent_evenly_and_begins_anew_at_its_end() {
    let mut world = World::new(mirrored());
    // The end stays at 60 s: after a few calls that is a window.
    for call in 0..8 {
        world.call(f64::from(call), &told(60, 59 - call as u64, 59.9 - f64::from(call), None));
    }
    let gap = world.departure(7.2) - 7.0;
    assert!((0.5..1.5).contains(&gap), "52 in 53 seconds: {gap}");
    for call in 8..60 {
        let at = world.departure(7.2);
        world.mirrored.depart(world.at(at), Cost::one());
        let signal = told(60, 59 - call, (60.0 - at - 0.1).max(0.0), None);
        world.mirrored.answered(&Answer::new(&signal, world.at(at), world.at(at + 0.1)));
    }
    let next = world.departure(59.0);
    assert!((59.0..61.5).contains(&next), "the next window: {next}");
}

#[test]
fn a_bucket_is_told_by_its_rate() {
    let mut world = World::new(mirrored());
    // Ten a second, sixty in store: what is missing over the time until all is there is always ten a second.
    let mut level = 60.0;
    let mut last = 0.0;
    for call in 0..80 {
        let at = f64::from(call) * 0.02;
        level = f64::min(level + (at - last) * 10.0, 60.0);
        last = at;
        if level < 1.0 {
            break;
        }
        level -= 1.0;
        world.call(at, &told(60, level as u64, (60.0 - level) / 10.0, None));
    }
    let waits: Vec<f64> = (0..5)
        .map(|_| {
            let at = world.departure(last);
            world.mirrored.depart(world.at(at), Cost::one());
            at
        })
        .collect();
    let gaps: Vec<f64> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (0.08..0.13).contains(gap)), "{gaps:?}");
}

#[test]
fn the_window_of_a_policy_gives_at_least_the_mean_rate() {
    let mut world = World::new(Mirrored::new(Box::new(Learned::new())));
    world.call(0.0, &told(300, 299, 1.0, Some(60)));
    world.call(0.3, &told(300, 298, 1.0, Some(60)));
    let first = world.departure(0.4);
    world.mirrored.depart(world.at(first), Cost::one());
    let gap = world.departure(0.4) - first;
    assert!((0.2..0.21).contains(&gap), "five a second, less a hundredth: {gap}");
}

#[test]
fn the_later_of_the_two_times_counts_under_a_policy_that_does_not_stand_back() {
    let mut world = World::new(Mirrored::new(Box::new(Ladder::new())));
    world.call(0.0, &told(300, 299, 1.0, Some(60)));
    world.call(0.3, &told(300, 298, 1.0, Some(60)));
    assert_eq!(world.departure(0.4), 1.4, "two calls in two seconds: a second's wait");
}

#[test]
fn tokens_are_a_counter_of_their_own() {
    let mut world = World::new(mirrored());
    let mut reading = Reading::new(Unit::Tokens);
    (reading.limit, reading.remaining) = (Some(1000), Some(0));
    reading.reset = Some(Duration::from_secs(20));
    world.call(0.0, &Signal::new(Verdict::Accepted).reading(reading));
    assert_eq!(world.departure(1.0), 1.0, "a call without tokens");
    let costly = world.mirrored.departure(world.at(1.0), Cost::one().input(100));
    assert_eq!(costly.at, world.at(20.1));
}

#[test]
fn a_counter_that_was_wrong_is_not_believed_for_a_while() {
    let mut world = World::new(Mirrored::new(Box::new(Learned::new())));
    world.call(0.0, &told(300, 299, 1.0, Some(60)));
    world.call(0.3, &told(300, 298, 1.0, Some(60)));
    let counter = |world: &World| world.mirrored.counters[0].clone();
    assert!(counter(&world).is_sure());
    let mut refused = told(300, 200, 1.0, Some(60));
    refused.verdict = Verdict::Throttled;
    world.call(0.5, &refused);
    assert!(!counter(&world).is_sure());
    for call in 0..60 {
        world.call(1.0 + f64::from(call), &told(300, 250, 1.0, Some(60)));
    }
    assert!(counter(&world).is_sure());
}

#[test]
fn calls_in_flight_count_until_they_are_answered() {
    let mut world = World::new(mirrored());
    for call in 0..5 {
        world.mirrored.depart(world.at(f64::from(call)), Cost::one());
    }
    assert_eq!(world.mirrored.in_flight.requests, 5);
    world.mirrored.recall(world.at(4.0), Cost::one());
    world.mirrored.abandoned(world.at(3.0), Cost::one());
    assert_eq!(world.mirrored.in_flight.requests, 3);
}

#[test]
fn reset_forgets_the_counters() {
    let mut world = World::new(mirrored());
    world.call(0.0, &told(10, 0, 30.0, None));
    world.mirrored.reset();
    assert_eq!(world.departure(1.0), 1.0);
}

const LONGEST: Duration = Duration::from_secs(600);

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn whatever_is_told_nothing_stalls_and_memory_is_bounded() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let policy: Box<dyn Policy> =
            if seed % 2 == 0 { Box::new(Learned::new()) } else { Box::new(Ladder::new()) };
        let mut mirrored = Mirrored::new(policy);
        let mut now = Instant::now();
        for _ in 0..300 {
            now += Duration::from_millis(random.below(3000));
            let cost = Cost::one().input(random.below(1000) as u32);
            let at = mirrored.departure(now, cost).at;
            let wait = at.saturating_duration_since(now);
            // What is refused again and again, `Learned` asks for seldom.
            assert!(seed % 2 == 0 || wait <= LONGEST, "seed {seed}: {wait:?}");
            now = now.max(at);
            mirrored.depart(now, cost);
            let mut signal = Signal::new(match random.below(4) {
                0 => Verdict::Throttled,
                _ => Verdict::Accepted,
            });
            for _ in 0..random.below(4) {
                let unit = [Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::Other];
                let mut reading = Reading::new(unit[random.below(4) as usize]);
                let number = |random: &mut Random| match random.below(4) {
                    0 => None,
                    1 => Some(random.below(5)),
                    2 => Some(random.below(100_000)),
                    _ => Some(u64::MAX >> random.below(64)),
                };
                reading.policy = random.below(10);
                reading.limit = number(&mut random);
                reading.remaining = number(&mut random);
                reading.reset = number(&mut random).map(|ms| Duration::from_millis(ms.min(1 << 40)));
                reading.window = number(&mut random).map(|seconds| Duration::from_secs(seconds.min(1 << 30)));
                signal = signal.reading(reading);
            }
            let departed = now;
            now += Duration::from_millis(random.below(2000));
            mirrored.answered(&Answer::new(&signal, departed, now).cost(cost));
        }
        assert!(mirrored.counters.len() <= MAX_COUNTERS);
    }
}
