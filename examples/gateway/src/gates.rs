//! The gates of one host, one per credential, and which of them there are.

use crate::body::RequestBody;
use hyper::Request;
use serde::Serialize;
use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{PoisonError, RwLock},
};
use tower_cooldown::cooldown::{
    GateSnapshot,
    keyed::{
        KeyOf, KeyedHandle,
        by::{self, Credential},
    },
};

/// Gates that are shown. There may be more, and they work the same.
const MAX_SHOWN: usize = 64;

/// What a gate is kept by: a hash of the credential, seeded anew each time the gateway starts. The credential itself
/// is neither kept nor shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GateKey(u64);

/// The gates of one host.
#[derive(Debug)]
pub(crate) struct Gates {
    handle: KeyedHandle,
    seed: RandomState,
    seen: RwLock<HashSet<GateKey>>,
}

/// One gate, for the page.
#[derive(Debug, Serialize)]
pub(crate) struct GateView {
    /// Tells credentials apart, and nothing about them.
    credential: String,
    #[serde(flatten)]
    pub(crate) gate: GateSnapshot,
}

impl Gates {
    pub(crate) fn new(handle: KeyedHandle) -> Self {
        Self { handle, seed: RandomState::new(), seen: RwLock::default() }
    }

    /// The key of this request, and a note that it was there.
    pub(crate) fn key(&self, request: &Request<RequestBody>) -> GateKey {
        let mut hasher = self.seed.build_hasher();
        <Credential as KeyOf<Request<RequestBody>>>::hash_key(&by::credential(), request, &mut hasher);
        let key = GateKey(std::hash::Hasher::finish(&hasher));
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let new = seen.len() < MAX_SHOWN && !seen.contains(&key);
        drop(seen);
        if new {
            self.seen.write().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        key
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.handle.len()
    }

    /// Those that are shown, the busiest first. Keys whose gate is forgotten make room.
    pub(crate) fn view(&self) -> Vec<GateView> {
        let mut gates = Vec::new();
        self.seen.write().unwrap_or_else(PoisonError::into_inner).retain(|key| {
            // The key function finds an option, and so must this.
            let gate = self.handle.get(&Some(*key));
            let view = |gate: tower_cooldown::Handle| GateView {
                credential: format!("{:04x}", key.0 >> 48),
                gate: gate.snapshot(),
            };
            gates.extend(gate.as_ref().cloned().map(view));
            gate.is_some()
        });
        gates.sort_by(|a, b| {
            let busy = |view: &GateView| (view.gate.waiting, view.gate.in_flight);
            busy(b).cmp(&busy(a)).then_with(|| a.credential.cmp(&b.credential))
        });
        gates
    }
}
