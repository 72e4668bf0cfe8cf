//! Keys that are hashed once, before the lock is taken.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// A key and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashed<K> {
    hash: u64,
    key: K,
}

impl<K: Hash> Hashed<K> {
    /// The state is random, so that nobody can choose keys that collide.
    pub(super) fn new(key: K, state: &RandomState) -> Self {
        // Without a `by` the key is `()`, and there is nothing to hash.
        let hash = if size_of::<K>() == 0 { 0 } else { state.hash_one(&key) };
        Self { hash, key }
    }
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

/// Takes the hash as it is.
pub(super) type AsItIs = BuildHasherDefault<Through>;

#[derive(Default)]
pub(super) struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed here");
    }
}
