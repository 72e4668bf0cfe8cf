//! Where requests come one at a time, they are sent within their calls: what that does, and every fault once more.

use crate::{
    inner::{Answer, Answers, Fault, Inner, Outcome, Reply, Sent, ask_all, assert_answered, layer, tasks},
    support::{ms, secs, settle},
};
use futures::FutureExt;
use std::{
    hash::Hash,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_cooldown::{
    Coalesce, CoalesceLayer,
    coalesce::{Abandon, BatchError, Linger, Split, Trigger},
    record::Statistics,
};

/// Requests from this number on make the streak, and are answered at once.
const STREAK: u64 = 1_000_000;
/// So many of them, one after another, and the next ones are not kept until the end of the tick,
const LONG: u64 = 65;
/// but for one in about so many.
const KEPT: u64 = 64;

/// Answers the requests that make the streak at once, and the others by this script.
fn then(mut script: impl FnMut(&Sent) -> Reply + Send + 'static) -> Inner {
    Inner::new(move |sent| if sent.items[0] >= STREAK { Reply::Echo(ms(0)) } else { script(sent) })
}

fn then_taking(time: std::time::Duration) -> Inner {
    then(move |_| Reply::Echo(time))
}

async fn come_alone<K, P>(service: &Coalesce<Inner, u64, Answer, K, P>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    P: Split<u64, Answers, Fault> + Send + Sync + 'static,
{
    for item in STREAK..STREAK + LONG {
        assert_answered(&ask_all(service, [item]).await, [item]);
    }
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0), "nothing is left of the streak");
}

/// The batches that are not of the streak.
fn batches(inner: &Inner) -> Vec<Vec<u64>> {
    inner.batches().into_iter().filter(|batch| batch[0] < STREAK).collect()
}

/// The layer goes on: requests that come together are answered, and nothing is left.
async fn assert_works(service: &Coalesce<Inner, u64, Answer>) {
    assert_answered(&ask_all(service, 100..104).await, 100..104);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_within_its_call() {
    let inner = then(|sent| Reply::Echo(ms(sent.items[0])));
    let mut service = layer(10).layer(inner.clone());
    let kept = service.call(0);
    assert_eq!(batches(&inner), [[0; 0]; 0], "the first request waits for others");
    assert_eq!(kept.await.unwrap(), Answer(0));

    come_alone(&service).await;
    let at_once = service.call(0);
    assert_eq!(batches(&inner), [[0], [0]]);
    assert_eq!((tasks(), service.handle().held()), (0, 0), "it has its answer");
    assert!(matches!(at_once.now_or_never(), Some(Ok(Answer(0)))));

    let start = Instant::now();
    let takes_time = service.call(7);
    assert_eq!(batches(&inner), [[0], [0], [7]]);
    assert_eq!((tasks(), service.handle().held()), (1, 1));
    assert_eq!(takes_time.await.unwrap(), Answer(7));
    assert_eq!(start.elapsed(), ms(7));
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_in_so_many_waits_for_others() {
    let inner = then_taking(ms(0));
    let mut service = layer(10).layer(inner.clone());
    come_alone(&service).await;
    let mut kept = 0;
    for item in 0..10 * KEPT {
        let mut call = service.call(item);
        if (&mut call).now_or_never().is_none() {
            kept += 1;
            assert_eq!(call.await.unwrap(), Answer(item));
        }
    }
    assert_eq!(kept, 9);
}

#[tokio::test(start_paused = true)]
async fn with_a_linger_every_request_waits_for_it() {
    for linger in [Linger::Fixed(ms(5)), Linger::WhileBusy { max: ms(5) }] {
        let inner = then_taking(ms(0));
        let mut service = layer(10).linger(linger).layer(inner.clone());
        come_alone(&service).await;
        let call = service.call(1);
        assert_eq!(batches(&inner), [[0; 0]; 0], "{linger:?}");
        assert_eq!(call.await.unwrap(), Answer(1));
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_one_is_in_flight_ends_the_streak() {
    let inner = then_taking(ms(5));
    let service = layer(10).layer(inner.clone());
    come_alone(&service).await;
    assert_answered(&ask_all(&service, 0..5).await, 0..5);
    assert_eq!(batches(&inner), [vec![0], vec![1, 2, 3, 4]]);
    assert_answered(&ask_all(&service, 5..10).await, 5..10);
    assert_eq!(batches(&inner)[2..], [[5, 6, 7, 8, 9]]);
}

/// An inner service that answers at once is never found in flight: the requests that are kept find out.
#[tokio::test(start_paused = true)]
async fn requests_that_come_together_again_go_together_again() {
    for size in [2, 3, 4, 32, 64, 65, 129] {
        let inner = then_taking(ms(0));
        let service = layer(200).layer(inner.clone());
        come_alone(&service).await;
        for group in 0..300 / size + 4 {
            let items = size * group..size * (group + 1);
            assert_answered(&ask_all(&service, items.clone()).await, items);
            settle().await;
        }
        let batches = batches(&inner);
        let alone = batches.iter().take_while(|batch| batch.len() == 1).count() as u64;
        assert!(alone < 3 * KEPT, "{alone} that could have gone with others, {size} at once");
        let together = batches[alone as usize..].iter().skip(1).map(|batch| batch.len() as u64);
        assert!(together.clone().count() > 0 && together.clone().all(|of| of == size), "{size}: {batches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_at_a_time_is_one_and_the_order_is_kept() {
    let inner = then_taking(ms(5));
    let service = layer(3).max_in_flight(1).unwrap().layer(inner.clone());
    come_alone(&service).await;
    assert_answered(&ask_all(&service, 0..6).await, 0..6);
    assert_eq!(batches(&inner), [vec![0], vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(inner.peak(), 1);
    assert_works(&service).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_alone_or_not_each_for_itself() {
    let inner = then_taking(ms(5));
    let mut service = layer(10).key(|item| item % 3).max_keys(2).unwrap().layer(inner.clone());
    come_alone(&service).await;
    let of_two_keys = [service.call(0), service.call(1)];
    assert_eq!(batches(&inner), [[0], [1]], "another key is no company");
    let of_one_too_many = service.call(2);
    assert_eq!(batches(&inner).len(), 2, "it is put among those without a place");
    for (item, call) in (0..).zip(of_two_keys.into_iter().chain([of_one_too_many])) {
        assert_eq!(call.await.unwrap(), Answer(item));
    }
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_heavier_than_a_batch_goes_the_usual_way() {
    let inner = then_taking(ms(1));
    let layer = layer(10).max_weight(10, |item| if *item < STREAK { *item } else { 1 }).unwrap();
    let mut service = layer.layer(inner.clone());
    come_alone(&service).await;
    let oversize = service.call(11);
    assert_eq!(batches(&inner).len(), 0);
    assert_eq!(oversize.await.unwrap(), Answer(11));
    assert_works(&layer.layer(inner)).await;
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_not_ready_is_waited_for() {
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = Arc::clone(&ready);
    let inner = then_taking(ms(0))
        .when_ready(move || if is_ready.load(SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending });
    let mut service = layer(10).layer(inner.clone());
    come_alone(&service).await;
    ready.store(false, SeqCst);
    let call = service.call(0);
    assert_eq!(batches(&inner).len(), 0);
    settle().await;
    assert_eq!(service.handle().held(), 1);
    drop(call);
    settle().await;
    ready.store(true, SeqCst);
    assert_works(&service).await;
    assert!(!batches(&inner).concat().contains(&0), "who had gone is not sent");
}

/// A service that fails or panics when it is asked whether it is ready is asked once more, in the task.
#[tokio::test(start_paused = true)]
async fn what_fails_in_poll_ready_fails_its_own_request_only() {
    for panics in [true, false] {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let inner = then_taking(ms(0)).when_ready(move || {
            if !failing.load(SeqCst) {
                return Poll::Ready(Ok(()));
            }
            assert!(!panics, "panic in poll_ready");
            Poll::Ready(Err(Fault("not ready")))
        });
        let service = layer(10).layer(inner.clone());
        come_alone(&service).await;
        fails.store(true, SeqCst);
        match service.clone().oneshot(0).await {
            Err(BatchError::Panicked) if panics => {}
            Err(BatchError::Batch(error)) if !panics => assert_eq!(*error, Fault("not ready")),
            other => panic!("{other:?}"),
        }
        fails.store(false, SeqCst);
        assert_works(&service).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_any_kind_are_the_callers_and_no_one_elses() {
    let answers = |n: u64| (0..n).map(|item| Ok(Answer(item))).collect::<Vec<_>>();
    let mismatch = |got| move |outcome: &Outcome| matches!(outcome, Err(BatchError::LengthMismatch { expected: 1, got: is, .. }) if *is == got);
    let panicked = |outcome: &Outcome| matches!(outcome, Err(BatchError::Panicked));
    let failed = |outcome: &Outcome| matches!(outcome, Err(BatchError::Item(Fault("no"))));
    type Case = (&'static str, Box<dyn Fn() -> Reply + Send>, Box<dyn Fn(&Outcome) -> bool>);
    let cases: Vec<Case> = vec![
        ("panic in call", Box::new(|| Reply::PanicInCall), Box::new(panicked)),
        ("panic in future", Box::new(|| Reply::PanicInFuture), Box::new(panicked)),
        ("panic in drop", Box::new(|| Reply::PanicInDrop), Box::new(panicked)),
        ("fails", Box::new(|| Reply::Fail("no")), Box::new(failed)),
        ("item fails", Box::new(|| Reply::Give(vec![Err(Fault("no"))], ms(0))), Box::new(failed)),
        ("item fails later", Box::new(|| Reply::Give(vec![Err(Fault("no"))], ms(1))), Box::new(failed)),
        ("too few", Box::new(move || Reply::Give(answers(0), ms(0))), Box::new(mismatch(0))),
        ("too few later", Box::new(move || Reply::Give(answers(0), ms(1))), Box::new(mismatch(0))),
        ("too many", Box::new(move || Reply::Give(answers(2), ms(0))), Box::new(mismatch(2))),
        ("too many later", Box::new(move || Reply::Give(answers(2), ms(1))), Box::new(mismatch(2))),
    ];
    for (name, reply, is_expected) in cases {
        let inner = then(move |sent| if sent.items == [0] { reply() } else { Reply::Echo(ms(1)) });
        let mut service = layer(10).layer(inner.clone());
        come_alone(&service).await;
        let call = service.call(0);
        assert_eq!(batches(&inner), [[0]], "{name}: sent at once");
        let outcome = call.await;
        assert!(is_expected(&outcome), "{name}: {outcome:?}");
        settle().await;
        assert_works(&service).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_a_while_stays_in_its_batch() {
    let inner = service_fn(|items: Vec<u64>| async move {
        if items == [0] {
            tokio::time::sleep(ms(1)).await;
            panic!("told to");
        }
        Ok::<_, Fault>(items.into_iter().map(Ok).collect::<Vec<_>>())
    });
    let mut service = layer(10).layer(inner);
    for item in 1..=LONG {
        assert_eq!(service.call(item).await.unwrap(), item);
    }
    settle().await;
    let call = service.call(0);
    assert_eq!(tasks(), 1, "it was sent at once");
    assert!(matches!(call.await, Err(BatchError::Panicked)));
    assert_eq!(service.call(1).await.unwrap(), 1);
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_leaves_nothing_behind() {
    for (abandon, dropped) in [(Abandon::Cancel, 1), (Abandon::Finish, 0)] {
        let inner = then(|sent| if sent.items == [0] { Reply::Echo(secs(1)) } else { Reply::Echo(ms(1)) });
        let mut service = layer(10).on_abandon(abandon).layer(inner.clone());
        come_alone(&service).await;
        let call = service.call(0);
        assert_eq!(inner.in_flight(), 1);
        drop(call);
        settle().await;
        assert_eq!(inner.dropped(), dropped, "{abandon:?}");
        tokio::time::sleep(secs(2)).await;
        assert_eq!(inner.in_flight(), 0);
        assert_works(&service).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_parks_for_ever_holds_up_nobody() {
    let inner = then_taking(ms(5));
    let mut service = layer(10).max_in_flight(1).unwrap().layer(ConcurrencyLimit::new(inner.clone(), 1));
    for item in STREAK..STREAK + LONG {
        assert_eq!(service.call(item).await.unwrap(), Answer(item));
    }
    settle().await;
    let parked = service.call(0);
    let mut other = service.clone();
    let others = [service.call(1), other.call(2)];
    assert_eq!(batches(&inner), [[0]]);
    for (item, call) in (1..).zip(others) {
        assert_eq!(call.await.unwrap(), Answer(item));
    }
    settle().await;
    assert_eq!((tasks(), service.handle().held()), (0, 0));
    assert!(matches!(parked.now_or_never(), Some(Ok(Answer(0)))), "its answer waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_times_out_and_is_dropped() {
    let inner = then(|sent| if sent.items == [0] { Reply::Never } else { Reply::Echo(ms(1)) });
    let mut service = layer(10).timeout(secs(1)).layer(inner.clone());
    come_alone(&service).await;
    let start = Instant::now();
    assert!(matches!(service.call(0).await, Err(BatchError::TimedOut)));
    assert_eq!((start.elapsed(), inner.in_flight(), inner.dropped()), (secs(1), 0, 1));
    assert_works(&service).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_it_and_lets_no_other_in() {
    let inner = then_taking(ms(5));
    let mut service = layer(10).layer(inner.clone());
    come_alone(&service).await;
    let (start, call) = (Instant::now(), service.call(0));
    service.handle().drain(secs(1)).await.unwrap();
    assert_eq!(start.elapsed(), ms(5));
    assert!(matches!(call.now_or_never(), Some(Ok(Answer(0)))));
    assert!(matches!(service.call(1).await, Err(BatchError::Closed)));
    assert_eq!(batches(&inner), [[0]]);
}

#[test]
fn a_runtime_that_shuts_down_takes_only_its_own_call_with_it() {
    let [first, second] = [(); 2].map(|()| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    let inner = first
        .block_on(async { then(|sent| if sent.items == [0] { Reply::Never } else { Reply::Echo(ms(1)) }) });
    let mut service = layer(10).layer(inner.clone());
    first.block_on(come_alone(&service));
    let lost = {
        let _inside = first.enter();
        service.call(0)
    };
    assert_eq!(batches(&inner), [[0]]);
    drop(first);
    assert!(matches!(lost.now_or_never(), Some(Err(BatchError::Closed))));
    assert!(matches!(service.call(1).now_or_never(), Some(Err(BatchError::Closed))), "without a runtime");
    assert_eq!(batches(&inner), [[0]], "it was not sent");
    second.block_on(assert_works(&service));
}

#[tokio::test(start_paused = true)]
async fn it_takes_a_place_in_the_waiting_room() {
    let inner = then_taking(ms(5));
    let mut service = layer(1).capacity(1).unwrap().layer(inner);
    come_alone(&service).await;
    let call = service.ready().await.unwrap().call(0);
    assert!(service.ready().now_or_never().is_none(), "the only place is taken");
    assert!(matches!(service.clone().call(1).await, Err(BatchError::Rejected)));
    assert_eq!(call.await.unwrap(), Answer(0));
    assert_eq!(service.ready().await.unwrap().call(2).await.unwrap(), Answer(2));
}

#[tokio::test(start_paused = true)]
async fn it_is_recorded_like_any_other() {
    let statistics = Statistics::new();
    let inner = then(|sent| match sent.items[0] {
        3 => Reply::Fail("no"),
        item => Reply::Echo(ms(item)),
    });
    let layer = layer(10).max_weight(100, |item| 1 + item % 10).unwrap().statistics(&statistics);
    let mut service = layer.layer(inner);
    come_alone(&service).await;
    let before = statistics.snapshot().coalesced;
    assert_eq!((before.batches, before.closed_by(Trigger::Idle)), (LONG, 0));
    for item in [0, 2, 3] {
        drop(service.call(item).await);
    }
    let now = statistics.snapshot().coalesced;
    assert_eq!((now.batches - before.batches, now.requests - before.requests), (3, 3));
    assert_eq!((now.calls - before.calls, now.weight - before.weight), (3, 1 + 3 + 4));
    assert_eq!(now.closed_by(Trigger::Idle), 3);
    assert_eq!((now.failed.count, now.succeeded.count - before.succeeded.count), (1, 2));
    assert_eq!(now.succeeded.sum - before.succeeded.sum, ms(2));
}

/// What it is called by may be called by it.
#[tokio::test(start_paused = true)]
async fn an_inner_service_may_come_back_through_it() {
    type Through = Coalesce<Recursive, u64, Answer>;

    #[derive(Clone, Default)]
    struct Recursive(Arc<Mutex<Option<Through>>>);

    impl Service<Vec<u64>> for Recursive {
        type Response = Answers;
        type Error = Fault;
        type Future = futures::future::BoxFuture<'static, Result<Answers, Fault>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, items: Vec<u64>) -> Self::Future {
            let through = (items == [0]).then(|| self.0.lock().unwrap().clone()).flatten();
            Box::pin(async move {
                if let Some(mut through) = through {
                    assert_eq!(through.call(1).await.unwrap(), Answer(1));
                }
                Ok(items.into_iter().map(|item| Ok(Answer(item))).collect())
            })
        }
    }

    let inner = Recursive::default();
    let mut service = CoalesceLayer::new(10).unwrap().layer(inner.clone());
    *inner.0.lock().unwrap() = Some(service.clone());
    for item in STREAK..STREAK + LONG {
        assert_eq!(service.call(item).await.unwrap(), Answer(item));
    }
    settle().await;
    let call = tokio::time::timeout(secs(1), service.call(0)).await;
    assert_eq!(call.expect("no deadlock").unwrap(), Answer(0));
    *inner.0.lock().unwrap() = None;
}
