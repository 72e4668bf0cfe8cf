use super::gates::Gates;
use crate::{
    cooldown::{GateSnapshot, Handle},
    record::Statistics,
};
use std::{fmt, hash::Hash, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A view of the gates of all keys: cheap to clone, safe to keep.
#[derive(Clone)]
pub struct KeyedHandle {
    gates: Arc<Gates>,
}

impl KeyedHandle {
    pub(super) const fn new(gates: Arc<Gates>) -> Self {
        Self { gates }
    }

    /// How many keys there are. At most [`max_keys`](super::KeyedCooldownLayer::max_keys).
    pub fn len(&self) -> usize {
        self.gates.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The gate of this key, if there is one. As long as the handle is kept, so is the gate.
    pub fn get<K: Hash + ?Sized>(&self, key: &K) -> Option<Handle> {
        self.gates.get(self.gates.key(key)).map(Handle::new)
    }

    /// Shows the state of each gate to `look`, that of the overflow too, in no order. It looks through all of them.
    pub fn for_each(&self, mut look: impl FnMut(&GateSnapshot)) {
        self.gates.for_each(|gate| look(&Handle::new(Arc::clone(gate)).snapshot()));
    }

    /// The gate for the calls of keys for which there is no room.
    pub fn overflow(&self) -> Handle {
        Handle::new(Arc::clone(self.gates.overflow()))
    }

    /// Forgets the keys of which no call has left for so long, unless their gates are closed or in use. It looks
    /// through all of them.
    pub fn forget_idle(&self, idle: Duration) {
        self.gates.forget_idle(idle, Instant::now());
    }

    /// What has passed through all gates.
    pub fn statistics(&self) -> Statistics {
        self.gates.template().settings.statistics.clone()
    }
}

impl fmt::Debug for KeyedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedHandle").field("keys", &self.len()).finish_non_exhaustive()
    }
}
