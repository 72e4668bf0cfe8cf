//! `CoalesceLayer`: its invariants, what it does with bad input, and the faults of other batchers that it must not have.

mod allocations;
mod alone;
mod bad_input;
mod faults;
#[cfg(feature = "embeddings")]
mod http;
mod inner;
mod invariants;
mod random;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod threads;
