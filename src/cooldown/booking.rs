//! What a gate and its calls say to one another.

use crate::{
    Cost, WaitReason,
    policy::{Closing, Departure, Mirrored},
    signal::Rejected,
};
use std::time::Duration;
use tokio::time::Instant;

/// Why and until when the whole upstream is cooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) until: Instant,
    pub(super) reason: WaitReason,
}

impl Closed {
    /// A departure while the gate is closed so, or not at all.
    pub(super) fn hold(closed: Option<Self>, departure: Departure) -> Departure {
        match closed {
            Some(closed) if closed.until > departure.at => Departure::new(closed.until, closed.reason),
            _ => departure,
        }
    }
}

/// A place in the queue: when the call came, and a number that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) arrived: Instant,
    pub(super) ticket: u64,
}

/// What the calls at a gate put up with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// The longest wait of a call.
    pub(super) max_wait: Option<Duration>,
    /// The most calls that wait at a time.
    pub(super) max_waiting: Option<usize>,
}

/// A call has left, or may leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    pub(super) epoch: u64,
    pub(super) at: Instant,
    pub(super) cost: Cost,
    pub(super) reason: WaitReason,
    /// A success need not be told to the policy.
    pub(super) quiet: bool,
}

/// What becomes of a call at the gate: it leaves, or it would wait for too long.
pub(super) type Settled = Result<Leave, Rejected>;

/// The answer to a call that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Booking {
    Settled(Settled),
    Wait { place: Place, booked: Departure },
}

/// The answer to a call that looks again.
pub(super) enum Look {
    Settled(Settled),
    /// It will be woken, or has to look again then.
    Wait {
        until: Instant,
    },
}

/// What an answer did to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    No,
    /// Closed in a new epoch.
    Closed(Closing),
    /// The closing in force was made longer.
    Extended,
}

/// When a call leaves that comes after the one which is booked `last`, with `tail` the policy after that one.
pub(super) fn book_on(
    tail: &Mirrored,
    (arrived, cost): (Instant, Cost),
    closed: Option<Closed>,
    last: Option<Departure>,
    now: Instant,
) -> Departure {
    let mut booked = Closed::hold(closed, tail.departure(arrived, cost));
    if let Some(last) = last.filter(|last| last.at > booked.at) {
        booked = last;
    }
    booked.at = booked.at.max(now);
    booked
}
