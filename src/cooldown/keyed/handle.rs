use super::gates::Gates;
use crate::{
    InvalidSetting,
    cooldown::{GateSnapshot, Handle},
    policy::Policy,
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

    /// As [`Handle::set_max_wait`], for the gates of all keys, and those to come.
    ///
    /// # Errors
    /// As there.
    pub fn set_max_wait(&self, max_wait: Option<Duration>) -> Result<(), InvalidSetting> {
        self.gates.template().settings.bounds.set_max_wait(max_wait)?;
        self.gates.for_each(|gate| gate.rebound());
        Ok(())
    }

    /// As [`Handle::set_max_waiting`], for the gates of all keys, and those to come.
    ///
    /// # Errors
    /// As there.
    pub fn set_max_waiting(&self, calls: Option<usize>) -> Result<(), InvalidSetting> {
        self.gates.template().settings.bounds.set_max_waiting(calls)
    }

    /// As [`Handle::change_policy`], for the gates of all keys, and those to come.
    ///
    /// # Errors
    /// As there; of the gates that were changed before the one with the error, which may be some, the change stays. (If
    /// `change` has an error for settings alone, that is none.)
    pub fn change_policy<P: Policy + Clone + 'static>(
        &self,
        change: impl Fn(P) -> Result<P, InvalidSetting>,
    ) -> Result<(), InvalidSetting> {
        let mut result = Handle::new(Arc::clone(self.gates.template())).change_policy(&change);
        self.gates.for_each(|gate| {
            if result.is_ok() {
                result = Handle::new(Arc::clone(gate)).change_policy(&change);
            }
        });
        result
    }

    /// As [`Handle::set_policy`], for the gates of all keys, and those to come.
    pub fn set_policy(&self, policy: impl Policy + 'static) {
        self.gates.template().replace_policy(policy.boxed_clone());
        self.gates.for_each(|gate| gate.replace_policy(policy.boxed_clone()));
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
