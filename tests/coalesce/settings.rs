//! What the settings do, the handle, and the records.

use crate::{
    inner::{Answer, Fault, Inner, Reply, ask, ask_all, assert_answered, coalesce, layer, tasks},
    support::{ms, secs, settle},
};
use futures::FutureExt;
use std::{cell::Cell, sync::Mutex};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_cooldown::{
    CoalesceLayer,
    coalesce::{Abandon, BatchError, Linger, NotDrained, Trigger},
    record::Statistics,
};

#[test]
fn what_cannot_be_used_is_refused_when_it_is_set() {
    fn field<T>(setting: Result<T, tower_cooldown::InvalidSetting>) -> &'static str {
        setting.err().expect("an error").field()
    }
    assert_eq!(field(CoalesceLayer::<u64>::new(0)), "max_items");
    assert_eq!(field(layer(1).max_in_flight(0)), "max_in_flight");
    assert_eq!(field(layer(1).max_keys(0)), "max_keys");
    assert_eq!(field(layer(1).capacity(0)), "capacity");
    assert_eq!(field(layer(1).max_weight(0, |_| 1)), "max_weight");
}

#[tokio::test(start_paused = true)]
async fn the_largest_settings_are_no_harm() {
    let inner = Inner::taking(ms(1));
    let layer = layer(usize::MAX)
        .max_in_flight(usize::MAX)
        .unwrap()
        .capacity(usize::MAX)
        .unwrap()
        .max_weight(u64::MAX, |_| u64::MAX - 1)
        .unwrap();
    assert_answered(&ask_all(&layer.layer(inner), 0..10).await, 0..10);
}

/// Answers and requests may be `Send` only, and errors need not be `Clone`.
#[test]
fn what_it_asks_of_the_types() {
    fn shared<T: Clone + Send + Sync + Unpin + 'static>(_: &T) {}
    fn sent<T: Send + Unpin + 'static>(_: T) {}
    let service = service_fn(|requests: Vec<Cell<u64>>| async move {
        Ok::<_, Fault>(requests.into_iter().map(Ok).collect::<Vec<_>>())
    });
    let layer = CoalesceLayer::<Cell<u64>>::new(2).unwrap().key(|request| request.get());
    let mut service = layer.layer(service);
    shared(&layer);
    shared(&service);
    shared(&service.handle());
    sent(service.call(Cell::new(1)));
}

#[tokio::test(start_paused = true)]
async fn keys_never_share_a_call_and_a_slow_one_holds_up_none() {
    let inner =
        Inner::new(|sent| if sent.items[0] % 2 == 0 { Reply::Echo(secs(60)) } else { Reply::Echo(ms(1)) });
    let service = layer(3).key(|item| item % 2).max_in_flight(1).unwrap().layer(inner.clone());
    let slow: Vec<_> = (0..5).map(|item| ask(&service, item * 2)).collect();
    settle().await;
    let start = Instant::now();
    assert_answered(&ask_all(&service, [1, 3, 5, 7]).await, [1, 3, 5, 7]);
    assert!(start.elapsed() < secs(1), "{:?}", start.elapsed());
    for batch in inner.batches() {
        assert!(batch.iter().all(|item| item % 2 == batch[0] % 2), "{batch:?}");
    }
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn one_key_too_many_is_a_batch_of_its_own() {
    let inner = Inner::taking(ms(1));
    let service = layer(9).key(|item| *item / 10).max_keys(2).unwrap().layer(inner.clone());
    assert_answered(&ask_all(&service, [0, 1, 10, 11, 20, 21, 2]).await, [0, 1, 10, 11, 20, 21, 2]);
    let mut batches = inner.batches();
    batches.sort();
    assert_eq!(batches, [vec![0, 1, 2], vec![10, 11], vec![20], vec![21]]);
}

#[tokio::test(start_paused = true)]
async fn while_busy_waits_for_the_call_in_flight_and_not_longer() {
    let inner = Inner::taking(ms(20));
    let linger = Linger::WhileBusy { max: ms(500) };
    let service = layer(10).linger(linger).layer(inner.clone());
    let first = ask(&service, 0);
    settle().await;
    tokio::time::sleep(ms(5)).await;
    let others: Vec<_> = (1..4).map(|item| ask(&service, item)).collect();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let sent = inner.sent();
    assert_eq!(inner.batches(), [vec![0], vec![1, 2, 3]]);
    assert_eq!([sent[0].at, sent[1].at], [ms(0), ms(20)]);
}

#[tokio::test(start_paused = true)]
async fn while_busy_a_full_batch_leaves_at_once() {
    let inner = Inner::taking(ms(20));
    let service = layer(2).linger(Linger::WhileBusy { max: ms(500) }).layer(inner.clone());
    let first = ask(&service, 0);
    settle().await;
    assert_answered(&ask_all(&service, 1..3).await, 1..3);
    assert_eq!(inner.sent()[1].at, ms(0));
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_may_count_for_several_items() {
    let inner = Inner::taking(ms(1));
    let service = layer(10).count_items(|item| usize::try_from(*item).unwrap()).layer(inner.clone());
    ask_all(&service, [4, 4, 4, 10, 0, 1]).await;
    assert_eq!(inner.batches(), [vec![4, 4], vec![4], vec![10], vec![0, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_flush_closes_what_is_open() {
    let inner = Inner::taking(ms(1));
    let service = layer(10).linger(Linger::Fixed(secs(60))).layer(inner.clone());
    let calls = [ask(&service, 0), ask(&service, 1)];
    settle().await;
    let start = Instant::now();
    service.handle().flush();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(start.elapsed(), ms(1));
    service.handle().flush(); // of nothing
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_is_there_and_takes_in_no_more() {
    let inner = Inner::taking(ms(10));
    let mut service = layer(2).max_in_flight(1).unwrap().linger(Linger::Fixed(secs(60))).layer(inner.clone());
    let calls: Vec<_> = (0..5).map(|item| ask(&service, item)).collect();
    settle().await;
    let start = Instant::now();
    let handle = service.handle();
    handle.drain(secs(1)).await.unwrap();
    assert_eq!(start.elapsed(), ms(30));
    for (item, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), Answer(item));
    }
    assert!(matches!(service.ready().await, Err(BatchError::Closed)));
    assert!(matches!(service.call(9).await, Err(BatchError::Closed)));
    handle.drain(secs(1)).await.unwrap();
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_gives_nothing_up() {
    let inner = Inner::taking(secs(10));
    let service = coalesce(&inner, 2);
    let calls = [ask(&service, 0), ask(&service, 1)];
    settle().await;
    let start = Instant::now();
    let drained: Result<(), NotDrained> = service.handle().drain(secs(3)).await;
    assert_eq!((start.elapsed(), drained.unwrap_err().left), (secs(3), 2));
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_the_drain() {
    let inner = Inner::taking(secs(1));
    let service = layer(1).capacity(1).unwrap().layer(inner.clone());
    let first = ask(&service, 0);
    settle().await;
    let waits = ask(&service, 1);
    settle().await;
    service.handle().drain(secs(9)).await.unwrap();
    assert!(first.await.unwrap().is_ok());
    assert!(matches!(waits.await.unwrap(), Err(BatchError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_full_waiting_room_ends_the_linger() {
    let inner = Inner::taking(ms(1));
    let statistics = Statistics::new();
    let layer = layer(100).capacity(3).unwrap().linger(Linger::Fixed(secs(60))).statistics(&statistics);
    let service = layer.layer(inner.clone());
    let start = Instant::now();
    let calls: Vec<_> = (0..4).map(|item| ask(&service, item)).collect();
    for call in calls.into_iter().take(3) {
        call.await.unwrap().unwrap();
    }
    assert_eq!(start.elapsed(), ms(1));
    assert_eq!(statistics.snapshot().coalesced.closed_by(Trigger::Exhausted), 1);
}

#[tokio::test(start_paused = true)]
async fn a_split_finds_the_one_request_that_is_to_blame() {
    for poisoned in 0..8 {
        let inner =
            Inner::new(
                move |sent| {
                    if sent.items.contains(&poisoned) { Reply::Fail("bad") } else { Reply::Echo(ms(1)) }
                },
            );
        let statistics = Statistics::new();
        let service = layer(8)
            .split_when(|result: Result<&_, &Fault>| result.is_err())
            .statistics(&statistics)
            .layer(inner.clone());
        let outcomes = ask_all(&service, 0..8).await;
        for (item, outcome) in (0..).zip(&outcomes) {
            match outcome {
                Err(BatchError::Item(error)) if item == poisoned => assert_eq!(*error, Fault("bad")),
                Ok(Answer(answer)) if item != poisoned => assert_eq!(*answer, item),
                other => panic!("{item}: {other:?}"),
            }
        }
        assert_eq!(inner.sent().len(), 7, "8, 4 4, 2 2, 1 1");
        let coalesced = statistics.snapshot().coalesced;
        assert_eq!((coalesced.batches, coalesced.calls, coalesced.calls_saved()), (1, 7, 1));
        assert_eq!((coalesced.failed.count, coalesced.succeeded.count), (4, 3), "8, 4, 2, 1 and 4, 2, 1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_panics_or_fails_for_another_reason_fails_alone() {
    let inner = Inner::new(|sent| match sent.items.as_slice() {
        [0, 1, 2, 3] => Reply::Fail("bad"),
        [0, 1] => Reply::PanicInFuture,
        _ => Reply::Echo(ms(1)),
    });
    let service =
        layer(4).split_when(|result: Result<&_, &Fault>| result == Err(&Fault("bad"))).layer(inner.clone());
    let outcomes = ask_all(&service, 0..4).await;
    assert!(outcomes[..2].iter().all(|outcome| matches!(outcome, Err(BatchError::Panicked))));
    assert_answered(&outcomes[2..], 2..4);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_split_is_not_sent_for_nobody() {
    let inner = Inner::new(|sent| match sent.items.as_slice() {
        [0, 1, 2, 3] => Reply::Fail("bad"),
        _ => Reply::Echo(ms(10)),
    });
    let service = layer(4)
        .split_when(|result: Result<&_, &Fault>| result.is_err())
        .on_abandon(Abandon::Cancel)
        .layer(inner.clone());
    let mut calls: Vec<_> = (0..4).map(|item| ask(&service, item)).collect();
    settle().await;
    calls.drain(2..).for_each(|call| call.abort());
    for call in calls {
        call.await.unwrap().unwrap();
    }
    settle().await;
    assert_eq!(inner.batches(), [vec![0, 1, 2, 3], vec![0, 1]]);
    assert_eq!((tasks(), service.handle().held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_request_may_fail_alone() {
    let answers = || vec![Ok(Answer(0)), Err(Fault("this one")), Ok(Answer(2))];
    let inner = Inner::new(move |_| Reply::Give(answers(), ms(1)));
    let outcomes = ask_all(&coalesce(&inner, 3), 0..3).await;
    assert!(matches!(&outcomes[1], Err(BatchError::Item(Fault("this one")))));
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
}

/// Dashboards and alerts go by them.
#[test]
fn triggers_keep_their_names() {
    let names = ["items", "weight", "tick", "linger", "idle", "exhausted", "flush", "drain", "alone"];
    assert_eq!(Trigger::ALL.map(Trigger::as_str), names);
}

#[tokio::test(start_paused = true)]
async fn records_say_what_was_saved_and_why_batches_closed() {
    let inner = Inner::taking(ms(1));
    let statistics = Statistics::new();
    let layer = layer(3).max_weight(100, |item| *item).unwrap().statistics(&statistics);
    let service = layer.linger(Linger::Fixed(ms(7))).layer(inner.clone());
    ask_all(&service, [1, 2, 3]).await; // full
    ask_all(&service, [90, 20]).await; // too heavy, then the linger
    ask_all(&service, [500]).await; // oversize
    let calls = ask(&service, 5);
    settle().await;
    service.handle().flush();
    calls.await.unwrap().unwrap();
    let snapshot = statistics.snapshot();
    let coalesced = snapshot.coalesced;
    assert_eq!((coalesced.batches, coalesced.requests, coalesced.calls), (5, 7, 5));
    assert_eq!((coalesced.weight, coalesced.largest, coalesced.calls_saved()), (621, 3, 2));
    assert_eq!(coalesced.mean_size(), Some(1.4));
    for (trigger, batches) in [
        (Trigger::Items, 1),
        (Trigger::Weight, 1),
        (Trigger::Linger, 1),
        (Trigger::Alone, 1),
        (Trigger::Flush, 1),
    ] {
        assert_eq!(coalesced.closed_by(trigger), batches, "{trigger:?}");
    }
    assert_eq!(coalesced.sizes.iter().sum::<u64>(), 5);
    assert_eq!(coalesced.waits.max, ms(7));
    let table = snapshot.to_string();
    assert!(table.contains("7 requests in 5 batches (1.4 each, 3 at most), 2 calls saved"), "{table}");
}

#[tokio::test(start_paused = true)]
async fn records_say_how_long_calls_took_and_whether_they_helped_anybody() {
    let bad = || Err(Fault("bad"));
    let inner = Inner::new(move |sent| match sent.items[0] {
        0 => Reply::Echo(ms(1)),
        2 => Reply::Give(vec![bad(), Ok(Answer(3))], ms(10)),
        4 => Reply::Give(vec![bad(), bad()], ms(100)),
        6 => Reply::Give(vec![], ms(200)),
        8 => Reply::PanicInFuture,
        10 => Reply::Fail("no connection"),
        _ => Reply::Never,
    });
    let statistics = Statistics::new();
    let layer = layer(2).timeout(secs(1)).on_abandon(Abandon::Cancel).statistics(&statistics);
    let service = layer.layer(inner.clone());
    for first in [0, 2, 4, 6, 8, 10, 12] {
        ask_all(&service, first..first + 2).await;
    }
    let given_up = ask(&service, 14);
    settle().await;
    given_up.abort();
    settle().await;
    assert_eq!(inner.dropped(), 3, "the panic, the one that took too long, and the one nobody waited for");
    let coalesced = statistics.snapshot().coalesced;
    assert_eq!((coalesced.succeeded.count, coalesced.succeeded.sum), (2, ms(11)));
    assert_eq!((coalesced.failed.count, coalesced.failed.sum), (5, ms(1300)), "all but the last one");
    assert_eq!(coalesced.calls, 8);
}

#[tokio::test(start_paused = true)]
async fn who_has_gone_is_in_no_record() {
    let statistics = Statistics::new();
    let inner = Inner::taking(ms(1));
    let service = layer(3).linger(Linger::Fixed(ms(5))).statistics(&statistics).layer(inner.clone());
    let calls = [ask(&service, 0), ask(&service, 1)];
    settle().await;
    calls[0].abort();
    tokio::time::sleep(ms(10)).await;
    let coalesced = statistics.snapshot().coalesced;
    assert_eq!((coalesced.requests, coalesced.batches), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn errors_can_be_read_by_people() {
    let error = |outcome: crate::inner::Outcome| outcome.unwrap_err().to_string();
    let failing = coalesce(&Inner::new(|_| Reply::Fail("no connection")), 2);
    let outcomes = ask_all(&failing, 0..2).await;
    assert_eq!(outcomes.into_iter().map(error).collect::<Vec<_>>(), ["the batch failed: no connection"; 2]);
    let short = coalesce(&Inner::new(|_| Reply::Give(vec![], ms(0))), 2);
    assert_eq!(error(ask(&short, 0).await.unwrap()), "0 results came back for a batch of 1 requests");
}

/// A request is dropped outside of every lock: its drop may use the layer.
#[tokio::test(start_paused = true)]
async fn requests_and_answers_may_use_the_layer_when_they_are_dropped() {
    type Looks = std::sync::Arc<Mutex<Option<tower_cooldown::coalesce::Handle>>>;
    struct Looker(Looks);
    impl Drop for Looker {
        fn drop(&mut self) {
            let handle = self.0.lock().unwrap().clone();
            if let Some(handle) = handle {
                handle.flush(); // takes the locks
            }
        }
    }
    let looks = Looks::default();
    let service = service_fn(|requests: Vec<Looker>| async move {
        tokio::time::sleep(ms(5)).await;
        Ok::<_, Fault>(requests.into_iter().map(Ok).collect::<Vec<_>>())
    });
    let layer = CoalesceLayer::<Looker>::new(10).unwrap().linger(Linger::Fixed(ms(5)));
    let mut service = layer.layer(service);
    *looks.lock().unwrap() = Some(service.handle());
    let (waiting, in_flight) = (service.call(Looker(looks.clone())), service.call(Looker(looks.clone())));
    drop(waiting);
    settle().await;
    tokio::time::sleep(ms(7)).await;
    drop(in_flight);
    tokio::time::sleep(ms(9)).await;
    let answered = service.call(Looker(looks.clone()));
    tokio::time::sleep(ms(20)).await;
    drop(answered);
    assert!(service.call(Looker(looks)).now_or_never().is_none());
}
