use super::{
    talk::{EARLY, IDLE, RETRY},
    *,
};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(50);

fn process(now: Instant) -> Process {
    let rules = Rules { budget: 0.01, first_pace: 100.0, seeded: true, most: 0.0 };
    let mut process = Process::new(7, rules, PATIENCE, now);
    process.subscribed = true;
    process
}

fn grant(epoch: f64, count: f64, first: Duration) -> Grant {
    let known = Known { epoch, closed: 0.0, pace: 100.0 };
    Grant { known, measured: true, members: 4.0, count, first: micros(first), gap: 1e4, ..Grant::default() }
}

/// Asks, and is answered at once.
fn granted(process: &mut Process, grant: &Grant, now: Instant) {
    process.speak(1, false, now);
    process.granted(grant, now, now);
}

#[test]
fn a_call_waits_for_redis_so_long_and_not_longer() {
    let now = Instant::now();
    let mut process = process(now);
    // It came long ago, and asks now.
    let later = now + Duration::from_secs(9);
    assert_eq!(process.ask(now, later, Cost::one()), later + PATIENCE);
    assert_eq!(
        process.ask(now, later + 20 * MS, Cost::one()),
        later + PATIENCE,
        "it does not matter how often it asks"
    );
    process.depart(later + PATIENCE, Cost::one());
    assert_eq!((process.mode, process.outages), (Mode::Alone, 1));
    // The next one does not wait for Redis at all, but for its turn.
    let next = process.ask(later + PATIENCE, later + PATIENCE, Cost::one());
    assert!(next <= later + PATIENCE + 10 * MS, "{:?}", next - later);
}

#[test]
fn departures_are_those_of_the_lease() {
    let now = Instant::now();
    let mut process = process(now);
    granted(&mut process, &grant(0.0, 2.0, 30 * MS), now);
    assert_eq!(process.departure(now), now + 30 * MS);
    process.depart(now + 30 * MS, Cost::one());
    assert_eq!(process.departure(now), now + 40 * MS);
    process.depart(now + 40 * MS, Cost::one());
    assert_eq!(process.mode, Mode::Shared);
    assert_eq!(process.due(1, now + 40 * MS), Some(now + 40 * MS), "it asks for more");
    assert_eq!(process.numbers.len(), 2);
    // Where nobody came it is given back.
    granted(&mut process, &grant(0.0, 2.0, 50 * MS), now + 40 * MS);
    let turn = process.speak(0, false, now + 300 * MS);
    assert_eq!((turn.back, turn.want), (2.0, 0.0));
}

#[test]
fn a_new_epoch_voids_the_lease() {
    let now = Instant::now();
    let mut process = process(now);
    granted(&mut process, &grant(0.0, 2.0, 30 * MS), now);
    let mut news = grant(1.0, 0.0, Duration::ZERO);
    news.known.closed = micros(500 * MS);
    let heard = process.heard(&news, now, now + MS);
    assert!(heard.new_epoch && heard.closed_for == 499 * MS, "{heard:?}");
    assert_eq!(process.lease.len(), 0);
    // An answer that was on its way has departures of the old one.
    process.speak(1, false, now + MS);
    process.granted(&grant(0.0, 2.0, 30 * MS), now + MS, now + 2 * MS);
    assert_eq!((process.lease.len(), process.epoch), (0, 1.0));
}

#[test]
fn an_answer_that_is_late_is_news_but_no_lease() {
    let now = Instant::now();
    let mut process = process(now);
    process.speak(1, false, now);
    assert_eq!(process.due(1, now + 20 * MS), None, "one at a time");
    process.granted(&grant(3.0, 2.0, Duration::ZERO), now, now + 60 * MS);
    assert_eq!((process.mode, process.lease.len()), (Mode::Alone, 0));
    assert_eq!(process.view.known.pace, 100.0);
    assert_eq!(process.due(1, now + 60 * MS), Some(now + 60 * MS + RETRY));
    let turn = process.speak(1, false, now + 300 * MS);
    assert_eq!(turn.known.epoch, 3.0);
    let heard = process.granted(&grant(3.0, 1.0, Duration::ZERO), now + 300 * MS, now + 301 * MS);
    assert!(heard.back && process.mode == Mode::Shared);
}

#[test]
fn without_news_a_departure_is_confirmed() {
    let now = Instant::now();
    let mut process = process(now);
    process.subscribed = false;
    granted(&mut process, &grant(0.0, 1.0, 400 * MS), now);
    assert_eq!(process.departure(now), now + 400 * MS + PATIENCE);
    assert_eq!(process.due(1, now + MS), Some(now + 400 * MS - EARLY));
    let heard = grant(0.0, 0.0, Duration::ZERO);
    granted(&mut process, &heard, now + 400 * MS - EARLY);
    assert_eq!(process.departure(now), now + 400 * MS);
}

#[test]
fn it_goes_home_when_there_is_nothing_to_do() {
    let now = Instant::now();
    let mut process = process(now);
    granted(&mut process, &grant(0.0, 1.0, Duration::ZERO), now);
    process.depart(now, Cost::one());
    assert!(!process.is_idle(0, now + 9 * IDLE), "a call is in flight");
    process.recall(now, Cost::one());
    assert!(!process.is_idle(0, now + IDLE / 2));
    assert!(process.is_idle(0, now + IDLE));
    assert!(!process.is_idle(1, now + IDLE));
    assert_eq!(process.speak(0, true, now + IDLE).back, 1.0, "what was not sent is given back");
}

#[test]
fn an_answer_that_is_older_than_the_news_gives_no_departure_of_the_time_that_is_closed() {
    let now = Instant::now();
    let mut process = process(now);
    let mut news = grant(1.0, 0.0, Duration::ZERO);
    news.known.closed = micros(Duration::from_secs(10));
    process.heard(&news, now, now);
    granted(&mut process, &grant(1.0, 3.0, 10 * MS), now);
    assert_eq!(process.lease.len(), 0);
    assert!(process.departure(now) >= now + Duration::from_secs(10));
}

#[test]
fn a_ledger_that_says_absurd_things_harms_nobody() {
    let now = Instant::now();
    let mut process = process(now);
    for absurd in [1e25, f64::MAX] {
        let mut answer = grant(1.0, 2.0, Duration::MAX);
        (answer.known.closed, answer.gap, answer.known.pace) = (absurd, absurd, absurd.recip());
        granted(&mut process, &answer, now);
        assert!(process.departure(now) >= now + Duration::from_secs(86_400));
        process.depart(now, Cost::one());
    }
}

/// Of a fleet with a bound of four, that has `places` of those.
fn bounded(now: Instant, places: f64, lack: f64) -> Process {
    let mut process = process(now);
    process.rules.most = 4.0;
    let grant = Grant { places, lack, short: lack > 0.0, ..grant(0.0, places, Duration::ZERO) };
    granted(&mut process, &grant, now);
    process
}

#[test]
fn calls_in_flight_are_as_many_as_there_are_places() {
    let now = Instant::now();
    let mut process = bounded(now, 2.0, 0.0);
    assert_eq!(process.max_in_flight(), Some(2));
    process.depart(now, Cost::one());
    process.depart(now, Cost::one());
    // Two more wait: it says so once, and that it needs four places.
    let full = Grant { places: 2.0, ..grant(0.0, 0.0, Duration::ZERO) };
    assert_eq!(process.due(2, now), Some(now));
    let turn = process.speak(2, false, now);
    assert_eq!((turn.flying, turn.need, turn.want, turn.anew), (2.0, 4.0, 0.0, false));
    process.granted(&full, now, now);
    assert!(process.due(2, now) > Some(now), "it waits to be called");
    process.called(&Grant { to: 8.0, short: true, ..full });
    assert!(process.due(2, now) > Some(now), "somebody else is called");
    process.called(&Grant { to: 7.0, short: true, ..full });
    assert_eq!(process.due(2, now), Some(now));
    // Without the store it keeps to its share of the bound, of four processes here.
    process.leave_alone(now);
    assert_eq!(process.max_in_flight(), Some(1));
    let turn = process.speak(2, false, now);
    assert!(turn.anew && turn.flying == 2.0, "{turn:?}");
}

#[test]
fn places_go_to_who_has_less() {
    let now = Instant::now();
    // Two more than another one: with the end of the next call. One more: after a while.
    for (lack, ended, left) in [(2.0, MS, 1), (1.0, MS, 2), (1.0, Duration::from_secs(4), 1), (0.0, IDLE, 2)]
    {
        let mut process = bounded(now, 2.0, lack);
        process.depart(now, Cost::one());
        process.depart(now, Cost::one());
        process.landed(now + ended);
        assert_eq!(process.max_in_flight(), Some(left), "{lack} {ended:?}");
        let turn = process.speak(0, false, now + ended);
        assert_eq!(turn.drops, 2.0 - left as f64);
        // The answer was given before one more was given up.
        if lack == 2.0 {
            process.landed(now + ended);
            process.granted(
                &Grant { places: 1.0, ..grant(0.0, 0.0, Duration::ZERO) },
                now + ended,
                now + ended,
            );
            assert_eq!(process.max_in_flight(), Some(1));
        }
    }
}

#[test]
fn places_are_given_up_when_there_are_no_calls() {
    let now = Instant::now();
    let mut process = bounded(now, 3.0, 1.0);
    process.depart(now, Cost::one());
    process.landed(now + MS);
    let due = process.due(0, now + MS).unwrap();
    assert!(due > now + MS && due < now + 50 * MS, "the next call may come at once");
    assert_eq!(process.speak(1, false, due).drops, 2.0, "one waits");
    let mut process = bounded(now, 3.0, 0.0);
    assert!(process.due(0, now + MS) > Some(now + 50 * MS), "nobody needs them");
    process.called(&Grant { short: true, ..Grant::default() });
    assert_eq!(process.speak(0, false, now + 50 * MS).drops, 3.0);
    assert_eq!((process.max_in_flight(), process.lease.len()), (Some(0), 0));
    process.granted(&Grant { hold: 5e6, ..grant(0.0, 0.0, Duration::ZERO) }, now + 50 * MS, now + 50 * MS);
    // One that cannot be called asks again soon.
    assert!(process.departure(now + 50 * MS) > now + Duration::from_secs(5));
    process.subscribed = false;
    process.speak(1, false, now + 60 * MS);
    process.granted(&Grant { hold: 5e6, ..grant(0.0, 0.0, Duration::ZERO) }, now + 60 * MS, now + 60 * MS);
    assert_eq!(process.due(1, now + 60 * MS), Some(now + 310 * MS));
}
