//! What is called has been readied, each time, and nothing is held for long.

use crate::{
    subjects::{PERMITS, subjects},
    support::{is_ready, ms, request, settle},
};
use futures::{StreamExt, stream};
use tower::{Service, ServiceExt};

/// The upstream panics if it is called without, as do tower's limits.
#[tokio::test(start_paused = true)]
async fn the_inner_service_is_readied_before_each_call() {
    for subject in subjects(ms(100)) {
        // All at once, then a few at a time, then one after another on the same handle.
        subject.assert_serves(20, "at once").await;
        let calls = stream::iter(0..20).map(|id| subject.call(id)).buffer_unordered(5);
        assert_eq!(calls.filter(|answer| std::future::ready(answer.is_ok())).count().await, 20);
        let mut handle = subject.client.clone();
        for id in 0..10 {
            handle.ready().await.unwrap().call(request(id)).await.unwrap();
        }
        drop(handle);
        assert!(subject.upstream.len() >= 25, "{}: {}", subject.name, subject.upstream.len());
        subject.assert_at_rest("afterwards").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_no_readiness_of_its_own() {
    for subject in subjects(ms(100)) {
        let mut readied = subject.client.clone();
        assert!(is_ready(&mut readied));
        // `oneshot` asks each clone, and the upstream would panic if a clone believed to be ready.
        let clones: Vec<_> = (0..3).map(|id| tokio::spawn(readied.clone().oneshot(request(id)))).collect();
        settle().await;
        readied.call(request(3)).await.unwrap();
        for clone in clones {
            clone.await.unwrap().unwrap();
        }
        drop(readied);
        subject.assert_at_rest("afterwards").await;
    }
}

/// As `Steer` does with its clones. One `Ready` is good for one call, too.
#[tokio::test(start_paused = true)]
async fn a_call_without_readiness_is_sent_all_the_same_where_calls_may_wait() {
    for subject in subjects(ms(100)).into_iter().filter(|subject| subject.waits) {
        let mut handle = subject.client.clone();
        let first = tokio::spawn(handle.call(request(0)));
        assert!(is_ready(&mut handle));
        let calls = [first, tokio::spawn(handle.call(request(1))), tokio::spawn(handle.call(request(2)))];
        for call in calls {
            call.await.unwrap().unwrap();
        }
        drop(handle);
        subject.assert_at_rest("afterwards").await;
    }
}

/// Handles that are ready, and are never called.
#[tokio::test(start_paused = true)]
async fn readiness_that_is_not_used_is_given_back() {
    for subject in subjects(ms(100)) {
        for _ in 0..PERMITS {
            let mut handles = [(); PERMITS].map(|()| subject.client.clone());
            assert!(handles.iter_mut().all(is_ready), "{}", subject.name);
        }
        subject.assert_at_rest("dropped").await;
        subject.assert_serves(4, "afterwards").await;
    }
}

/// Neither by the handle, which lives on here, nor by the call: what is taken are permits of calls in flight.
#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_held_while_a_call_waits() {
    for subject in subjects(ms(100)).into_iter().filter(|subject| subject.waits) {
        let mut handles = [(); 6].map(|()| subject.client.clone());
        let mut calls = Vec::new();
        for (handle, id) in handles.iter_mut().zip(0..) {
            // Those who come when all permits are taken are called without.
            is_ready(handle);
            calls.push(tokio::spawn(handle.call(request(id))));
            settle().await;
            let (held, in_flight) = (subject.permits_held(), subject.upstream.in_flight());
            assert_eq!(held, in_flight, "{}: while call {id} waits", subject.name);
        }
        assert!(subject.upstream.in_flight() < 6, "{}: nobody waits", subject.name);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        drop(handles);
        subject.assert_at_rest("afterwards").await;
    }
}
