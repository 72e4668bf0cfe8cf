//! Callers on several threads: each thread has an open batch of its own, and they are put together to be sent.

use crate::{
    inner::{Answer, Inner, Outcome, Reply, assert_answered, layer, tasks},
    support::{ms, secs, settle},
};
use futures::{FutureExt, future::join_all};
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::channel,
    },
    task::Poll,
    thread,
    time::Duration,
};
use tokio::runtime::{Builder, Handle};
use tower::{Layer, Service, ServiceExt};
use tower_cooldown::{
    Coalesce,
    coalesce::{Abandon, BatchError, ResponseFuture},
};

type Call = ResponseFuture<u64, Answer, crate::inner::Fault>;

/// Calls for these items from a thread for each list, one list after another, while all threads live.
fn call_from_threads(service: &Coalesce<Inner, u64, Answer>, items: &[&[u64]]) -> Vec<Vec<Call>> {
    let runtime = Handle::current();
    let all_have_called = Arc::new(Barrier::new(items.len() + 1));
    thread::scope(|scope| {
        let mut calls = Vec::new();
        for items in items {
            let (sender, receiver) = channel();
            let (mut service, runtime) = (service.clone(), runtime.clone());
            let all_have_called = Arc::clone(&all_have_called);
            scope.spawn(move || {
                let _inside = runtime.enter();
                sender.send(items.iter().map(|item| service.call(*item)).collect()).unwrap();
                all_have_called.wait();
            });
            calls.push(receiver.recv().unwrap());
        }
        all_have_called.wait();
        calls
    })
}

async fn answers(calls: Vec<Vec<Call>>) -> Vec<Outcome> {
    join_all(calls.into_iter().flatten()).await
}

#[tokio::test(start_paused = true)]
async fn what_threads_have_open_is_sent_together() {
    let inner = Inner::taking(ms(5));
    let service = layer(8).layer(inner.clone());
    let calls = call_from_threads(&service, &[&[0, 1], &[2], &[3, 4]]);
    assert_answered(&answers(calls).await, 0..5);
    assert_eq!(inner.batches(), [[0, 1, 2, 3, 4]]);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_no_more_than_it_may_and_the_next_one_takes_the_rest() {
    let inner = Inner::taking(ms(5));
    let service = layer(4).layer(inner.clone());
    let calls = call_from_threads(&service, &[&[0, 1, 2], &[3, 4, 5], &[6, 7, 8]]);
    assert_answered(&answers(calls).await, 0..9);
    assert_eq!(inner.batches(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);

    let inner = Inner::taking(ms(5));
    let service = layer(8).max_weight(10, |item| *item).unwrap().layer(inner.clone());
    let calls = call_from_threads(&service, &[&[1, 2], &[3, 6], &[4, 5]]);
    assert_answered(&answers(calls).await, [1, 2, 3, 6, 4, 5]);
    assert_eq!(inner.batches(), [vec![1, 2, 3], vec![6, 4], vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_only_the_own_request_along() {
    let inner = Inner::taking(ms(5));
    let service = layer(4).layer(inner.clone());
    let mut calls = call_from_threads(&service, &[&[0, 1, 2], &[3, 4, 5]]);
    drop(calls[0].remove(1));
    drop(calls[1].remove(0));
    assert_answered(&answers(calls).await, [0, 2, 4, 5]);
    assert_eq!(inner.batches(), [[0, 2, 4, 5]]);
    assert_eq!(service.handle().held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_dropped_when_its_own_callers_have_gone() {
    for (abandon, dropped) in [(Abandon::Cancel, 1), (Abandon::Finish, 0)] {
        let inner = Inner::taking(secs(5));
        let service = layer(4).on_abandon(abandon).layer(inner.clone());
        let mut calls = call_from_threads(&service, &[&[0, 1], &[2, 3, 4]]);
        let waiting: Vec<_> = calls.iter_mut().flatten().map(|call| call.now_or_never()).collect();
        assert!(waiting.iter().all(Option::is_none));
        settle().await;
        assert_eq!(inner.batches(), [vec![0, 1, 2, 3], vec![4]], "the second group is in both calls");
        let last = calls[1].pop();
        drop(calls);
        settle().await;
        assert_eq!(inner.dropped(), dropped, "{abandon:?}");
        assert_answered(&[last.unwrap().await], [4]);
        settle().await;
        assert_eq!(service.handle().held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn with_one_call_at_a_time_the_order_is_kept_across_threads() {
    let inner = Inner::taking(ms(5));
    let service = layer(3).max_in_flight(1).unwrap().layer(inner.clone());
    let first = call_from_threads(&service, &[&[0], &[1]]);
    let second = call_from_threads(&service, &[&[2], &[3, 4]]);
    assert_answered(&answers(first.into_iter().chain(second).collect()).await, 0..5);
    assert_eq!(inner.batches(), [vec![0, 1, 2], vec![3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_what_every_thread_has_open() {
    let inner = Inner::taking(ms(5));
    let service = layer(8).layer(inner.clone());
    let mut calls = call_from_threads(&service, &[&[0, 1], &[2]]);
    service.handle().drain(secs(1)).await.unwrap();
    calls.extend(call_from_threads(&service, &[&[3]]));
    let outcomes = answers(calls).await;
    assert_answered(&outcomes[..3], 0..3);
    assert!(matches!(outcomes[3], Err(BatchError::Closed)));
}

/// A call is dropped with its runtime: what else is in its groups is not failed with it, and not lost either.
#[test]
fn a_runtime_that_shuts_down_fails_all_that_threads_have_open() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let calls = runtime.block_on(async {
        let service = layer(2).max_in_flight(2).unwrap().layer(Inner::new(|_| Reply::Never));
        let calls = call_from_threads(&service, &[&[0], &[1, 2], &[3]]);
        settle().await;
        calls
    });
    drop(runtime);
    for call in calls.into_iter().flatten() {
        assert!(matches!(call.now_or_never(), Some(Err(BatchError::Closed))));
    }
}

/// A full batch is sent beside the one that is collected; where the service is not ready, it waits, and grows no more.
#[tokio::test(start_paused = true)]
async fn what_is_full_waits_for_the_service_like_the_rest() {
    let (ready, inner) = (Arc::new(AtomicBool::new(false)), Inner::taking(ms(1)));
    let is_ready = Arc::clone(&ready);
    let inner = inner.when_ready(move || match is_ready.load(Relaxed) {
        true => Poll::Ready(Ok(())),
        false => Poll::Pending,
    });
    let mut service = layer(2).layer(inner.clone());
    let calls: Vec<_> = (0..5).map(|item| service.call(item)).collect();
    settle().await;
    assert_eq!((inner.sent().len(), tasks()), (0, 1), "one waits for the service");
    ready.store(true, Relaxed);
    // The script has no waker: another caller is what makes the task look.
    let gone = service.call(9);
    drop((calls, gone));
    settle().await;
    assert_eq!((inner.sent().len(), tasks(), service.handle().held()), (0, 0, 0));
    assert_answered(&[service.call(7).await], [7]);
}

/// On real threads, with callers that go away at any time: each gets its own answer, no batch is too large, no more
/// calls are in flight than may be, and nothing is left. It takes what it takes; there is no sleep in it.
#[test]
fn many_threads_at_once() {
    const CALLERS: u64 = 32;
    const CALLS: u64 = 400;
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let inner = Inner::new(|sent| {
        assert!(sent.items.len() <= 5);
        Reply::Echo(Duration::ZERO)
    });
    let service = layer(5).key(|item| item % 3).max_in_flight(3).unwrap().capacity(24).unwrap();
    let service: Coalesce<_, _, Answer, _> = service.layer(inner.clone());
    let answered = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let callers = (0..CALLERS).map(|caller| {
            let (mut service, answered) = (service.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                for n in 0..CALLS {
                    let item = caller * CALLS + n;
                    let mut call = service.ready().await.unwrap().call(item);
                    match (caller + n) % 7 {
                        0 => drop(call),
                        1 => drop((&mut call).now_or_never()),
                        _ => {
                            assert_answered(&[call.await], [item]);
                            answered.fetch_add(1, Relaxed);
                        }
                    }
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        service.handle().drain(secs(10)).await.unwrap();
    });
    assert!(answered.load(Relaxed) >= CALLERS * CALLS * 5 / 7 - CALLERS);
    assert_eq!(service.handle().held(), 0);
    assert!(inner.peak() <= 9, "three keys, three calls each: {}", inner.peak());
    for batch in inner.batches() {
        assert!(batch.iter().all(|item| item % 3 == batch[0] % 3), "{batch:?}");
    }
}
