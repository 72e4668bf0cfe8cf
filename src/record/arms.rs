use super::{Arm, Attempts, RecentAttempts, Snapshot, display::ms};
use std::{fmt, time::Duration};

/// The two sides of a [`Rollout`](crate::Rollout) beside each other. Its `Display` is a table for people.
///
/// ```text
///                           inside     outside
/// attempts                     100         900
/// success                   99.0 %      81.2 %
/// ...
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Arms {
    /// Inside: the layer did its work.
    pub treated: ArmSummary,
    /// Outside: straight through.
    pub control: ArmSummary,
}

/// One side of a rollout. What has no value yet is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArmSummary {
    /// Attempts, cancelled ones included.
    pub attempts: u64,
    /// Accepted ones as a share of the finished.
    pub success_rate: Option<f64>,
    /// The same in the last minute.
    pub recent_success_rate: Option<f64>,
    /// 429s as a share of the finished.
    pub throttled_rate: Option<f64>,
    /// The same in the last minute.
    pub recent_throttled_rate: Option<f64>,
    /// The mean time of an answered attempt, with waiting.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub mean_response: Option<Duration>,
    /// Its 95th percentile.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub p95_response: Option<Duration>,
    /// The mean time without waiting.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::record::optional_seconds"))]
    pub mean_service: Option<Duration>,
}

impl ArmSummary {
    fn new(attempts: &Attempts, recent: &RecentAttempts) -> Self {
        Self {
            attempts: attempts.total(),
            success_rate: attempts.success_rate(),
            recent_success_rate: recent.success_rate(),
            throttled_rate: super::snapshot::share(attempts.throttled, attempts.finished()),
            recent_throttled_rate: recent.throttled_rate(),
            mean_response: attempts.response.mean(),
            p95_response: (attempts.response.count > 0).then_some(attempts.response.p95),
            mean_service: attempts.service.mean(),
        }
    }
}

impl Snapshot {
    /// The two sides of the rollout beside each other.
    pub fn arms(&self) -> Arms {
        let [treated, control] =
            Arm::ALL.map(|arm| ArmSummary::new(self.arm(arm), self.last_minute.arm(arm)));
        Arms { treated, control }
    }
}

impl fmt::Display for Arms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{:.1} %", rate * 100.0));
        let time = |time: Option<Duration>| time.map_or("-".into(), ms);
        let mut row = |name: &str, of: &dyn Fn(&ArmSummary) -> String| {
            writeln!(f, "{name:<22} {:>11} {:>11}", of(&self.treated), of(&self.control))
        };
        row("", &|arm| if std::ptr::eq(arm, &self.treated) { "inside" } else { "outside" }.into())?;
        row("attempts", &|arm| arm.attempts.to_string())?;
        row("success", &|arm| percent(arm.success_rate))?;
        row("  in the last minute", &|arm| percent(arm.recent_success_rate))?;
        row("throttled", &|arm| percent(arm.throttled_rate))?;
        row("  in the last minute", &|arm| percent(arm.recent_throttled_rate))?;
        row("response, mean", &|arm| time(arm.mean_response))?;
        row("response, p95", &|arm| time(arm.p95_response))?;
        row("service, mean", &|arm| time(arm.mean_service))
    }
}
