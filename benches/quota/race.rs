//! One run: callers, a client, an upstream, a virtual clock.

use crate::{
    clients::{Client, Pacer, cooldown},
    peers::{Answer, Call},
    scenario::{Demand, Scenario},
};
use http::Request;
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};
use tower::{BoxError, Service, ServiceExt};
use tower_cooldown::{
    Cost,
    testing::{Answering, Counts, HintStyle, Limiter, Upstream},
};

/// How much an upstream tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hints {
    None,
    RetryAfter,
    Headers,
}

pub(crate) const HINTS: [Hints; 3] = [Hints::None, Hints::RetryAfter, Hints::Headers];

impl Hints {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RetryAfter => "retry-after",
            Self::Headers => "headers",
        }
    }
}

/// What is run.
pub(crate) struct Lane<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) hints: Hints,
    pub(crate) callers: usize,
    pub(crate) seed: u64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result {
    /// Calls granted as a share of what the upstream would have granted.
    pub(crate) goodput: f64,
    /// Calls refused as a share of those sent.
    pub(crate) refused: f64,
    /// The same after the first quarter.
    pub(crate) goodput_warm: f64,
    pub(crate) refused_warm: f64,
    /// What a call waits for, beyond the round trip: half of them, and 99 %.
    pub(crate) wait_p50: f64,
    pub(crate) wait_p99: f64,
    /// The most calls sent in one millisecond, after the first quarter.
    pub(crate) max_released_per_ms: u32,
    /// Penalties an hour.
    pub(crate) penalties_per_h: f64,
    /// Calls granted until the end of each second, where the quota changes.
    granted_by_second: Vec<u64>,
}

impl Result {
    /// After how many seconds from the change on as much is granted as 95 % of what the oracle gets of the new quota.
    /// `None` if never, or if there is no change.
    pub(crate) fn recovery(&self, scenario: &Scenario, oracle: &Self) -> Option<f64> {
        let (change, span) = scenario.change()?;
        let (change, span) = (change.as_secs() as usize, span.as_secs() as usize);
        let known = oracle.granted_by_second.get(change + span..)?;
        let rate = (known.last()? - known.first()?) as f64 / (known.len() - 1).max(1) as f64;
        let enough = 0.95 * rate * span as f64;
        let mut spans = self.granted_by_second.get(change..)?.windows(span + 1);
        spans.position(|granted| (granted[span] - granted[0]) as f64 >= enough).map(|second| second as f64)
    }
}

const ROUND_TRIP: Duration = Duration::from_millis(800);
const JITTER: Duration = Duration::from_millis(200);

/// Someone who knows the quota and sends evenly, at the best rate with at most 1 % refused.
pub(crate) struct Oracle {
    pub(crate) result: Result,
}

impl Oracle {
    pub(crate) fn find(scenario: &Scenario, callers: usize) -> Self {
        let mut best: Option<Result> = None;
        for factor in [1.0, 0.99, 0.98, 0.97, 0.95, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5] {
            let lane = Lane { scenario, hints: Hints::None, callers, seed: 1 };
            let pacer = Pacer::new(scenario.rates(), scenario.concurrency, factor);
            let result = drive(&lane, |upstream| cooldown(upstream, pacer.clone()));
            let fine = result.refused_warm <= 0.01;
            let clean = result.refused_warm == 0.0;
            if fine && best.as_ref().is_none_or(|best| result.goodput_warm > best.goodput_warm) {
                best = Some(result);
            }
            if clean {
                break; // slower is no better
            }
        }
        Self { result: best.unwrap_or_default() }
    }
}

pub(crate) fn run(lane: &Lane<'_>, client: Client) -> Result {
    drive(lane, |upstream| client.over(upstream, lane.scenario, lane.seed))
}

fn drive(lane: &Lane<'_>, client: impl FnOnce(Watched) -> crate::peers::Client) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime with a clock").block_on(async {
        let scenario = lane.scenario;
        let (upstream, start) = (upstream(lane), Instant::now());
        let watched = Watched { upstream: upstream.clone(), sent: Arc::default(), start };
        let client = client(watched.clone());
        let (quarter, end) = (start + scenario.length / 4, start + scenario.length);
        let waits = Arc::new(Mutex::new(Vec::new()));
        let (demand, seconds) = (scenario.demand, scenario.length.as_secs());
        for _ in 0..lane.callers {
            let (client, waits) = (client.clone(), Arc::clone(&waits));
            tokio::spawn(async move {
                loop {
                    if let Demand::OnOff(on, off) = demand {
                        let phase = start.elapsed().as_nanos() % (on + off).as_nanos();
                        if phase >= on.as_nanos() {
                            sleep((on + off) - Duration::from_nanos(phase as u64)).await;
                        }
                    }
                    let asked = Instant::now();
                    if client.clone().oneshot(Request::new(())).await.is_err() {
                        return;
                    }
                    let wait = asked.elapsed().saturating_sub(ROUND_TRIP).as_secs_f32();
                    waits.lock().expect("no panics").push(wait);
                }
            });
        }
        let granted_by_second = Arc::new(Mutex::new(Vec::new()));
        if scenario.change().is_some() {
            let (upstream, granted) = (upstream.clone(), Arc::clone(&granted_by_second));
            tokio::spawn(async move {
                for second in 0..seconds {
                    tokio::time::sleep_until(start + Duration::from_secs(second)).await;
                    granted.lock().expect("no panics").push(upstream.counts().granted);
                }
            });
        }
        tokio::time::sleep_until(quarter).await;
        let first = upstream.counts();
        *watched.sent.lock().expect("no panics") = Sent::default();
        let _ = timeout_at(end, std::future::pending::<()>()).await;
        let all = upstream.counts();
        let limiter = fresh_limiter(scenario);
        let mut waits = std::mem::take(&mut *waits.lock().expect("no panics"));
        waits.sort_by(f32::total_cmp);
        let quantile = |q: f64| waits.get((waits.len() as f64 * q) as usize).copied().unwrap_or(0.0).into();
        let warm = all.since(first);
        let sent = watched.sent.lock().expect("no panics").most;
        Result {
            goodput: share(all, capacity(scenario, &limiter, Duration::ZERO)),
            refused: all.refused_share(),
            goodput_warm: share(warm, capacity(scenario, &limiter, scenario.length / 4)),
            refused_warm: warm.refused_share(),
            wait_p50: quantile(0.5),
            wait_p99: quantile(0.99),
            max_released_per_ms: sent,
            penalties_per_h: all.penalties as f64 * 3600.0 / scenario.length.as_secs_f64(),
            granted_by_second: std::mem::take(&mut *granted_by_second.lock().expect("no panics")),
        }
    })
}

fn share(counts: Counts, capacity: f64) -> f64 {
    counts.granted as f64 / capacity.max(1.0)
}

/// What the upstream would have granted from a time on: what it sustains, less the neighbours, whatever the demand.
fn capacity(scenario: &Scenario, limiter: &Limiter, from: Duration) -> f64 {
    if let Some(most) = scenario.concurrency {
        return (scenario.length - from).as_secs_f64() * most as f64 / scenario.work().as_secs_f64();
    }
    let seconds = from.as_secs()..scenario.length.as_secs();
    seconds.map(|second| limiter.sustained_rate(Duration::from_secs(second), Cost::one())).sum()
}

pub(crate) fn fresh_limiter(scenario: &Scenario) -> Limiter {
    let limiter = Limiter::new(scenario.limits.iter().cloned());
    scenario.neighbours.iter().fold(limiter, Limiter::neighbour)
}

fn upstream(lane: &Lane<'_>) -> Upstream {
    let scenario = lane.scenario;
    let style = match lane.hints {
        Hints::None => HintStyle::None,
        Hints::RetryAfter => scenario.retry_after,
        Hints::Headers => scenario.headers,
    };
    let upstream = Upstream::new(scenario.limits.iter().cloned()).hints(style).seed(lane.seed);
    let upstream = scenario.neighbours.iter().fold(upstream, Upstream::neighbour);
    let work = scenario.work();
    let (network, spread) = match work.is_zero() {
        true => (ROUND_TRIP, JITTER),
        false => (ROUND_TRIP - work, JITTER / 4),
    };
    let upstream = upstream.latency(network, spread.min(network)).expect("a spread below the mean");
    upstream.work(work, work / 5).expect("a spread below the mean")
}

/// The upstream, with a look at how many calls are sent in a millisecond.
#[derive(Clone)]
pub(crate) struct Watched {
    upstream: Upstream,
    sent: Arc<Mutex<Sent>>,
    start: Instant,
}

#[derive(Default)]
struct Sent {
    millisecond: u128,
    calls: u32,
    most: u32,
}

impl Service<Call> for Watched {
    type Response = Answer;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answering {
        let millisecond = self.start.elapsed().as_millis();
        {
            let mut sent = self.sent.lock().expect("no panics");
            sent.calls = if sent.millisecond == millisecond { sent.calls + 1 } else { 1 };
            sent.millisecond = millisecond;
            sent.most = sent.most.max(sent.calls);
        }
        self.upstream.call(call)
    }
}
