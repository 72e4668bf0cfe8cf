//! Nothing but tests: see `hosts.rs`.
