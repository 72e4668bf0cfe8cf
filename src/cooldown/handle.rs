use super::gate::Gate;
use crate::{InvalidSetting, WaitReason, policy::Policy, record::Statistics};
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
///
/// It also changes settings while calls pass and wait: those of the [policy](Self::change_policy), or the
/// [policy itself](Self::set_policy), and the [bounds](Self::set_max_wait) on the waiting. The percentage of a rollout is
/// changed by the [`Rollout`](crate::Rollout) that the layer was given, which is a handle itself.
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
        let bounds = self.gate.bounds();
        self.gate.inspect(|state, closed, now| GateSnapshot {
            closed_for: closed.map(|closed| closed.until.saturating_duration_since(now)),
            closed_because: closed.map(|closed| closed.reason),
            epoch: state.epoch(),
            waiting: state.waiting(),
            in_flight: self.gate.in_flight(state),
            rate: state.policy().policy().rate(),
            max_in_flight: state.policy().max_in_flight(),
            max_waiting: bounds.max_waiting,
            max_wait: bounds.max_wait,
        })
    }

    /// The upstream's [name](crate::AdaptiveCooldownLayer::name).
    pub fn name(&self) -> &str {
        &self.gate.settings.name
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

    /// Changes the [longest wait](crate::AdaptiveCooldownLayer::max_wait); `None` takes the bound away. It holds for calls
    /// that wait already, too: those that would wait for longer are rejected at once.
    ///
    /// The gates of all keys of one layer have it in common; change it there by their common handle (`KeyedHandle`).
    ///
    /// # Errors
    /// If the layer was made without a bound, and therefore has no answer for calls that are not sent. Make it with
    /// `max_wait(Duration::MAX)` to have a choice later.
    pub fn set_max_wait(&self, max_wait: Option<Duration>) -> Result<(), InvalidSetting> {
        self.gate.settings.bounds.set_max_wait(max_wait)?;
        self.gate.rebound();
        Ok(())
    }

    /// Changes how many calls [may wait](crate::AdaptiveCooldownLayer::max_waiting); `None` takes the bound away. Those
    /// that wait already stay.
    ///
    /// # Errors
    /// As [`set_max_wait`](Self::set_max_wait).
    pub fn set_max_waiting(&self, calls: Option<usize>) -> Result<(), InvalidSetting> {
        self.gate.settings.bounds.set_max_waiting(calls)
    }

    /// Changes the settings of the policy, which keeps what it knows. Calls that wait are booked anew.
    ///
    /// `change` gets a copy and returns it changed. Like a policy's own methods it runs under the gate's lock: it has
    /// to be quick, and must not call the gate.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_cooldown::{
    ///     AdaptiveCooldownLayer, InvalidSetting,
    ///     policy::{Known, Learned, Quota},
    /// };
    ///
    /// # fn main() -> Result<(), InvalidSetting> {
    /// let handle = AdaptiveCooldownLayer::new().handle();
    /// handle.change_policy(|learned: Learned| learned.budget(0.002))?;
    ///
    /// let quota = Quota::new(15, Duration::from_secs(60))?;
    /// let handle = AdaptiveCooldownLayer::with_policy(Known::new(quota)).handle();
    /// handle.change_policy(|known: Known| Ok(known.requests(Quota::new(30, Duration::from_secs(60))?)))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `change`, and if the gate has another policy than a `P`; nothing changes then.
    pub fn change_policy<P: Policy + Clone + 'static>(
        &self,
        change: impl FnOnce(P) -> Result<P, InvalidSetting>,
    ) -> Result<(), InvalidSetting> {
        self.gate.change_policy(|policy| {
            let policy = policy.as_any().downcast_ref::<P>().ok_or_else(|| {
                InvalidSetting::new("policy", format!("is not a {}", std::any::type_name::<P>()))
            })?;
            change(policy.clone()).map(|policy| Box::new(policy) as _)
        })
    }

    /// Gives the gate another policy. It knows nothing of the calls that left before, and takes their answers for late
    /// ones; what the server told of its counters stays, and a gate that is closed stays closed. Calls that wait are
    /// booked anew.
    pub fn set_policy(&self, policy: impl Policy + 'static) {
        self.gate.replace_policy(Box::new(policy));
    }
}

/// The state of a gate at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The rate at which calls leave, in requests a second, as far as the policy [has one](crate::policy::Policy::rate).
    pub rate: Option<f64>,
    /// The most calls that the policy lets be in flight at present; `None` without a bound.
    pub max_in_flight: Option<usize>,
    /// The most calls that may wait; `None` without a bound.
    pub max_waiting: Option<usize>,
    /// The longest that a call may wait; `None` without a bound.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub max_wait: Option<Duration>,
}
