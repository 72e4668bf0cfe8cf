use super::gate::Gate;
use crate::{WaitReason, record::Statistics};
use std::{sync::Arc, time::Duration};

/// A view of a gate: cheap to clone, safe to keep, without the types of the service.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::AdaptiveCooldownLayer;
///
/// let layer = AdaptiveCooldownLayer::new();
/// let handle = layer.handle();
///
/// handle.cool_for(Duration::from_secs(30)); // maintenance ahead: no call leaves
/// assert!(handle.snapshot().closed_for.is_some());
/// handle.reset(); // all clear
/// assert!(handle.snapshot().closed_for.is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Handle {
    gate: Arc<Gate>,
}

impl Handle {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    /// The state of the gate now.
    pub fn snapshot(&self) -> GateSnapshot {
        self.gate.inspect(|state, closed, now| GateSnapshot {
            closed_for: closed.map(|closed| closed.until.saturating_duration_since(now)),
            closed_because: closed.map(|closed| closed.reason),
            epoch: state.epoch(),
            waiting: state.waiting(),
            in_flight: self.gate.in_flight(state),
        })
    }

    /// Where this process stands in its fleet, if the gate is [shared](crate::AdaptiveCooldownLayer::shared).
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn fleet(&self) -> Option<crate::fleet::FleetSnapshot> {
        self.gate.fleet().map(|fleet| fleet.snapshot())
    }

    /// What has passed through the gate.
    pub fn statistics(&self) -> Statistics {
        self.gate.settings.statistics.clone()
    }

    /// Closes the gate for at least this long, as if the upstream had asked for it. Answers to calls that are
    /// in flight no longer change that; calls that wait go on waiting.
    ///
    /// A gate that is [shared](crate::AdaptiveCooldownLayer) by a fleet is closed for all, and opened for all by
    /// [`reset`](Self::reset): with the next call, if nothing is going on.
    pub fn cool_for(&self, wait: Duration) {
        self.gate.cool_for(wait);
    }

    /// Opens the gate at once and forgets the refusals. Calls that wait leave in their order, spaced by the
    /// policy; answers to calls that are in flight do not close the gate again unless they say until when.
    pub fn reset(&self) {
        self.gate.reset();
    }
}

/// The state of a gate at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GateSnapshot {
    /// For how long the whole upstream is still cooling; `None` while the gate is open.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub closed_for: Option<Duration>,
    /// Why it is.
    pub closed_because: Option<WaitReason>,
    /// How many times the gate has closed or was reset.
    pub epoch: u64,
    /// Calls that wait for their departure.
    pub waiting: usize,
    /// Calls that left and are not answered.
    pub in_flight: usize,
}
