//! One by one; all of them at once and at random in `random.rs`.

use crate::{
    inner::{Fault, Inner, Reply, ask, ask_all, assert_answered, coalesce, layer, tasks},
    support::{count_polls, ms, secs, settle},
};
use futures::FutureExt;
use std::sync::atomic::Ordering::SeqCst;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_cooldown::coalesce::{BatchError, Linger};

#[tokio::test(start_paused = true)]
async fn each_accepted_call_has_one_outcome_and_it_is_its_own() {
    let inner = Inner::taking(ms(5));
    let service = coalesce(&inner, 8);
    assert_answered(&ask_all(&service, 0..100).await, 0..100);
    let mut sent: Vec<_> = inner.batches().concat();
    sent.sort_unstable();
    assert_eq!(sent, (0..100).collect::<Vec<_>>(), "each was sent once");
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_no_more_than_it_may() {
    let inner = Inner::taking(ms(5));
    let service = layer(3).max_weight(10, |item| *item).unwrap().layer(inner.clone());
    ask_all(&service, [5, 5, 1, 1, 1, 1, 9, 2, 4, 11, 3]).await;
    for batch in inner.batches() {
        assert!(batch.len() <= 3, "{batch:?}");
        assert!(batch.iter().sum::<u64>() <= 10 || batch == [11], "{batch:?}");
    }
    assert_eq!(inner.batches(), [vec![5, 5], vec![1, 1, 1], vec![1, 9], vec![2, 4], vec![11], vec![3]]);
}

#[tokio::test(start_paused = true)]
async fn requests_stay_in_the_order_in_which_they_came() {
    let inner = Inner::taking(ms(5));
    let service = layer(4).max_in_flight(1).unwrap().layer(inner.clone());
    ask_all(&service, 0..10).await;
    assert_eq!(inner.batches(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_in_flight_than_allowed() {
    let inner = Inner::taking(ms(5));
    let service = layer(2).max_in_flight(3).unwrap().layer(inner.clone());
    assert_answered(&ask_all(&service, 0..24).await, 0..24);
    assert_eq!(inner.peak(), 3);
    assert_eq!(inner.sent().last().unwrap().at, ms(15), "12 batches, 3 at once");
}

#[tokio::test(start_paused = true)]
async fn without_a_linger_time_stands_still() {
    let inner = Inner::taking(ms(0));
    let service = coalesce(&inner, 32);
    let start = Instant::now();
    ask_all(&service, 0..5).await;
    assert_eq!(start.elapsed(), ms(0));
    assert_eq!(inner.batches().len(), 1, "those that come together leave together");
}

#[tokio::test(start_paused = true)]
async fn a_linger_is_never_longer_than_it_says() {
    for linger in [Linger::Fixed(ms(20)), Linger::WhileBusy { max: ms(20) }] {
        let inner = Inner::taking(secs(10));
        let service = layer(100).linger(linger).layer(inner.clone());
        let first = ask(&service, 1);
        settle().await;
        tokio::time::advance(ms(25)).await;
        settle().await;
        let at = Instant::now();
        let second = ask(&service, 2);
        tokio::time::sleep(ms(21)).await;
        let sent = inner.sent();
        assert_eq!(sent.len(), 2, "{linger:?}");
        assert!(sent[1].at <= ms(25 + 21), "{linger:?}: {sent:?}");
        assert!(at.elapsed() < ms(30));
        drop((first, second));
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_batch_closes_is_not_sent() {
    let inner = Inner::taking(ms(5));
    let service = layer(10).linger(Linger::Fixed(ms(10))).layer(inner.clone());
    let calls: Vec<_> = (0..4).map(|item| ask(&service, item)).collect();
    settle().await;
    calls[1].abort();
    calls[3].abort();
    tokio::time::sleep(ms(20)).await;
    assert_eq!(inner.batches(), [[0, 2]]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_makes_room_in_the_batch() {
    let inner = Inner::taking(ms(5));
    let service = layer(2).linger(Linger::Fixed(ms(10))).layer(inner.clone());
    let gone = ask(&service, 0);
    settle().await;
    gone.abort();
    settle().await;
    assert_answered(&ask_all(&service, 1..3).await, 1..3);
    assert_eq!(inner.batches(), [[1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_harms_no_other() {
    let inner = Inner::new(|sent| match sent.items[0] {
        0 => Reply::Fail("broken"),
        4 => Reply::PanicInFuture,
        _ => Reply::Echo(ms(1)),
    });
    let service = layer(2).layer(inner.clone());
    let outcomes = ask_all(&service, 0..8).await;
    assert!(matches!(&outcomes[..2], [Err(BatchError::Batch(a)), Err(BatchError::Batch(b))]
        if **a == Fault("broken") && std::sync::Arc::ptr_eq(a, b)));
    assert!(!outcomes[0].as_ref().unwrap_err().was_not_sent());
    assert_answered(&outcomes[2..4], 2..4);
    assert!(outcomes[4..6].iter().all(|outcome| matches!(outcome, Err(BatchError::Panicked))));
    assert_answered(&outcomes[6..], 6..8);
}

#[tokio::test(start_paused = true)]
async fn an_idle_layer_has_no_task_and_no_key() {
    let inner = Inner::taking(ms(5));
    let service = layer(4).key(|item| item % 3).max_keys(3).unwrap().layer(inner.clone());
    assert_eq!(tasks(), 0);
    ask_all(&service, 0..20).await;
    settle().await;
    assert_eq!(tasks(), 0);
    assert_eq!(service.handle().held(), 0);
    // Three other keys find room: the first three are forgotten.
    let service_keys = layer(4).key(|item| *item / 100).max_keys(1).unwrap().layer(inner.clone());
    for hundreds in 1..4 {
        ask_all(&service_keys, [hundreds * 100, hundreds * 100 + 1]).await;
        settle().await;
    }
    assert_eq!(
        inner.batches()[inner.batches().len() - 3..].iter().map(Vec::len).collect::<Vec<_>>(),
        [2, 2, 2]
    );
}

#[test]
fn every_caller_is_told_when_the_runtime_shuts_down() {
    let inner_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (in_flight, waiting) = inner_runtime.block_on(async {
        let service = layer(1).max_in_flight(1).unwrap().layer(Inner::new(|_| Reply::Never));
        let in_flight = service.clone().call(1);
        let waiting = service.clone().call(2);
        settle().await;
        (in_flight, waiting)
    });
    drop(inner_runtime);
    let outcomes = [in_flight.now_or_never(), waiting.now_or_never()];
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Some(Err(BatchError::Closed)))), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn no_waker_is_lost_and_nobody_polls_for_nothing() {
    let inner = Inner::taking(secs(3600));
    let service = layer(4).max_in_flight(1).unwrap().layer(inner.clone());
    let counted: Vec<_> = (0..8).map(|item| count_polls(service.clone().oneshot(item))).collect();
    let (calls, polls): (Vec<_>, Vec<_>) = counted.into_iter().unzip();
    let outcomes = futures::future::join_all(calls.into_iter().map(tokio::spawn)).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_ok()));
    for polls in polls {
        assert!(polls.load(SeqCst) <= 2, "in two hours: {}", polls.load(SeqCst));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_grows_until_the_inner_service_is_ready() {
    let inner = Inner::taking(ms(10));
    let service = layer(10).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let mut calls = Vec::new();
    for item in 0..5 {
        calls.push(tokio::spawn(service.clone().oneshot(item)));
        tokio::time::sleep(ms(2)).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(inner.batches(), [vec![0], vec![1, 2, 3, 4]], "four came while the permit was away");
}
