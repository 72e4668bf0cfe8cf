//! What a process says to the ledger, and what it hears. Times are microseconds.

use super::counters::Told;
use crate::signal::Readings;

/// One turn of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// Who asks.
    pub(super) id: u64,
    /// How many departures it asks for.
    pub(super) want: f64,
    /// Departures that it had and did not use (below 0: that it used beyond those). Those of an older epoch do not count.
    pub(super) back: f64,
    /// What the process knows: it is what the fleet begins with where nothing is known, as after a restart.
    pub(super) known: Known,
    /// Calls of this epoch that were granted, and those of older ones.
    pub(super) accepted: f64,
    pub(super) late: f64,
    /// Calls that were refused after another one of their flight.
    pub(super) also_refused: f64,
    /// A call of this epoch was refused; otherwise 0.
    pub(super) refused: f64,
    /// How long the server said that it takes, of any refusal; 0 if it did not say.
    pub(super) told: f64,
    /// A round trip to the upstream; 0 if there was none.
    pub(super) round_trip: f64,
    /// The server's counters.
    pub(super) counters: [Told; Readings::MAX],
    /// Tokens that go in and that come out: what a departure is booked for, and what was taken beyond what was booked.
    pub(super) input: f64,
    pub(super) output: f64,
    pub(super) more_input: f64,
    pub(super) more_output: f64,
    /// Calls in flight, those and the ones that wait, and the places that it gives up, as in [`places`](super::places).
    pub(super) flying: f64,
    pub(super) need: f64,
    pub(super) drops: f64,
    /// Whatever places it had, it does not know of them any more.
    pub(super) anew: bool,
    /// Somebody opened the gate by hand.
    pub(super) opens: bool,
    /// The process takes its leave.
    pub(super) leaves: bool,
}

/// What is known of the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) epoch: f64,
    /// For how long it is still closed.
    pub(super) closed: f64,
    /// Departures a second; 0 if unknown.
    pub(super) pace: f64,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Grant {
    pub(super) known: Known,
    /// Whether that pace was measured, or is only the first guess.
    pub(super) measured: bool,
    /// Processes that take part.
    pub(super) members: f64,
    /// So many departures, the first one in so much time, and then one after each gap. Their numbers follow `seq`.
    pub(super) count: f64,
    pub(super) first: f64,
    pub(super) gap: f64,
    pub(super) seq: f64,
    /// What was booked before.
    pub(super) input: f64,
    pub(super) output: f64,
    /// Its places, by how many another one has fewer who needs one, and whether anybody does.
    pub(super) places: f64,
    pub(super) lack: f64,
    pub(super) short: bool,
    /// Who has a place that had to wait for it; 0 if nobody has.
    pub(super) to: f64,
    /// Where there were none: when to ask again.
    pub(super) hold: f64,
    /// Calls of the whole fleet so far.
    pub(super) accepted: f64,
    pub(super) refused: f64,
    /// To be published: the epoch is new, one call has found out that the upstream is open, somebody has a place who waits
    /// for it, or somebody begins to wait.
    pub(super) news: bool,
}
