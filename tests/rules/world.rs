//! Callers around one gate. Each is polled when it is woken, and never else.

use crate::{
    model::{Model, Said},
    support::{ms, request},
    upstream::Upstream,
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tower::{BoxError, Layer, Service, limit::GlobalConcurrencyLimitLayer, util::BoxCloneService};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle, Rejected,
    policy::{Known, Ladder, Quota},
};

type Client = BoxCloneService<http::Request<()>, http::Response<()>, BoxError>;

/// What happened, to see that it was not nothing.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) waited: u64,
    pub(crate) cancelled: u64,
    pub(crate) rejected: u64,
    pub(crate) closings: u64,
    pub(crate) pending: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.waited += other.waited;
        self.cancelled += other.cancelled;
        self.rejected += other.rejected;
        self.closings += other.closings;
        self.pending += other.pending;
    }
}

/// Counts how often it was woken, and wakes the one who drives the world.
struct Flag {
    woken: AtomicUsize,
    driver: Arc<Notify>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, SeqCst);
        self.driver.notify_one();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Polled once and never again.
    Parked,
    /// In flight, since that epoch.
    Sent {
        epoch: u64,
    },
}

struct Caller {
    id: u64,
    call: BoxFuture<'static, Result<http::Response<()>, BoxError>>,
    flag: Arc<Flag>,
    stage: Stage,
    said: Option<Said>,
}

/// One that waits in `poll_ready`, and calls as soon as it is ready.
struct Visitor {
    since: Instant,
    client: Client,
    flag: Arc<Flag>,
}

pub(crate) struct World {
    seed: u64,
    verbose: bool,
    random: fastrand::Rng,
    client: Client,
    upstream: Upstream,
    gate: Handle,
    model: Model,
    driver: Arc<Notify>,
    max_wait: Option<Duration>,
    /// So many departures in so much time.
    quota: Option<(usize, Duration)>,
    /// The model knows the policy's steps.
    exact: bool,
    /// Departures are those of the quota alone: no counters are told, nobody parks, and the inner service is ready.
    plain: bool,
    parking: bool,
    counters: bool,
    /// The upstream's own limit, where it tells one.
    limit: u64,
    next_id: u64,
    sent: Vec<Instant>,
    /// By the order in which they leave: when they came, and their number.
    callers: BTreeMap<(Instant, u64), Caller>,
    visitors: Vec<Visitor>,
    tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let window = |limit| Quota::new(limit, ms(2000)).unwrap().margin(Duration::ZERO);
        let (limit, unpaced) = (random.u32(1..6), Quota::new(1_000_000, ms(1)).unwrap());
        let (layer, quota, exact) = match random.u8(..5) {
            0 => (AdaptiveCooldownLayer::with_policy(Ladder::new()), None, true),
            1 => (AdaptiveCooldownLayer::with_policy(Known::new(unpaced)), None, true),
            2 => (AdaptiveCooldownLayer::new(), None, false),
            _ => {
                let layer = AdaptiveCooldownLayer::with_policy(Known::new(window(limit)));
                (layer, Some((limit as usize, ms(2000))), true)
            }
        };
        let max_wait = random.bool().then(|| ms(random.u64(1..12_000)));
        let (parking, counters) = (random.u8(..3) == 0, random.u8(..4) == 0);
        // A parked call may be given a permit below, and keep it: that is the limit's own affair.
        let permits = if !parking && random.u8(..3) == 0 { random.usize(1..4) } else { 1000 };
        let upstream = Upstream::default();
        let inner = GlobalConcurrencyLimitLayer::new(permits).layer(upstream.clone());
        let (client, gate) = match max_wait {
            None => (Client::new(layer.layer(inner)), layer.handle()),
            Some(max_wait) => {
                let layer = layer.max_wait(max_wait);
                (Client::new(layer.layer(inner)), layer.handle())
            }
        };
        Self {
            seed,
            verbose,
            client,
            upstream,
            gate,
            model: Model::new(),
            driver: Arc::default(),
            max_wait,
            quota: quota.filter(|_| permits == 1000),
            exact: exact && permits == 1000 && !parking && !counters,
            plain: permits == 1000 && !parking && !counters,
            parking,
            counters,
            limit: 20,
            next_id: 0,
            sent: Vec::new(),
            callers: BTreeMap::new(),
            visitors: Vec::new(),
            tally: Tally::default(),
            random,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:?} {}", self.gate.snapshot(), what());
        }
    }

    pub(crate) async fn step(&mut self) {
        match self.random.u8(..20) {
            0..6 => self.come(),
            6..8 => self.call(Instant::now(), self.client.clone()),
            8..12 => self.answer(),
            12 => self.cancel(),
            13 if self.random.bool() => {
                let wait = ms(self.random.u64(..9000));
                self.say(|| format!("cool for {wait:?}"));
                self.gate.cool_for(wait);
                self.model.cool_for(wait, Instant::now());
            }
            14 if self.random.bool() => {
                self.say(|| "reset".to_owned());
                self.gate.reset();
                self.model.reset();
            }
            15 => self.limit = self.random.u64(1..40),
            _ => {
                let wait = ms(self.random.u64(..1500));
                self.advance(wait).await;
            }
        }
        self.settle();
    }

    fn flag(&self) -> Arc<Flag> {
        Arc::new(Flag { woken: AtomicUsize::new(1), driver: Arc::clone(&self.driver) })
    }

    /// A handle asks whether it may call.
    fn come(&mut self) {
        self.visitors.push(Visitor { since: Instant::now(), client: self.client.clone(), flag: self.flag() });
        self.settle();
    }

    fn call(&mut self, arrived: Instant, mut client: Client) {
        let id = self.next_id;
        self.next_id += 1;
        self.tally.calls += 1;
        self.say(|| format!("call {id}"));
        let call = client.call(request(id)).boxed();
        let stage = if self.parking && self.random.u8(..8) == 0 { Stage::Parked } else { Stage::Waiting };
        let flag = self.flag();
        let place = (arrived, id);
        self.callers.insert(place, Caller { id, call, flag, stage, said: None });
        self.came();
        if self.callers[&place].stage == Stage::Parked && self.random.bool() {
            self.poll_caller(place);
        }
    }

    /// Looks at what has come to the upstream.
    fn came(&mut self) {
        let now = Instant::now();
        for id in self.upstream.take_came() {
            let seed = self.seed;
            self.say(|| format!("sent {id}"));
            let closed = self.gate.snapshot().closed_for;
            assert_eq!(closed, None, "seed {seed}: call {id} left a closed gate");
            self.sent.push(now);
            if let Some((limit, window)) = self.quota {
                let before = self.sent.len().checked_sub(limit + 1).map(|k| self.sent[k]);
                assert!(before.is_none_or(|before| now - before >= window), "seed {seed}: over the quota");
            }
            let epoch = self.model.epoch;
            let caller = self.callers.iter_mut().find(|(_, caller)| caller.id == id);
            let (&place, caller) = caller.expect("it is there");
            caller.stage = Stage::Sent { epoch };
            self.tally.waited += u64::from(now > place.0);
            if let Some(max_wait) = self.max_wait.filter(|_| self.plain) {
                assert!(now - place.0 <= max_wait, "seed {seed}: call {id} waited for too long");
            }
            if self.plain {
                let first = self.callers.iter().find(|(_, caller)| caller.stage == Stage::Waiting);
                assert!(first.is_none_or(|(first, _)| *first > place), "seed {seed}: call {id} overtook");
            }
        }
    }

    fn answer(&mut self) {
        let in_flight: Vec<_> =
            self.callers.iter().filter(|(_, c)| matches!(c.stage, Stage::Sent { .. })).collect();
        if in_flight.is_empty() {
            return;
        }
        let place = *in_flight[self.random.usize(..in_flight.len())].0;
        let status = [200, 200, 200, 429, 429, 503, 500, 404, 0][self.random.usize(..9)];
        let refused = matches!(status, 429 | 503);
        let retry_after = (refused && self.random.bool()).then(|| self.random.u64(1..12));
        let counters = self.counters.then(|| (self.limit, self.random.u64(..=self.limit)));
        self.tell(place, Said { status, retry_after, counters });
    }

    fn tell(&mut self, place: (Instant, u64), said: Said) {
        let caller = self.callers.get_mut(&place).expect("it is in flight");
        caller.said = Some(said);
        let id = caller.id;
        self.say(|| format!("answer {id}: {said:?}"));
        assert!(self.upstream.answer(id, said), "seed {}: call {id} is not in flight", self.seed);
    }

    fn cancel(&mut self) {
        let places: Vec<_> = self.callers.keys().copied().collect();
        if let Some(place) = self.random.choice(places) {
            let caller = self.callers.remove(&place).expect("it is there");
            self.say(|| format!("cancel {}, {:?}", caller.id, caller.stage));
            self.tally.cancelled += 1;
        }
    }

    /// Polls whoever was woken, in the order in which they came, until nobody is.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let woken = |flag: &Flag| flag.woken.load(SeqCst) > 0;
            let due = |caller: &Caller| woken(&caller.flag) && caller.stage != Stage::Parked;
            if let Some(place) = self.callers.iter().find(|(_, caller)| due(caller)).map(|(place, _)| *place)
            {
                self.poll_caller(place);
            } else if let Some(index) = self.visitors.iter().position(|visitor| woken(&visitor.flag)) {
                self.poll_visitor(index);
            } else {
                return self.check();
            }
        }
        panic!("seed {}: never at rest", self.seed);
    }

    fn poll_caller(&mut self, place: (Instant, u64)) {
        let now = Instant::now();
        let caller = self.callers.get_mut(&place).expect("it is there");
        caller.flag.woken.store(0, SeqCst);
        let waker = Waker::from(Arc::clone(&caller.flag));
        let poll = caller.call.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(result) = poll {
            let caller = self.callers.remove(&place).expect("it is there");
            match (caller.stage, caller.said) {
                (Stage::Sent { epoch }, Some(said)) => {
                    self.tally.closings += u64::from(self.model.answered(said, epoch, now));
                }
                _ => {
                    let error = result.expect_err("it was not sent");
                    let rejected = error.downcast::<Rejected>().expect("it was not sent");
                    let max_wait = self.max_wait.expect("a bound");
                    let leaves = now + rejected.retry_after - place.0;
                    assert!(leaves > max_wait, "seed {}: rejected for {leaves:?}", self.seed);
                    self.tally.rejected += 1;
                }
            }
        } else {
            self.came();
            let caller = &self.callers[&place];
            let woken = caller.flag.woken.load(SeqCst);
            assert_eq!(woken, 0, "seed {}: call {} wakes itself", self.seed, caller.id);
        }
    }

    fn poll_visitor(&mut self, index: usize) {
        let visitor = &mut self.visitors[index];
        visitor.flag.woken.store(0, SeqCst);
        let waker = Waker::from(Arc::clone(&visitor.flag));
        if visitor.client.poll_ready(&mut Context::from_waker(&waker)).is_pending() {
            self.tally.pending += 1;
            return;
        }
        let Visitor { since, client, .. } = self.visitors.swap_remove(index);
        self.call(since, client);
    }

    /// What holds whenever everybody who was woken has looked.
    fn check(&self) {
        let (now, seed, gate) = (Instant::now(), self.seed, self.gate.snapshot());
        let closed_until = self.model.closed_until(now);
        if self.exact {
            assert_eq!(gate.closed_for, closed_until.map(|until| until - now), "seed {seed}");
            assert_eq!(gate.epoch, self.model.epoch, "seed {seed}");
        }
        let waiting = self.callers.values().filter(|caller| caller.stage == Stage::Waiting).count();
        let in_flight = self.callers.len() - waiting;
        if self.plain {
            assert_eq!((gate.waiting, gate.in_flight), (waiting, in_flight), "seed {seed}");
            let free = self.quota.and_then(|(limit, window)| {
                Some(*self.sent.get(self.sent.len().checked_sub(limit)?)? + window)
            });
            if let (Some(_), true) = (self.quota, waiting > 0) {
                let held = gate.closed_for.is_some() || free.is_some_and(|free| free > now);
                assert!(held, "seed {seed}: the first one missed its time");
            }
            // Only the gate keeps handles waiting, and where there is a bound, for no longer than that.
            for visitor in &self.visitors {
                let until = gate.closed_for.map(|closed_for| now + closed_for);
                let until = until.unwrap_or_else(|| panic!("seed {seed}: the gate is open"));
                let bound = self.max_wait.is_none_or(|max_wait| until - visitor.since <= max_wait);
                assert!(bound, "seed {seed}: it waits in vain");
            }
        }
    }

    /// Moves the clock, and stops at each timer on the way.
    async fn advance(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        loop {
            self.settle();
            tokio::select! {
                biased;
                () = self.driver.notified() => {}
                () = sleep_until(end) => break,
            }
        }
        self.settle();
    }

    /// Everybody who is polled gets an answer, and the books are in order.
    pub(crate) async fn finish(mut self) -> Tally {
        for _ in 0..2000 {
            // `Learned` may have been taught to leave ten minutes between any two.
            self.advance(Duration::from_secs(if self.exact { 2 } else { 600 })).await;
            let sent =
                |(place, caller): (&_, &Caller)| matches!(caller.stage, Stage::Sent { .. }).then_some(*place);
            let in_flight: Vec<_> = self.callers.iter().filter_map(sent).collect();
            for place in in_flight {
                self.tell(place, Said { status: 200, retry_after: None, counters: None });
                self.settle();
            }
            let parked = self.callers.values().filter(|caller| caller.stage == Stage::Parked).count();
            if self.callers.len() == parked && self.visitors.is_empty() {
                break;
            }
        }
        let seed = self.seed;
        let left: Vec<_> = self.callers.values().map(|caller| (caller.id, caller.stage)).collect();
        assert!(left.iter().all(|(_, stage)| *stage == Stage::Parked), "seed {seed}: for ever: {left:?}");
        assert!(self.visitors.is_empty(), "seed {seed}: a handle waits for ever");
        self.tally.cancelled += left.len() as u64;
        self.callers.clear();
        let gate = self.gate.snapshot();
        assert_eq!((gate.waiting, gate.in_flight), (0, 0), "seed {seed}");
        let attempts = self.gate.statistics().snapshot().attempts;
        assert_eq!(attempts.total(), self.tally.calls, "seed {seed}: {attempts:?}");
        // A parked call may have been rejected without being told.
        let told =
            self.tally.rejected..=self.tally.rejected + if self.parking { self.tally.cancelled } else { 0 };
        assert!(told.contains(&attempts.rejected), "seed {seed}: {told:?}, {attempts:?}");
        let gone = self.tally.cancelled + self.tally.rejected;
        assert_eq!(attempts.cancelled + attempts.rejected, gone, "seed {seed}: {attempts:?}");
        self.tally
    }
}
