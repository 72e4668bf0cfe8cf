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
        self.0 + duration(seconds)
    }
}

fn seeded(limit: u32, seconds: u64) -> Learned {
    Learned::new().seed(Quota::new(limit, Duration::from_secs(seconds)).unwrap())
}

/// A call leaves when it may, and is answered after a tenth of a second. Returns when it left.
fn call(learned: &mut Learned, time: &Time, from: f64, signal: &Signal) -> (f64, Option<Closing>) {
    let departed = learned.departure(time.at(from), Cost::one()).at.max(time.at(from));
    learned.depart(departed, Cost::one());
    let closing = learned.answered(&Answer::new(signal, departed, departed + duration(0.1)));
    (seconds_between(time.0, departed), closing)
}

#[test]
fn a_seed_is_the_pace_from_the_first_call_on() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let times: Vec<f64> = (0..5).map(|_| call(&mut learned, &time, 0.0, &ACCEPTED).0).collect();
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((0.1..0.104).contains(&gap), "3 % below the seed: {gap}");
    }
}

#[test]
fn while_nothing_is_known_few_calls_are_in_flight() {
    let (mut learned, time) = (Learned::new(), Time::new());
    assert_eq!(learned.max_in_flight(), Some(2));
    for n in 0..10 {
        call(&mut learned, &time, f64::from(n), &ACCEPTED);
    }
    assert_eq!(learned.max_in_flight(), Some(7));
    assert_eq!(learned.rate(), None);
    call(&mut learned, &time, 10.0, &THROTTLED);
    assert_eq!(learned.max_in_flight(), Some(1), "one at a time finds out when it opens");
}

#[test]
fn the_first_rate_is_what_was_accepted_from_opening_to_opening() {
    let (mut learned, time) = (Learned::new(), Time::new());
    for n in 0..15 {
        call(&mut learned, &time, f64::from(n) / 5.0, &ACCEPTED);
    }
    let told = THROTTLED.retry_after(Duration::from_secs(57));
    let (_, closing) = call(&mut learned, &time, 3.0, &told);
    assert_eq!(closing, Some(Closing::told(Duration::from_secs(57))));
    call(&mut learned, &time, 60.1, &ACCEPTED);
    let rate = learned.rate().unwrap();
    assert!((0.24..0.25).contains(&rate), "15 in a minute, less 3 %: {rate}");
}

#[test]
fn a_flight_of_refusals_is_one_event() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let departures: Vec<Instant> = (0..8).map(|n| time.at(f64::from(n) / 10.0)).collect();
    for at in &departures {
        learned.depart(*at, Cost::one());
    }
    let answers: Vec<_> = departures
        .iter()
        .map(|at| learned.answered(&Answer::new(&THROTTLED, *at, *at + Duration::from_secs(1))))
        .collect();
    assert!(answers[0].is_some());
    assert!(answers[1..].iter().all(Option::is_none), "{answers:?}");
    assert_eq!(learned.in_flight, 0);
    call(&mut learned, &time, 3.0, &ACCEPTED);
    let rate = learned.rate().unwrap();
    assert!(rate > 5.0, "not eight times a decrease: {rate}");
}

#[test]
fn a_late_refusal_closes_only_if_it_says_until_when() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.depart(time.at(0.0), Cost::one());
    learned.depart(time.at(0.1), Cost::one());
    learned.answered(&Answer::new(&THROTTLED, time.at(0.0), time.at(1.0)));
    let told = THROTTLED.retry_after(Duration::from_secs(9));
    let late = Answer::new(&told, time.at(0.1), time.at(1.1)).late();
    assert_eq!(learned.answered(&late), Some(Closing::told(Duration::from_secs(9))));
}

#[test]
fn without_a_hint_the_waits_double_and_one_call_at_a_time_finds_out() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    let mut from = 0.0;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let (departed, closing) = call(&mut learned, &time, from, &THROTTLED);
        waits.push(closing.unwrap().wait.as_secs_f64());
        from = departed + 0.1 + waits.last().unwrap();
    }
    for pair in waits.windows(2) {
        assert!((pair[1] / pair[0] - 2.0).abs() < 0.01, "{waits:?}");
    }
    assert_eq!(learned.max_in_flight(), Some(1));
    call(&mut learned, &time, from, &ACCEPTED);
    assert_eq!(learned.max_in_flight(), None);
}

#[test]
fn calls_that_did_not_wait_for_their_slot_raise_nothing() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    for n in 0..10_000 {
        call(&mut learned, &time, f64::from(n), &ACCEPTED);
    }
    let rate = learned.rate().unwrap();
    assert!(rate <= 10.0, "one call a second says nothing about ten: {rate}");
}

#[test]
fn a_raised_quota_is_found() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    for _ in 0..2_000 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    let rate = learned.rate().unwrap();
    assert!(rate > 20.0, "{rate}");
}

#[test]
fn without_a_budget_it_never_goes_above_its_seed() {
    let (learned, time) = (seeded(10, 1), Time::new());
    let mut learned = learned.budget(0.0).unwrap();
    for _ in 0..10_000 {
        call(&mut learned, &time, 0.0, &ACCEPTED);
    }
    assert!(learned.rate().unwrap() < 10.0);
}

#[test]
fn other_failures_do_not_move_the_rate() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    call(&mut learned, &time, 0.0, &ACCEPTED);
    let before = learned.rate();
    let overloaded = Signal::new(Verdict::Overloaded);
    let told = overloaded.retry_after(Duration::from_secs(20));
    let exhausted = Signal::new(Verdict::Exhausted);
    let ms = |ms| Some(Closing::adaptive(Duration::from_millis(ms)));
    assert_eq!(call(&mut learned, &time, 1.0, &Signal::new(Verdict::Failed)).1, None);
    assert_eq!(call(&mut learned, &time, 2.0, &overloaded).1, ms(500));
    assert_eq!(call(&mut learned, &time, 3.0, &told).1, Some(Closing::told(Duration::from_secs(20))));
    assert_eq!(call(&mut learned, &time, 30.0, &exhausted).1, ms(60_000));
    assert_eq!(learned.rate(), before);
}

#[test]
fn a_limit_on_calls_in_flight_is_learned_where_the_refusal_says_so() {
    let (mut learned, time) = (seeded(100, 1), Time::new());
    let before = learned.rate();
    let mut concurrency = THROTTLED;
    concurrency.hints.concurrency = true;
    for n in 0..11 {
        learned.depart(time.at(f64::from(n) / 100.0), Cost::one());
    }
    assert_eq!(learned.answered(&Answer::new(&concurrency, time.at(0.1), time.at(0.2))), None);
    assert_eq!(learned.max_in_flight(), Some(10));
    assert_eq!(learned.rate(), before);
    for n in 0..170 {
        call(&mut learned, &time, 1.0 + f64::from(n), &ACCEPTED);
    }
    assert_eq!(learned.max_in_flight(), Some(11), "when a refusal is paid for it tries one more");
}

#[test]
fn what_goes_away_in_flight_is_no_longer_there() {
    let (mut learned, time) = (Learned::new(), Time::new());
    for _ in 0..3 {
        learned.depart(time.at(0.0), Cost::one());
    }
    learned.abandoned(time.at(0.0));
    learned.recall(time.at(0.0), Cost::one());
    assert_eq!(learned.in_flight, 1);
}

#[test]
fn a_recalled_call_gives_its_slot_back() {
    let (mut learned, time) = (seeded(1, 10), Time::new());
    learned.depart(time.at(0.0), Cost::one());
    assert!(learned.departure(time.at(0.0), Cost::one()).at > time.at(10.0));
    learned.recall(time.at(0.0), Cost::one());
    assert_eq!(learned.departure(time.at(0.0), Cost::one()), Departure::now(time.at(0.0)));
}

#[test]
fn a_call_that_costs_several_requests_takes_several_slots() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.depart(time.at(0.0), Cost::one().requests(5));
    let next = seconds_between(time.0, learned.departure(time.at(0.0), Cost::one()).at);
    assert!((0.5..0.52).contains(&next), "{next}");
}

#[test]
fn reset_forgets_but_not_the_calls_in_flight() {
    let (mut learned, time) = (seeded(10, 1), Time::new());
    learned.depart(time.at(0.0), Cost::one());
    call(&mut learned, &time, 0.5, &THROTTLED);
    learned.reset();
    assert_eq!((learned.in_flight, learned.flight.is_none()), (1, true));
    assert_eq!(learned.rate(), seeded(10, 1).rate());
}

#[test]
fn the_budget_has_a_range() {
    for share in [-0.1, 0.51, f64::NAN, f64::INFINITY] {
        assert_eq!(Learned::new().budget(share).unwrap_err().field(), "budget");
    }
}

#[test]
fn its_state_is_a_few_hundred_bytes() {
    assert!(size_of::<Learned>() <= 480, "{}", size_of::<Learned>());
}
