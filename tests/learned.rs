//! `Learned` against simulated upstreams, through the real layer, on a virtual clock; and what bad upstreams do to it.
//! The whole race is `cargo bench --bench quota`.
#![cfg(feature = "testing")]

mod support;

use http::Request;
use std::{collections::VecDeque, time::Duration};
use support::{closed_loop, secs};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, Cost,
    policy::{Answer, Learned, Policy, Quota},
    signal::{Signal, Verdict},
    testing::{HintStyle, Limit, Limiter, Neighbour, Upstream},
};

const MINUTE: Duration = secs(60);

fn upstream(limit: Limit, hints: HintStyle) -> Upstream {
    let upstream = Upstream::new([limit]).hints(hints).seed(3);
    upstream.latency(Duration::from_millis(800), Duration::from_millis(200)).unwrap()
}

/// After a warm-up of 10 of 40 minutes: the share of `rate` per second that was granted, and the share that was refused.
async fn warm(limit: Limit, hints: HintStyle, rate: f64) -> (f64, f64) {
    let counts = closed_loop(&upstream(limit, hints), Learned::new(), MINUTE * 10, MINUTE * 40).await;
    (counts.granted as f64 / (rate * 1800.0), counts.refused_share())
}

#[tokio::test(start_paused = true)]
async fn it_finds_a_bucket() {
    let bucket = || Limit::token_bucket(500, MINUTE, 60).unwrap();
    for hints in [HintStyle::None, HintStyle::RetryAfterSeconds] {
        let (goodput, refused) = warm(bucket(), hints, 500.0 / 60.0).await;
        assert!(goodput > 0.98 && refused < 0.01, "{hints:?}: {goodput} {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_finds_a_window_of_any_kind() {
    let phase = Duration::from_millis(17_300);
    for limit in [
        Limit::fixed_window(300, MINUTE).unwrap().phase(phase),
        Limit::sliding_log(300, MINUTE).unwrap(),
        Limit::sliding_counter(300, MINUTE).unwrap().phase(phase),
    ] {
        for hints in [HintStyle::None, HintStyle::RetryAfter] {
            let (goodput, refused) = warm(limit.clone(), hints, 5.0).await;
            // A long sliding window is the hardest to find without a hint.
            let least = if hints == HintStyle::None { 0.85 } else { 0.95 };
            assert!(goodput > least && refused < 0.012, "{limit:?} {hints:?}: {goodput} {refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fifteen_calls_a_minute_are_found_too() {
    let limit = Limit::fixed_window(15, MINUTE).unwrap().phase(secs(17));
    let (goodput, refused) = warm(limit, HintStyle::RetryAfter, 0.25).await;
    assert!(goodput > 0.93 && refused < 0.015, "{goodput} {refused}");
}

#[tokio::test(start_paused = true)]
async fn a_lowered_quota_is_noticed() {
    let lower = Limit::fixed_window(120, MINUTE).unwrap();
    let limit = Limit::fixed_window(300, MINUTE).unwrap().then(MINUTE * 20, lower);
    let upstream = upstream(limit, HintStyle::RetryAfter);
    // Three windows after the change.
    let counts = closed_loop(&upstream, Learned::new(), MINUTE * 23, MINUTE * 40).await;
    let goodput = counts.granted as f64 / (17.0 * 120.0);
    assert!((0.95..1.01).contains(&goodput) && counts.refused_share() < 0.012, "{goodput} {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_raised_quota_is_noticed() {
    for hints in [HintStyle::None, HintStyle::RetryAfterSeconds, HintStyle::OpenAi] {
        let higher = Limit::token_bucket(15, secs(1), 20).unwrap();
        let limit = Limit::token_bucket(5, secs(1), 20).unwrap().then(MINUTE * 10, higher);
        // A minute after the change.
        let counts = closed_loop(&upstream(limit, hints), Learned::new(), MINUTE * 11, MINUTE * 20).await;
        let goodput = counts.granted as f64 / (9.0 * 60.0 * 15.0);
        assert!(goodput > 0.97 && counts.refused_share() < 0.012, "{hints:?}: {goodput} {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_leaves_a_neighbour_its_share() {
    let limit = Limit::fixed_window(300, MINUTE).unwrap();
    let neighbour = Neighbour::new(2, secs(1)).unwrap();
    let upstream = upstream(limit, HintStyle::RetryAfter).neighbour(&neighbour);
    let counts = closed_loop(&upstream, Learned::new(), MINUTE * 10, MINUTE * 40).await;
    let goodput = counts.granted as f64 / (1800.0 * 3.0);
    assert!(goodput > 0.95 && counts.refused_share() < 0.012, "{goodput} {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_calls_in_flight_is_found_without_a_hint() {
    let upstream = Upstream::new([Limit::concurrency(10)]);
    let upstream = upstream.work(Duration::from_millis(750), Duration::from_millis(150)).unwrap();
    let upstream = upstream.latency(Duration::from_millis(50), Duration::from_millis(25)).unwrap();
    let counts = closed_loop(&upstream, Learned::new(), MINUTE * 3, MINUTE * 10).await;
    let goodput = counts.granted as f64 / (7.0 * 60.0 * 10.0 / 0.8);
    assert!(goodput > 0.9 && counts.refused_share() < 0.012, "{goodput} {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn with_a_seed_and_no_budget_a_penalty_is_never_earned() {
    let limit = Limit::fixed_window(1200, MINUTE * 5).unwrap().phase(secs(17)).penalty(MINUTE * 5);
    let quota = Quota::new(1200, MINUTE * 5).unwrap();
    let policy = Learned::new().seed(quota).budget(0.0).unwrap();
    let counts = closed_loop(&upstream(limit, HintStyle::None), policy, Duration::ZERO, MINUTE * 60).await;
    assert_eq!(counts.refused, 0, "{counts:?}");
    assert!(counts.granted as f64 > 0.95 * 3600.0 * 4.0, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn counters_that_are_told_use_nearly_all_and_are_hardly_ever_refused() {
    let phase = Duration::from_millis(17_300);
    for (name, limit, hints, rate) in [
        ("OpenAI", Limit::token_bucket(500, MINUTE, 500).unwrap(), HintStyle::OpenAi, 500.0 / 60.0),
        ("Anthropic", Limit::token_bucket(50, MINUTE, 50).unwrap(), HintStyle::Anthropic, 50.0 / 60.0),
        ("window", Limit::fixed_window(300, MINUTE).unwrap().phase(phase), HintStyle::RateLimit, 5.0),
        ("GitHub", Limit::fixed_window(600, MINUTE * 2).unwrap().phase(phase), HintStyle::GitHub, 5.0),
    ] {
        let (goodput, refused) = warm(limit, hints, rate).await;
        // The last calls of a window are on their way when it ends.
        let least = if name == "window" { 0.98 } else { 0.99 };
        assert!(goodput >= least && refused <= 0.002, "{name}: {goodput} {refused}");
    }
}

/// So fast that the policy has room for some calls at any time while fewer are asked for, and hears of them and of their
/// success in bulk. That proves no higher rate, either.
#[tokio::test(start_paused = true)]
async fn twenty_thousand_calls_a_second_are_found_too() {
    let limit = Limit::token_bucket(20_000, secs(1), 2_000).unwrap();
    let upstream = Upstream::new([limit]).seed(3);
    let upstream = upstream.latency(Duration::from_millis(2), Duration::from_millis(1)).unwrap();
    let client = AdaptiveCooldownLayer::new().layer(upstream.clone());
    let start = Instant::now();
    let few = secs(12)..secs(17);
    for caller in 0..128 {
        let (mut client, few) = (client.clone(), few.clone());
        tokio::spawn(async move {
            loop {
                if caller >= 16 && few.contains(&start.elapsed()) {
                    tokio::time::sleep_until(start + few.end).await;
                }
                let ready = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
                ready.call(Request::new(())).await.unwrap();
            }
        });
    }
    for (from, to, asked_for) in [(7, 12, 20_000.0), (12, 17, 4_000.0), (17, 22, 20_000.0)] {
        tokio::time::sleep_until(start + secs(from)).await;
        let before = upstream.counts();
        tokio::time::sleep_until(start + secs(to)).await;
        let counts = upstream.counts().since(before);
        let goodput = counts.granted as f64 / (5.0 * asked_for);
        assert!(goodput > 0.98 && counts.refused_share() < 0.012, "from {from} s: {goodput} {counts:?}");
        println!("from {from} s: {goodput} {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_runs_are_the_same() {
    let one = || async {
        let limit = Limit::sliding_log(100, MINUTE).unwrap();
        closed_loop(&upstream(limit, HintStyle::RetryAfter), Learned::new(), Duration::ZERO, MINUTE * 10)
            .await
    };
    assert_eq!(one().await, one().await);
}

// ===== bad upstreams =====

/// Latencies of 0 and of ten minutes.
#[tokio::test(start_paused = true)]
async fn latencies_of_all_kinds() {
    for latency in [Duration::ZERO, MINUTE * 10] {
        let limit = Limit::fixed_window(60, MINUTE).unwrap();
        let upstream = Upstream::new([limit]).latency(latency, Duration::ZERO).unwrap();
        let counts = closed_loop(&upstream, Learned::new(), Duration::ZERO, MINUTE * 120).await;
        assert!(counts.granted > 100, "{latency:?}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_a_day() {
    let limit = Limit::fixed_window(1, secs(86_400)).unwrap();
    let counts =
        closed_loop(&upstream(limit, HintStyle::None), Learned::new(), Duration::ZERO, secs(86_400 * 5))
            .await;
    assert!(counts.granted >= 4, "{counts:?}");
}

/// Without a runtime, whose timers tick a thousand times a second only.
#[test]
fn a_million_a_second() {
    let limit = Limit::fixed_window(1_000_000, secs(1)).unwrap();
    let (mut limiter, mut policy) = (Limiter::new([limit]), Learned::new());
    let (start, round_trip) = (Instant::now(), Duration::from_millis(5));
    let (mut in_flight, mut open_at) = (VecDeque::new(), start);
    let mut now = start;
    let mut warm = None;
    while now < start + secs(8) {
        if now >= start + secs(4) {
            warm.get_or_insert(limiter.counts());
        }
        let next = policy.departure(now, Cost::one()).at.max(open_at);
        let answered_at = in_flight.front().map(|(departed, _)| *departed + round_trip);
        if answered_at.is_some_and(|at| at <= next) {
            let (departed, granted) = in_flight.pop_front().unwrap();
            now = departed + round_trip;
            let signal = Signal::new(if granted { Verdict::Accepted } else { Verdict::Throttled });
            let answer = Answer::new(&signal, departed, now);
            let current = departed >= open_at;
            let closing = policy.answered(&if current { answer } else { answer.late() });
            open_at = closing.map_or(open_at, |closing| open_at.max(now + closing.wait));
        } else {
            now = next;
            policy.depart(now, Cost::one());
            in_flight.push_back((now, limiter.offer(now - start, Cost::one()).granted));
        }
    }
    let counts = limiter.counts().since(warm.unwrap());
    let goodput = counts.granted as f64 / 4e6;
    assert!(goodput > 0.95 && counts.refused_share() < 0.012, "{goodput} {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_it_likes_are_never_held_back_for_long() {
    let upstream = Upstream::new([]).latency(secs(1), Duration::ZERO).unwrap();
    let counts = closed_loop(&upstream, Learned::new(), MINUTE, MINUTE * 2).await;
    assert_eq!(counts.refused, 0);
    assert!(counts.granted > 32 * 55, "32 callers, a second each: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn everything_is_refused() {
    let limit = Limit::fixed_window(0, MINUTE).unwrap();
    let counts =
        closed_loop(&upstream(limit, HintStyle::None), Learned::new(), Duration::ZERO, secs(86_400)).await;
    assert_eq!(counts.granted, 0);
    // It goes on asking, at least every ten minutes.
    assert!((140..400).contains(&counts.refused), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn hints_that_lie() {
    for lie in ["1", "599", "0.001"] {
        let mut calls = 0_u32;
        let upstream = service_fn(move |_: Request<()>| {
            calls += 1;
            let mut response = http::Response::builder()
                .header("x-ratelimit-remaining", calls % 7)
                .header("x-ratelimit-reset", lie);
            if calls % 5 == 0 {
                response = response.status(429).header("retry-after", lie);
            }
            async move { Ok::<_, BoxError>(response.body(()).unwrap()) }
        });
        let mut client = AdaptiveCooldownLayer::new().layer_on(upstream);
        let start = Instant::now();
        for _ in 0..50 {
            client.ready().await.unwrap().call(Request::new(())).await.unwrap();
        }
        assert!(start.elapsed() < secs(600 * 40), "{lie}: {:?}", start.elapsed());
    }
}

trait LayerOn {
    fn layer_on<S: Clone>(self, service: S) -> tower_cooldown::AdaptiveCooldown<S>;
}

impl LayerOn for AdaptiveCooldownLayer {
    fn layer_on<S: Clone>(self, service: S) -> tower_cooldown::AdaptiveCooldown<S> {
        tower::Layer::layer(&self, service)
    }
}

/// Random answers at random times, with a clock that jumps by an hour now and then: the rate stays a number, and no
/// closing is longer than ten minutes.
#[test]
fn whatever_is_answered_the_rate_stays_a_number() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut policy = Learned::new();
        let mut now = Instant::now();
        let mut in_flight = Vec::new();
        for _ in 0..2000 {
            now += match random.u64(..200) {
                0 => secs(3600),
                1..20 => secs(random.u64(..60)),
                _ => Duration::from_micros(random.u64(..100_000)),
            };
            if random.u64(..2) == 0 {
                policy.depart(now, Cost::one().requests(random.u64(..4) as u32));
                in_flight.push(now);
            } else if let Some(departed) = in_flight.pop() {
                let verdict = match random.u64(..seed % 7 + 2) {
                    0 => Verdict::Throttled,
                    1 => [Verdict::Failed, Verdict::Overloaded, Verdict::Refused][random.u64(..3) as usize],
                    _ => Verdict::Accepted,
                };
                let mut signal = Signal::new(verdict);
                if random.u64(..3) == 0 {
                    signal = signal.retry_after(Duration::from_millis(random.u64(..600_000)));
                }
                signal.hints.concurrency = random.u64(..50) == 0;
                let answer = Answer::new(&signal, departed, now);
                let answer = if random.u64(..4) == 0 { answer.late() } else { answer };
                let closing = policy.answered(&answer);
                assert!(closing.is_none_or(|closing| closing.wait <= secs(600)), "seed {seed}: {closing:?}");
            }
            let rate = policy.rate();
            assert!(rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "seed {seed}: {rate:?}");
            assert!(policy.max_in_flight().is_none_or(|most| most > 0), "seed {seed}");
        }
    }
}

/// The quota was used up before the program started: the refusal of its first call says nothing of the pace.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_very_first_call_does_not_make_it_slow() {
    for refusals in 1..4 {
        for wait in ["200", ""] {
            let mut left = refusals;
            let client = service_fn(move |_: Request<()>| {
                let mut response = http::Response::builder();
                if left > 0 {
                    left -= 1;
                    response = response.status(429).header("retry-after-ms", wait);
                }
                async move { Ok::<_, BoxError>(response.body(())?) }
            });
            let mut client = AdaptiveCooldownLayer::with_policy(Learned::new()).layer(client);
            let start = Instant::now();
            for _ in 0..20 {
                client.ready().await.unwrap().call(Request::new(())).await.unwrap();
            }
            assert!(start.elapsed() < secs(20), "{refusals} {wait}: {:?}", start.elapsed());
        }
    }
}
