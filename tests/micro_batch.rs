//! MicroBatchLayer: groups, the pause, cancellation, and its records.

mod support;

use futures::{FutureExt, future::join_all};
use std::time::Duration;
use support::{Reply, Upstream, every, ms, request, secs, send, settle, unpaced};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, MicroBatchLayer, Rollout, WaitReason,
    record::{Snapshot, Statistics},
};

fn pairs() -> MicroBatchLayer {
    MicroBatchLayer::new(2).unwrap()
}

fn slow(latency: Duration) -> Upstream {
    Upstream::new(move |_| Reply::status(200).after(latency))
}

/// Sends that many requests at once, in order, and waits for all.
async fn send_all<S>(service: &S, requests: u64)
where
    S: Service<http::Request<()>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send + std::fmt::Debug,
{
    for answer in join_all((0..requests).map(|id| send(service, id))).await {
        answer.unwrap().0.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn five_requests_are_groups_of_two_two_and_one() {
    let upstream = slow(ms(800));
    send_all(&pairs().layer(upstream.clone()), 5).await;
    assert_eq!(upstream.ids(), [0, 1, 2, 3, 4]);
    assert_eq!(upstream.times(), [0, 0, 1300, 1300, 2600]);
    assert_eq!(upstream.peak(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_one_after_another_make_the_same_groups() {
    let upstream = slow(ms(800));
    let mut service = pairs().layer(upstream.clone());
    for id in 0..5 {
        service.ready().await.unwrap().call(request(id)).await.unwrap();
    }
    assert_eq!(upstream.times(), [0, 800, 2100, 2900, 4200]);
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_its_slowest_call() {
    let upstream =
        Upstream::new(|call| Reply::status(200).after(if call.id == 0 { secs(10) } else { ms(100) }));
    send_all(&pairs().layer(upstream.clone()), 3).await;
    assert_eq!(upstream.times(), [0, 0, 10_500]);
}

#[tokio::test(start_paused = true)]
async fn size_pause_and_parallel_calls_are_settings() {
    let upstream = slow(ms(100));
    let layer = MicroBatchLayer::new(3).unwrap().pause(secs(1)).parallel(2).unwrap();
    send_all(&layer.layer(upstream.clone()), 7).await;
    assert_eq!(upstream.times(), [0, 0, 100, 1200, 1200, 1300, 2400]);

    let upstream = slow(ms(100));
    send_all(&pairs().parallel(1).unwrap().pause(Duration::ZERO).layer(upstream.clone()), 4).await;
    assert_eq!(upstream.times(), [0, 100, 200, 300]);
    assert_eq!(upstream.peak(), 1);
}

#[tokio::test(start_paused = true)]
async fn zero_sizes_are_named_when_the_layer_is_built() {
    assert_eq!(MicroBatchLayer::new(0).unwrap_err().field(), "size");
    assert_eq!(pairs().parallel(0).unwrap_err().field(), "parallel");
}

#[tokio::test(start_paused = true)]
async fn an_absurd_pause_does_not_overflow() {
    let upstream = slow(ms(1));
    let service = pairs().pause(Duration::MAX).layer(upstream.clone());
    send_all(&service, 2).await;
    let third = send(&service, 2);
    advance(secs(1_000_000)).await;
    assert_eq!(upstream.len(), 2);
    third.abort();
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_layer_share_one_line() {
    let upstream = slow(ms(100));
    let layer = pairs();
    let services = [layer.layer(upstream.clone()), layer.clone().layer(upstream.clone())];
    let tasks: Vec<_> = (0..4).map(|id| send(&services[id as usize % 2], id)).collect();
    join_all(tasks).await;
    assert_eq!(upstream.times(), [0, 0, 600, 600]);
}

#[tokio::test(start_paused = true)]
async fn a_late_setting_makes_a_line_of_its_own() {
    let upstream = slow(ms(100));
    let layer = pairs();
    let first = layer.layer(upstream.clone());
    let second = layer.clone().pause(secs(9)).layer(upstream.clone());
    send_all(&first, 2).await;
    send_all(&second, 2).await;
    send_all(&first, 1).await;
    assert_eq!(upstream.times(), [0, 0, 100, 100, 600]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_does_not_hold_its_group_up() {
    // In flight.
    let upstream =
        Upstream::new(|call| Reply::status(200).after(if call.id == 0 { secs(60) } else { ms(100) }));
    let service = pairs().layer(upstream.clone());
    let first = send(&service, 0);
    let rest: Vec<_> = (1..4).map(|id| send(&service, id)).collect();
    sleep(ms(200)).await;
    first.abort();
    join_all(rest).await;
    assert_eq!(upstream.times(), [0, 0, 700, 700]);

    // Waiting, as the head of the queue, in the middle of the pause.
    let upstream = slow(ms(100));
    let service = pairs().layer(upstream.clone());
    let tasks: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    sleep(ms(300)).await;
    tasks[2].abort();
    join_all(tasks).await;
    assert_eq!(upstream.ids(), [0, 1, 3, 4]);
    assert_eq!(upstream.times(), [0, 0, 600, 600]);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_it_leaves_nothing_behind() {
    // Polled k times and dropped; the line has to serve the next two requests at once afterwards.
    for polls in 0..6 {
        let upstream = slow(ms(100));
        let layer = pairs();
        let mut service = layer.layer(upstream.clone());
        send_all(&service, 1).await;
        let ahead = send(&service, 1);
        settle().await;
        let mut future = Box::pin(service.ready().await.unwrap().call(request(2)));
        for _ in 0..polls {
            assert!((&mut future).now_or_never().is_none());
            advance(ms(150)).await;
        }
        drop(future);
        ahead.await.unwrap().0.unwrap();
        advance(secs(1)).await;
        let start = Instant::now();
        send_all(&service, 2).await;
        assert_eq!(start.elapsed(), ms(100), "after {polls} polls");
        let snapshot = layer.get_statistics().snapshot();
        assert_eq!(snapshot.attempts.total(), 5);
        assert_eq!(snapshot.attempts.cancelled, 1);
        assert_eq!(upstream.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_inner_service() {
    let limit = ConcurrencyLimitLayer::new(1);
    let service = ServiceBuilder::new().layer(pairs()).layer(limit).service(Upstream::ok());
    let (mut holder, mut other) = (service.clone(), service);
    assert!(support::is_ready(&mut holder));
    assert!(!support::is_ready(&mut other));
    drop(holder);
    assert!(support::is_ready(&mut other));
}

#[tokio::test(start_paused = true)]
async fn alone_it_records_calls_refusals_and_waits() {
    let statistics = Statistics::new();
    // A cooldown that shares the statistics, but serves nobody, does not count for it.
    let _unused = AdaptiveCooldownLayer::new().statistics(&statistics);
    let upstream = Upstream::statuses([200, 429, 429, 200]);
    let service = pairs().statistics(&statistics).layer(upstream);
    send_all(&service, 4).await;

    let snapshot = statistics.snapshot();
    assert_eq!((snapshot.attempts.accepted, snapshot.attempts.throttled), (2, 2));
    assert_eq!(snapshot.peak_consecutive_429s, 2);
    assert_eq!(snapshot.wait(WaitReason::Normal).count, 2);
    assert_eq!(snapshot.wait(WaitReason::Batch).count, 2);
    assert_eq!(snapshot.wait(WaitReason::Batch).mean(), Some(ms(500)));
    assert_eq!(snapshot.mean_response(), Some(ms(250)));
    assert_eq!(snapshot.mean_service(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn with_a_cooldown_nothing_is_counted_twice() {
    async fn run(statistics: &Statistics, batch_first: bool) -> Snapshot {
        // Which of the two layers is told of the statistics first must not matter.
        let (batch, cooldown) = if batch_first {
            let batch = pairs().statistics(statistics);
            (batch, AdaptiveCooldownLayer::with_policy(unpaced()).statistics(statistics))
        } else {
            let cooldown = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(statistics);
            (pairs().statistics(statistics), cooldown)
        };
        let service = ServiceBuilder::new().layer(batch).layer(cooldown).service(slow(ms(100)));
        send_all(&service, 4).await;
        statistics.snapshot()
    }
    for batch_first in [true, false] {
        let snapshot = run(&Statistics::new(), batch_first).await;
        assert_eq!(snapshot.attempts.total(), 4);
        assert_eq!(snapshot.wait(WaitReason::Batch).count, 2);
        assert_eq!(snapshot.mean_service(), Some(ms(100)));
        // As the callers saw it: 100, 100, 700 and 700 ms.
        assert_eq!((snapshot.batched.count, snapshot.mean_response()), (4, Some(ms(400))));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_cooldown_a_call_that_never_came_there_is_counted_too() {
    let statistics = Statistics::new();
    let service = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(1).unwrap().statistics(&statistics))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics))
        .service(slow(secs(1)));
    let (first, second) = (send(&service, 0), send(&service, 1));
    sleep(ms(500)).await;
    second.abort();
    first.await.unwrap().0.unwrap();
    let attempts = statistics.snapshot().attempts;
    assert_eq!((attempts.accepted, attempts.cancelled, attempts.total()), (1, 1, 2));
    assert_eq!(statistics.snapshot().wait(WaitReason::Batch).sum, ms(500));
}

#[tokio::test(start_paused = true)]
async fn a_group_slows_down_with_the_upstream() {
    let upstream = slow(ms(100));
    let service = ServiceBuilder::new()
        .layer(pairs())
        .layer(AdaptiveCooldownLayer::with_policy(every(secs(2))))
        .service(upstream.clone());
    send_all(&service, 4).await;
    // The second of each group waits for the pace; the group waits for it.
    assert_eq!(upstream.times(), [0, 2000, 4000, 6000]);
}

#[tokio::test(start_paused = true)]
async fn outside_the_rollout_calls_go_straight_through() {
    let upstream = slow(ms(100));
    let layer = pairs().rollout(Rollout::off());
    send_all(&layer.layer(upstream.clone()), 5).await;
    assert_eq!(upstream.times(), [0; 5]);
    let snapshot = layer.get_statistics().snapshot();
    assert_eq!((snapshot.control.accepted, snapshot.attempts.total()), (5, 0));
}
