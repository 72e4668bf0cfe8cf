//! Many processes, one quota: in virtual time over a simulated store, and against a real Redis (or Valkey).

#![cfg(all(feature = "redis", feature = "testing"))]

mod real;
mod server;
mod simulated;
