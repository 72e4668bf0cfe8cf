//! A runtime that ends while calls wait, and layers that outlive it.

use crate::{
    subjects::{Call, subjects},
    support::{ms, secs, settle},
};
use std::task::Context;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_runtime_that_ends_takes_its_own_calls_and_nothing_else() {
    let (first, second) = (runtime(), runtime());
    let subjects = first.block_on(async { subjects(secs(3600)) });
    for subject in &subjects {
        // Some in tasks of the runtime that ends, some outside of it.
        let outside: Vec<Call> = first.block_on(async {
            let tasks: Vec<_> = (0..3).map(|id| subject.send(id)).collect();
            settle().await;
            let mut calls: Vec<Call> = (0..3).map(|id| subject.call(10 + id)).collect();
            for call in &mut calls {
                let pending = call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
                assert!(pending.is_pending(), "{}", subject.name);
            }
            settle().await;
            drop(tasks); // detached
            calls
        });
        drop(outside);
    }
    drop(first);
    for subject in subjects {
        second.block_on(async {
            subject.assert_at_rest("after the runtime").await;
            // Those on another runtime go on with the same state.
            let calls: Vec<_> = (0..3).map(|id| subject.send(id)).collect();
            for call in calls {
                let answer = timeout(secs(36_000), call).await;
                answer.unwrap_or_else(|_| panic!("{}: hangs", subject.name)).unwrap().unwrap();
            }
            subject.assert_at_rest("on the second runtime").await;
        });
    }
}

/// Nor does making a layer, a service, or a call: only waiting does.
#[test]
fn nothing_needs_a_runtime_before_it_waits() {
    for subject in subjects(ms(0)) {
        drop(subject.call(1));
        assert_eq!(subject.upstream.len(), 0, "{}", subject.name);
    }
}
