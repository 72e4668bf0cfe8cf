//! What a request costs in allocations.

use crate::{
    inner::Fault,
    support::{ms, settle},
};
use allocation_counter::{AllocationInfo, measure};
use std::{future::ready, hash::Hash};
use tower::{Layer, Service, service_fn};
use tower_cooldown::CoalesceLayer;

/// So many rounds of so many requests at once, counted after some rounds of warming up.
fn rounds(at_once: u64, rounds: u64) -> AllocationInfo {
    rounds_through(CoalesceLayer::new(32).unwrap(), at_once, rounds)
}

fn rounds_through<K>(layer: CoalesceLayer<u64, K>, at_once: u64, rounds: u64) -> AllocationInfo
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inner = service_fn(|items: Vec<u64>| {
        ready(Ok::<_, Fault>(items.into_iter().map(Ok as fn(u64) -> Result<u64, Fault>)))
    });
    let mut service = layer.layer(inner);
    let mut calls = Vec::with_capacity(32);
    let mut go = |rounds| {
        runtime.block_on(async {
            for _ in 0..rounds {
                calls.extend((0..at_once).map(|item| service.call(item)));
                for call in calls.drain(..) {
                    call.await.unwrap();
                }
            }
            settle().await;
        });
    };
    go(10);
    measure(|| go(rounds))
}

#[test]
fn a_request_of_a_full_batch_allocates_less_than_once() {
    let info = rounds(32, 100);
    assert!(info.count_total <= 3200 / 2, "{info:?}");
    assert_eq!(info.bytes_current, 0, "{info:?}");
}

/// One allocation for the key itself, which its closure makes.
#[test]
fn a_key_is_not_cloned_for_each_request() {
    let layer = CoalesceLayer::new(32).unwrap().key(|_| String::from("tenant"));
    let info = rounds_through(layer, 32, 100);
    assert!(info.count_total <= 3200 + 3200 / 2, "{info:?}");
}

#[test]
fn a_request_alone_allocates_a_few_times() {
    const TASK: u64 = 10;
    let info = rounds(1, 50);
    assert!(info.count_total <= 8 * 50 + TASK, "{info:?}");
    let after_a_long_streak = rounds(1, 1000);
    assert!(after_a_long_streak.count_total <= 4 * 1000, "{after_a_long_streak:?}");
}

#[test]
fn nothing_is_left_of_many_requests() {
    assert_eq!(rounds(7, 20_000).bytes_current, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_parks_for_ever_keeps_its_own_batch_only() {
    let inner = service_fn(|items: Vec<Vec<u8>>| async move {
        Ok::<_, Fault>(items.into_iter().map(Ok).collect::<Vec<_>>())
    });
    let mut service = CoalesceLayer::<Vec<u8>>::new(4).unwrap().layer(inner);
    let parked = service.call(vec![0; 10]);
    settle().await;
    let mut second = service.clone();
    let third = async move { second.call(vec![1; 10]).await.unwrap() };
    assert_eq!(tokio::time::timeout(ms(10), third).await.unwrap(), vec![1; 10]);
    drop(parked);
}
