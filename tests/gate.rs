//! The rules of the gate, as seen from outside the service.

mod support;

use futures::future::join_all;
use http::{Request, Response, header::RETRY_AFTER};
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use support::{Reply, Upstream, every, is_ready, ms, request, secs, send, settle, unpaced};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, Cost, Rejected, Rollout, WaitReason,
    cooldown::TooManyRequests,
    policy::{Answer, Closing, Departure, Known, Ladder, Policy, Quota},
    record::{CallRecord, Outcome, Statistics},
};

fn with_policy(policy: impl Policy + 'static) -> AdaptiveCooldownLayer {
    AdaptiveCooldownLayer::with_policy(policy)
}

/// Statistics, and a list of all the records that go into them.
fn observed() -> (Statistics, Arc<Mutex<Vec<CallRecord>>>) {
    let records = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&records);
    (Statistics::with_observer(move |record| sink.lock().unwrap().push(*record)), records)
}

/// Calls each of `ids` at once on a handle of its own that was readied before, so that they wait in their
/// futures and not in `poll_ready`. Each future is polled once.
macro_rules! call_all {
    ($service:expr, $ids:expr) => {{
        let mut readied: Vec<_> = $ids.map(|id| ($service.clone(), id)).collect();
        readied.iter_mut().for_each(|(service, _)| assert!(is_ready(service)));
        let mut calls: Vec<_> =
            readied.iter_mut().map(|(service, id)| task::spawn(service.call(request(*id)))).collect();
        calls.iter_mut().for_each(|call| drop(call.poll().map(Result::unwrap)));
        calls
    }};
}

/// Readies a handle for each of `ids`, lets `between` happen, and calls each of them in a task of its own: from
/// then on a call is polled only when it is woken.
fn spawn_all<S>(
    service: &S,
    ids: Range<u64>,
    between: impl FnOnce(),
) -> Vec<JoinHandle<Result<S::Response, S::Error>>>
where
    S: Service<Request<()>> + Clone,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: fmt::Debug + Send + 'static,
{
    let mut readied: Vec<_> = ids.map(|id| (service.clone(), id)).collect();
    readied.iter_mut().for_each(|(service, _)| assert!(is_ready(service)));
    between();
    readied.iter_mut().map(|(service, id)| tokio::spawn(service.call(request(*id)))).collect()
}

// ===== rule 1: `poll_ready` is advisory and revocable; own gate first =====

#[tokio::test(start_paused = true)]
async fn readiness_is_taken_back_while_the_gate_is_closed() {
    let layer = with_policy(unpaced());
    let mut service = layer.layer(Upstream::ok());
    assert!(is_ready(&mut service));
    layer.handle().cool_for(secs(5));
    assert!(!is_ready(&mut service));
    advance(ms(4999)).await;
    assert!(!is_ready(&mut service));
    advance(ms(1)).await;
    assert!(is_ready(&mut service));
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_not_asked_while_the_gate_is_closed() {
    let upstream = Upstream::ok();
    let layer = with_policy(unpaced());
    let mut service = layer.layer(upstream.clone());
    layer.handle().cool_for(secs(5));
    assert!(!is_ready(&mut service));
    assert_eq!(upstream.ready_polls(), 0);
    advance(secs(5)).await;
    assert!(is_ready(&mut service));
    assert_eq!(upstream.ready_polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_readiness_of_the_inner_service_is_dropped_when_the_gate_closes() {
    let permits = Arc::new(Semaphore::new(1));
    let layer = with_policy(unpaced());
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(Upstream::ok());
    assert!(is_ready(&mut service));
    assert_eq!(permits.available_permits(), 0);
    layer.handle().cool_for(secs(5));
    assert!(!is_ready(&mut service));
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_reserves_no_departure() {
    let upstream = Upstream::ok();
    let service = with_policy(every(secs(1))).layer(upstream.clone());
    let mut readied: Vec<_> = (0..10).map(|_| service.clone()).collect();
    assert!(readied.iter_mut().all(is_ready));
    let mut last = readied.pop().unwrap();
    drop(readied);
    last.call(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [0]);
    // The pace alone does not show in `poll_ready`.
    assert!(is_ready(&mut last));
    last.call(request(1)).await.unwrap();
    assert_eq!(upstream.times(), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_poll_ready_reaches_the_caller_as_it_is() {
    let upstream = Upstream::ok();
    let (inner, armed) = FailsToGetReady::new(upstream.clone());
    armed.store(true, SeqCst);
    let mut service = with_policy(unpaced()).layer(inner);
    assert_eq!(service.ready().await.unwrap_err().to_string(), "inner");
    service.ready().await.unwrap().call(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [0]);
}

// ===== rule 2: `call` is authoritative =====

#[tokio::test(start_paused = true)]
async fn a_call_waits_although_its_handle_was_ready() {
    let upstream = Upstream::ok();
    let layer = with_policy(unpaced());
    let mut service = layer.layer(upstream.clone());
    assert!(is_ready(&mut service));
    layer.handle().cool_for(secs(5));
    service.call(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [5000]);
}

#[tokio::test(start_paused = true)]
async fn handles_that_are_all_ready_are_spaced_by_their_calls() {
    let upstream = Upstream::ok();
    let service = with_policy(every(secs(1))).layer(upstream.clone());
    let mut calls = call_all!(service, 0..4);
    assert_eq!(upstream.ids(), [0]);
    join_all(calls.drain(1..)).await;
    assert_eq!(upstream.ids(), [0, 1, 2, 3]);
    assert_eq!(upstream.times(), [0, 1000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_calls_the_readied_instance_itself() {
    let upstream = Upstream::ok();
    let mut service = with_policy(unpaced()).layer(upstream.clone());
    let clones = upstream.clones();
    for id in 0..3 {
        service.ready().await.unwrap().call(request(id)).await.unwrap();
    }
    assert_eq!(upstream.clones(), clones);
    assert_eq!(upstream.ready_polls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_poll_ready_readies_the_inner_service_first() {
    let upstream = Upstream::ok();
    let mut service = with_policy(unpaced()).layer(upstream.clone());
    service.call(request(0)).await.unwrap();
    // Nor is one `Ready` good for two calls.
    assert!(is_ready(&mut service));
    service.call(request(1)).await.unwrap();
    service.call(request(2)).await.unwrap();
    assert_eq!(upstream.ids(), [0, 1, 2]);
}

// ===== rule 3: after every wake, look again =====

#[tokio::test(start_paused = true)]
async fn a_late_429_that_says_until_when_makes_everyone_wait_longer() {
    // The second answer comes when the gate is closed already, and counts only if it says until when, and
    // only if that is later.
    let late_answers: [(Reply<BoxError>, u128); 3] =
        [(Reply::throttled(10), 11_000), (Reply::throttled(1), 2100), (Reply::status(429), 2100)];
    for (late_answer, opens) in late_answers {
        let mut late_answer = Some(late_answer);
        let upstream = Upstream::new(move |call| match call.id {
            0 => Reply::throttled(2).after(ms(100)),
            1 => late_answer.take().unwrap().after(secs(1)),
            _ => Reply::status(200),
        });
        let layer = with_policy(unpaced());
        let handle = layer.handle();
        let service = layer.layer(upstream.clone());
        let mut readied = service.clone();
        assert!(is_ready(&mut readied));
        let early = [send(&service, 0), send(&service, 1)];
        sleep(ms(500)).await;

        let in_call = tokio::spawn(readied.call(request(2)));
        let in_poll_ready = send(&service, 3);
        settle().await;
        assert_eq!(handle.snapshot().waiting, 1);
        in_call.await.unwrap().unwrap();
        in_poll_ready.await.unwrap().0.unwrap();
        join_all(early).await;
        assert_eq!(upstream.times()[2..], [opens, opens]);
        assert_eq!(handle.snapshot().epoch, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_fires_in_poll_ready_is_no_permission() {
    let layer = with_policy(unpaced());
    let mut service = layer.layer(Upstream::ok());
    layer.handle().cool_for(secs(2));
    let mut ready = task::spawn(service.ready());
    assert_pending!(ready.poll());
    advance(secs(1)).await;
    layer.handle().cool_for(secs(10));
    for _ in 0..9 {
        advance(secs(1)).await;
        assert_pending!(ready.poll());
    }
    advance(secs(1)).await;
    assert!(ready.is_woken());
    assert_ready_ok!(ready.poll());
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_while_the_inner_service_gets_ready_holds_the_call_back() {
    let upstream = Upstream::ok();
    let permits = Arc::new(Semaphore::new(1));
    let layer = with_policy(unpaced());
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(upstream.clone());

    let taken = Arc::clone(&permits).try_acquire_owned().unwrap();
    let mut call = task::spawn(service.call(request(0)));
    assert_pending!(call.poll());
    advance(secs(1)).await;
    layer.handle().cool_for(secs(10));
    drop(taken);
    // It gets its permit now, and gives it back.
    assert!(call.is_woken());
    assert_pending!(call.poll());
    assert_eq!(permits.available_permits(), 1);
    assert_eq!(layer.handle().snapshot().waiting, 1);
    call.await.unwrap();
    assert_eq!(upstream.times(), [11_000]);
}

/// Others may hold the permits below for long, as with a limit that several upstreams share.
#[tokio::test(start_paused = true)]
async fn calls_that_left_in_time_but_found_the_inner_service_busy_are_sent_at_the_pace() {
    let upstream = Upstream::ok();
    let permits = Arc::new(Semaphore::new(6));
    let service = ServiceBuilder::new()
        .layer(with_policy(every(secs(10))))
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(upstream.clone());
    let mut calls = call_all!(service, 0..6);
    drop(calls.remove(0));
    let taken = Arc::clone(&permits).try_acquire_many_owned(6).unwrap();
    let calls: Vec<_> = calls.drain(..).map(tokio::spawn).collect();
    sleep(secs(60)).await;
    assert_eq!(upstream.times(), [0]);
    drop(taken);
    join_all(calls).await;
    for pair in upstream.times().windows(2) {
        assert!(pair[1] - pair[0] >= 10_000, "{:?}", upstream.times());
    }
}

// ===== rule 4: epochs =====

#[tokio::test(start_paused = true)]
async fn a_burst_of_429s_is_one_signal() {
    let upstream = Upstream::new(|_| Reply::status(429).after(ms(20)));
    let layer = with_policy(unpaced());
    let handle = layer.handle();
    let service = layer.layer(upstream.clone());
    join_all((0..10).map(|id| send(&service, id))).await;
    assert_eq!(handle.snapshot().epoch, 1);
    assert_eq!(handle.snapshot().closed_for, Some(ms(1500)));
    // All of them are on record.
    assert_eq!(handle.statistics().snapshot().attempts.throttled, 10);

    join_all((0..10).map(|id| send(&service, id))).await;
    assert_eq!(handle.snapshot().epoch, 2);
    assert_eq!(handle.snapshot().closed_for, Some(ms(3000)));
}

#[tokio::test(start_paused = true)]
async fn a_late_success_does_not_undo_a_429() {
    let upstream = Upstream::new(|call| match call.id {
        0 => Reply::status(200).after(ms(500)),
        _ => Reply::status(429).after(ms(20)),
    });
    let layer = with_policy(unpaced());
    let service = layer.layer(upstream.clone());
    join_all([send(&service, 0), send(&service, 1)]).await;
    assert_eq!(layer.handle().snapshot().closed_for, Some(ms(1020)));
    send(&service, 2).await.unwrap().0.unwrap();
    assert_eq!(upstream.times(), [0, 0, 1520]);
    assert_eq!(layer.handle().snapshot().closed_for, Some(ms(3000)), "the success set the count to 0");
}

#[tokio::test(start_paused = true)]
async fn a_success_of_the_present_epoch_starts_over() {
    let upstream = Upstream::statuses([429, 200, 429]);
    let layer = with_policy(unpaced());
    let mut service = layer.layer(upstream.clone());
    for closed_for in [Some(ms(1500)), None, Some(ms(1500))] {
        service.ready().await.unwrap().call(request(0)).await.unwrap();
        assert_eq!(layer.handle().snapshot().closed_for, closed_for);
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_of_an_old_epoch_closes_an_open_gate_only_if_it_says_until_when() {
    for (late_answer, closed_for) in
        [(Reply::status(429), None), (Reply::status(429).retry_after("4"), Some(secs(4)))]
    {
        let mut late_answer = Some(late_answer);
        let upstream = Upstream::new(move |call| match call.id {
            0 => late_answer.take().unwrap().after(secs(5)),
            _ => Reply::status(429),
        });
        let layer = with_policy(unpaced());
        let service = layer.layer(upstream.clone());
        let late = send(&service, 0);
        settle().await;
        send(&service, 1).await.unwrap().0.unwrap();
        assert_eq!(layer.handle().snapshot().closed_for, Some(ms(1500)));
        late.await.unwrap().0.unwrap();
        assert_eq!(layer.handle().snapshot().closed_for, closed_for);
        // It climbed no step: the next one is the second.
        send(&service, 2).await.unwrap().0.unwrap();
        assert_eq!(layer.handle().snapshot().closed_for, Some(ms(3000)));
    }
}

// ===== rule 5: in order, spaced by the policy =====

#[tokio::test(start_paused = true)]
async fn those_who_come_after_the_opening_do_not_overtake() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1)));
    let service = layer.layer(upstream.clone());
    let waiting = spawn_all(&service, 0..3, || layer.handle().cool_for(secs(10)));
    sleep(ms(10_500)).await;
    send(&service, 9).await.unwrap().0.unwrap();
    join_all(waiting).await;
    assert_eq!(upstream.ids(), [0, 1, 2, 9]);
    assert_eq!(upstream.times(), [10_000, 11_000, 12_000, 13_000]);
}

#[tokio::test(start_paused = true)]
async fn callers_in_poll_ready_and_in_call_leave_in_order_and_spaced() {
    let (upstream, in_call, in_poll_ready) = mixed_callers(100).await;
    assert_eq!(upstream.times(), (0..100).map(|k| 10_000 + k * 100).collect::<Vec<_>>());
    let only =
        |some: &[u64]| -> Vec<u64> { upstream.ids().into_iter().filter(|id| some.contains(id)).collect() };
    assert_eq!(only(&in_call), in_call);
    assert_eq!(only(&in_poll_ready), in_poll_ready);
}

#[tokio::test(start_paused = true)]
async fn callers_in_poll_ready_and_in_call_stand_in_one_queue() {
    let (upstream, ..) = mixed_callers(10).await;
    assert_eq!(upstream.ids(), (0..10).collect::<Vec<_>>());
}

/// Callers that come in the order of their numbers while the gate is closed: those with even numbers wait in
/// `poll_ready`, the others, whose handles were ready before, in their calls.
async fn mixed_callers(count: u64) -> (Upstream, Vec<u64>, Vec<u64>) {
    let upstream = Upstream::ok();
    let layer = with_policy(every(ms(100)));
    let service = layer.layer(upstream.clone());
    let (in_poll_ready, in_call): (Vec<u64>, Vec<u64>) = (0..count).partition(|id| id % 2 == 0);
    let mut readied: Vec<_> = in_call.iter().map(|_| service.clone()).collect();
    assert!(readied.iter_mut().all(is_ready));
    let mut readied = readied.into_iter();
    layer.handle().cool_for(secs(10));

    let mut callers = Vec::new();
    for id in 0..count {
        if id % 2 == 0 {
            let caller = send(&service, id);
            callers.push(tokio::spawn(async move { drop(caller.await.unwrap().0.unwrap()) }));
        } else {
            let call = readied.next().unwrap().call(request(id));
            callers.push(tokio::spawn(async move { drop(call.await.unwrap()) }));
        }
        sleep(ms(1)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    (upstream, in_call, in_poll_ready)
}

// ===== rule 6: calls that are dropped =====

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_gives_its_departure_to_the_next() {
    // 0 leaves at once, 1 to 4 wait for one to four seconds.
    for (dropped, left) in [(1, [0, 2, 3, 4]), (2, [0, 1, 3, 4]), (4, [0, 1, 2, 3])] {
        let upstream = Upstream::ok();
        let layer = with_policy(every(secs(1)));
        let service = layer.layer(upstream.clone());
        let calls = spawn_all(&service, 0..5, || ());
        sleep(ms(500)).await;
        assert_eq!(layer.handle().snapshot().waiting, 4);
        calls[dropped].abort();
        settle().await;
        assert_eq!(layer.handle().snapshot().waiting, 3);
        join_all(calls).await;
        assert_eq!(upstream.ids(), left);
        assert_eq!(upstream.times(), [0, 1000, 2000, 3000], "{dropped} dropped");
        assert_eq!(layer.handle().statistics().snapshot().attempts.cancelled, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_was_never_polled() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1)));
    let mut service = layer.layer(upstream.clone());
    let mut call = |id| {
        assert!(is_ready(&mut service));
        service.call(request(id))
    };
    let (first, second, third, fourth) = (call(0), call(1), call(2), call(3));
    assert_eq!(layer.handle().snapshot().waiting, 3);
    drop(second);
    let third = tokio::spawn(third);
    first.await.unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(upstream.ids(), [0, 2]);
    assert_eq!(upstream.times(), [0, 1000]);
    drop(fourth);
    send(&service, 4).await.unwrap().0.unwrap();
    assert_eq!(upstream.times(), [0, 1000, 2000]);
    assert_eq!(layer.handle().statistics().snapshot().attempts.cancelled, 2);
}

#[tokio::test(start_paused = true)]
async fn with_the_ladder_too() {
    let upstream = Upstream::ok();
    let service = with_policy(Ladder::new()).layer(upstream.clone());
    let calls = spawn_all(&service, 0..6, || ());
    settle().await;
    calls[2].abort();
    join_all(calls).await;
    assert_eq!(upstream.ids(), [0, 1, 3, 4, 5]);
    assert_eq!(upstream.times(), [0, 0, 1000, 1000, 2000]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_that_are_dropped_leave_nothing_behind() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1))).max_wait(secs(200));
    let service = layer.layer(upstream.clone());
    let calls = call_all!(service, 0..101);
    advance(ms(500)).await;
    drop(calls);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.waiting, snapshot.in_flight), (0, 0));
    send(&service, 101).await.unwrap().0.unwrap();
    assert_eq!(upstream.times(), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_departure_that_was_given_back_is_there_for_one_with_max_wait() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1))).max_wait(ms(2500));
    let service = layer.layer(upstream.clone());
    let mut calls = call_all!(service, 0..3);
    drop(calls.remove(1));
    let behind = tokio::spawn(calls.remove(1));
    let (result, took) = send(&service, 3).await.unwrap();
    result.unwrap();
    assert_eq!(took, secs(2));
    behind.await.unwrap().unwrap();
    assert_eq!(upstream.times(), [0, 1000, 2000]);
}

/// The same where the call had been let go, and did not look before it was dropped.
#[tokio::test(start_paused = true)]
async fn so_is_one_that_was_not_taken() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1))).max_wait(secs(2));
    let service = layer.layer(upstream.clone());
    let mut calls = call_all!(service, 0..3);
    advance(secs(1)).await;
    assert_pending!(calls[2].poll()); // lets the one before it go
    let third = send(&service, 3);
    settle().await;
    drop(calls.remove(1));
    assert_ready_ok!(calls[1].poll());
    let (result, took) = send(&service, 4).await.unwrap();
    result.unwrap();
    assert_eq!(took, secs(2));
    third.await.unwrap().0.unwrap();
    assert_eq!(upstream.times(), [0, 1000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_flight_is_on_record_as_cancelled() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(60)));
    let (statistics, records) = observed();
    let layer = with_policy(every(secs(1))).statistics(&statistics);
    let service = layer.layer(upstream.clone());
    let mut calls = call_all!(service, 0..2);
    assert_eq!(layer.handle().snapshot().in_flight, 1);
    advance(secs(1)).await;
    assert_pending!(calls[1].poll());
    assert_eq!(layer.handle().snapshot().in_flight, 2);
    advance(secs(3)).await;
    drop(calls);
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    assert_eq!(upstream.in_flight(), 0);
    let records = records.lock().unwrap().clone();
    assert_eq!(records.iter().map(|r| r.outcome).collect::<Vec<_>>(), [Outcome::Cancelled; 2]);
    assert_eq!(records.iter().map(|r| r.waited).collect::<Vec<_>>(), [secs(0), secs(1)]);
    assert_eq!(records.iter().map(|r| r.service).collect::<Vec<_>>(), [secs(4), secs(3)]);
    assert_eq!(records[1].wait_reason, WaitReason::Preflight);
}

// ===== rule 7: `max_wait` =====

#[tokio::test(start_paused = true)]
async fn a_call_that_would_wait_for_too_long_is_rejected_at_once_and_takes_no_place() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1))).max_wait(ms(2500));
    let service = layer.layer(upstream.clone());
    let calls: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    let mut outcomes = Vec::new();
    for call in calls {
        let (result, took) = call.await.unwrap();
        outcomes.push((result.err().map(|error| *error.downcast::<Rejected>().unwrap()), took));
    }
    // Had the first of the two taken a place, the other would be told four seconds.
    let rejected = (Some(Rejected::new(secs(3))), secs(0));
    assert_eq!(outcomes, [(None, secs(0)), (None, secs(1)), (None, secs(2)), rejected, rejected]);
    let attempts = layer.handle().statistics().snapshot().attempts;
    assert_eq!((attempts.accepted, attempts.rejected), (3, 2));

    send(&service, 5).await.unwrap().0.unwrap();
    assert_eq!(upstream.times(), [0, 1000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_exactly_max_wait_is_allowed() {
    let layer = with_policy(unpaced()).max_wait(secs(5));
    let service = layer.layer(Upstream::ok());
    layer.handle().cool_for(secs(5));
    let (result, took) = send(&service, 0).await.unwrap();
    result.unwrap();
    assert_eq!(took, secs(5));
    layer.handle().cool_for(secs(5) + ms(1));
    let (result, took) = send(&service, 0).await.unwrap();
    result.unwrap_err();
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_is_a_429_that_says_when_to_come_back() {
    let upstream = Upstream::ok();
    let layer = with_policy(unpaced()).max_wait(secs(1)).reject_with(TooManyRequests);
    let mut service = layer.layer(upstream.clone());
    for (elapsed, retry_after) in [(ms(0), "10"), (ms(200), "10"), (ms(1000), "9"), (ms(8999), "2")] {
        layer.handle().reset();
        layer.handle().cool_for(secs(10));
        advance(elapsed).await;
        let response = service.ready().await.unwrap().call(request(0)).await.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], retry_after, "after {elapsed:?}");
        assert_eq!(response.extensions().get(), Some(&Rejected::new(secs(10) - elapsed)));
    }
    assert_eq!(upstream.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closure_makes_the_answer_to_a_rejected_call() {
    let layer = with_policy(unpaced()).max_wait(secs(1)).reject_with(|rejected: Rejected| {
        Ok::<_, BoxError>(
            Response::builder().status(418).body(format!("{:?}", rejected.retry_after)).unwrap(),
        )
    });
    let service = layer.layer(Upstream::ok());
    layer.handle().cool_for(secs(10));
    let response = send(&service, 0).await.unwrap().0.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_str()), (418, "10s"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_rejected_as_soon_as_a_new_closing_makes_it_too_long() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1))).max_wait(secs(5));
    let handle = layer.handle();
    let service = layer.layer(upstream.clone());
    let mut readied: Vec<_> = (0..3).map(|_| service.clone()).collect();
    assert!(readied.iter_mut().all(is_ready));
    handle.cool_for(secs(2));
    let start = Instant::now();
    let mut calls: Vec<_> =
        readied.iter_mut().zip(0..).map(|(service, id)| task::spawn(service.call(request(id)))).collect();
    calls.iter_mut().for_each(|call| assert_pending!(call.poll()));

    // Until 4 s: the first two fit in.
    advance(secs(1)).await;
    handle.cool_for(secs(3));
    assert!(calls[2].is_woken());
    let error = assert_ready!(calls[2].poll()).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Rejected::new(secs(5))));
    // Until 12 s: nobody does.
    advance(secs(1)).await;
    handle.cool_for(secs(10));
    for call in &mut calls[..2] {
        assert!(call.is_woken());
        assert_ready!(call.poll()).unwrap_err();
    }
    assert_eq!(start.elapsed(), secs(2));
    assert_eq!(handle.snapshot().waiting, 0);
    assert_eq!(upstream.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_in_poll_ready_counts_towards_max_wait() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(2))).max_wait(secs(5));
    let service = layer.layer(upstream.clone());
    layer.handle().cool_for(secs(4));
    let calls = [send(&service, 0), send(&service, 1)];
    let [first, second] = calls.map(|call| async { call.await.unwrap() });
    let (result, took) = first.await;
    result.unwrap();
    assert_eq!(took, secs(4));
    // It would leave six seconds after it came.
    let (result, took) = second.await;
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&Rejected::new(secs(2))));
    assert_eq!(took, secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_from_further_in_does_not_close_the_gate() {
    let inner = with_policy(unpaced()).max_wait(secs(1)).reject_with(TooManyRequests);
    let outer = with_policy(unpaced());
    inner.handle().cool_for(secs(10));
    let service = ServiceBuilder::new().layer(outer.clone()).layer(inner).service(Upstream::ok());
    let response = send(&service, 0).await.unwrap().0.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(outer.handle().snapshot().closed_for, None);
    assert_eq!(outer.handle().snapshot().in_flight, 0);
    assert_eq!(outer.handle().statistics().snapshot().attempts.rejected, 1);
}

/// A handle may be readied and not called, as when its caller goes away or in the ready set of a balancer.
#[tokio::test(start_paused = true)]
async fn a_wait_that_ended_long_ago_is_not_that_of_the_next_call() {
    for max_wait in [secs(1), secs(60)] {
        let (statistics, records) = observed();
        let layer = with_policy(unpaced()).statistics(&statistics).max_wait(max_wait);
        let mut service = layer.layer(Upstream::ok());
        layer.handle().cool_for(secs(10));
        // With the short `max_wait` at once, to be rejected; with the long one after ten seconds.
        service.ready().await.unwrap();
        sleep(secs(1000)).await;
        service.ready().await.unwrap().call(request(0)).await.unwrap();
        assert_eq!(records.lock().unwrap()[0].waited, Duration::ZERO, "max_wait {max_wait:?}");
    }
}

/// The same where nobody asks again whether the handle is ready, as in `Steer`.
#[tokio::test(start_paused = true)]
async fn readiness_that_is_used_late_does_not_use_up_max_wait() {
    let upstream = Upstream::ok();
    let (statistics, records) = observed();
    let layer = with_policy(unpaced()).statistics(&statistics).max_wait(secs(5));
    let mut service = layer.layer(upstream.clone());
    layer.handle().cool_for(secs(2));
    service.ready().await.unwrap();
    sleep(secs(1000)).await;
    layer.handle().cool_for(secs(1));
    service.call(request(0)).await.expect("one second is less than five");
    assert_eq!(upstream.times(), [1_003_000]);
    let waited = records.lock().unwrap()[0].waited;
    assert!(waited <= secs(3), "{waited:?}");
}

// ===== the handle =====

#[tokio::test(start_paused = true)]
async fn the_handle_closes_opens_and_shows_the_gate() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(1)));
    let layer = with_policy(unpaced());
    let handle = layer.handle();
    let mut service = layer.layer(upstream.clone());
    let closed = |handle: &tower_cooldown::Handle| {
        let snapshot = handle.snapshot();
        (snapshot.closed_for, snapshot.closed_because)
    };
    assert_eq!(closed(&handle), (None, None));

    let sent = send(&service, 0);
    settle().await;
    assert_eq!(handle.snapshot().in_flight, 1);
    assert!(is_ready(&mut service));
    handle.cool_for(secs(10));
    assert_eq!(closed(&handle), (Some(secs(10)), Some(WaitReason::Adaptive)));
    // At least: a shorter one changes nothing.
    handle.cool_for(secs(2));
    assert_eq!(closed(&handle), (Some(secs(10)), Some(WaitReason::Adaptive)));
    let waiting = tokio::spawn(service.call(request(1)));
    assert_eq!(handle.snapshot().waiting, 1);
    // The success of a call in flight does not open it.
    sent.await.unwrap().0.unwrap();
    assert_eq!(closed(&handle), (Some(secs(9)), Some(WaitReason::Adaptive)));
    assert_eq!(handle.snapshot().in_flight, 0);

    let epoch = handle.snapshot().epoch;
    handle.reset();
    assert_eq!(closed(&handle), (None, None));
    assert!(handle.snapshot().epoch > epoch);
    waiting.await.unwrap().unwrap();
    assert_eq!(upstream.times(), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_lets_the_waiting_calls_go_in_order_and_spaced() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1)));
    let service = layer.layer(upstream.clone());
    let calls = spawn_all(&service, 0..4, || layer.handle().cool_for(secs(600)));
    sleep(secs(3)).await;
    layer.handle().reset();
    join_all(calls).await;
    assert_eq!(upstream.ids(), [0, 1, 2, 3]);
    assert_eq!(upstream.times(), [3000, 4000, 5000, 6000]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_the_refusals_and_those_on_their_way() {
    let upstream = Upstream::new(|call| match call.id {
        0 => Reply::status(429).after(secs(1)),
        _ => Reply::status(429),
    });
    let layer = with_policy(unpaced());
    let handle = layer.handle();
    let service = layer.layer(upstream.clone());
    let on_its_way = send(&service, 0);
    settle().await;
    for _ in 0..3 {
        send(&service, 1).await.unwrap().0.unwrap();
        assert_eq!(handle.snapshot().closed_for, Some(ms(1500)));
        handle.reset();
    }
    on_its_way.await.unwrap().0.unwrap();
    assert_eq!(handle.snapshot().closed_for, None);
}

// ===== inner services that fail to get ready, and callers that stop polling =====

/// Fails to get ready, once.
#[derive(Clone, Debug)]
struct FailsToGetReady {
    armed: Arc<AtomicBool>,
    inner: Upstream,
}

impl FailsToGetReady {
    fn new(inner: Upstream) -> (Self, Arc<AtomicBool>) {
        let armed = Arc::new(AtomicBool::new(false));
        (Self { armed: Arc::clone(&armed), inner }, armed)
    }
}

impl Service<Request<()>> for FailsToGetReady {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = <Upstream as Service<Request<()>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.armed.swap(false, SeqCst) {
            return Poll::Ready(Err("inner".into()));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_while_a_waiting_call_readies_the_inner_service_is_its_answer() {
    let (inner, armed) = FailsToGetReady::new(Upstream::ok());
    let layer = with_policy(every(secs(1)));
    let service = layer.layer(inner);
    send(&service, 0).await.unwrap().0.unwrap();
    let mut readied = service.clone();
    assert!(is_ready(&mut readied));
    armed.store(true, SeqCst);
    assert_eq!(readied.call(request(1)).await.unwrap_err().to_string(), "inner");
    let attempts = layer.handle().statistics().snapshot().attempts;
    assert_eq!((attempts.accepted, attempts.failed), (1, 1));
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_polling_does_not_stall_those_behind_it() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1)));
    let service = layer.layer(upstream.clone());
    let mut calls = call_all!(service, 0..6);
    let mut parked = calls.remove(1);
    // In `poll_ready`, too.
    let mut handle = service.clone();
    let mut parked_handle = task::spawn(handle.ready());
    layer.handle().cool_for(ms(900));
    assert_pending!(parked_handle.poll());

    join_all(calls.drain(1..)).await;
    assert_eq!(upstream.ids(), [0, 2, 3, 4, 5]);
    // It costs them its own departure, and no more.
    let times = upstream.times();
    for (k, time) in times[1..].iter().enumerate() {
        assert!(*time <= 3000 + 1000 * k as u128, "{times:?}");
    }
    // And it can go on whenever it likes.
    sleep(secs(3600)).await;
    assert_ready_ok!(parked_handle.poll());
    assert_ready_ok!(parked.poll());
    assert_eq!(upstream.ids(), [0, 2, 3, 4, 5, 1]);
}

/// One call at a time, as `Learned` may find out for itself.
#[derive(Clone, Debug)]
struct OneAtATime;

impl Policy for OneAtATime {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        Departure::now(arrived)
    }

    fn depart(&mut self, _: Instant, _: Cost) {}

    fn max_in_flight(&self) -> Option<usize> {
        Some(1)
    }

    fn answered(&mut self, _: &Answer<'_>) -> Option<Closing> {
        None
    }

    fn reset(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn nor_where_a_policy_bounds_the_calls_in_flight() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(1)));
    let layer = with_policy(OneAtATime);
    let service = layer.layer(upstream.clone());
    let mut calls = call_all!(service, 0..5);
    let parked: Vec<_> = calls.drain(1..3).collect();
    // They are let go when the first has ended, one after the other, and neither looks.
    timeout(secs(3600), join_all(calls)).await.expect("nobody hangs");
    assert_eq!(upstream.ids(), [0, 3, 4]);
    assert!(upstream.times()[1] <= 10_000, "{:?}", upstream.times());
    // And they may go on whenever they like.
    join_all(parked).await;
    assert_eq!(upstream.len(), 5);
    assert_eq!((layer.handle().snapshot().waiting, layer.handle().snapshot().in_flight), (0, 0));
}

/// As it happens to the futures in `buffer_unordered` while their consumer is busy.
#[tokio::test(start_paused = true)]
async fn many_callers_that_stop_polling_cost_no_more_than_their_own_departures() {
    let upstream = Upstream::ok();
    let layer = with_policy(every(secs(1)));
    let service = layer.layer(upstream.clone());
    let parked = call_all!(service, 0..6);
    send(&service, 6).await.unwrap().0.unwrap();
    assert_eq!(upstream.ids(), [0, 6]);
    assert!(upstream.times()[1] <= 11_000, "{:?}", upstream.times());
    drop(parked);
}

#[tokio::test(start_paused = true)]
async fn max_wait_holds_behind_a_caller_that_stops_polling() {
    let layer = with_policy(every(secs(1))).max_wait(ms(2500));
    let service = layer.layer(Upstream::ok());
    let parked = call_all!(service, 0..2);
    let (_, took) = send(&service, 2).await.unwrap();
    assert!(took <= ms(2500), "{took:?}");
    drop(parked);
}

// ===== the rollout =====

#[tokio::test(start_paused = true)]
async fn calls_outside_the_rollout_go_straight_through_a_closed_gate() {
    let upstream = Upstream::statuses([429, 200]);
    let rollout = Rollout::off();
    let layer = with_policy(unpaced()).rollout(rollout.clone());
    let handle = layer.handle();
    let service = layer.layer(upstream.clone());
    handle.cool_for(secs(10));
    let epoch = handle.snapshot().epoch;
    for id in 0..5 {
        let (result, took) = send(&service, id).await.unwrap();
        result.unwrap();
        assert_eq!(took, Duration::ZERO);
    }
    // The 429 among the answers did not move the gate.
    assert_eq!(handle.snapshot().epoch, epoch);
    assert_eq!(handle.snapshot().closed_for, Some(secs(10)));
    let snapshot = handle.statistics().snapshot();
    assert_eq!((snapshot.control.accepted, snapshot.control.throttled), (4, 1));
    assert_eq!(snapshot.attempts.total(), 0);

    rollout.set(100).unwrap();
    let (result, took) = send(&service, 5).await.unwrap();
    result.unwrap();
    assert_eq!(took, secs(10));
    assert_eq!(handle.statistics().snapshot().attempts.accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn half_of_the_calls_are_inside_a_rollout_of_fifty_percent() {
    let upstream = Upstream::ok();
    let layer = with_policy(unpaced()).rollout(Rollout::percent(50).unwrap());
    let service = layer.layer(upstream.clone());
    layer.handle().cool_for(secs(10));
    let took = join_all((0..100).map(|id| send(&service, id))).await;
    let waited = took.into_iter().filter(|outcome| outcome.as_ref().unwrap().1 == secs(10)).count();
    let snapshot = layer.handle().statistics().snapshot();
    assert_eq!(snapshot.attempts.accepted, waited as u64);
    assert_eq!(snapshot.control.accepted, 100 - waited as u64);
    assert!((48..=52).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_keyed_rollout_keeps_each_key_on_its_side() {
    let upstream = Upstream::ok();
    let rollout = Rollout::percent(50).unwrap();
    let by_path = rollout.by(|request: &Request<()>| request.uri().path().to_owned());
    let layer = with_policy(unpaced()).rollout(by_path);
    let service = layer.layer(upstream.clone());

    let mut inside = Vec::new();
    for round in 0..3 {
        layer.handle().cool_for(secs(10));
        let took = join_all((0..40).map(|id| send(&service, id))).await;
        let now: Vec<bool> = took.into_iter().map(|outcome| outcome.unwrap().1 == secs(10)).collect();
        if round == 0 {
            inside = now;
            assert!(inside.contains(&true) && inside.contains(&false));
        } else {
            assert_eq!(now, inside);
        }
    }
    // A raise moves keys inside only.
    rollout.set(80).unwrap();
    layer.handle().cool_for(secs(10));
    let took = join_all((0..40).map(|id| send(&service, id))).await;
    for (outcome, was_inside) in took.into_iter().zip(inside) {
        let waited = outcome.unwrap().1 == secs(10);
        assert!(waited || !was_inside);
    }
}

// ===== what the first version of this system checked =====

#[tokio::test(start_paused = true)]
async fn the_first_call_does_not_wait() {
    let upstream = Upstream::ok();
    let service = with_policy(Ladder::new()).layer(upstream.clone());
    let (result, took) = send(&service, 0).await.unwrap();
    assert_eq!(result.unwrap().status(), 200);
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_third_call_in_two_seconds_waits_for_one() {
    let upstream = Upstream::ok();
    let layer = with_policy(Ladder::new());
    let mut service = layer.layer(upstream.clone());
    for id in 0..3 {
        service.ready().await.unwrap().call(request(id)).await.unwrap();
    }
    assert_eq!(upstream.times(), [0, 0, 1000]);
    assert_eq!(layer.handle().statistics().snapshot().wait(WaitReason::Preflight).count, 1);
}

#[tokio::test(start_paused = true)]
async fn two_429s_in_a_row_close_the_gate_for_three_seconds() {
    let upstream = Upstream::statuses([429, 429, 429, 429, 200, 429]);
    let layer = with_policy(Ladder::new());
    let mut service = layer.layer(upstream.clone());
    let mut closed_for = Vec::new();
    for id in 0..6 {
        service.ready().await.unwrap().call(request(id)).await.unwrap();
        closed_for.push(layer.handle().snapshot().closed_for.map(|wait| wait.as_millis()));
    }
    assert_eq!(closed_for, [Some(1500), Some(3000), Some(7000), Some(7000), None, Some(1500)]);
    // Each leaves when the gate opens: the wait before a call runs at the same time.
    assert_eq!(upstream.times(), [0, 1500, 4500, 11_500, 18_500, 18_500]);
    let snapshot = layer.handle().statistics().snapshot();
    assert_eq!(snapshot.peak_consecutive_429s, 4);
    assert_eq!(snapshot.consecutive_429s, 1);
}

#[tokio::test(start_paused = true)]
async fn a_503_closes_the_gate_for_half_a_second_and_makes_the_next_call_wait_for_one_and_a_half() {
    let upstream = Upstream::statuses([503, 200]);
    let layer = with_policy(Ladder::new());
    let mut service = layer.layer(upstream.clone());
    service.ready().await.unwrap().call(request(0)).await.unwrap();
    assert_eq!(layer.handle().snapshot().closed_for, Some(ms(500)));
    service.ready().await.unwrap().call(request(1)).await.unwrap();
    assert_eq!(upstream.times(), [0, 1500]);
}

/// Allows `limit` calls in each fixed window; the windows begin with the first call.
fn fixed_window(limit: usize, window: Duration) -> Upstream {
    let (mut current, mut used) = (0, 0);
    Upstream::new(move |call| {
        let index = call.at.as_nanos() / window.as_nanos();
        if index != current {
            (current, used) = (index, 0);
        }
        used += 1;
        Reply::status(if used <= limit { 200 } else { 429 }).after(ms(100))
    })
}

/// A declared quota of 15 in 30 s, to which a margin of 0.3 s comes: 15 calls every 30.3 s.
#[tokio::test(start_paused = true)]
async fn twenty_and_fifty_operations_at_once_stay_in_a_known_quota() {
    for (operations, elapsed) in [(20, ms(30_400)), (50, ms(91_000))] {
        let upstream = fixed_window(15, secs(30));
        let layer = with_policy(Known::new(Quota::new(15, secs(30)).unwrap()));
        let service = layer.layer(upstream.clone());
        let start = Instant::now();
        for outcome in join_all((0..operations).map(|id| send(&service, id))).await {
            assert_eq!(outcome.unwrap().0.unwrap().status(), 200);
        }
        assert_eq!(start.elapsed(), elapsed);
        assert_eq!(upstream.ids(), (0..operations).collect::<Vec<_>>());
        let attempts = layer.handle().statistics().snapshot().attempts;
        assert_eq!((attempts.accepted, attempts.throttled), (operations, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_and_fifty_operations_one_after_another_stay_in_a_known_quota() {
    // The last one leaves as late in its window as it would without a limit, 100 ms per call before it.
    for (operations, elapsed) in [(20, ms(30_300 + 500)), (50, ms(90_900 + 500))] {
        let upstream = fixed_window(15, secs(30));
        let layer = with_policy(Known::new(Quota::new(15, secs(30)).unwrap()));
        let mut service = layer.layer(upstream.clone());
        let start = Instant::now();
        for id in 0..operations {
            let response = service.ready().await.unwrap().call(request(id)).await.unwrap();
            assert_eq!(response.status(), 200);
        }
        assert_eq!(start.elapsed(), elapsed);
        let attempts = layer.handle().statistics().snapshot().attempts;
        assert_eq!((attempts.accepted, attempts.throttled), (operations, 0));
    }
}
