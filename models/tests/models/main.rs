//! The places where threads meet, in every order that they can meet in, by loom.
//!
//! The pure parts are the crate's own files, and around them stands what the crate puts around them (the lock, the
//! flag that is read without it, wakers that are woken when it is free again), in loom's types. What differs from the
//! crate: time is a number that a thread moves (`clock`), or there is none, and the model is about wake-ups alone.

#[path = "../../../src/wakers.rs"]
mod wakers;

/// Where the crate's files look for their neighbours.
mod policy {
    use std::time::Duration;
    use tokio::time::Instant;

    pub(crate) fn later(at: Instant, wait: Duration) -> Instant {
        at.checked_add(wait).unwrap_or(at + Duration::from_secs(1_000_000_000))
    }
}

mod coalesce {
    #[path = "../../../../src/coalesce/core.rs"]
    pub(crate) mod core;
    mod hand_off;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Trigger {
        Items,
        Weight,
        Tick,
        Linger,
        Idle,
    }
}

mod micro_batch {
    mod groups;
    #[path = "../../../../src/micro_batch/line.rs"]
    pub(crate) mod line;
}

mod clock;
mod gate;
mod lease;
mod parker;
