//! One contract, for every layer of the crate: [`subjects`] makes each of them over a strict upstream, and each test
//! goes through all.
//!
//! All time is virtual. What is special to a layer has tests of its own elsewhere.
#![cfg(all(feature = "body", feature = "keyed"))]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod panics;
mod readiness;
mod runtime;
mod subjects;
mod types;
mod wakeups;
