//! The simulated upstreams: each limit against a reference that remembers every call and follows the definition,
//! the measures for callers, and how the service behaves.

#![cfg(feature = "testing")]

use futures::{FutureExt, future::join_all};
use http::{Request, StatusCode};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tower_cooldown::{
    Cost,
    testing::{Limit, Limiter, Neighbour, Upstream},
};

const ONE: Cost = Cost::one();
const NANO: Duration = Duration::from_nanos(1);
/// The window of the references, in nanoseconds.
const W: u128 = 1_000_000_000;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[derive(Clone, Copy)]
struct Seen {
    at: u128,
    units: u128,
    granted: bool,
    ends: u128,
}

fn sum(seen: &[Seen], which: impl Fn(&Seen) -> bool) -> u128 {
    seen.iter().filter(|call| which(call)).map(|call| call.units).sum()
}

/// Which window a time lies in, and how far into it.
fn place(at: u128, phase: u128) -> (u128, u128) {
    let since = at + W - phase % W;
    (since / W, since % W)
}

/// Offers random calls at random times, many of them on the edges of windows, and compares each decision with
/// `admits`, each hint with what comes of following it, and each reading with what could still be taken.
fn compare(name: &str, limit: &Limit, admits: impl Fn(&[Seen], u128, u128) -> bool) {
    const CALLS: u64 = 200;
    let mut total = 0;
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut limiter = Limiter::new([limit.clone()]);
        let (mut seen, mut at) = (Vec::new(), Duration::ZERO);
        let pace = [1, 4, 30][seed as usize % 3];
        for call in 0..CALLS {
            at += ms(100) * random.u32(0..=pace);
            if random.u8(..) < 40 {
                at += Duration::from_nanos(random.u64(..100_000_000));
            }
            let units = if random.bool() { 1 } else { random.u32(1..=3) };
            let context = || format!("{name}, seed {seed}, call {call} at {at:?}");
            let cost = ONE.requests(units);
            let expected = admits(&seen, at.as_nanos(), units.into());

            limiter.advance(at);
            let before = limiter.clone();
            let decision = limiter.offer(at, cost);
            assert_eq!(decision.granted, expected, "{}", context());
            let ends = at + ms(100) * random.u32(0..9);
            if decision.granted {
                limiter.finish(ends, cost);
                assert_eq!(decision.retry_after, None);
                total += 1;
            } else if let Some(wait) = decision.retry_after {
                let admits = |at| limiter.clone().offer(at, cost).granted;
                assert!(admits(at + wait) && !admits(at + wait - NANO), "{}", context());
            }
            let left = before.clone().readings()[0].remaining as u32;
            let fits = |units| units == 0 || before.clone().offer(at, ONE.requests(units)).granted;
            assert!(fits(left) && !fits(left + 1), "{}: {left} left", context());
            let (at, ends) = (at.as_nanos(), ends.as_nanos());
            seen.push(Seen { at, units: units.into(), granted: expected, ends });
        }
    }
    let both = CALLS * 3..CALLS * 18;
    assert!(both.contains(&total), "{name}: {total} granted tells of one side only");
}

#[test]
fn a_token_bucket_fits_its_arrival_curve() {
    for (limit, per, depth) in [(1, 1000, 5), (7, 1000, 3), (3, 999, 20)] {
        let bucket = Limit::token_bucket(limit, ms(per), depth).unwrap();
        let (limit, per, depth) = (u128::from(limit), u128::from(per) * 1_000_000, u128::from(depth));
        // Every span that ends now: what was granted in it fits into a full bucket and what that gained.
        compare("token bucket", &bucket, |seen, now, units| {
            let starts = seen.iter().map(|call| call.at).chain([now]);
            starts.into_iter().all(|start| {
                let taken = sum(seen, |call| call.granted && call.at >= start);
                (taken + units) * per <= depth * per + (now - start) * limit
            })
        });
    }
}

#[test]
fn a_fixed_window_counts_its_window() {
    for phase in [0, 300, 1000, 2700] {
        let window = Limit::fixed_window(5, secs(1)).unwrap().phase(ms(phase));
        let place = |at| place(at, u128::from(phase) * 1_000_000).0;
        compare("fixed window", &window, |seen, now, units| {
            sum(seen, |call| call.granted && place(call.at) == place(now)) + units <= 5
        });
    }
}

#[test]
fn a_sliding_counter_estimates_from_two_windows() {
    for phase in [0, 300, 2700] {
        let counter = Limit::sliding_counter(7, secs(1)).unwrap().phase(ms(phase));
        let phase = u128::from(phase) * 1_000_000;
        compare("sliding counter", &counter, |seen, now, units| {
            let (index, elapsed) = place(now, phase);
            let of = |index| sum(seen, |call| call.granted && place(call.at, phase).0 == index);
            let last = index.checked_sub(1).map_or(0, of);
            last * (W - elapsed) + (of(index) + units) * W <= 7 * W
        });
    }
}

#[test]
fn a_sliding_log_counts_every_span() {
    let log = Limit::sliding_log(5, secs(1)).unwrap();
    compare("sliding log", &log, |seen, now, units| {
        sum(seen, |call| call.granted && call.at + W > now) + units <= 5
    });
}

#[test]
fn a_sliding_log_can_count_refusals() {
    let log = Limit::sliding_log(5, secs(1)).unwrap().counts_refusals();
    compare("sliding log", &log, |seen, now, units| sum(seen, |call| call.at + W > now) + units <= 5);
}

#[test]
fn a_concurrency_limit_counts_calls_that_have_not_ended() {
    compare("concurrency", &Limit::concurrency(4), |seen, now, units| {
        sum(seen, |call| call.granted && call.ends > now) + units <= 4
    });
}

#[test]
fn several_limits_must_all_admit_and_a_refused_call_takes_from_none() {
    let limits = [
        Limit::token_bucket(10, secs(1), 2).unwrap(),
        Limit::fixed_window(3, secs(60)).unwrap(),
        Limit::sliding_log(100, secs(10)).unwrap().tokens(),
    ];
    let mut limiter = Limiter::new(limits);
    let tokens = |tokens| ONE.input(tokens);
    let decision = limiter.offer(secs(0), tokens(101));
    assert_eq!((decision.refused_by, decision.retry_after), (Some(2), None));
    assert!(limiter.readings().iter().all(|reading| reading.remaining == reading.limit));
    assert!(limiter.offer(secs(0), tokens(60)).granted);
    let decision = limiter.offer(secs(1), tokens(60));
    assert_eq!((decision.refused_by, decision.retry_after), (Some(2), Some(secs(9))));
    assert!(limiter.offer(secs(1), tokens(40)).granted);
    assert!(limiter.offer(secs(1), ONE).granted);
    // The bucket is empty for 100 ms, the window for 59 s: it is the longer one that counts.
    let decision = limiter.offer(secs(1), ONE);
    assert_eq!((decision.refused_by, decision.retry_after), (Some(1), Some(secs(59))));
}

#[test]
fn a_penalty_blocks_everything_and_calls_in_it_do_not_make_it_longer() {
    let mut limiter = Limiter::new([Limit::fixed_window(1, secs(1)).unwrap().penalty(secs(300))]);
    assert!(limiter.offer(ms(0), ONE).granted);
    assert_eq!(limiter.offer(ms(500), ONE).retry_after, Some(secs(300)));
    for second in 1..=300 {
        assert_eq!(limiter.offer(secs(second), ONE).retry_after, Some(ms(300_500) - secs(second)));
    }
    assert!(limiter.offer(ms(300_500), ONE).granted);
    assert_eq!(limiter.counts().penalties, 1);
}

#[test]
fn a_limit_that_changes_keeps_what_was_used() {
    let window = |limit| Limit::fixed_window(limit, secs(60)).unwrap();
    let mut limiter = Limiter::new([window(10).then(secs(60), window(6)).then(secs(30), window(4))]);
    assert!((0..5).all(|_| limiter.offer(secs(0), ONE).granted));
    assert!(!limiter.offer(secs(30), ONE).granted);
    assert!((0..6).all(|_| limiter.offer(secs(60), ONE).granted));
    assert!(!limiter.offer(secs(60), ONE).granted);
    // Whatever the order in which the changes were added.
    let rate = |at| limiter.sustained_rate(secs(at), ONE) * 60.0;
    assert_eq!([0, 30, 60].map(rate), [10.0, 4.0, 6.0]);

    let bucket = |limit, depth| Limit::token_bucket(limit, secs(1), depth).unwrap();
    let mut limiter = Limiter::new([bucket(10, 10).then(secs(5), bucket(2, 4))]);
    assert!((0..10).all(|_| limiter.offer(ms(4800), ONE).granted));
    assert!((0..2).all(|_| limiter.offer(secs(5), ONE).granted)); // 200 ms at 10 a second
    assert_eq!(limiter.offer(secs(5), ONE).retry_after, Some(ms(500)));
}

#[test]
fn extremes_neither_panic_nor_stall() {
    let max = Duration::MAX;
    let limits = || {
        [
            Limit::token_bucket(u64::MAX, max, u64::MAX).unwrap(),
            Limit::token_bucket(u64::MAX, NANO, u64::MAX).unwrap(),
            Limit::token_bucket(0, secs(1), 0).unwrap(),
            Limit::fixed_window(u64::MAX, max).unwrap().phase(max),
            Limit::sliding_log(0, max).unwrap().counts_refusals().penalty(max),
            Limit::sliding_log(u64::MAX, max).unwrap().counts_refusals(),
            Limit::sliding_counter(u64::MAX, max).unwrap(),
            Limit::sliding_counter(0, NANO).unwrap(),
            Limit::concurrency(0),
        ]
    };
    for limits in limits().map(|limit| vec![limit]).into_iter().chain([limits().to_vec(), vec![]]) {
        let mut limiter = Limiter::new(limits);
        // Forward, backward, and to the end of time.
        for at in [secs(0), NANO, secs(3600), ms(1), secs(u64::MAX / 2), max, max] {
            for cost in [ONE, ONE.requests(0), ONE.requests(u32::MAX).input(u32::MAX)] {
                if limiter.offer(at, cost).granted {
                    limiter.finish(at.saturating_add(secs(1)), cost);
                }
                limiter.readings();
            }
        }
    }
}

#[test]
fn no_plan_gets_more_than_the_capacity() {
    /// The most calls that any plan gets through which offers up to two calls a second.
    fn best(limiter: &Limiter, second: u64) -> u64 {
        if second == 9 {
            return limiter.counts().granted;
        }
        let mut limiter = limiter.clone();
        let mut most = best(&limiter, second + 1);
        for _ in 0..2 {
            limiter.offer(secs(second), ONE);
            most = most.max(best(&limiter, second + 1));
        }
        most
    }
    for limit in [
        Limit::token_bucket(1, secs(2), 2).unwrap(),
        Limit::fixed_window(2, secs(4)).unwrap().phase(secs(3)),
        Limit::sliding_log(2, secs(4)).unwrap(),
        Limit::sliding_counter(2, secs(4)).unwrap(),
    ] {
        let limiter = Limiter::new([limit]);
        let capacity = limiter.capacity(secs(0)..secs(8) + NANO, ONE, secs(0));
        assert_eq!(capacity, best(&limiter, 0), "{limiter:?}");
    }
}

#[test]
fn capacities_are_those_of_the_textbook() {
    let capacity =
        |limits: Vec<Limit>, until| Limiter::new(limits).capacity(secs(0)..secs(until), ONE, ms(500));
    let window = Limit::fixed_window(15, secs(60)).unwrap();
    assert_eq!(capacity(vec![Limit::token_bucket(20, secs(1), 100).unwrap()], 60), 100 + 20 * 60 - 1);
    assert_eq!(capacity(vec![window.clone()], 600), 150);
    assert_eq!(capacity(vec![window.phase(secs(10))], 600), 165);
    assert_eq!(capacity(vec![Limit::sliding_log(13, secs(30)).unwrap()], 600), 260);
    assert_eq!(capacity(vec![Limit::concurrency(4)], 60), 480);
    let second = Limit::fixed_window(50, secs(1)).unwrap();
    assert_eq!(capacity(vec![second, Limit::fixed_window(5000, secs(3600)).unwrap()], 3610), 5500);
    let tokens = Limit::sliding_log(1, secs(1)).unwrap().tokens();
    assert_eq!(capacity(vec![tokens.clone()], 60), u64::MAX);
    // Limited for a while only is not limited.
    let for_a_while = Limit::sliding_log(1, secs(1)).unwrap().then(secs(1), tokens);
    assert_eq!(capacity(vec![for_a_while], 60), u64::MAX);
}

#[test]
fn neighbours_take_in_the_unit_that_is_limited() {
    let window = Limit::fixed_window(1200, secs(60)).unwrap();
    let heavy = Neighbour::new(1, secs(1)).unwrap().cost(ONE.requests(2));
    let limiter = Limiter::new([window.clone()]).neighbour(&heavy);
    assert_eq!(limiter.sustained_rate(secs(0), ONE), 18.0);
    assert_eq!(limiter.capacity(secs(0)..secs(60), ONE, ms(0)), 1200 - 2 * 59);

    let tokens = Neighbour::new(1, secs(1)).unwrap().cost(ONE.requests(0).input(10));
    let limiter = Limiter::new([window.tokens()]).neighbour(&tokens);
    assert_eq!(limiter.sustained_rate(secs(0), ONE.input(10)), 1.0);
    assert_eq!(limiter.capacity(secs(0)..secs(60), ONE.input(10), ms(0)), 120 - 59);
}

#[test]
fn a_neighbour_comes_and_goes_at_its_times() {
    let on_off = Neighbour::new(2, secs(1)).unwrap().on_off(secs(10), secs(20)).between(secs(5), secs(60));
    let mut limiter = Limiter::new([]).neighbour(&on_off);
    // On from 5 to 15 and from 35 to 45; it would be on again at 65.
    for (time, calls) in [(5, 0), (10, 10), (15, 20), (34, 20), (36, 22), (45, 40), (1000, 40)] {
        limiter.advance(secs(time));
        assert_eq!(limiter.neighbour_counts().granted, calls, "at {time} s");
    }
}

fn window(limit: u64) -> Upstream {
    Upstream::new([Limit::fixed_window(limit, secs(60)).unwrap()])
}

async fn call(upstream: &Upstream) -> StatusCode {
    upstream.clone().oneshot(Request::new(())).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn without_latency_the_answer_is_there_at_once() {
    let upstream = window(1);
    assert_eq!(call(&upstream).now_or_never(), Some(StatusCode::OK));
    assert_eq!(call(&upstream).now_or_never(), Some(StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_on_its_way_arrives_all_the_same() {
    let upstream = window(1).latency(ms(800), ms(0)).unwrap();
    assert!(timeout(ms(100), call(&upstream)).await.is_err());
    sleep(ms(299)).await;
    assert_eq!(upstream.counts().offered(), 0);
    sleep(ms(1)).await;
    assert_eq!(upstream.counts().granted, 1);
    assert_eq!(call(&upstream).await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_on_its_way_back_counts_once() {
    let upstream = window(5).latency(ms(800), ms(0)).unwrap();
    assert!(timeout(ms(600), call(&upstream)).await.is_err());
    sleep(secs(2)).await;
    assert_eq!(upstream.counts().granted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_was_never_sent() {
    let upstream = window(5).latency(ms(800), ms(0)).unwrap();
    drop(upstream.clone().oneshot(Request::new(())));
    sleep(secs(2)).await;
    assert_eq!(upstream.counts().offered(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    async fn run(seed: u64) -> Vec<(Duration, StatusCode)> {
        let second = Limit::fixed_window(50, secs(1)).unwrap();
        let upstream = Upstream::new([second]).latency(ms(800), ms(200)).unwrap().seed(seed);
        let start = tokio::time::Instant::now();
        let calls = (0..500u64).map(|nth| {
            let upstream = &upstream;
            async move {
                sleep(ms(nth * 10)).await;
                let status = call(upstream).await;
                (start.elapsed(), status)
            }
        });
        join_all(calls).await
    }
    let first = run(1).await;
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
}
