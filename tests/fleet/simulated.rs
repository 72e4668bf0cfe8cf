//! Fleets in virtual time. Each process has a layer, a gate and a task of its own; what they share is a store in memory
//! that plays by the rules of the script.

use http::Request;
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};
use tower::{ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle,
    fleet::{Fleet, Mode, SimulatedStore},
    record::Statistics,
    retry::RetryPolicy,
    testing::{Counts, HintStyle, Limit, Upstream},
};

const SECOND: Duration = Duration::from_secs(1);

struct Sim {
    store: SimulatedStore,
    upstream: Upstream,
    handles: Vec<Handle>,
    callers: JoinSet<()>,
}

/// So many processes, each with so many callers, who call as often as they can or pause between.
fn start(processes: usize, callers: usize, pause: Duration, upstream: &Upstream, fleet: impl Fn(Fleet) -> Fleet) -> Sim {
    let store = SimulatedStore::new(Duration::from_micros(400));
    let mut sim = Sim { store, upstream: upstream.clone(), handles: Vec::new(), callers: JoinSet::new() };
    for _ in 0..processes {
        let layer = AdaptiveCooldownLayer::shared(fleet(Fleet::simulated(&sim.store)));
        sim.handles.push(layer.handle());
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::new().max_retries(1000).without_budget()))
            .layer(layer)
            .service(upstream.clone());
        for caller in 0..callers {
            let client = client.clone();
            sim.callers.spawn(async move {
                // Not all at once, as in life.
                tokio::time::sleep(pause.mul_f64(caller as f64 / callers as f64)).await;
                loop {
                    let response = client.clone().oneshot(Request::new(())).await.unwrap();
                    assert_eq!(response.status(), 200);
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }
    sim
}

/// What happened in some time, of all calls.
#[derive(Debug)]
struct Span {
    goodput: f64,
    refused: f64,
    turns_per_call: f64,
    fairness: f64,
}

impl Sim {
    /// `quota` is in calls a second.
    async fn measure(&mut self, time: Duration, quota: f64) -> Span {
        let counts = |sim: &Self| -> (Counts, u64, Vec<u64>) {
            let each = sim.handles.iter().map(|h| h.statistics().snapshot().attempts.accepted).collect();
            (sim.upstream.counts(), sim.store.turns(), each)
        };
        let before = counts(self);
        let end = Instant::now() + time;
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            Some(ended) = self.callers.join_next() => ended.unwrap(),
        }
        let after = counts(self);
        let granted = (after.0.granted - before.0.granted) as f64;
        let refused = (after.0.refused - before.0.refused) as f64;
        let each: Vec<f64> = after.2.iter().zip(&before.2).map(|(a, b)| (a - b) as f64).collect();
        let (sum, squares) = each.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        Span {
            goodput: granted / (quota * time.as_secs_f64()),
            refused: refused / (granted + refused),
            turns_per_call: (after.1 - before.1) as f64 / granted,
            fairness: sum * sum / (each.len() as f64 * squares),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn explore() {
    let min = 60 * SECOND;
    let shapes: Vec<(&str, Limit, f64)> = vec![
        ("bucket 100/s d20", Limit::token_bucket(100, SECOND, 20).unwrap(), 100.0),
        ("window 100/s", Limit::fixed_window(100, SECOND).unwrap(), 100.0),
        ("window 600/min", Limit::fixed_window(600, min).unwrap(), 10.0),
        ("bucket 10/s d10", Limit::token_bucket(10, SECOND, 10).unwrap(), 10.0),
        ("log 300/min", Limit::sliding_log(300, min).unwrap(), 5.0),
        ("bucket 1000/s d100", Limit::token_bucket(1000, SECOND, 100).unwrap(), 1000.0),
    ];
    for (name, limit, quota) in shapes {
        for hints in [HintStyle::None, HintStyle::RetryAfterSeconds] {
            let upstream = Upstream::new([limit.clone()])
                .latency(Duration::from_millis(60), Duration::from_millis(20))
                .unwrap()
                .hints(hints);
            let mut sim = start(8, 16, Duration::ZERO, &upstream, |f| f);
            let warm = sim.measure(40 * SECOND, quota).await;
            let span = sim.measure(2 * min, quota).await;
            println!("{name} {hints:?}: {:.3} {:.4} cmd {:.2} fair {:.3}  (warm {:.3} {:.4}) {:?}", span.goodput, span.refused,
                span.turns_per_call, span.fairness, warm.goodput, warm.refused, sim.handles[0].fleet());
        }
    }
}

