//! Where the ledger is kept.

use super::{
    FleetError,
    ledger::{Ledger, Rules, SECOND},
    places::Places,
    process::{ALIVE, micros},
    redis::{RedisLink, RedisStore},
    turn::{Grant, Turn},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

/// What a process hears without asking.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// What is known of the fleet is new.
    Said(Grant),
    /// From now on it hears what is said, or no longer.
    Subscribed(bool),
}

/// More than so many are not kept for a process that does not listen: its next turn tells it all the same.
const BACKLOG: usize = 64;

pub(super) fn channel() -> (mpsc::Sender<News>, mpsc::Receiver<News>) {
    mpsc::channel(BACKLOG)
}

#[derive(Clone, Debug)]
pub(super) enum Store {
    Redis(Box<RedisStore>),
    Simulated(SimulatedStore),
}

/// The connection of one process.
pub(super) enum Link {
    Redis(Box<RedisLink>),
    Simulated(SimulatedStore, mpsc::Sender<News>),
}

impl Store {
    pub(super) fn link(&self, news: mpsc::Sender<News>) -> Link {
        match self {
            Self::Redis(store) => Link::Redis(Box::new(store.link(news))),
            Self::Simulated(store) => Link::Simulated(store.clone(), news),
        }
    }
}

impl Link {
    pub(super) async fn turn(&mut self, turn: &Turn, rules: &Rules) -> Result<Grant, FleetError> {
        match self {
            Self::Redis(link) => link.turn(turn, rules).await,
            Self::Simulated(store, _) => store.turn(turn, rules).await,
        }
    }

    /// Hears what is published from now on. A process that may not does without.
    pub(super) async fn subscribe(&mut self) -> Result<(), FleetError> {
        match self {
            Self::Redis(link) => link.subscribe().await,
            Self::Simulated(store, news) => {
                store.subscribe(news);
                Ok(())
            }
        }
    }
}

/// A ledger in memory, for tests and simulations: what Redis does, without Redis, on tokio's clock.
///
/// Clones are the same store. Give it to the fleets of the processes that you simulate:
/// [`Fleet::simulated`](super::Fleet::simulated).
#[derive(Clone)]
pub struct SimulatedStore {
    state: Arc<Mutex<State>>,
}

struct State {
    start: Instant,
    ledger: Ledger,
    /// When a process was heard last.
    members: HashMap<u64, f64>,
    places: Places,
    listeners: Vec<mpsc::Sender<News>>,
    round_trip: Duration,
    down: bool,
    turns: u64,
}

impl SimulatedStore {
    /// An empty one, with a round trip of this long.
    pub fn new(round_trip: Duration) -> Self {
        let state = State {
            start: Instant::now(),
            ledger: Ledger::default(),
            members: HashMap::new(),
            places: Places::default(),
            listeners: Vec::new(),
            round_trip,
            down: false,
            turns: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a round trip takes this long.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.lock().round_trip = round_trip;
    }

    /// Whether it answers at all. Down, it fails each turn at once, as a closed port does.
    pub fn set_down(&self, down: bool) {
        let listeners = {
            let mut state = self.lock();
            state.down = down;
            if down { std::mem::take(&mut state.listeners) } else { Vec::new() }
        };
        for listener in listeners {
            // One that is full or gone finds out by itself.
            let _ = listener.try_send(News::Subscribed(false));
        }
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.ledger = Ledger::default();
        state.members.clear();
        state.places = Places::default();
    }

    /// The turns so far: each is one command.
    pub fn turns(&self) -> u64 {
        self.lock().turns
    }

    fn subscribe(&self, news: &mpsc::Sender<News>) {
        self.lock().listeners.push(news.clone());
        // It listens while it subscribes, so there is room.
        let _ = news.try_send(News::Subscribed(true));
    }

    async fn turn(&self, turn: &Turn, rules: &Rules) -> Result<Grant, FleetError> {
        let round_trip = self.lock().round_trip;
        sleep(round_trip / 2).await;
        let grant = self.lock().turn(turn, rules)?;
        sleep(round_trip / 2).await;
        Ok(grant)
    }
}

impl State {
    fn turn(&mut self, turn: &Turn, rules: &Rules) -> Result<Grant, FleetError> {
        if self.down {
            return Err(FleetError::Unreachable("the simulated store is down".to_owned()));
        }
        self.turns += 1;
        let now = SECOND + micros(self.start.elapsed());
        if turn.leaves {
            self.members.remove(&turn.id);
        } else {
            self.members.insert(turn.id, now);
        }
        self.members.retain(|_, seen| *seen > now - micros(ALIVE));
        let members = &self.members;
        self.places.retain(|id| members.contains_key(&id));
        let with = (self.members.len() as f64, rules);
        let grant = self.ledger.turn_with(turn, &mut self.places, with, now);
        if grant.news {
            // One that does not listen hears it with its next turn.
            self.listeners.retain(|listener| {
                !matches!(listener.try_send(News::Said(grant)), Err(mpsc::error::TrySendError::Closed(_)))
            });
        }
        Ok(grant)
    }
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimulatedStore")
            .field("turns", &state.turns)
            .field("members", &state.members.len())
            .field("ledger", &state.ledger)
            .finish_non_exhaustive()
    }
}
