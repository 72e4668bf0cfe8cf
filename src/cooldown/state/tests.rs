//! A model of callers around [`State`], without a runtime: random calls, answers, cancellations, commands and
//! clock. After each step everybody who was woken, or whose timer is due, looks again, but for those who have
//! stopped polling. What has to hold is checked at each departure.

use super::{early::ROOM, *};
use crate::{
    Cost,
    policy::{Answer, Closing, Known, Ladder, Quota},
    signal::{Signal, Verdict},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

fn ms(random: &mut fastrand::Rng, bound: u64) -> Duration {
    Duration::from_millis(random.u64(..bound))
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A policy with a bound on the calls in flight.
#[derive(Debug)]
struct Capped(Box<dyn Policy>, usize);

impl Clone for Capped {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone(), self.1)
    }
}

impl Policy for Capped {
    fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        self.0.departure(arrived, cost)
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        self.0.depart(at, cost);
    }

    fn recall(&mut self, at: Instant, cost: Cost) {
        self.0.recall(at, cost);
    }

    fn max_in_flight(&self) -> Option<usize> {
        Some(self.1)
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.0.answered(answer)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

struct Caller {
    flag: Arc<Flag>,
    timer: Option<Instant>,
    deadline: Option<Instant>,
    /// It was polled once, or never, and will not be polled again.
    parked: bool,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    state: State,
    now: Instant,
    max_wait: Option<Duration>,
    /// Whether some callers stop polling.
    parking: bool,
    /// Never more than so many departures in so much time, where the policy promises that.
    limit: Option<(usize, Duration)>,
    /// The most calls in flight at a time.
    cap: Option<usize>,
    waiting: BTreeMap<Place, Caller>,
    in_flight: Vec<(Place, Leave)>,
    /// Answers that the state was not told of.
    untold: usize,
    departures: Vec<Instant>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut policy, limit): (Box<dyn Policy>, _) = match random.u64(..5) {
            0 => (Box::new(Ladder::new()), None),
            // These two have room for calls that leave before they are told.
            1 => {
                let no_pace = Ladder::new().pace(2, Duration::ZERO, Duration::ZERO).unwrap();
                (Box::new(no_pace.steps([20, 50, 100, 200].map(Duration::from_millis))), None)
            }
            2 => {
                let (limit, window) = (40, Duration::from_millis(700));
                let quota = Quota::new(limit, window).unwrap().margin(Duration::ZERO);
                (Box::new(Known::new(quota)), Some((limit as usize, window)))
            }
            3 => {
                let (limit, window) = (1 + random.u64(..5) as u32, Duration::from_secs(2));
                let quota = Quota::new(limit, window).unwrap().margin(Duration::ZERO);
                (Box::new(Known::new(quota)), Some((limit as usize, window)))
            }
            _ => {
                let quota = Quota::new(3, Duration::from_secs(1)).unwrap().burst(2).unwrap();
                (Box::new(Known::new(quota)), Some((2 + 3, Duration::from_secs(1))))
            }
        };
        let max_wait = (random.u64(..2) == 0).then(|| Duration::from_secs(1 + random.u64(..20)));
        let cap = (random.u64(..3) == 0).then(|| 1 + random.u64(..3) as usize);
        if let Some(cap) = cap {
            policy = Box::new(Capped(policy, cap));
        }
        let parking = random.u64(..2) == 0;
        Self {
            seed,
            random,
            parking,
            state: State::new(policy),
            now: Instant::now(),
            max_wait,
            limit,
            cap,
            waiting: BTreeMap::new(),
            in_flight: Vec::new(),
            untold: 0,
            departures: Vec::new(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut State, Instant, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.state, self.now, &mut wakers);
        drop(wakers);
        result
    }

    fn step(&mut self) {
        match self.random.u64(..20) {
            0..8 => self.call(),
            8..12 => self.answer(),
            12 => self.stall(),
            13 => self.cancel(),
            14 => {
                let wait = ms(&mut self.random, 9000);
                self.with(|state, now, wakers| state.close(Closing::adaptive(wait), true, now, wakers));
            }
            15 => self.with(|state, now, wakers| state.reset(now, wakers)),
            16 => self.change(),
            _ => {
                let wait = ms(&mut self.random, 1500);
                self.advance(wait);
            }
        }
        self.settle();
        self.check();
    }

    /// Somebody turns the knobs.
    fn change(&mut self) {
        match self.random.u64(..4) {
            0 => {
                let max_wait =
                    (self.random.u64(..3) > 0).then(|| Duration::from_secs(1 + self.random.u64(..20)));
                self.max_wait = max_wait;
                self.with(|state, now, wakers| state.bound(max_wait, now, wakers));
            }
            1 if self.cap.is_none() => {
                // It does not know of those who left, so the promise of the old one is void.
                let quota = Quota::new(1 + self.random.u64(..30) as u32, Duration::from_secs(1)).unwrap();
                self.limit = None;
                self.with(|state, now, wakers| {
                    state.replace_policy(Box::new(Known::new(quota)), now, wakers);
                });
            }
            2 => {
                let changed = self.with(|state, now, wakers| {
                    state.change_policy(|policy| Ok::<_, ()>(policy.boxed_clone()), now, wakers)
                });
                assert_eq!(changed, Ok(()));
            }
            _ => {
                let refused = self.with(|state, now, wakers| state.change_policy(|_| Err(()), now, wakers));
                assert_eq!(refused, Err(()));
            }
        }
    }

    fn call(&mut self) {
        let arrived =
            self.now - if self.random.u64(..4) == 0 { ms(&mut self.random, 3000) } else { Duration::ZERO };
        let place = self.state.place(arrived);
        let deadline = (self.random.u64(..4) == 0).then(|| self.now + ms(&mut self.random, 5000));
        let bounds = Bounds { max_wait: self.max_wait, max_waiting: None, deadline };
        let booking =
            self.with(|state, now, wakers| state.book_at((place, Cost::one()), bounds, now, wakers));
        self.booked(place, booking, bounds);
    }

    fn booked(&mut self, place: Place, booking: Booking, bounds: Bounds) {
        match booking {
            Booking::Settled(Ok(leave)) => self.departed(place, leave),
            Booking::Wait { place, .. } => {
                let (flag, parked) = (Arc::<Flag>::default(), self.parking && self.random.u64(..10) == 0);
                let never_polled = parked && self.random.u64(..2) == 0;
                self.waiting.insert(place, Caller { flag, timer: None, deadline: bounds.deadline, parked });
                if !never_polled {
                    self.look(place);
                }
            }
            Booking::Settled(Err(rejected)) => {
                let latest = bounds.latest(place.arrived).expect("a bound");
                assert!(self.now + rejected.retry_after > latest, "seed {}", self.seed);
            }
        }
    }

    /// Parked callers are let go in their turn, too, but do not say so.
    fn all_parked(&self) -> bool {
        self.waiting.values().all(|caller| caller.parked)
    }

    fn departed(&mut self, place: Place, leave: Leave) {
        let seed = self.seed;
        // Those who came before are gone, or have been let go and not looked yet.
        let first = self.head();
        assert!(first.is_none_or(|first| first > place), "seed {seed}: out of order");
        assert!(self.state.closed_until(self.now).is_none(), "seed {seed}: left a closed gate");
        self.departures.push(self.now);
        if let Some((limit, window)) = self.limit {
            let since = self.departures.len().checked_sub(limit + 1).map(|k| self.departures[k]);
            assert!(since.is_none_or(|since| self.now - since >= window), "seed {seed}: over the quota");
        }
        self.in_flight.push((place, leave));
        // One that has been let go and does not say so is not counted after a while.
        let parked = self.waiting.values().filter(|caller| caller.parked).count();
        let in_bounds = self.cap.is_none_or(|cap| self.state.in_flight <= cap + parked);
        assert!(in_bounds, "seed {seed}: too many in flight");
    }

    /// When the call leaves at the latest, by the bounds of now.
    fn latest(&self, place: &Place, caller: &Caller) -> Option<Instant> {
        let bounds = Bounds { max_wait: self.max_wait, max_waiting: None, deadline: caller.deadline };
        bounds.latest(place.arrived)
    }

    fn look(&mut self, place: Place) {
        let waker = Waker::from(Arc::clone(&self.waiting[&place].flag));
        let cx = Context::from_waker(&waker);
        match self.with(|state, now, wakers| state.look(place, now, &cx, wakers)) {
            Look::Settled(Ok(leave)) => {
                let latest = self.waiting.remove(&place).and_then(|caller| self.latest(&place, &caller));
                assert!(latest.is_none_or(|latest| self.now <= latest), "seed {}: too late", self.seed);
                self.departed(place, leave);
            }
            Look::Settled(Err(_)) => {
                let caller = self.waiting.remove(&place);
                assert!(
                    caller.is_some_and(|caller| self.latest(&place, &caller).is_some()),
                    "seed {}",
                    self.seed
                );
            }
            Look::Wait { until } => {
                assert!(until > self.now, "seed {}: a timer for now", self.seed);
                let caller = self.waiting.get_mut(&place).unwrap();
                caller.timer = Some(until);
            }
        }
    }

    fn answer(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = self.random.u64(..self.in_flight.len() as u64) as usize;
        let (_, leave) = self.in_flight.swap_remove(index);
        let verdict =
            [Verdict::Accepted, Verdict::Accepted, Verdict::Throttled, Verdict::Overloaded, Verdict::Failed]
                [self.random.u64(..5) as usize];
        let mut signal = Signal::new(verdict);
        if self.random.u64(..3) == 0 {
            signal = signal.retry_after(ms(&mut self.random, 12_000));
        }
        let (epoch_before, now) = (self.state.epoch(), self.now);
        let mut answer = Answer::new(&signal, leave.at, now);
        if leave.quiet && signal == Signal::new(Verdict::Accepted) {
            // The gate does not tell the state. It would not matter if it did.
            self.state.tell();
            let (mut told, before) = (self.state.policy.clone(), format!("{:?}", self.state.policy));
            answer.current = leave.epoch == epoch_before;
            assert_eq!(told.answered(&answer), None, "seed {}", self.seed);
            assert_eq!(format!("{told:?}"), before, "seed {}", self.seed);
            self.untold += 1;
            return;
        }
        self.with(|state, _, wakers| state.answered(&mut answer, leave, wakers));
        let pushed_back = leave.epoch == epoch_before && verdict.is_pushback();
        assert_eq!(self.state.epoch(), epoch_before + u64::from(pushed_back), "seed {}", self.seed);
    }

    fn cancel(&mut self) {
        let places: Vec<Place> = self.waiting.keys().copied().collect();
        if !places.is_empty() && self.random.u64(..3) > 0 {
            let place = places[self.random.u64(..places.len() as u64) as usize];
            self.waiting.remove(&place);
            self.with(|state, now, wakers| state.cancel(place, now, wakers));
        } else if let Some((_, leave)) = self.in_flight.pop() {
            if leave.at == self.now {
                // Let go, and not sent yet.
                self.departures.pop();
                self.with(|state, now, wakers| state.cancel_unsent(leave, now, wakers));
            } else {
                self.with(|state, now, wakers| state.abandoned_in_flight(leave, now, wakers));
            }
        }
    }

    /// The last call to leave finds the inner service busy, and asks again later.
    fn stall(&mut self) {
        let Some((place, leave)) = self.in_flight.pop() else { return };
        if self.departures.last() == Some(&leave.at) {
            self.departures.pop();
            let wait = ms(&mut self.random, 500);
            let bounds = Bounds { max_wait: self.max_wait, ..Bounds::default() };
            self.advance(wait);
            let booking =
                self.with(|state, now, wakers| state.ask_again(leave, (place, false), bounds, now, wakers));
            self.booked(place, booking, bounds);
        } else {
            self.in_flight.push((place, leave));
        }
    }

    /// Moves the clock, stopping at each timer on the way.
    fn advance(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(timer) = self.next_timer().filter(|timer| *timer <= end) {
            self.now = self.now.max(timer);
            self.settle();
        }
        self.now = end;
    }

    fn next_timer(&self) -> Option<Instant> {
        self.waiting.values().filter(|caller| !caller.parked).filter_map(|caller| caller.timer).min()
    }

    /// Polls whoever was woken or has a timer that is due, until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let now = self.now;
            let due = self.waiting.iter().filter(|(_, caller)| {
                let due = caller.timer.is_some_and(|timer| timer <= now);
                !caller.parked && (due || caller.flag.0.load(Relaxed))
            });
            let Some(place) = due.map(|(place, _)| *place).min() else { return };
            self.waiting[&place].flag.0.store(false, Relaxed);
            self.look(place);
        }
        panic!("seed {}: never at rest", self.seed);
    }

    fn check(&mut self) {
        if let (false, Some(head)) = (self.parking, self.head()) {
            let due = self.state.policy.departure(head.arrived, Cost::one()).at;
            let closed = self.state.closed_until(self.now).is_some();
            let full = self.cap == Some(self.state.in_flight);
            assert!(closed || full || due > self.now, "seed {}: the head missed its time", self.seed);
        }
        let closed = self.state.closed_until(self.now);
        let Some(crowd) = &self.state.crowd else {
            assert_eq!(self.state.in_flight, self.in_flight.len() + self.untold, "seed {}", self.seed);
            assert!(self.waiting.is_empty(), "seed {}", self.seed);
            return;
        };
        let known = |place: &Place| self.waiting.contains_key(place);
        assert!(crowd.queue.keys().all(known), "seed {}", self.seed);
        assert!(crowd.settled.keys().all(known), "seed {}", self.seed);
        let unheard = crowd.settled.values().filter(|settled| settled.is_ok()).count();
        assert_eq!(self.state.in_flight, self.in_flight.len() + self.untold + unheard, "seed {}", self.seed);
        assert_eq!(crowd.tail.is_some(), !crowd.queue.is_empty(), "seed {}", self.seed);
        for (place, waiter) in &crowd.queue {
            let booked = waiter.booked(place).at;
            assert!(closed.is_none_or(|closed| booked >= closed.until), "seed {}: booked in vain", self.seed);
            assert!(!waiter.is_too_late(place, crowd.max_wait, booked), "seed {}: not refused", self.seed);
        }
        let booked: Vec<_> = crowd.queue.iter().map(|(place, waiter)| waiter.booked(place).at).collect();
        assert!(booked.is_sorted(), "seed {}: booked out of order", self.seed);
    }

    fn head(&self) -> Option<Place> {
        Some(*self.state.crowd.as_ref()?.queue.first_key_value()?.0)
    }

    /// Everybody who is still polled gets away, and nothing is left behind.
    fn finish(&mut self) {
        for _ in 0..2000 {
            self.advance(Duration::from_secs(if self.cap.is_some() { 2 } else { 3600 }));
            for (_, leave) in std::mem::take(&mut self.in_flight) {
                self.with(|state, now, wakers| state.abandoned_in_flight(leave, now, wakers));
            }
            self.settle();
            if self.all_parked() {
                break;
            }
        }
        assert!(self.all_parked(), "seed {}: somebody waits for ever", self.seed);
        let places: Vec<_> = self.waiting.keys().copied().collect();
        self.waiting.clear();
        for place in places {
            self.with(|state, now, wakers| state.cancel(place, now, wakers));
        }
        for (_, leave) in std::mem::take(&mut self.in_flight) {
            self.with(|state, now, wakers| state.abandoned_in_flight(leave, now, wakers));
        }
        self.check();
        assert!(self.state.crowd.is_none(), "seed {}: a crowd of nobody", self.seed);
        assert_eq!((self.state.in_flight, self.state.heard), (self.untold, 0));
    }
}

#[test]
fn whatever_happens_the_rules_hold() {
    // Another range of seeds by `GATE_SEEDS=1000..2000`.
    let seeds = std::env::var("GATE_SEEDS").unwrap_or_else(|_| "0..300".into());
    let (first, last) = seeds.split_once("..").expect("FIRST..LAST");
    for seed in first.parse().unwrap()..last.parse().unwrap() {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.finish();
    }
}

#[test]
fn a_hundred_thousand_callers_wait_and_go_away_without_much_work() {
    // Booking, cancelling and releasing among many waiters is cheap; a queue that is walked through at each of
    // these steps would take minutes here.
    let start = Instant::now();
    let quota = Quota::new(10, Duration::from_secs(1)).unwrap();
    let mut state = State::new(Box::new(Known::new(quota)));
    let mut wakers = Wakers::default();
    let book = |state: &mut State| match state.book(
        (start, Cost::one()),
        Bounds::default(),
        start,
        &mut Wakers::default(),
    ) {
        Booking::Wait { place, .. } => Some(place),
        _ => None,
    };
    let places: Vec<_> = (0..100_000).filter_map(|_| book(&mut state)).collect();
    for place in places.iter().step_by(2) {
        state.cancel(*place, start, &mut wakers);
    }
    let mut now = start;
    while state.waiting() > 0 {
        now += Duration::from_secs(2);
        state.release(now, None, &mut wakers);
    }
    assert_eq!(state.crowd().settled.len(), 100_000 - 10 - 50_000 + 5);
}

#[test]
fn calls_that_leave_before_the_policy_is_told_count_all_the_same() {
    let now = Instant::now();
    let quota = Quota::new(100, Duration::from_secs(1)).unwrap();
    let (mut plain, mut state) = (Known::new(quota), State::new(Box::new(Known::new(quota))));
    let call = |state: &mut State, at| state.book_open((at, Cost::one()), at);
    let mut untold = 0;
    for micros in 0..100 {
        assert!(call(&mut state, now + Duration::from_micros(micros)).is_some());
        untold = untold.max(state.early.untold);
    }
    assert_eq!((untold, state.in_flight()), (ROOM.0, 100));
    assert_eq!(call(&mut state, now + Duration::from_millis(2)), None, "the quota is used up");

    let mut state = State::new(Box::new(Known::new(quota)));
    for millis in [0, 0, 2, 3, 3] {
        let at = now + Duration::from_millis(millis);
        assert!(call(&mut state, at).is_some());
        plain.depart(at, Cost::one());
    }
    assert_eq!(state.early.untold, 1);
    assert_eq!(format!("{:?}", state.policy().policy()), format!("{plain:?}"));
}

#[test]
fn a_call_that_asks_again_is_not_one_more_that_waits() {
    let now = Instant::now();
    let quota = Quota::new(1, Duration::from_secs(1)).unwrap().burst(1).unwrap();
    let mut state = State::new(Box::new(Known::new(quota)));
    let mut wakers = Wakers::default();
    let bounds = Bounds { max_waiting: Some(1), ..Bounds::default() };
    let call = (now, Cost::one());
    let first = state.place(now);
    let leave = state.book_open(call, now).expect("nothing holds it back");
    assert!(matches!(state.book(call, bounds, now, &mut wakers), Booking::Wait { .. }));
    assert!(matches!(state.book(call, bounds, now, &mut wakers), Booking::Settled(Err(_))), "one waits");
    let again = state.ask_again(leave, (first, false), bounds, now, &mut wakers);
    assert!(!matches!(again, Booking::Settled(Err(_))), "it was there before");
}
