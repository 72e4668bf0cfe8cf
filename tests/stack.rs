//! All layers together: the job in virtual time, cancellation at every point, and the books at rest.

mod support;

use futures::{FutureExt, StreamExt, future::join_all};
use http::Response;
use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Reply, Upstream, ms, request, secs, send, settle, unpaced};
use tokio::time::{Instant, advance, sleep};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, retry::RetryLayer,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, Handle, MicroBatchLayer, WaitReason,
    policy::{Known, Ladder, Policy, Quota},
    record::{Snapshot, Statistics},
    retry::RetryPolicy,
};

struct Stack<S> {
    client: S,
    primary: Upstream,
    second: Upstream,
    statistics: Statistics,
    gate: Handle,
}

trait Client:
    Service<http::Request<()>, Response = Response<String>, Error = BoxError, Future: Send> + Clone + Send
{
}
impl<S> Client for S where
    S: Service<http::Request<()>, Response = Response<String>, Error = BoxError, Future: Send> + Clone + Send
{
}

fn stack(policy: impl Policy + 'static, retries: u32, primary: Upstream) -> Stack<impl Client + 'static> {
    let statistics = Statistics::new();
    let second = Upstream::new(|_| Reply::status(200).after(ms(1200)));
    let cooldown = AdaptiveCooldownLayer::with_policy(policy).statistics(&statistics);
    let gate = cooldown.handle();
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(MicroBatchLayer::new(2).unwrap().statistics(&statistics))
        .layer(FallbackLayer::new(second.clone()).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(retries)))
        .layer(cooldown)
        .layer(GlobalConcurrencyLimitLayer::new(4))
        .service(primary.clone());
    Stack { client, primary, second, statistics, gate }
}

/// 15 in any fixed window of 30 s, about 800 ms a call, no hint when it refuses: Gemini's free tier.
fn gemini() -> Upstream {
    let mut window = VecDeque::new();
    Upstream::new(move |call| {
        window.retain(|opened: &Duration| call.at < *opened + secs(30));
        if window.len() == 15 {
            return Reply::status(429).after(ms(30));
        }
        let opened = window.front().copied().unwrap_or(call.at);
        window.push_back(opened);
        Reply::status(200).after(ms(700 + call.id * 37 % 200))
    })
}

/// Tags that many pages from five tasks.
async fn job(client: &impl Client, pages: u64) -> (usize, Duration) {
    let start = Instant::now();
    let answers = futures::stream::iter(0..pages).map(|id| client.clone().oneshot(request(id)));
    let answered =
        answers.buffer_unordered(5).filter(|answer| std::future::ready(answer.is_ok())).count().await;
    (answered, start.elapsed())
}

fn assert_at_rest(snapshot: &Snapshot, gate: &Handle) {
    assert_eq!((gate.snapshot().in_flight, gate.snapshot().waiting), (0, 0));
    let attempts = &snapshot.attempts;
    assert_eq!(attempts.response.count, attempts.finished() - attempts.rejected);
}

#[tokio::test(start_paused = true)]
async fn twenty_and_fifty_pages_with_a_known_quota() {
    for (pages, longest) in [(20, secs(35)), (50, secs(97))] {
        let quota = Quota::new(15, secs(30)).unwrap();
        let stack = stack(Known::new(quota), 3, gemini());
        let (answered, elapsed) = job(&stack.client, pages).await;
        let snapshot = stack.statistics.snapshot();
        assert_eq!(answered, pages as usize, "a page was lost");
        assert_eq!(snapshot.success_rate(), Some(1.0));
        assert_eq!(snapshot.fallback_rate(), Some(0.0));
        assert_eq!(snapshot.attempts.throttled, 0);
        assert!(snapshot.mean_service().unwrap() < secs(1));
        assert!(elapsed <= longest, "{pages} pages in {elapsed:?}");
        assert_at_rest(&snapshot, &stack.gate);
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_and_fifty_pages_with_nothing_known() {
    // The ladder knows neither the quota nor when the window ends. It needs retries, and loses nothing.
    for pages in [20, 50] {
        let stack = stack(Ladder::new(), 10, gemini());
        let (answered, elapsed) = job(&stack.client, pages).await;
        let snapshot = stack.statistics.snapshot();
        assert_eq!(answered, pages as usize, "a page was lost");
        assert!(snapshot.success_rate().unwrap() >= 0.95, "{snapshot}");
        assert!(snapshot.fallback_rate().unwrap() < 0.05, "{snapshot}");
        assert!(elapsed < secs(150), "{pages} pages in {elapsed:?}");
        assert_eq!(snapshot.calls.finished(), pages);
        assert_at_rest(&snapshot, &stack.gate);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_loses_no_call() {
    let answers = |call: support::Call| match call.nth % 4 {
        0 => Reply::error("connection refused"),
        1 => Reply::status(500),
        2 => Reply::status(503),
        _ => Reply::status(429).after(ms(50)),
    };
    let stack = stack(Ladder::new(), 1, Upstream::new(answers));
    let (answered, _) = job(&stack.client, 50).await;
    let snapshot = stack.statistics.snapshot();
    assert_eq!(answered, 50);
    assert_eq!((snapshot.calls.tried_fallback(), stack.second.len()), (50, 50));
    assert_eq!(snapshot.attempts.total(), stack.primary.len() as u64);
    assert_at_rest(&snapshot, &stack.gate);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_a_call_leaves_nothing_behind() {
    // The one call waits for its group, is refused, waits for the gate, is refused again, falls back. It is
    // dropped after k steps of 100 ms, for all k; then the stack has to serve as if nothing had been.
    let mut outcomes = BTreeSet::new();
    for steps in 0..120 {
        let primary = Upstream::new(|call| match call.id {
            7 => Reply::status(429).after(ms(250)),
            _ => Reply::status(200).after(ms(500)),
        });
        let mut stack = stack(unpaced(), 2, primary);
        let ahead = [send(&stack.client, 1), send(&stack.client, 2)];
        settle().await;
        let mut call = Box::pin(async { stack.client.ready().await.ok().unwrap().call(request(7)).await });
        let mut ended = false;
        for _ in 0..steps {
            ended = ended || (&mut call).now_or_never().is_some();
            if ended {
                break;
            }
            advance(ms(100)).await;
            settle().await;
        }
        drop(call);
        join_all(ahead).await;
        stack.gate.reset();
        sleep(secs(60)).await;
        assert_eq!((stack.primary.in_flight(), stack.second.in_flight()), (0, 0), "after {steps} steps");

        let start = Instant::now();
        for answer in join_all([send(&stack.client, 3), send(&stack.client, 4)]).await {
            assert_eq!(answer.unwrap().0.ok().unwrap().status(), 200);
        }
        assert_eq!(start.elapsed(), ms(500), "after {steps} steps");
        let snapshot = stack.statistics.snapshot();
        assert_at_rest(&snapshot, &stack.gate);
        // A call that was dropped before its group began never came to the fallback.
        let cancelled = snapshot.calls.cancelled;
        assert_eq!(snapshot.calls.finished(), 4 + u64::from(ended), "after {steps} steps");
        assert!(cancelled + u64::from(ended) <= 1, "after {steps} steps");
        let sent = stack.primary.len() as u64;
        assert!(
            (sent..=sent + u64::from(!ended)).contains(&snapshot.attempts.total()),
            "after {steps} steps"
        );
        outcomes.insert((ended, cancelled));
    }
    // Before the group, on the way, and to its end: all three were seen.
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
}

/// The one test on the wall's clock: threads that race for one gate, which a refusal closes for a millisecond
/// now and then and a handle opens again. It ends when all calls have ended, well below its bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_share_a_gate_without_losing_a_call() {
    const TASKS: usize = 16;
    const CALLS: usize = 2000;
    let layer = AdaptiveCooldownLayer::with_policy(unpaced().steps([ms(1); 4]));
    let (handle, calls) = (layer.handle(), AtomicUsize::new(0));
    let refuse = Arc::new(move || calls.fetch_add(1, SeqCst) % 100 == 99);
    let client = ServiceBuilder::new().layer(layer).service_fn(move |_: ()| {
        let refuse = Arc::clone(&refuse);
        async move {
            tokio::task::yield_now().await;
            let status = if refuse() { 429 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
        }
    });
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for call in 0..CALLS {
                    let answer = client.clone().oneshot(());
                    // Every tenth is polled once and given up.
                    if call % 10 == 9 {
                        answer.now_or_never();
                    } else {
                        answer.await.unwrap();
                    }
                }
            })
        })
        .collect();
    let meddler = tokio::spawn({
        let handle = handle.clone();
        async move {
            loop {
                if handle.snapshot().epoch % 7 == 6 {
                    handle.reset();
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let ended = tokio::time::timeout(secs(60), join_all(tasks)).await;
    meddler.abort();
    for task in ended.expect("no call hangs") {
        task.unwrap();
    }
    let snapshot = handle.statistics().snapshot();
    let attempts = &snapshot.attempts;
    assert_eq!(attempts.accepted + attempts.throttled, (TASKS * CALLS * 9 / 10) as u64, "{snapshot}");
    assert!(snapshot.wait(WaitReason::Adaptive).count > 100, "the gate was hardly ever closed: {snapshot}");
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_at_random_leave_the_books_in_order() {
    let seed = 20_261_124_u64;
    let random = Mutex::new(seed);
    let below = |bound: u64| {
        let mut state = random.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % bound
    };
    let primary = Upstream::new(|call| {
        let status = [200, 200, 200, 429, 503, 500, 404][(call.nth * 5 + call.nth / 7) % 7];
        Reply::status(status).after(ms(100 + call.id * 13 % 400))
    });
    let stack = stack(Ladder::new(), 2, primary);
    let mut tasks = Vec::new();
    for id in 0..300 {
        tasks.push(send(&stack.client, id));
        sleep(ms(below(400))).await;
        if below(3) == 0 {
            let victim = below(tasks.len() as u64) as usize;
            tasks[victim].abort();
        }
    }
    let (mut answered, mut gone) = (0, 0);
    for task in join_all(tasks).await {
        match task {
            Ok((answer, _)) => {
                assert!(answer.is_ok());
                answered += 1;
            }
            Err(error) => {
                assert!(error.is_cancelled(), "seed {seed}");
                gone += 1;
            }
        }
    }
    assert_eq!(answered + gone, 300);
    let snapshot = stack.statistics.snapshot();
    assert_at_rest(&snapshot, &stack.gate);
    assert_eq!(snapshot.calls.finished(), answered, "seed {seed}: {snapshot}");
    assert!(snapshot.calls.cancelled <= gone, "seed {seed}: {snapshot}");
}
