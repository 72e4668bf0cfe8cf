use std::{fmt, time::Duration};

/// Where a process stands in its fleet. See [`Handle::fleet`](crate::Handle::fleet).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// Whether the state is shared just now.
    pub mode: Mode,
    /// The pace of the whole fleet, in calls per second, as last heard. `None` before the first answer.
    pub pace: Option<f64>,
    /// Processes with something to do, this one included, as last heard.
    pub members: u64,
    /// The epoch: how many times the fleet was closed by a refusal.
    pub epoch: u64,
    /// Calls that were granted to all processes, as last heard.
    pub accepted: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Commands that this process sent to Redis: turns and subscriptions.
    pub commands: u64,
    /// How many times this process was left alone.
    pub outages: u64,
    /// Whether refusals of others are heard at once. If not, they are heard of within a tenth of a second.
    pub subscribed: bool,
    /// The last round trip to Redis.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub round_trip: Option<Duration>,
}

/// How a process gets its departures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Mode {
    /// Nothing was heard yet.
    #[default]
    Joining,
    /// By leases from Redis.
    Shared,
    /// By itself, at its share of the last known pace, because Redis does not serve.
    Alone,
}

impl Mode {
    /// The name, for metrics: `joining`, `shared`, `alone`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Shared => "shared",
            Self::Alone => "alone",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
