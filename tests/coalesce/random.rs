//! All invariants at once: callers that come and go at random, an inner service that does what it likes.

use crate::{
    inner::{Answer, Fault, Inner, Reply, ask, layer, tasks},
    support::{ms, settle},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};
use tower::Layer;
use tower_cooldown::coalesce::{Abandon, BatchError, Linger};

/// The weight of an item: 1 to 8, and now and then more than a batch may have.
fn weight(item: u64) -> u64 {
    if item % 37 == 0 { 40 } else { item % 8 + 1 }
}

const MAX_WEIGHT: u64 = 30;

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let max_items = 1 + random.u64(..8) as usize;
    let max_in_flight = 1 + random.u64(..4) as usize;
    let keys = 1 + random.u64(..3);
    let linger = match random.u64(..3) {
        0 => Linger::Tick,
        1 => Linger::Fixed(ms(1 + random.u64(..10))),
        _ => Linger::WhileBusy { max: ms(1 + random.u64(..10)) },
    };
    let abandon = if random.u64(..2) == 0 { Abandon::Cancel } else { Abandon::Finish };
    let splits = random.u64(..2) == 0;
    let of_inner = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed ^ 0xABCD)));
    let per_key = Arc::new(Mutex::new(HashMap::<u64, Vec<u64>>::new()));
    let order = Arc::clone(&per_key);
    // With every other seed requests have come one at a time for long, so that the next is sent within its call.
    let streak = if seed % 2 == 0 { 0 } else { 65 };
    let inner = Inner::new(move |sent| {
        let mut random = of_inner.lock().unwrap();
        // checked here, so that the failing batch is in the panic
        assert!(sent.items.len() <= max_items, "{sent:?}");
        let total: u64 = sent.items.iter().map(|&item| weight(item)).sum();
        assert!(total <= MAX_WEIGHT || sent.items.len() == 1, "{sent:?}");
        assert!(sent.items.iter().all(|item| item % keys == sent.items[0] % keys), "{sent:?}");
        order.lock().unwrap().entry(sent.items[0] % keys).or_default().extend(&sent.items);
        let time = ms(random.u64(..20));
        match random.u64(..12) {
            0 => Reply::Fail("random"),
            1 => Reply::PanicInFuture,
            2 => Reply::PanicInDrop,
            3 => Reply::Give(vec![], time),
            4 => Reply::Give((0..sent.items.len() as u64 + 1).map(|item| Ok(Answer(item))).collect(), time),
            _ => Reply::Echo(time),
        }
    });
    let service = layer(max_items)
        .max_weight(MAX_WEIGHT, |item| weight(*item))
        .unwrap()
        .max_in_flight(max_in_flight)
        .unwrap()
        .capacity(1 + random.u64(..40) as usize)
        .unwrap()
        .linger(linger)
        .on_abandon(abandon)
        .split_when(move |result: Result<&_, &Fault>| splits && result.is_err())
        .key(move |item| *item % keys)
        .layer(inner.clone());

    let mut calls = HashMap::new();
    for item in 0..streak {
        calls.insert(item, ask(&service, item));
        service.handle().flush();
        while service.handle().held() > 0 {
            tokio::time::sleep(ms(1)).await;
        }
    }
    let mut next = streak;
    for _ in 0..60 {
        match random.u64(..10) {
            0..=5 => {
                for _ in 0..random.u64(..6) {
                    calls.insert(next, ask(&service, next));
                    next += 1;
                }
            }
            6 => {
                if let Some(&item) = calls.keys().next() {
                    let call = calls.remove(&item).unwrap();
                    call.abort();
                    drop(call.await);
                }
            }
            7 => service.handle().flush(),
            _ => tokio::time::sleep(ms(random.u64(..15))).await,
        }
        settle().await;
        assert!(inner.in_flight() <= max_in_flight * keys as usize, "{} in flight", inner.in_flight());
    }
    service.handle().drain(ms(600_000)).await.unwrap();
    for (item, call) in calls {
        // Waited for: each has an outcome, or this would hang, which the paused clock shows as an error.
        match tokio::time::timeout(ms(600_000), call).await.expect("an outcome").expect("no caller panics") {
            Ok(Answer(answer)) => assert_eq!(answer, item),
            Err(BatchError::Item(Fault("random")) | BatchError::Panicked | BatchError::Closed) => {}
            Err(BatchError::Batch(error)) => assert_eq!(*error, Fault("random")),
            Err(BatchError::LengthMismatch { expected, got, .. }) => assert_ne!(expected, got),
            Err(other) => panic!("{item}: {other:?}"),
        }
    }
    settle().await;
    assert_eq!((tasks(), service.handle().held(), inner.in_flight()), (0, 0, 0));
    if !splits {
        for (key, sent) in per_key.lock().unwrap().iter() {
            let once: HashSet<_> = sent.iter().collect();
            assert_eq!(once.len(), sent.len(), "key {key}: each was sent once");
            assert!(sent.is_sorted(), "key {key}: in the order in which they came: {sent:?}");
        }
    }
}

#[test]
fn invariants_hold_for_random_callers_and_services() {
    // The panics in it are part of the script.
    for seed in 0..300 {
        println!("seed {seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
