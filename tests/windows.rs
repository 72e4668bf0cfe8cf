//! The last minute, the difference of two snapshots, the arms beside each other, and the stream of records.

mod support;

use std::time::Duration;
use support::{Reply, Upstream, ms, request, secs, unpaced};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, Rollout, WaitReason,
    record::{Arm, CallOutcome, CallRecord, FallbackReason, Outcome, RecordRing, Statistics},
};

fn record(statistics: &Statistics, outcome: Outcome) {
    statistics.record(&CallRecord::new(outcome, Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn the_last_minute_forgets_what_was_before() {
    let statistics = Statistics::new();
    for _ in 0..30 {
        record(&statistics, Outcome::Throttled);
    }
    let rates = || {
        let snapshot = statistics.snapshot();
        (snapshot.success_rate(), snapshot.last_minute.success_rate())
    };
    assert_eq!(rates(), (Some(0.0), Some(0.0)));
    advance(secs(50)).await;
    for _ in 0..10 {
        record(&statistics, Outcome::Accepted);
    }
    assert_eq!(rates(), (Some(0.25), Some(0.25)), "50 s are within the minute");
    advance(secs(16)).await;
    assert_eq!(rates(), (Some(0.25), Some(1.0)));
    advance(secs(3600)).await;
    assert_eq!(rates(), (Some(0.25), None), "nothing for an hour, and nobody looked");
    record(&statistics, Outcome::Failed);
    assert_eq!(rates().1, Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_minute_is_a_minute_or_five_seconds_more() {
    let statistics = Statistics::new();
    for second in 1..=300 {
        record(&statistics, Outcome::Accepted);
        let recent = statistics.snapshot().last_minute.attempts.total();
        assert!(recent >= second.min(60) && recent <= second.min(66), "{recent} after {second} s");
        advance(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_from_the_future_do_not_stop_the_minute() {
    let statistics = Statistics::new();
    statistics.record(&CallRecord::new(Outcome::Throttled, Instant::now() + secs(1_000_000)));
    advance(secs(66)).await;
    record(&statistics, Outcome::Accepted);
    assert_eq!(statistics.snapshot().last_minute.success_rate(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_rate_of_the_last_minute() {
    let statistics = Statistics::new();
    let service = ServiceBuilder::new()
        .layer(FallbackLayer::new(Upstream::ok()).statistics(&statistics))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics))
        .service(Upstream::new(|call| Reply::status(if call.nth < 3 { 500 } else { 200 })));
    for id in 0..4 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let recent = statistics.snapshot().last_minute;
    assert_eq!((recent.fallback_rate(), recent.success_rate()), (Some(0.75), Some(0.25)));
    assert_eq!((recent.calls.fallback, recent.attempts.failed), (3, 3));
    advance(secs(66)).await;
    service.oneshot(request(4)).await.unwrap();
    let snapshot = statistics.snapshot();
    assert_eq!((snapshot.fallback_rate(), snapshot.last_minute.fallback_rate()), (Some(0.6), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn without_a_cooldown_the_minute_passes_too() {
    let statistics = Statistics::new();
    statistics.record_call(CallOutcome::Failed(FallbackReason::Transport), ms(1));
    advance(secs(66)).await;
    statistics.record_call(CallOutcome::Primary, ms(1));
    assert_eq!(statistics.snapshot().last_minute.success_rate(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_delta_is_what_happened_in_between() {
    let statistics = Statistics::new();
    let call = |outcome, service: Duration, waited: Duration| {
        let mut record = CallRecord::new(outcome, Instant::now());
        (record.service, record.waited) = (service, waited);
        if !waited.is_zero() {
            record.wait_reason = WaitReason::RateLimit;
        }
        statistics.record(&record);
        statistics.record_call(CallOutcome::Fallback(FallbackReason::TooManyRequests), service);
    };
    for _ in 0..1000 {
        call(Outcome::Accepted, ms(10), secs(0));
    }
    let earlier = statistics.snapshot();
    for _ in 0..10 {
        call(Outcome::Throttled, secs(4), secs(2));
    }
    let delta = statistics.snapshot().delta(&earlier);
    assert_eq!((delta.attempts.total(), delta.attempts.throttled), (10, 10));
    assert_eq!(delta.success_rate(), Some(0.0));
    assert_eq!(delta.calls.fallbacks[0].served, 10);
    assert_eq!(delta.attempts.service.mean(), Some(secs(4)));
    assert_eq!(delta.wait(WaitReason::RateLimit).sum, secs(20));
    assert_eq!(delta.wait(WaitReason::Normal).count, 0);
    for quantile in [delta.attempts.service.p50, delta.attempts.service.max] {
        assert!(quantile >= ms(3750) && quantile <= ms(4500), "{quantile:?}");
    }
    let nothing = statistics.snapshot().delta(&statistics.snapshot());
    assert_eq!((nothing.attempts.total(), nothing.success_rate()), (0, None));
    assert_eq!(nothing.attempts.service.max, Duration::ZERO);
    let swapped = earlier.delta(&statistics.snapshot());
    assert_eq!(swapped.attempts.total(), 0, "never below zero");
}

#[tokio::test(start_paused = true)]
async fn the_arms_beside_each_other() {
    let rollout = Rollout::percent(50).unwrap();
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).rollout(rollout);
    let service = layer
        .layer(Upstream::new(|call| Reply::status(if call.nth == 1 { 503 } else { 200 }).after(ms(100))));
    for id in 0..4 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let arms = layer.handle().statistics().snapshot().arms();
    let both = [arms.treated, arms.control];
    assert_eq!(both.map(|arm| arm.attempts), [2, 2]);
    assert_eq!(both.map(|arm| arm.success_rate), [Some(1.0), Some(0.5)]);
    assert_eq!(both.map(|arm| arm.recent_success_rate), [Some(1.0), Some(0.5)]);
    assert_eq!(both.map(|arm| arm.mean_service), [Some(ms(100)); 2]);
    let table = arms.to_string();
    assert!(table.starts_with("                            inside     outside\nattempts"), "{table}");
    assert!(table.contains("\nsuccess                    100.0 %      50.0 %\n"), "{table}");
    let empty = Statistics::new().snapshot().arms().to_string();
    assert!(empty.contains("\nsuccess                          -           -\n"), "{empty}");
}

#[tokio::test(start_paused = true)]
async fn every_record_goes_through_the_ring() {
    let ring = RecordRing::new(4).unwrap();
    let mut reader = ring.reader();
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&Statistics::with_ring(&ring));
    let service = cooldown.layer(Upstream::statuses([200, 404]));
    for id in 0..2 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let seen: Vec<_> = reader.by_ref().map(|r| (r.outcome, r.status.unwrap().as_u16(), r.arm)).collect();
    assert_eq!(seen, [(Outcome::Accepted, 200, Arm::Treated), (Outcome::Refused, 404, Arm::Treated)]);
    for id in 0..10 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let before = cooldown.handle().statistics().snapshot();
    assert_eq!(before.records_overwritten, Some(0));
    assert_eq!((reader.by_ref().count(), reader.missed()), (4, 6));
    let now = cooldown.handle().statistics().snapshot();
    assert_eq!((now.records_overwritten, now.delta(&before).records_overwritten), (Some(6), Some(6)));
    assert_eq!(Statistics::new().snapshot().records_overwritten, None);
}
