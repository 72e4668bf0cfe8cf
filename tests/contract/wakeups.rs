//! Who waits is woken when something happens, once, and is left in peace until then.

use crate::{
    subjects::subjects,
    support::{count_polls, ms, secs, settle},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake},
};
use tokio::time::advance;

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    /// Since it was last asked.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, SeqCst)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Each call takes an hour, and there are more than the upstream takes at a time.
#[tokio::test(start_paused = true)]
async fn nobody_is_polled_for_nothing() {
    for subject in subjects(secs(3600)) {
        let (calls, polls): (Vec<_>, Vec<_>) = (0..8).map(|id| count_polls(subject.call(id))).unzip();
        let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        for polls in &polls {
            let polls = polls.load(SeqCst);
            assert!((1..=8).contains(&polls), "{}: polled {polls} times in some hours", subject.name);
        }
        subject.assert_at_rest("afterwards").await;
    }
}

/// Polled by hand as soon as they are woken: nobody is woken twice for the same thing, or for nothing at all.
#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_once_for_what_happens() {
    for subject in subjects(secs(10)) {
        let mut calls: Vec<_> =
            (0..8).map(|id| Some((subject.call(id), Arc::<Counter>::default(), true, 0))).collect();
        for _ in 0..100_000 {
            for slot in &mut calls {
                let Some((call, counter, due, polls)) = slot else { continue };
                let woken = counter.take();
                assert!(woken <= 1, "{}: woken {woken} times for one thing", subject.name);
                if woken == 1 || std::mem::take(due) {
                    *polls += 1;
                    assert!(*polls <= 8, "{}: woken for nothing", subject.name);
                    let waker = Arc::clone(counter).into();
                    if call.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        *slot = None;
                    }
                }
            }
            if calls.iter().all(Option::is_none) {
                break;
            }
            settle().await;
            if calls.iter().flatten().all(|(_, counter, ..)| counter.0.load(SeqCst) == 0) {
                advance(ms(50)).await;
                settle().await;
            }
        }
        assert!(calls.iter().all(Option::is_none), "{}: not woken", subject.name);
        subject.assert_at_rest("afterwards").await;
    }
}

/// The waker that counts is the last one that a call was polled with.
#[tokio::test(start_paused = true)]
async fn who_moved_to_another_task_is_woken_there() {
    for subject in subjects(ms(100)) {
        let ahead: Vec<_> = (0..4).map(|id| subject.send(id)).collect();
        settle().await;
        let mut call = subject.call(7);
        let (old, new) = (Arc::<Counter>::default(), Arc::<Counter>::default());
        for counter in [&old, &new] {
            let waker = Arc::clone(counter).into();
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        for _ in 0..100 {
            advance(ms(50)).await;
            settle().await;
        }
        assert_eq!((old.take(), new.take() > 0), (0, true), "{}", subject.name);
        drop(call);
        for call in ahead {
            call.await.unwrap().unwrap();
        }
        subject.assert_at_rest("afterwards").await;
        assert_eq!(Arc::strong_count(&new), 1, "{}: a waker was left behind", subject.name);
    }
}
