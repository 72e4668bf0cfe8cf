//! Callers that go away or stand still, inner services that misbehave.

use crate::{
    inner::{Answer, Fault, Inner, Reply, ask, ask_all, assert_answered, coalesce, layer, tasks},
    support::{ms, secs, settle},
};
use futures::FutureExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit};
use tower_cooldown::{
    CoalesceLayer,
    coalesce::{Abandon, BatchError, Linger, Overflow, Oversize},
};

fn is_mismatch(outcome: &crate::inner::Outcome, want_expected: usize, want_got: usize) -> bool {
    matches!(outcome, Err(BatchError::LengthMismatch { expected, got, .. })
        if (*expected, *got) == (want_expected, want_got))
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_dropped_at_any_time_harms_nobody() {
    // Before, during and after its batch: dropped after so many milliseconds of 5 of linger and 10 of service.
    for after in 0..20 {
        let inner = Inner::taking(ms(10));
        let service = layer(10).linger(Linger::Fixed(ms(5))).layer(inner.clone());
        let goes = ask(&service, 0);
        let stays = ask(&service, 1);
        settle().await;
        tokio::time::sleep(ms(after)).await;
        goes.abort();
        assert!(matches!(stays.await.unwrap(), Ok(Answer(1))), "{after} ms");
        settle().await;
        assert_eq!((tasks(), service.handle().held()), (0, 0), "{after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_is_sent_and_harms_nobody() {
    let inner = Inner::taking(ms(1));
    let mut service = coalesce(&inner, 10);
    let parked = service.ready().await.unwrap().call(0);
    assert_answered(&ask_all(&service, 1..30).await, 1..30);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
    assert!(matches!(parked.now_or_never(), Some(Ok(Answer(0)))), "its answer waits for it");
}

#[tokio::test(start_paused = true)]
async fn when_all_callers_have_gone_the_call_is_dropped_or_goes_on() {
    for (abandon, dropped) in [(Abandon::Cancel, 1), (Abandon::Finish, 0)] {
        let inner = Inner::taking(secs(1));
        let service = layer(10).on_abandon(abandon).layer(inner.clone());
        let calls = [ask(&service, 0), ask(&service, 1)];
        settle().await;
        assert_eq!(inner.in_flight(), 1);
        calls[0].abort();
        settle().await;
        assert_eq!(inner.in_flight(), 1, "one still waits");
        calls[1].abort();
        settle().await;
        assert_eq!(inner.dropped(), dropped, "{abandon:?}");
        tokio::time::sleep(secs(2)).await;
        assert_eq!((inner.in_flight(), tasks(), service.handle().held()), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_callers_have_all_gone_is_not_sent() {
    let inner = Inner::taking(ms(1));
    let service = layer(10).linger(Linger::Fixed(ms(10))).layer(inner.clone());
    let calls = [ask(&service, 0), ask(&service, 1)];
    settle().await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    assert_eq!(tasks(), 0, "nobody minds an empty batch");
    tokio::time::sleep(ms(20)).await;
    assert!(inner.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_the_inner_service_goes_when_the_callers_go() {
    let inner = Inner::taking(ms(1)).when_ready(|| Poll::Pending);
    let service = coalesce(&inner, 10);
    let calls = [ask(&service, 0), ask(&service, 1)];
    settle().await;
    assert_eq!(tasks(), 3);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_part_of_the_inner_service_stays_in_its_batch() {
    for part in ["call", "future", "drop"] {
        let inner = Inner::new(move |sent| match (sent.items[0], part) {
            (0, "call") => Reply::PanicInCall,
            (0, "future") => Reply::PanicInFuture,
            (0, _) => Reply::PanicInDrop,
            _ => Reply::Echo(ms(1)),
        });
        // A script's lock is poisoned by a panic in `call`; the inner service is one that cannot go on then.
        let service = coalesce(&inner, 2);
        let outcomes = ask_all(&service, 0..2).await;
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Err(BatchError::Panicked))),
            "{part}: {outcomes:?}"
        );
        assert_answered(&ask_all(&service, 2..6).await, 2..6);
        settle().await;
        assert_eq!((tasks(), service.handle().held()), (0, 0), "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_an_error_in_poll_ready_stays_in_its_batch() {
    for panics in [true, false] {
        let polls = Arc::new(AtomicUsize::new(0));
        let inner = Inner::taking(ms(1)).when_ready(move || {
            if polls.fetch_add(1, SeqCst) == 0 {
                assert!(!panics, "panic in poll_ready");
                return Poll::Ready(Err(Fault("not ready")));
            }
            Poll::Ready(Ok(()))
        });
        let service = coalesce(&inner, 2);
        for outcome in ask_all(&service, 0..2).await {
            match outcome {
                Err(BatchError::Panicked) if panics => {}
                Err(BatchError::Batch(error)) if !panics => assert_eq!(*error, Fault("not ready")),
                other => panic!("{other:?}"),
            }
        }
        assert_answered(&ask_all(&service, 2..6).await, 2..6);
        settle().await;
        assert_eq!((tasks(), service.handle().held()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_an_abandoned_call_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "panic in drop");
        }
    }
    let service = tower::service_fn(|items: Vec<u64>| async move {
        let bomb = (items[0] == 0).then(|| Bomb);
        if bomb.is_some() {
            std::future::pending::<()>().await;
        }
        Ok::<_, Fault>(items.into_iter().map(Ok).collect::<Vec<_>>())
    });
    let service = layer(2).layer(service);
    let gone = tokio::spawn(service.clone().oneshot(0));
    settle().await;
    gone.abort();
    settle().await;
    assert_eq!(service.clone().oneshot(5).await.unwrap(), 5);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn with_a_wrong_number_of_results_nobody_gets_any() {
    let answers = |n: u64| (0..n).map(|item| Ok(Answer(item))).collect::<Vec<_>>();
    for got in [0, 1, 2, 4, 5] {
        let inner = Inner::new(move |sent| {
            if sent.items[0] == 0 { Reply::Give(answers(got), ms(1)) } else { Reply::Echo(ms(1)) }
        });
        let service = coalesce(&inner, 3);
        for outcome in ask_all(&service, 0..3).await {
            assert!(is_mismatch(&outcome, 3, usize::try_from(got).unwrap()), "{got}: {outcome:?}");
        }
        assert_answered(&ask_all(&service, 3..6).await, 3..6);
    }
}

#[tokio::test(start_paused = true)]
async fn endless_results_end() {
    let service =
        tower::service_fn(|_: Vec<u64>| async { Ok::<_, Fault>(std::iter::repeat_with(|| Ok(1_u8))) });
    let service = layer(3).layer(service);
    let outcome = service.oneshot(1).await;
    assert!(matches!(outcome, Err(BatchError::LengthMismatch { expected: 1, .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn results_that_panic_when_they_are_read_stay_in_their_batch() {
    let service = tower::service_fn(|items: Vec<u64>| async move {
        Ok::<_, Fault>(items.into_iter().map(|item| {
            assert_ne!(item, 0, "panic in the iterator");
            Ok(item)
        }))
    });
    let service = layer(3).layer(service);
    assert!(matches!(service.clone().oneshot(0).await, Err(BatchError::Panicked)));
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_weight_function_that_panics_harms_its_own_request_only() {
    let inner = Inner::taking(ms(1));
    let weight = |item: &u64| {
        assert_ne!(*item, 1, "panic in the weight");
        1
    };
    let service = layer(10).max_weight(100, weight).unwrap().layer(inner.clone());
    let outcomes = ask_all(&service, 0..3).await;
    assert!(matches!(outcomes[1], Err(BatchError::Panicked)));
    assert_answered(&outcomes[..1], [0]);
    assert_answered(&outcomes[2..], [2]);
    assert_eq!(inner.batches(), [[0, 2]]);
    settle().await;
    assert_eq!(service.handle().held(), 0);

    let service = layer(10).key(|item| assert_ne!(*item, 1, "panic in the key")).layer(inner.clone());
    assert!(matches!(ask(&service, 1).await.unwrap(), Err(BatchError::Panicked)));
    assert_answered(&ask_all(&service, [2]).await, [2]);
}

#[test]
fn without_a_runtime_a_call_is_closed_and_the_layer_is_not() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let mut service = runtime.block_on(async { coalesce(&Inner::taking(ms(1)), 4) });
    let outside = coalesce(&runtime.block_on(async { Inner::taking(ms(1)) }), 4);
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    assert!(matches!(service.call(1).now_or_never(), Some(Err(BatchError::Closed))));
    assert_eq!(service.handle().held(), 0);
    let outcome = runtime.block_on(async { (service.oneshot(2).await, outside.oneshot(3).await) });
    assert!(matches!(outcome, (Ok(Answer(2)), Ok(Answer(3)))));
}

#[test]
fn a_runtime_that_shuts_down_takes_only_its_own_calls_with_it() {
    let [first, second] = [(); 2].map(|()| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    let service = first.block_on(async {
        layer(1).layer(Inner::new(|sent| if sent.items[0] == 0 { Reply::Never } else { Reply::Echo(ms(1)) }))
    });
    let mut lost = None;
    first.block_on(async {
        lost = Some(service.clone().call(0));
        settle().await;
    });
    drop(first);
    assert!(matches!(lost.unwrap().now_or_never(), Some(Err(BatchError::Closed))));
    assert!(matches!(second.block_on(service.clone().oneshot(1)), Ok(Answer(1))));
    assert_eq!(service.handle().held(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_works_over_a_concurrency_limit_of_one() {
    let inner = Inner::taking(ms(10));
    let service = layer(4).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let calls: Vec<_> = (0..16).map(|item| tokio::spawn(service.clone().oneshot(item))).collect();
    for (item, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), Answer(item));
    }
    assert_eq!(inner.peak(), 1);
    assert_eq!(inner.batches().len(), 4, "while one is in flight, the next ones fill");
}

#[tokio::test(start_paused = true)]
async fn it_works_under_the_usual_layers() {
    let inner = Inner::taking(ms(10));
    let service =
        ServiceBuilder::new().concurrency_limit(8).timeout(secs(1)).layer(layer(4)).service(inner.clone());
    let calls: Vec<_> = (0..16).map(|item| tokio::spawn(service.clone().oneshot(item))).collect();
    for (item, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), Answer(item));
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversize_request_goes_alone_or_is_refused_and_blocks_nobody() {
    let inner = Inner::taking(ms(1));
    let service = layer(10).max_weight(100, |item| *item).unwrap().layer(inner.clone());
    assert_answered(&ask_all(&service, [1, 2, 1000, 3]).await, [1, 2, 1000, 3]);
    assert_eq!(inner.batches(), [vec![1, 2], vec![1000], vec![3]]);

    let inner = Inner::taking(ms(1));
    let rejecting = layer(10).max_weight(100, |item| *item).unwrap().oversize(Oversize::Reject);
    let service = rejecting.layer(inner.clone());
    let outcomes = ask_all(&service, [1, 1000, 3]).await;
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(matches!(error, BatchError::Oversize { items: 1, weight: 1000, .. }));
    assert!(error.was_not_sent());
    assert_eq!(inner.batches(), [[1, 3]]);
    settle().await;
    assert_eq!(service.handle().held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_waiting_room_makes_callers_wait_or_refuses_them() {
    let inner = Inner::taking(ms(10));
    let service = layer(2).capacity(2).unwrap().layer(inner.clone());
    let start = Instant::now();
    assert_answered(&ask_all(&service, 0..6).await, 0..6);
    assert_eq!(start.elapsed(), ms(30), "two at a time");

    let service = layer(2).capacity(2).unwrap().overflow(Overflow::Reject).layer(inner.clone());
    let outcomes = ask_all(&service, 0..3).await;
    assert_answered(&outcomes[..2], 0..2);
    let error = outcomes[2].as_ref().unwrap_err();
    assert!(matches!(error, BatchError::Rejected));
    assert!(error.was_not_sent());
    assert_eq!(service.handle().held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_waiting_room_is_given_back_by_who_does_not_use_it() {
    let inner = Inner::taking(ms(1));
    let mut service = layer(1).capacity(1).unwrap().layer(inner.clone());
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    assert!(service.ready().now_or_never().is_none(), "the only place is taken");
    drop(idle);
    settle().await;
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), Answer(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_times_out_and_is_dropped() {
    let inner = Inner::new(|sent| if sent.items[0] == 0 { Reply::Never } else { Reply::Echo(ms(1)) });
    let service = layer(2).timeout(secs(1)).layer(inner.clone());
    let start = Instant::now();
    for outcome in ask_all(&service, 0..2).await {
        assert!(matches!(outcome, Err(BatchError::TimedOut)));
    }
    assert_eq!((start.elapsed(), inner.in_flight()), (secs(1), 0));
    assert_answered(&ask_all(&service, 2..4).await, 2..4);
}

/// Two at once would end the process, if the second came while the first is on its way up.
#[tokio::test(start_paused = true)]
async fn answers_that_panic_when_they_are_dropped_harm_nobody() {
    struct Bomb(u64);

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 == 0, "told to panic");
        }
    }

    let inner = tower::service_fn(|items: Vec<u64>| async move {
        tokio::time::sleep(ms(5)).await;
        Ok::<Vec<Result<Bomb, Fault>>, Fault>(items.into_iter().map(|item| Ok(Bomb(item))).collect())
    });
    let service = CoalesceLayer::new(4).unwrap().layer(inner);
    let mut calls: Vec<_> = (0..4).map(|item| service.clone().call(item)).collect();
    settle().await;
    let stays = calls.remove(0);
    drop(calls);
    assert_eq!(stays.await.unwrap().0, 0);
    assert_eq!(service.handle().held(), 0);
}
