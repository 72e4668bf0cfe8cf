use super::{
    KeyOf,
    shard::{Key, Shard},
};
use crate::cooldown::gate::Gate;
use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The gates of all keys.
pub(super) struct Gates {
    /// A power of two of them; a key belongs to one.
    shards: Box<[Mutex<Shard>]>,
    seed: RandomState,
    /// What a key's gate is made from.
    template: Arc<Gate>,
    overflow: Arc<Gate>,
    pub(super) bounds: Bounds,
    last_sweep: Mutex<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_keys: usize,
    pub(super) forget_after: Duration,
}

/// A shard has room for so many keys at least, so that chance does not fill one much sooner than another.
const LEAST_PER_SHARD: usize = 1024;
const MOST_SHARDS: usize = 64;

impl Gates {
    pub(super) fn new(template: Arc<Gate>, bounds: Bounds) -> Self {
        let shards = (bounds.max_keys / LEAST_PER_SHARD).clamp(1, MOST_SHARDS);
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let room = bounds.max_keys / shards;
        Self {
            shards: (0..shards).map(|_| Mutex::new(Shard::new(room))).collect(),
            seed: RandomState::new(),
            overflow: Arc::new(template.fork()),
            template,
            bounds,
            last_sweep: Mutex::new(Instant::now()),
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[key.shard(self.shards.len())])
    }

    pub(super) fn template(&self) -> &Arc<Gate> {
        &self.template
    }

    pub(super) fn overflow(&self) -> &Arc<Gate> {
        &self.overflow
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    pub(super) fn key<K: Hash + ?Sized>(&self, key: &K) -> Key {
        Key(self.seed.hash_one(key))
    }

    /// The gate of this request.
    pub(super) fn of_request<Req>(&self, by: &impl KeyOf<Req>, request: &Req, now: Instant) -> Arc<Gate> {
        let key = catch_unwind(AssertUnwindSafe(|| {
            let mut hasher = self.seed.build_hasher();
            by.hash_key(request, &mut hasher);
            Key(hasher.finish())
        }));
        match key {
            Ok(key) => self.of_key(key, now),
            Err(_) => {
                tracing::error!(upstream = %self.template.settings.name, "the function that finds the key panicked");
                Arc::clone(&self.overflow)
            }
        }
    }

    pub(super) fn of_key(&self, key: Key, now: Instant) -> Arc<Gate> {
        self.get(key).unwrap_or_else(|| self.insert(key, now))
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<Gate>> {
        self.shard(key).get(key)
    }

    fn insert(&self, key: Key, now: Instant) -> Arc<Gate> {
        self.sweep(now);
        let made = Arc::new(self.template.fork());
        // What is forgotten is dropped when the lock is free: its policy may be code of others.
        let (gate, forgotten) = self.shard(key).insert(key, made);
        if forgotten.is_some() {
            self.template.settings.statistics.record_eviction();
        }
        gate.unwrap_or_else(|| Arc::clone(&self.overflow))
    }

    /// From time to time, forgets the gates that are idle.
    fn sweep(&self, now: Instant) {
        let idle = self.bounds.forget_after;
        let mut last_sweep = lock(&self.last_sweep);
        if now.saturating_duration_since(*last_sweep) >= idle {
            *last_sweep = now;
            drop(last_sweep);
            self.forget_idle(idle, now);
        }
    }

    /// Forgets the gates of which no call has left for so long.
    pub(super) fn forget_idle(&self, idle: Duration, now: Instant) {
        for shard in &self.shards {
            let _forgotten = lock(shard).forget_idle(idle, now);
        }
    }

    /// The gates of all keys, and the overflow.
    pub(super) fn for_each(&self, mut look: impl FnMut(&Arc<Gate>)) {
        for shard in &self.shards {
            lock(shard).gates().for_each(&mut look);
        }
        look(&self.overflow);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
