//! The last two minutes, second by second, so that a page which is opened now has something to show.

use crate::{snapshot::refused, state::State};
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::MissedTickBehavior;
use tower_cooldown::{WaitReason, record::Snapshot};

const SECONDS: usize = 120;

/// What happened in one second, over all upstreams.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Second {
    /// When it ended, in seconds since 1970.
    at: u64,
    #[serde(flatten)]
    counts: Counts,
    /// What the gates let leave at present, in calls a second; `None` where none has a rate.
    rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    /// Calls that ended, or attempts where there is no fallback.
    calls: u64,
    /// Those that the upstream served.
    served: u64,
    fallback: u64,
    /// Attempts that were accepted, and that were refused because there were too many.
    accepted: u64,
    refused: u64,
    /// Seconds that calls waited, by reason, in the order of `WaitReason::ALL`; and that the upstreams took.
    waited: [f64; WaitReason::ALL.len()],
    service: f64,
}

/// The last seconds, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<Second>>);

impl History {
    pub(crate) fn seconds(&self) -> Vec<Second> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn push(&self, second: Second) {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds.len() == SECONDS {
            seconds.pop_front();
        }
        seconds.push_back(second);
    }
}

/// Writes the history, until it is dropped.
pub(crate) async fn sample(state: Arc<State>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Counts::default();
    loop {
        ticks.tick().await;
        let now = state.upstreams.iter().map(|upstream| Counts::of(&upstream.statistics.snapshot()));
        let now = now.fold(Counts::default(), |sum, counts| sum.with(&counts, |a, b| a + b, |a, b| a + b));
        let rates = state.upstreams.iter().flat_map(|upstream| upstream.gates.view());
        let rate = rates.filter_map(|view| view.gate.rate).reduce(|a, b| a + b);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let counts = now.with(&before, u64::saturating_sub, |a, b| (a - b).max(0.0));
        state.history.push(Second { at, counts, rate });
        before = now;
    }
}

impl Counts {
    fn of(snapshot: &Snapshot) -> Self {
        let (calls, attempts, control) = (&snapshot.calls, &snapshot.attempts, &snapshot.control);
        let has_calls = calls.total() > 0;
        Self {
            calls: if has_calls { calls.finished() } else { attempts.finished() },
            served: if has_calls { calls.primary } else { attempts.accepted },
            fallback: calls.tried_fallback(),
            accepted: attempts.accepted + control.accepted,
            refused: refused(attempts) + refused(control),
            waited: WaitReason::ALL.map(|reason| snapshot.wait(reason).sum.as_secs_f64()),
            service: attempts.service.sum.as_secs_f64() + control.service.sum.as_secs_f64(),
        }
    }

    fn with(&self, other: &Self, count: fn(u64, u64) -> u64, time: fn(f64, f64) -> f64) -> Self {
        Self {
            calls: count(self.calls, other.calls),
            served: count(self.served, other.served),
            fallback: count(self.fallback, other.fallback),
            accepted: count(self.accepted, other.accepted),
            refused: count(self.refused, other.refused),
            waited: std::array::from_fn(|reason| time(self.waited[reason], other.waited[reason])),
            service: time(self.service, other.service),
        }
    }
}
