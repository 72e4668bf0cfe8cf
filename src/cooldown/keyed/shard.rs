use crate::cooldown::gate::Gate;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// What is kept of a key: a hash of it, with a random seed. That two of a million keys have the same one, and so the same
/// gate, happens once in forty million times, and nobody can bring it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u64);

impl Key {
    /// Which of so many shards it belongs to, by bits that the map in the shard does not look at first.
    pub(super) const fn shard(self, shards: usize) -> usize {
        (self.0 >> 40) as usize % shards
    }
}

/// Takes a hash as it is.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only keys are hashed here, which are hashes");
    }
}

/// Some of the keys and their gates, with room for so many and no more.
///
/// Where there is no room left, the gate that has been idle for the longest time of a few that are looked at makes room,
/// as keys do in [Redis](https://redis.io/docs/latest/develop/reference/eviction/). So a key costs no order to keep, and
/// a lookup is one in a plain map.
pub(super) struct Shard {
    gates: HashMap<Key, Arc<Gate>, BuildHasherDefault<AsItIs>>,
    /// The keys in the map, in the order in which they are looked at.
    ring: Vec<Key>,
    hand: usize,
    room: usize,
    has_been_full: bool,
}

/// So many that might be forgotten are compared, and so many are looked at for that.
const COMPARED: usize = 5;
const LOOKED_AT: usize = 64;

impl Shard {
    pub(super) fn new(room: usize) -> Self {
        Self { gates: HashMap::default(), ring: Vec::new(), hand: 0, room, has_been_full: false }
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = &Arc<Gate>> {
        self.gates.values()
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<Gate>> {
        self.gates.get(&key).map(Arc::clone)
    }

    /// The gate that is there, or else this one; `None` where there is no room and none can be made. Beside it the gate
    /// that is forgotten for it.
    pub(super) fn insert(&mut self, key: Key, made: Arc<Gate>) -> (Option<Arc<Gate>>, Option<Arc<Gate>>) {
        if let Some(gate) = self.get(key) {
            return (Some(gate), None);
        }
        let forgotten = if self.ring.len() < self.room {
            self.ring.push(key);
            None
        } else {
            let Some(place) = self.longest_idle() else { return (None, None) };
            if !self.has_been_full {
                // A map that is at most half full never grows for what is removed and inserted.
                self.gates.reserve(self.room);
                self.has_been_full = true;
            }
            self.gates.remove(&std::mem::replace(&mut self.ring[place], key))
        };
        self.gates.insert(key, Arc::clone(&made));
        (Some(made), forgotten)
    }

    /// The place in the ring of one that can be forgotten.
    fn longest_idle(&mut self) -> Option<usize> {
        let mut found: Option<(Option<Instant>, usize)> = None;
        let mut compared = 0;
        for _ in 0..self.ring.len().min(LOOKED_AT) {
            let place = self.hand % self.ring.len();
            self.hand = place + 1;
            let gate = &self.gates[&self.ring[place]];
            if !is_in_use(gate) {
                let candidate = (gate.last_departure(), place); // none is longest ago
                found = Some(found.map_or(candidate, |best| best.min(candidate)));
                compared += 1;
            }
            if compared == COMPARED {
                break;
            }
        }
        found.map(|(_, place)| place)
    }

    /// Takes out the gates of which no call has left for so long.
    pub(super) fn forget_idle(&mut self, idle: Duration, now: Instant) -> Vec<Arc<Gate>> {
        let mut forgotten = Vec::new();
        self.ring.retain(|key| {
            let gate = &self.gates[key];
            let left_within = |last| now.saturating_duration_since(last) < idle;
            let stays = is_in_use(gate) || gate.last_departure().is_some_and(left_within);
            if !stays {
                forgotten.extend(self.gates.remove(key));
            }
            stays
        });
        if self.ring.capacity() > 4 * self.ring.len() {
            self.ring.shrink_to(2 * self.ring.len());
            self.gates.shrink_to(2 * self.ring.len());
            self.has_been_full = false;
        }
        forgotten
    }
}

/// Calls that wait or are in flight hold their gate, and so do handles and layers. Clones are made under the shard's
/// lock, so that nobody takes a gate while it is forgotten.
fn is_in_use(gate: &Arc<Gate>) -> bool {
    Arc::strong_count(gate) > 1 || gate.is_closed()
}
