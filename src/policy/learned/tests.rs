use super::*;
use crate::signal::Signal;

const ACCEPTED: Signal = Signal::new(Verdict::Accepted);
const THROTTLED: Signal = Signal::new(Verdict::Throttled);

/// Time in seconds since a start that is the same in one test.
struct Time(Instant);

impl Time {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn at(&self, seconds: f64) -> Instant {
        self.0 + secs(seconds)
    }
}

fn seeded(limit: u32, seconds: u64) -> Learned {
    let quota = Quota::new(limit, Duration::from_secs(seconds)).unwrap();
    Learned::new().seed(quota.margin(Duration::ZERO))
}

/// A call leaves when it may, and is answered after a tenth of a second. Returns when it left.
fn call(learned: &mut Learned, time: &Time, from: f64, signal: &Signal) -> (f64, Option<Closing>) {
    let departed = learned.departure(time.at(from), Cost::one()).at.max(time.at(from));
    learned.depart(departed, Cost::one());
    let closing = learned.answered(&Answer::new(signal, departed, departed + secs(0.1)));
    (since(departed, time.0), closing)
}

#[test]
fn a_seed_is_the_pace_from_the_first_call_on() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let times: Vec<f64> = (0..5).map(|_| call(&mut learned, &time, 0.0, &ACCEPTED).0).collect();
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((0.095..=0.1001).contains(&gap), "{times:?}");
    }
}

#[test]
fn a_timer_that_is_late_does_not_slow_the_pace_down() {
    let (mut learned, time) = (seeded(1000, 1), Time::new());
    let mut now = 0.0;
    let mut calls = 0;
    while now < 10.0 {
        // Nothing wakes more often than every two milliseconds.
        while learned.departure(time.at(0.0), Cost::one()).at <= time.at(now) {
            learned.depart(time.at(now), Cost::one());
            calls += 1;
        }
        now += 0.002;
    }
    assert!((9_900..=10_010).contains(&calls), "{calls}");
}

#[test]
fn a_declared_burst_leaves_at_once_but_not_after_a_refusal() {
    let quota = Quota::new(1, Duration::from_secs(1)).unwrap().burst(5).unwrap();
    let (mut learned, time) = (Learned::new().seed(quota), Time::new());
    let at_once = |learned: &mut Learned, now: f64| {
        let mut calls = 0;
        while learned.departure(time.at(now), Cost::one()).at <= time.at(now) {
            learned.depart(time.at(now), Cost::one());
            calls += 1;
        }
        calls
    };
    assert_eq!(at_once(&mut learned, 0.0), 5);
    assert_eq!(at_once(&mut learned, 2.5), 2);
    assert_eq!(at_once(&mut learned, 60.0), 5);
    let told = THROTTLED.retry_after(Duration::from_secs(20));
    learned.answered(&Answer::new(&told, time.at(60.0), time.at(61.0)));
    assert_eq!(at_once(&mut learned, 80.9), 0);
    assert_eq!(at_once(&mut learned, 81.0), 1);
}

#[test]
fn while_nothing_is_known_a_few_leave_at_once_and_more_with_each_that_is_granted() {
    let (mut learned, time) = (Learned::new(), Time::new());
    for n in 0..4 {
        assert_eq!(learned.departure(time.at(0.0), Cost::one()), Departure::now(time.at(0.0)), "{n}");
        learned.depart(time.at(0.0), Cost::one());
    }
    let fifth = since(learned.departure(time.at(0.0), Cost::one()).at, time.0);
    assert!((0.245..=0.25).contains(&fifth), "without an answer, four a second: {fifth}");
    assert_eq!(learned.rate(), None);
    for _ in 0..200 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    assert!(learned.rate > 30.0, "{}", learned.rate);
}

#[test]
fn the_first_rate_is_what_was_granted_from_opening_to_opening() {
    let (mut learned, time) = (Learned::new(), Time::new());
    for n in 0..15 {
        call(&mut learned, &time, f64::from(n) / 5.0, &ACCEPTED);
    }
    let told = THROTTLED.retry_after(Duration::from_secs(57));
    let (_, closing) = call(&mut learned, &time, 3.0, &told);
    assert_eq!(closing, Some(Closing::told(Duration::from_secs(57))));
    call(&mut learned, &time, 60.1, &ACCEPTED);
    let rate = learned.rate().unwrap();
    // A little more: in the first seconds more might have been asked for.
    assert!((0.24..0.27).contains(&rate), "15 in a minute: {rate}");
}

#[test]
fn it_has_room_where_its_pace_is_no_matter_and_nothing_is_being_found_out() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let after = now + second;
    let seeded = |rate| {
        let mut policy = Learned::new().seed(Quota::new(rate, second).unwrap());
        policy.depart(now, Cost::one());
        policy
    };
    let accept = |policy: &mut Learned| {
        policy.answered(&Answer::new(&Signal::new(Verdict::Accepted), now, now));
    };
    let mut policy = seeded(10_000);
    assert!(!policy.has_room_for(33, after), "no answer has come yet");
    accept(&mut policy);
    assert!(policy.has_room_for(33, after));
    assert!(!policy.has_room_for(41, after), "more than what timers are late");
    (0..10).for_each(|_| policy.depart(after, Cost::one()));
    assert!(!policy.has_room_for(33, after), "they would leave ahead of their turns");
    assert!(policy.has_room_for(33, after + Duration::from_millis(1)));
    policy.answered(&Answer::new(&Signal::new(Verdict::Throttled), after, after));
    assert!(!policy.has_room_for(1, after + second), "the gate was closed, and nothing was granted since");

    let mut policy = seeded(5_000);
    accept(&mut policy);
    assert!(!policy.has_room_for(33, after), "so slow that it matters");
    assert!(policy.has_room_for(1, after));
}

/// What it hears together says as much as if it heard of each.
#[test]
fn calls_that_passed_are_as_good_as_heard_one_by_one() {
    let micros = Duration::from_micros;
    // Calls at once, the time from one to the next, and whether that is faster than the rate: it grows then.
    for (calls, apart, full) in
        [(33, 30, false), (33, 12, false), (7, 100, false), (33, 9, true), (1, 500, false)]
    {
        let start = Instant::now();
        let seed = Quota::new(100_000, Duration::from_secs(1)).unwrap();
        let mut told = Learned::new().seed(seed);
        told.depart(start, Cost::one());
        told.answered(&Answer::new(&Signal::new(Verdict::Accepted), start, start + micros(200)));
        let (mut heard, told_rate) = (told.clone(), told.rate);
        let mut now = start + micros(1000);
        for _ in 0..100 {
            let first = now;
            for _ in 0..calls {
                heard.depart(now, Cost::one());
                heard.answered(&Answer::new(&Signal::new(Verdict::Accepted), now, now + micros(200)));
                now += micros(apart);
            }
            let last = now - micros(apart);
            let (departed, at) = (last, last + micros(200));
            told.passed(&Passed { first, last, departed, ..Passed::new(calls, calls, at) });
        }
        let what = format!("{calls} calls, {apart} us apart: {told:?}\n{heard:?}");
        assert_eq!((told.granted, told.flight.now()), (heard.granted, 0), "{what}");
        let next = |policy: &Learned| policy.departure(start, Cost::one()).at;
        let off = next(&told).max(next(&heard)) - next(&told).min(next(&heard));
        assert!(off <= micros(10), "{off:?}: {what}");
        let grown = [told.rate, heard.rate].map(|rate| rate / told_rate - 1.0);
        if full {
            assert!(grown[0] > 0.2 && (grown[0] / grown[1] - 1.0).abs() < 0.05, "{grown:?}: {what}");
        } else {
            assert_eq!((grown, told.paced, heard.paced), ([0.0; 2], false, false), "{what}");
        }
        assert!((told.round_trip - heard.round_trip).abs() < 1e-9, "{what}");
        assert!((told.flight.mean() - heard.flight.mean()).abs() < 1e-9, "{what}");
    }
}

#[test]
fn calls_that_passed_while_something_is_found_out_are_told_in_turn() {
    let now = Instant::now();
    let (mut told, mut heard) = (Learned::new(), Learned::new());
    told.passed(&Passed::new(3, 2, now));
    for answered in [true, true, false] {
        heard.depart(now, Cost::one());
        if answered {
            heard.answered(&Answer::new(&Signal::new(Verdict::Accepted), now, now));
        }
    }
    assert_eq!(format!("{told:?}"), format!("{heard:?}"));
}

#[test]
fn a_flight_of_refusals_is_one_event() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let departures: Vec<Instant> = (0..8).map(|n| time.at(f64::from(n) / 10.0)).collect();
    for at in &departures {
        learned.depart(*at, Cost::one());
    }
    let answer = |at: &Instant| Answer::new(&THROTTLED, *at, *at + secs(1.0));
    assert!(learned.answered(&answer(&departures[0])).is_some());
    for at in &departures[1..] {
        assert_eq!(learned.answered(&answer(at).late()), None);
    }
    assert_eq!(learned.flight.now(), 0);
    let rate = learned.rate().unwrap();
    assert!((rate - 9.8).abs() < 1e-6, "not eight times a decrease: {rate}");
}

#[test]
fn a_first_wait_is_tried_shorter_where_it_was_enough_and_only_there() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let mut calls = |signals: &[&Signal]| {
        for signal in signals {
            call(&mut learned, &time, 0.0, signal);
        }
        learned.first_wait
    };
    let too_short = calls(&[&ACCEPTED, &ACCEPTED, &THROTTLED, &THROTTLED]);
    assert!(too_short >= 0.1, "{too_short}");
    assert_eq!(calls(&[&ACCEPTED, &ACCEPTED]), too_short, "it had not been enough");
    let enough = calls(&[&THROTTLED, &ACCEPTED]);
    assert!((enough - 0.85 * too_short).abs() < 1e-9, "{enough} after {too_short}");
}

#[test]
fn a_late_refusal_closes_only_if_it_says_until_when() {
    for verdict in [Verdict::Throttled, Verdict::Overloaded, Verdict::Exhausted] {
        let (mut learned, time) = (seeded(10, 1), Time::new());
        for departed in [0.0, 0.1, 0.2] {
            learned.depart(time.at(departed), Cost::one());
        }
        learned.answered(&Answer::new(&THROTTLED, time.at(0.0), time.at(1.0)));
        let mut late = |departed, signal: Signal| {
            learned.answered(&Answer::new(&signal, time.at(departed), time.at(1.1)).late())
        };
        let nine = Duration::from_secs(9);
        assert_eq!(late(0.1, Signal::new(verdict)), None, "{verdict:?}");
        assert_eq!(late(0.2, Signal::new(verdict).retry_after(nine)), Some(Closing::told(nine)));
    }
}

#[test]
fn without_a_hint_the_waits_grow_and_one_call_at_a_time_finds_out() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let mut from = 0.0;
    let mut waits = Vec::new();
    for _ in 0..30 {
        let (departed, closing) = call(&mut learned, &time, from, &THROTTLED);
        waits.push(closing.unwrap().wait.as_secs_f64());
        from = departed + 0.1 + waits.last().unwrap();
    }
    assert!(waits.is_sorted() && waits[0] < 0.2 && waits[29] == MAX_WAIT, "{waits:?}");
    learned.depart(time.at(from), Cost::one());
    let second = since(learned.departure(time.at(from), Cost::one()).at, time.at(from));
    assert!((1.0..=MAX_WAIT).contains(&second), "the second one waits for the first one's answer: {second}");
    learned.answered(&Answer::new(&ACCEPTED, time.at(from), time.at(from + 0.1)));
    assert_eq!(learned.probe, Probe::No);
}

#[test]
fn calls_that_did_not_wait_for_their_turn_raise_nothing() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    for n in 0..10_000 {
        call(&mut learned, &time, f64::from(n), &ACCEPTED);
    }
    assert_eq!(learned.rate(), Some(10.0), "one call a second says nothing about ten");
}

#[test]
fn a_raised_quota_is_found() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    for _ in 0..600 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    let rate = learned.rate().unwrap();
    assert!(rate > 20.0, "{rate}");
    // What was granted on the way says little: a refusal leaves half of it.
    call(&mut learned, &time, 0.0, &THROTTLED);
    call(&mut learned, &time, 0.0, &ACCEPTED);
    let left = learned.rate().unwrap() / rate;
    assert!((0.45..0.55).contains(&left), "{left}");
}

#[test]
fn without_a_budget_the_rate_never_grows() {
    let mut learned = seeded(10, 1).budget(0.0).unwrap();
    let time = Time::new();
    for _ in 0..10_000 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    assert_eq!(learned.rate(), Some(10.0));
}

#[test]
fn not_even_when_it_has_fallen_far() {
    let mut learned = seeded(100, 1).budget(0.0).unwrap();
    let time = Time::new();
    for _ in 0..20 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    call(&mut learned, &time, 0.0, &THROTTLED.retry_after(Duration::from_secs(20)));
    call(&mut learned, &time, 0.0, &ACCEPTED);
    let fallen = learned.rate().unwrap();
    assert!(fallen < 2.0, "20 in 20 s: {fallen}");
    for _ in 0..1000 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    assert_eq!(learned.rate(), Some(fallen));
}

#[test]
fn before_the_first_refusal_an_eighth_of_what_was_granted_is_in_flight() {
    let (mut learned, time) = (Learned::new(), Time::new());
    // As many as there would be with callers enough.
    for _ in 0..1000 {
        learned.flight.depart(time.at(0.0));
        if learned.flight.now() > 100 {
            learned.flight.left();
        }
    }
    for (granted, in_flight) in [(24, 4.0), (80, 10.0), (800, 100.0), (80_000, 400.0)] {
        (learned.granted, learned.paced) = (granted, true);
        learned.round_trip = 0.5;
        learned.accepted(time.at(0.0), time.at(0.5), 1);
        assert!((learned.rate * 0.5 / in_flight - 1.0).abs() < 0.05, "{granted}: {}", learned.rate);
    }
}

#[test]
fn the_one_that_finds_out_has_three_round_trips_for_it() {
    let pace = |round_trip| {
        let mut learned = seeded(100, 1);
        (learned.probe, learned.round_trip) = (Probe::Out(Instant::now()), round_trip);
        1.0 / learned.pace()
    };
    assert_eq!(pace(0.1), 1.0, "or a second");
    assert_eq!(pace(2.0), 6.0);
    assert_eq!(pace(1000.0), MAX_WAIT, "or ten minutes");
}

#[test]
fn a_call_that_comes_at_its_turn_does_not_wait() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.answered(&Answer::new(&THROTTLED.retry_after(secs(1.0)), time.at(0.0), time.at(1.0)));
    assert_eq!(learned.departure(time.at(2.0), Cost::one()), Departure::now(time.at(2.0)));
    assert_eq!(learned.departure(time.at(1.9), Cost::one()).reason, WaitReason::Preflight);
}

#[test]
fn half_a_cycle_is_long_enough_to_measure_by() {
    let half = |rate, memory, pause| {
        let mut learned = Learned::new();
        (learned.rate, learned.memory) = (rate, memory);
        let (granted, refused, outage, run) = (0, 1, pause, 0.0);
        let measured =
            cycle::Measured { rate, granted, refused, outage, run, pause, reopened: Instant::now() };
        learned.climb.reopened(&measured, rate, 0.01);
        learned.half()
    };
    assert_eq!(half(10.0, 0.0, 0.0), 3.2, "32 calls");
    assert_eq!(half(10.0, 9.0, 0.0), 9.0, "in which a rate that is too high is refused");
    assert_eq!(half(10.0, 9.0, 1.0), 20.0, "of which the gate was closed for a twentieth");
    assert_eq!(half(10.0, 9.0, 5.0), 27.0, "and no more than three times as long");
}

#[test]
fn other_failures_do_not_move_the_rate() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let before = learned.rate();
    let overloaded = Signal::new(Verdict::Overloaded);
    let told = overloaded.retry_after(Duration::from_secs(20));
    let exhausted = Signal::new(Verdict::Exhausted);
    let ms = |ms| Some(Closing::adaptive(Duration::from_millis(ms)));
    assert_eq!(call(&mut learned, &time, 1.0, &Signal::new(Verdict::Failed)).1, None);
    assert_eq!(call(&mut learned, &time, 2.0, &overloaded).1, ms(500));
    assert_eq!(call(&mut learned, &time, 3.0, &overloaded).1, ms(1500));
    assert_eq!(call(&mut learned, &time, 9.0, &told).1, Some(Closing::told(Duration::from_secs(20))));
    assert_eq!(call(&mut learned, &time, 30.0, &exhausted).1, ms(60_000));
    assert_eq!(learned.rate(), before);
}

#[test]
fn a_limit_on_calls_in_flight_is_learned_where_the_refusal_says_so() {
    let (mut learned, time) = (seeded(100, 1), Time::new());
    let mut concurrency = THROTTLED;
    concurrency.hints.concurrency = true;
    for n in 0..11 {
        learned.depart(time.at(f64::from(n) / 100.0), Cost::one());
    }
    learned.round_trip = 0.25;
    learned.answered(&Answer::new(&concurrency, time.at(0.1), time.at(0.2)));
    assert_eq!(learned.max_in_flight(), Some(10));
    assert_eq!(learned.rate(), Some(80.0), "twice what ten can do, so that it is out of their way");
}

#[test]
fn a_limit_on_calls_in_flight_is_learned_from_refusals_that_hit_the_same_number() {
    let (mut flight, time) = (Flight::default(), Time::new());
    let mut now = 0.0;
    for round in 0..12 {
        // Five to seven in flight, and then nine.
        for n in 0..60 {
            now += 0.01;
            flight.depart(time.at(now));
            while flight.now() > 5 + n % 3 {
                flight.left();
            }
        }
        for _ in 0..3 {
            now += 0.01;
            flight.depart(time.at(now));
        }
        let refused = flight.refused(time.at(now), false);
        assert_eq!(refused, round >= 4, "round {round}");
        if refused {
            break;
        }
        (0..3).for_each(|_| flight.left());
    }
    assert!((7..=9).contains(&flight.cap().unwrap()), "{flight:?}");
    // It is refused all the same, with as many in flight as was all right for long: no, it is not that.
    for _ in 0..5 {
        for _ in 0..150 {
            now += 0.01;
            flight.depart(time.at(now));
            while flight.now() >= flight.cap().unwrap_or(8) {
                flight.left();
            }
            flight.accepted(0.001);
        }
        flight.refused(time.at(now), false);
    }
    assert_eq!(flight.cap(), None);
}

#[test]
fn what_goes_away_in_flight_is_no_longer_there() {
    let (mut learned, time) = (Learned::new(), Time::new());
    for _ in 0..3 {
        learned.depart(time.at(0.0), Cost::one());
    }
    learned.abandoned(time.at(0.0));
    learned.recall(time.at(0.0), Cost::one());
    assert_eq!(learned.flight.now(), 1);
}

#[test]
fn a_recalled_call_gives_its_turn_back() {
    let (mut learned, time) = (seeded(1, 10), Time::new());
    learned.depart(time.at(0.0), Cost::one());
    assert!(learned.departure(time.at(0.0), Cost::one()).at > time.at(9.9));
    learned.recall(time.at(0.0), Cost::one());
    assert_eq!(learned.departure(time.at(0.0), Cost::one()), Departure::now(time.at(0.0)));
}

#[test]
fn a_call_that_costs_several_requests_takes_several_turns() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.depart(time.at(0.0), Cost::one().requests(5));
    let next = since(learned.departure(time.at(0.0), Cost::one()).at, time.0);
    assert!((0.49..0.501).contains(&next), "{next}");
}

#[test]
fn reset_forgets_but_not_the_calls_in_flight() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.depart(time.at(0.0), Cost::one());
    call(&mut learned, &time, 0.5, &THROTTLED);
    learned.reset();
    assert_eq!((learned.flight.now(), learned.refusals), (1, 0));
    assert_eq!(learned.rate(), Some(10.0));
}

#[test]
fn the_budget_has_a_range() {
    for share in [-0.1, 0.51, f64::NAN, f64::INFINITY] {
        assert_eq!(Learned::new().budget(share).unwrap_err().field(), "budget");
    }
}

#[test]
fn its_state_is_a_few_hundred_bytes() {
    assert!(size_of::<Learned>() <= 800, "{}", size_of::<Learned>());
}
