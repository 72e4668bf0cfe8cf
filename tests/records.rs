//! Records, statistics, snapshots, and tokens.

mod support;

use http::{Request, Response};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Reply, Upstream, every, ms, request, secs, send, settle, unpaced};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, MicroBatchLayer, Rollout, WaitReason,
    cooldown::TooManyRequests,
    policy::Ladder,
    record::{Arm, CallOutcome, CallRecord, FallbackReason, Outcome, Statistics, Usage},
    retry::RetryPolicy,
    signal::HttpClassifier,
};

#[tokio::test(start_paused = true)]
async fn every_attempt_is_one_record() {
    let records: Arc<Mutex<Vec<CallRecord>>> = Arc::default();
    let statistics = Statistics::with_observer({
        let records = Arc::clone(&records);
        move |record| records.lock().unwrap().push(*record)
    });
    let upstream = Upstream::new(|call| match call.nth {
        0 => Reply::throttled(2).after(ms(100)),
        1 => Reply::status(200).after(ms(800)),
        _ => Reply::status(404).after(ms(50)),
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics))
        .service(upstream);
    for id in 0..2 {
        service.clone().oneshot(request(id)).await.unwrap();
    }

    let seen: Vec<_> = records
        .lock()
        .unwrap()
        .iter()
        .map(|r| (r.outcome, r.status.map_or(0, |s| s.as_u16()), r.wait_reason, r.waited, r.service))
        .collect();
    assert_eq!(
        seen,
        [
            (Outcome::Throttled, 429, WaitReason::Normal, Duration::ZERO, ms(100)),
            (Outcome::Accepted, 200, WaitReason::RateLimit, secs(2), ms(800)),
            (Outcome::Refused, 404, WaitReason::Normal, Duration::ZERO, ms(50)),
        ]
    );
    let snapshot = statistics.snapshot();
    assert_eq!(snapshot.attempts.total(), 3);
    assert_eq!(snapshot.success_rate(), Some(1.0 / 3.0));
    assert_eq!(snapshot.fallback_rate(), None, "there is no fallback in this stack");
    assert_eq!(snapshot.attempts.service.sum, ms(950));
    assert_eq!(snapshot.attempts.response.sum, ms(2950));
}

#[tokio::test(start_paused = true)]
async fn the_histogram_of_waits_has_a_row_for_each_reason() {
    // The ladder: the third call in two seconds waits, and a 429 closes the gate.
    let layer = AdaptiveCooldownLayer::with_policy(Ladder::new());
    let statistics = layer.handle().statistics();
    let upstream = Upstream::new(|call| Reply::status(if call.nth == 3 { 429 } else { 200 }));
    let service = layer.layer(upstream);
    for id in 0..3 {
        service.clone().oneshot(request(id)).await.unwrap(); // 0, 0, then 1000 ms
    }
    sleep(secs(10)).await;
    service.clone().oneshot(request(3)).await.unwrap(); // refused
    service.clone().oneshot(request(4)).await.unwrap(); // 1500 ms: the gate, and the preflight just as long
    sleep(ms(1400)).await;
    service.clone().oneshot(request(5)).await.unwrap(); // 2900 ms after the refusal: 1500 ms

    let snapshot = statistics.snapshot();
    let waits = |reason| (snapshot.wait(reason).count, snapshot.wait(reason).sum);
    assert_eq!(waits(WaitReason::Normal), (3, Duration::ZERO));
    assert_eq!(waits(WaitReason::Preflight), (1, ms(1000)));
    assert_eq!(waits(WaitReason::Adaptive), (1, ms(1500)));
    assert_eq!(waits(WaitReason::RateLimit), (1, ms(1500)));
    assert_eq!(snapshot.mean_response(), Some(ms(4000) / 6));
    assert_eq!(snapshot.mean_service(), Some(Duration::ZERO));
    assert_eq!((snapshot.consecutive_429s, snapshot.peak_consecutive_429s), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_spent_in_poll_ready_is_part_of_the_wait() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    layer.handle().cool_for(secs(10));
    let service = layer.layer(Upstream::ok());
    service.oneshot(request(1)).await.unwrap();
    let wait = layer.handle().statistics().snapshot().wait(WaitReason::Adaptive);
    assert_eq!((wait.count, wait.sum), (1, secs(10)));
}

/// The handle looks at the gate again when that closes for longer, and its call has waited from the first look on.
#[tokio::test(start_paused = true)]
async fn so_is_the_time_before_the_gate_closed_for_longer() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    layer.handle().cool_for(secs(10));
    let call = send(&layer.layer(Upstream::ok()), 1);
    sleep(secs(4)).await;
    layer.handle().cool_for(secs(10));
    assert_eq!(call.await.unwrap().1, secs(14));
    let wait = layer.handle().statistics().snapshot().wait(WaitReason::Adaptive);
    assert_eq!((wait.count, wait.sum), (1, secs(14)));
}

/// However a wait ends: what counts is when the call could have left.
#[tokio::test(start_paused = true)]
async fn how_late_calls_leave_that_waited() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1)));
    let (handle, service) = (layer.handle(), layer.layer(Upstream::ok()));
    let mut earlier = handle.statistics().snapshot();
    let mut slips = || {
        let now = handle.statistics().snapshot();
        let slips = now.delta(&earlier).slips;
        earlier = now;
        (slips.count, slips.sum)
    };
    let mut call = task::spawn(service.clone().oneshot(request(0)));
    assert_ready_ok!(call.poll());
    assert_eq!(slips(), (0, ms(0)), "it did not wait");

    let waiting = send(&service, 1);
    assert_eq!(waiting.await.unwrap().1, secs(1));
    assert_eq!(slips(), (1, ms(0)), "in time");

    let mut waiting = task::spawn(service.clone().oneshot(request(2)));
    assert_pending!(waiting.poll());
    advance(ms(1250)).await;
    assert_ready_ok!(waiting.poll());
    assert_eq!(slips(), (1, ms(250)), "its task did not get its turn");

    let mut stopped = task::spawn(service.clone().oneshot(request(3)));
    assert_pending!(stopped.poll());
    let behind = send(&service, 4);
    assert_eq!(behind.await.unwrap().1, secs(3), "the one before it left a second late, by its hand");
    assert_eq!(slips(), (1, ms(0)));
    advance(secs(7)).await;
    assert_ready_ok!(stopped.poll());
    assert_eq!(slips(), (1, secs(9)), "after its timer, not after it was let go");

    let mut waiting = task::spawn(service.clone().oneshot(request(5)));
    assert_pending!(waiting.poll());
    handle.cool_for(secs(60));
    advance(secs(20)).await;
    assert_pending!(waiting.poll());
    handle.reset();
    assert!(waiting.is_woken());
    advance(ms(3)).await;
    assert_ready_ok!(waiting.poll());
    assert_eq!(slips(), (1, ms(3)), "let go before its timer");
    let waiting = send(&service, 6);
    settle().await;
    handle.cool_for(secs(30));
    assert_eq!(waiting.await.unwrap().1, secs(30));
    assert_eq!(slips(), (1, ms(0)), "what counts is the timer that it set last");
}

#[tokio::test(start_paused = true)]
async fn peak_of_consecutive_429s() {
    let layer = AdaptiveCooldownLayer::new();
    let statistics = layer.handle().statistics();
    let service = layer.layer(Upstream::statuses([200, 429, 429, 429, 200, 429, 503, 404]));
    for id in 0..8 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let snapshot = statistics.snapshot();
    assert_eq!(snapshot.peak_consecutive_429s, 3);
    assert_eq!(snapshot.consecutive_429s, 1, "neither a 503 nor a 404 is a success");
}

#[tokio::test(start_paused = true)]
async fn callers_report_tokens_through_the_response() {
    let statistics = Statistics::new();
    let service = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2).unwrap().statistics(&statistics))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()).track_usage().statistics(&statistics))
        .service(Upstream::ok());
    for id in 0..3 {
        let response = service.clone().oneshot(request(id)).await.unwrap();
        response.extensions().get::<Usage>().expect("the handle").report(100, 20);
    }
    let tokens = statistics.snapshot().tokens;
    assert_eq!((tokens.input, tokens.output, tokens.total(), tokens.reports), (300, 60, 360, 3));

    // A rule of one's own does not get in the way.
    let rule = HttpClassifier::new().with(|_: Result<&Response<String>, &BoxError>| None);
    let ruled = AdaptiveCooldownLayer::with_policy(unpaced()).classify(rule).track_usage();
    let response = ruled.layer(Upstream::ok()).oneshot(request(0)).await.unwrap();
    response.extensions().get::<Usage>().expect("the handle").report(u64::MAX, 1);
    assert_eq!(ruled.handle().statistics().snapshot().tokens.total(), u64::MAX);

    let without = AdaptiveCooldownLayer::with_policy(unpaced()).layer(Upstream::ok());
    assert!(without.oneshot(request(0)).await.unwrap().extensions().get::<Usage>().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_two_arms_of_a_rollout_are_apart() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced())
        .rollout(Rollout::off().by(|request: &Request<()>| request.uri().path().to_owned()));
    let handle = layer.handle();
    handle.cool_for(secs(60));
    let service = layer.layer(Upstream::new(|_| Reply::status(429).after(ms(10))));
    let start = Instant::now();
    service.oneshot(request(1)).await.unwrap();
    assert_eq!(start.elapsed(), ms(10), "straight through a closed gate");
    let snapshot = handle.statistics().snapshot();
    assert_eq!((snapshot.control.throttled, snapshot.attempts.total()), (1, 0));
    assert_eq!(snapshot.control.response.mean(), Some(ms(10)));
    assert_eq!(handle.snapshot().epoch, 1, "its answer did not move the gate");
}

#[tokio::test(start_paused = true)]
async fn cancelled_and_rejected_calls_have_no_response_time() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).max_wait(secs(5)).reject_with(TooManyRequests);
    let (handle, service) =
        (layer.handle(), layer.layer(Upstream::new(|_| Reply::status(200).after(secs(9)))));
    let in_flight = send(&service, 1);
    settle().await;
    handle.cool_for(secs(60));
    assert_eq!(service.clone().oneshot(request(2)).await.unwrap().status(), 429);
    in_flight.abort();
    settle().await;
    let attempts = handle.statistics().snapshot().attempts;
    assert_eq!((attempts.cancelled, attempts.rejected, attempts.total()), (1, 1, 2));
    assert_eq!((attempts.response.count, attempts.service.count), (0, 0));
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (0, 0));
}

fn example() -> Statistics {
    let statistics = Statistics::new();
    for (outcome, waited) in
        [(Outcome::Accepted, 0), (Outcome::Accepted, 1500), (Outcome::Throttled, 0), (Outcome::Accepted, 0)]
    {
        let mut record = CallRecord::new(outcome, Instant::now());
        record.service = ms(800);
        record.waited = ms(waited);
        if waited > 0 {
            record.wait_reason = WaitReason::RateLimit;
        }
        statistics.record(&record);
    }
    let mut control = CallRecord::new(Outcome::Accepted, Instant::now());
    control.arm = Arm::Control;
    statistics.record(&control);
    statistics.record_call(CallOutcome::Primary, ms(800));
    statistics.record_call(CallOutcome::Fallback(FallbackReason::TooManyRequests), ms(2800));
    Usage::new(&statistics).report(1200, 34);
    statistics
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_reads_well() {
    let expected = "\
success rate     50.0 %, 50.0 % in the last minute
fallback rate    50.0 %, 50.0 % in the last minute
calls            2: 1 primary, 1 fallback, 0 refused, 0 cancelled
  429            1 served by the fallback, 0 failed there too, 0 not sent to it
  response       mean 1800.0 ms, p50 819.2 ms, p95 2752.5 ms, p99 2752.5 ms, max 2800.0 ms
attempts         4: 3 accepted, 1 throttled
  with waiting   mean 1175.0 ms, p50 819.2 ms, p95 2228.2 ms, p99 2228.2 ms, max 2300.0 ms
  service alone  mean 800.0 ms, p50 800.0 ms, p95 800.0 ms, p99 800.0 ms, max 800.0 ms
outside rollout  1: 1 accepted
  with waiting   mean 0.0 ms, p50 0.0 ms, p95 0.0 ms, p99 0.0 ms, max 0.0 ms
  service alone  mean 0.0 ms, p50 0.0 ms, p95 0.0 ms, p99 0.0 ms, max 0.0 ms
429s in a row    0 now, 1 at most
tokens           1200 in, 34 out
waits                count       mean        p95        max
  normal                 3          -          -          -
  preflight              0          -          -          -
  rate_limit             1  1500.0 ms  1500.0 ms  1500.0 ms
  adaptive               0          -          -          -
  batch                  0          -          -          -
";
    assert_eq!(example().snapshot().to_string(), expected);
    assert!(Statistics::new().snapshot().to_string().starts_with("success rate     -\nattempts         0\n"));
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_snapshot_serializes() {
    let json = serde_json::to_value(example().snapshot()).unwrap();
    assert_eq!(json["attempts"]["accepted"], 3);
    assert_eq!(json["attempts"]["service"]["sum"], 3.2);
    assert_eq!(json["waits"][2]["reason"], "rate_limit");
    assert_eq!(json["calls"]["fallbacks"][0]["served"], 1);
    assert_eq!(json["last_minute"]["attempts"]["throttled"], 1);
    assert_eq!(serde_json::to_value(example().snapshot().arms()).unwrap()["treated"]["mean_service"], 0.8);
    let layer = AdaptiveCooldownLayer::new();
    layer.handle().cool_for(secs(2));
    let gate = serde_json::to_value(layer.handle().snapshot()).unwrap();
    assert_eq!((gate["closed_for"].as_f64(), gate["closed_because"].as_str()), (Some(2.0), Some("adaptive")));
    let mut record = CallRecord::new(Outcome::Throttled, Instant::now());
    record.status = Some(http::StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(serde_json::to_value(record).unwrap()["status"], 429);
}

#[tokio::test]
async fn counting_from_many_threads_loses_nothing() {
    let statistics = Statistics::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    statistics.record(&CallRecord::new(Outcome::Accepted, Instant::now()));
                    statistics.record_call(CallOutcome::Primary, ms(1));
                }
            });
        }
    });
    let snapshot = statistics.snapshot();
    assert_eq!((snapshot.attempts.accepted, snapshot.attempts.service.count), (40_000, 40_000));
    assert_eq!((snapshot.calls.primary, snapshot.calls.response.sum), (40_000, secs(40)));
}
