use super::KeyOf;
use crate::cooldown::gate::Gate;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter, sync::Cache};
use std::{
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The gates of all keys.
pub(super) struct Gates {
    cache: Cache<Key, Arc<Gate>, UnitWeighter, DefaultHashBuilder, InUse>,
    seeds: [RandomState; 2],
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

/// While there are too many gates that cannot be forgotten, they are looked through this often.
const SWEEP: Duration = Duration::from_secs(1);

/// What is kept of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u64; 2]);

impl Gates {
    pub(super) fn new(template: Arc<Gate>, bounds: Bounds) -> Self {
        Self {
            cache: Cache::with(
                bounds.max_keys,
                bounds.max_keys as u64,
                UnitWeighter,
                DefaultHashBuilder::default(),
                InUse,
            ),
            seeds: [RandomState::new(), RandomState::new()],
            overflow: Arc::new(template.fork()),
            template,
            bounds,
            last_sweep: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn template(&self) -> &Arc<Gate> {
        &self.template
    }

    pub(super) fn overflow(&self) -> &Arc<Gate> {
        &self.overflow
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn key<K: Hash + ?Sized>(&self, key: &K) -> Key {
        let mut hashers = self.hashers();
        key.hash(&mut hashers);
        hashers.key()
    }

    /// The gate of this request.
    pub(super) fn of_request<Req>(&self, by: &impl KeyOf<Req>, request: &Req, now: Instant) -> Arc<Gate> {
        let key = catch_unwind(AssertUnwindSafe(|| {
            let mut hashers = self.hashers();
            by.hash_key(request, &mut hashers);
            hashers.key()
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
        self.cache.get(&key)
    }

    fn insert(&self, key: Key, now: Instant) -> Arc<Gate> {
        self.sweep(now);
        if self.cache.len() > self.bounds.max_keys {
            return Arc::clone(&self.overflow);
        }
        let made = self
            .cache
            .get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::new(self.template.fork())));
        let Ok(gate) = made;
        gate
    }

    /// From time to time, forgets the gates that are idle.
    fn sweep(&self, now: Instant) {
        let Bounds { max_keys, forget_after } = self.bounds;
        let full = self.cache.len() > max_keys;
        let mut last_sweep = self.last_sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(*last_sweep);
        if since >= if full { SWEEP.min(forget_after) } else { forget_after } {
            *last_sweep = now;
            drop(last_sweep);
            self.forget_idle(if full { Duration::ZERO } else { forget_after }, now);
        }
    }

    /// Forgets the gates of which no call has left for so long.
    pub(super) fn forget_idle(&self, idle: Duration, now: Instant) {
        self.cache.retain(|_, gate| is_in_use(gate) || gate.left_within(idle, now));
    }

    /// The gates of all keys, and the overflow.
    pub(super) fn for_each(&self, mut look: impl FnMut(&Arc<Gate>)) {
        self.cache.iter().for_each(|(_, gate)| look(&gate));
        look(&self.overflow);
    }

    fn hashers(&self) -> Hashers {
        Hashers(self.seeds.each_ref().map(BuildHasher::build_hasher))
    }
}

/// Says which gates must not be forgotten.
#[derive(Clone)]
struct InUse;

impl Lifecycle<Key, Arc<Gate>> for InUse {
    type RequestState = ();

    fn is_pinned(&self, _: &Key, gate: &Arc<Gate>) -> bool {
        is_in_use(gate)
    }
}

/// Calls that wait or are in flight hold their gate, and so do handles and layers.
fn is_in_use(gate: &Arc<Gate>) -> bool {
    Arc::strong_count(gate) > 1 || gate.is_closed()
}

/// Two hashes of one key, with different seeds.
struct Hashers([DefaultHasher; 2]);

impl Hashers {
    fn key(&self) -> Key {
        Key(self.0.each_ref().map(Hasher::finish))
    }
}

impl Hasher for Hashers {
    fn write(&mut self, bytes: &[u8]) {
        for hasher in &mut self.0 {
            hasher.write(bytes);
        }
    }

    fn finish(&self) -> u64 {
        self.0[0].finish()
    }
}
