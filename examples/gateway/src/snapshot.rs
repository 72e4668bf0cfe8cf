//! `/snapshot`: what the page shows, and everything else, as JSON.

use crate::{gates::GateView, history::Second, state::State};
use serde::Serialize;
use std::{sync::atomic::Ordering::Relaxed, time::SystemTime};
use tower_cooldown::record::{Attempts, Snapshot};

/// Everything at one moment. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Another one each time the gateway starts.
    instance: String,
    /// Seconds since 1970.
    started: u64,
    uptime: f64,
    stopping: bool,
    /// Calls that have not got the last byte of their answer.
    open: usize,
    rollout: RolloutView,
    upstreams: Vec<UpstreamView>,
    history: Vec<Second>,
}

#[derive(Debug, Serialize)]
struct RolloutView {
    percent: u8,
    /// Whether whoever asked may move it.
    movable: bool,
}

#[derive(Debug, Serialize)]
struct UpstreamView {
    name: String,
    is_fallback: bool,
    success_rate: Option<f64>,
    fallback_rate: Option<f64>,
    /// All gates; `gates` has the busiest at most.
    keys: usize,
    gates: Vec<GateView>,
    statistics: Snapshot,
}

impl Report {
    pub(crate) fn of(state: &State, movable: bool) -> Self {
        let upstreams = state.all_upstreams().map(|(upstream, is_fallback)| {
            let statistics = upstream.statistics.snapshot();
            UpstreamView {
                name: upstream.name.clone(),
                is_fallback,
                success_rate: statistics.success_rate(),
                fallback_rate: statistics.fallback_rate(),
                keys: upstream.gates.len(),
                gates: upstream.gates.view(),
                statistics,
            }
        });
        let (instant, system) = state.started;
        Self {
            instance: state.via.to_str().unwrap_or_default().to_owned(),
            started: system.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            uptime: instant.elapsed().as_secs_f64(),
            stopping: state.is_stopping(),
            open: state.open.load(Relaxed),
            rollout: RolloutView { percent: state.settings.rollout.get(), movable },
            upstreams: upstreams.collect(),
            history: state.history.seconds(),
        }
    }
}

/// Attempts that were refused because there were too many of them.
pub(crate) const fn refused(attempts: &Attempts) -> u64 {
    attempts.throttled + attempts.overloaded + attempts.exhausted
}
