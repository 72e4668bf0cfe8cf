use super::{
    KeyedCooldown, KeyedHandle,
    gates::{Bounds, Gates},
};
use crate::{
    InvalidSetting,
    cooldown::{AdaptiveCooldownLayer, NeverReject, NoDeadline, layer::Options},
    cost::OneRequest,
    rollout::Everyone,
    signal::HttpClassifier,
};
use std::{any::type_name, fmt, hash::Hash, sync::Arc, time::Duration};
use tokio::time::Instant;
use tower_layer::Layer;

/// Keeps the calls of each key inside that key's limit. See the [module docs](super).
///
/// Made by [`AdaptiveCooldownLayer::keyed`]. The layer value holds the gates: its clones, all services made from it,
/// and their clones share them.
#[must_use]
#[derive(Clone)]
pub struct KeyedCooldownLayer<
    F,
    C = HttpClassifier,
    R = NeverReject,
    A = Everyone,
    W = OneRequest,
    D = NoDeadline,
> {
    by: F,
    gates: Arc<Gates>,
    options: Options<C, R, A, W, D>,
}

impl<C, R, A, W, D> AdaptiveCooldownLayer<C, R, A, W, D> {
    /// Gives each key a gate of its own, with the settings made so far. See [`keyed`](super).
    pub fn keyed<F>(self, by: F) -> KeyedCooldownLayer<F, C, R, A, W, D> {
        let bounds = Bounds { max_keys: 100_000, forget_after: Duration::from_secs(600) };
        let (gate, options) = self.into_parts();
        KeyedCooldownLayer { by, gates: Arc::new(Gates::new(gate, bounds)), options }
    }
}

impl<F, C, R, A, W, D> KeyedCooldownLayer<F, C, R, A, W, D> {
    /// The most keys that are kept. Default: 100,000, which take up to 40 MB.
    ///
    /// Like all settings it comes before handles and services: gates that are there already stay with those.
    ///
    /// # Errors
    /// If it is zero.
    pub fn max_keys(mut self, max_keys: usize) -> Result<Self, InvalidSetting> {
        InvalidSetting::positive("max_keys", max_keys)?;
        self.set(Bounds { max_keys, ..self.gates.bounds });
        Ok(self)
    }

    /// A key of which no call has left for so long is forgotten. Default: ten minutes. Not before its gate is open
    /// and nobody waits at it.
    pub fn forget_after(mut self, idle: Duration) -> Self {
        self.set(Bounds { forget_after: idle, ..self.gates.bounds });
        self
    }

    fn set(&mut self, bounds: Bounds) {
        self.gates = Arc::new(Gates::new(Arc::clone(self.gates.template()), bounds));
    }

    /// A layer with the gate of this key alone, and with real readiness. `key` has to hash like what the key function
    /// finds; for those in [`by`](super::by) that is a `str`.
    pub fn for_key<K: Hash + ?Sized>(&self, key: &K) -> AdaptiveCooldownLayer<C, R, A, W, D>
    where
        C: Clone,
        R: Clone,
        A: Clone,
        W: Clone,
        D: Clone,
    {
        let gate = self.gates.of_key(self.gates.key(key), Instant::now());
        AdaptiveCooldownLayer::from_parts(gate, self.options.clone())
    }

    /// A view of the gates that can be kept and cloned.
    pub fn handle(&self) -> KeyedHandle {
        KeyedHandle::new(Arc::clone(&self.gates))
    }
}

impl<S, F, C, R, A, W, D> Layer<S> for KeyedCooldownLayer<F, C, R, A, W, D>
where
    F: Clone,
    C: Clone,
    R: Clone,
    A: Clone,
    W: Clone,
    D: Clone,
{
    type Service = KeyedCooldown<S, F, C, R, A, W, D>;

    fn layer(&self, inner: S) -> Self::Service {
        self.gates.template().settings.statistics.claim_attempts();
        KeyedCooldown::new(inner, self.by.clone(), Arc::clone(&self.gates), self.options.clone())
    }
}

impl<F, C, R, A: fmt::Debug, W, D> fmt::Debug for KeyedCooldownLayer<F, C, R, A, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCooldownLayer")
            .field("by", &type_name::<F>())
            .field("keys", &self.gates.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
