//! Faults that published batchers have, or have had. One test for each.

use crate::{
    inner::{Answer, Fault, Inner, Reply, ask, ask_all, assert_answered, coalesce, layer, tasks},
    support::{count_polls, ms, secs, settle},
};
use futures::FutureExt;
use std::sync::atomic::Ordering::SeqCst;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_cooldown::coalesce::{BatchError, Linger};

/// The timer of a batch that was full, and has left, flushed the one after it.
#[tokio::test(start_paused = true)]
async fn a_stale_timer() {
    let inner = Inner::taking(ms(0));
    let service = layer(2).linger(Linger::Fixed(ms(100))).layer(inner.clone());
    ask_all(&service, 0..2).await;
    tokio::time::sleep(ms(80)).await;
    ask_all(&service, [2]).await;
    assert_eq!(inner.sent().iter().map(|sent| sent.at).collect::<Vec<_>>(), [ms(0), ms(180)]);
}

/// Each arrival started the linger anew, so that a steady stream was never sent.
#[tokio::test(start_paused = true)]
async fn starvation_by_debouncing() {
    let inner = Inner::taking(ms(0));
    let service = layer(100).linger(Linger::Fixed(ms(10))).layer(inner.clone());
    let first = ask(&service, 0);
    for item in 1..20 {
        settle().await;
        tokio::time::sleep(ms(9)).await;
        drop(ask(&service, item));
    }
    first.await.unwrap().unwrap();
    assert_eq!(inner.sent()[0].at, ms(10));
}

/// After one failed flush every clone of the service failed, for ever.
#[tokio::test(start_paused = true)]
async fn a_terminal_flush_error() {
    let inner = Inner::new(|sent| if sent.items[0] < 3 { Reply::Fail("no") } else { Reply::Echo(ms(0)) });
    let mut service = coalesce(&inner, 1);
    for item in 0..3 {
        let error = service.ready().await.unwrap().call(item).await.unwrap_err();
        assert_eq!(error.inner(), Some(&Fault("no")));
    }
    assert_eq!(service.clone().oneshot(3).await.unwrap(), Answer(3));
    assert_eq!(service.ready().await.unwrap().call(4).await.unwrap(), Answer(4));
}

/// `poll_ready` panicked when it was asked again after a failure.
#[tokio::test(start_paused = true)]
async fn a_panic_when_polled_again() {
    let inner = Inner::new(|_| Reply::PanicInFuture);
    let mut service = coalesce(&inner, 1);
    for item in 0..5 {
        assert!(service.ready().await.is_ok());
        assert!(service.ready().await.is_ok(), "ready twice");
        assert!(matches!(service.call(item).await, Err(BatchError::Panicked)));
    }
}

/// The weight was checked after adding, so that batches were heavier than allowed.
#[tokio::test(start_paused = true)]
async fn overshoot_of_the_weight() {
    let inner = Inner::taking(ms(0));
    let service = layer(100).max_weight(100, |item| *item).unwrap().layer(inner.clone());
    ask_all(&service, [99, 99, 1000]).await;
    assert_eq!(inner.batches(), [[99], [99], [1000]]);
}

/// A request larger than a batch stayed at the head of the queue, and nothing passed it.
#[tokio::test(start_paused = true)]
async fn an_oversize_request_at_the_head() {
    let inner = Inner::taking(ms(1));
    let service =
        layer(2).max_weight(10, |item| *item).unwrap().max_in_flight(1).unwrap().layer(inner.clone());
    assert_answered(&ask_all(&service, [11, 1, 2, 12, 3]).await, [11, 1, 2, 12, 3]);
    settle().await;
    assert_eq!(tasks(), 0);
}

/// The caller that drove the batch went away, and the others' keys with it.
#[tokio::test(start_paused = true)]
async fn keys_lost_when_a_caller_goes() {
    let inner = Inner::taking(ms(10));
    let service = coalesce(&inner, 10);
    let first = ask(&service, 0);
    let others: Vec<_> = (1..5).map(|item| ask(&service, item)).collect();
    settle().await;
    assert_eq!(inner.in_flight(), 1);
    first.abort();
    for (item, other) in (1..).zip(others) {
        assert_eq!(other.await.unwrap().unwrap(), Answer(item));
    }
}

/// A caller that was not polled any more, but not dropped, held up all others.
#[tokio::test(start_paused = true)]
async fn a_futurelock() {
    let inner = Inner::taking(ms(10));
    let service = coalesce(&inner, 2);
    let mut parked: Vec<_> = (0..3).map(|item| service.clone().call(item)).collect();
    for call in &mut parked {
        assert!(call.now_or_never().is_none());
    }
    assert_answered(&ask_all(&service, 3..10).await, 3..10);
    drop(parked);
}

/// A waiter woke itself until its answer came: millions of polls.
#[tokio::test(start_paused = true)]
async fn a_busy_waiter() {
    let inner = Inner::taking(secs(3600));
    let service = coalesce(&inner, 2);
    let (call, polls) = count_polls(service.oneshot(1));
    call.await.unwrap();
    assert!(polls.load(SeqCst) <= 3, "{} polls", polls.load(SeqCst));
}

/// A panic of the batch function panicked in all callers.
#[tokio::test(start_paused = true)]
async fn a_panic_that_reaches_the_callers() {
    let service = coalesce(&Inner::new(|_| Reply::PanicInFuture), 4);
    let calls: Vec<_> = (0..4).map(|item| ask(&service, item)).collect();
    for call in calls {
        assert!(matches!(call.await.expect("the caller lives"), Err(BatchError::Panicked)));
    }
}

/// The linger was on the standard library's clock, so that with tokio's paused it was over at once.
#[tokio::test(start_paused = true)]
async fn a_linger_on_another_clock() {
    tokio::time::advance(secs(3600)).await;
    let inner = Inner::taking(ms(0));
    let service = layer(10).linger(Linger::Fixed(ms(50))).layer(inner.clone());
    let start = Instant::now();
    ask_all(&service, [1]).await;
    assert_eq!(start.elapsed(), ms(50));
}

/// Nothing was collected while a batch was in flight, and one was in flight at a time.
#[tokio::test(start_paused = true)]
async fn serial_flushes() {
    let inner = Inner::taking(ms(200));
    let service = coalesce(&inner, 2);
    let start = Instant::now();
    assert_answered(&ask_all(&service, 0..6).await, 0..6);
    assert_eq!(start.elapsed(), ms(200));
}

/// With the last handle the items that had not been flushed were dropped.
#[tokio::test(start_paused = true)]
async fn items_dropped_with_the_last_handle() {
    let inner = Inner::taking(ms(1));
    let mut service = layer(10).linger(Linger::Fixed(ms(10))).layer(inner.clone());
    let calls: Vec<_> = (0..3).map(|item| service.call(item)).collect();
    drop(service);
    for (item, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), Answer(item));
    }
    assert_eq!(inner.batches(), [[0, 1, 2]]);
    settle().await;
    assert_eq!(tasks(), 0);
}

/// Items and flushes were calls of their own, so that a concurrency limit of one below was a deadlock.
#[tokio::test(start_paused = true)]
async fn a_deadlock_over_a_concurrency_limit() {
    let inner = Inner::taking(ms(1));
    let service = layer(10).linger(Linger::Fixed(ms(10))).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let call = tokio::time::timeout(secs(60), service.oneshot(1)).await;
    assert_eq!(call.expect("no deadlock").unwrap(), Answer(1));
}
