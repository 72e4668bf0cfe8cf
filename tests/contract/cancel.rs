//! Calls that are given up, or left alone, at any point.

use crate::{
    subjects::{Call, Subject, subjects},
    support::{ms, secs, settle},
    wakeups::Counter,
};
use std::{sync::Arc, task::Context};
use tokio::time::{advance, sleep};

/// Polls the call whenever it is woken, so many times at most. Whether it has ended, and how often it was polled.
async fn poll_up_to(call: &mut Call, polls: usize) -> (bool, usize) {
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    for polled in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return (true, polled + 1);
        }
        let mut waited = 0;
        while polled + 1 < polls && counter.take() == 0 {
            waited += 1;
            assert!(waited < 10_000, "it is never woken");
            advance(ms(10)).await;
            settle().await;
        }
    }
    (false, polls)
}

/// In front of the call, others have filled every place that there is.
fn crowd(subject: &Subject) -> Vec<tokio::task::JoinHandle<impl Sized + use<>>> {
    (0..4).map(|id| subject.send(id)).collect()
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_a_call_leaves_nothing_behind() {
    for index in 0..subjects(ms(100)).len() {
        let mut seen = 0;
        for polls in 0.. {
            assert!(polls < 100, "it never ends");
            let subject = subjects(ms(100)).swap_remove(index);
            let when = format!("after {polls} polls");
            let ahead = crowd(&subject);
            settle().await;
            let mut call = subject.call(7);
            let (ended, polled) = poll_up_to(&mut call, polls).await;
            seen = seen.max(polled);
            // With others behind it.
            let behind = crowd(&subject);
            settle().await;
            drop(call);
            for call in ahead.into_iter().chain(behind) {
                let ended = tokio::time::timeout(secs(600), call).await;
                assert!(ended.is_ok(), "{} {when}: another call hangs", subject.name);
            }
            subject.assert_at_rest(&when).await;
            subject.assert_serves(4, &when).await;
            if ended {
                break;
            }
        }
        // Where calls wait there are more points than before and after.
        println!("{}: ended by poll {seen}", subjects(ms(100))[index].name);
        assert!(seen >= 2);
    }
}

/// A future in a `select!`, or in the buffer of a stream, whose owner is busy with something else.
#[tokio::test(start_paused = true)]
async fn polled_once_and_then_left_alone_a_call_holds_up_nobody() {
    for subject in subjects(ms(100)) {
        let ahead = crowd(&subject);
        settle().await;
        let mut parked = subject.call(7);
        assert!(!poll_up_to(&mut parked, 1).await.0);
        let behind = crowd(&subject);
        if subject.parked_calls_keep_their_place {
            // Then it is as with a permit: they wait for it, and not a moment longer.
            sleep(secs(600)).await;
            drop(parked);
            for call in ahead.into_iter().chain(behind) {
                assert!(tokio::time::timeout(secs(60), call).await.is_ok(), "{}: hangs", subject.name);
            }
        } else {
            for call in ahead.into_iter().chain(behind) {
                assert!(tokio::time::timeout(secs(60), call).await.is_ok(), "{}: hangs", subject.name);
            }
            subject.assert_serves(4, "beside a parked call").await;
            // It may go on whenever it likes.
            let answer = tokio::time::timeout(secs(60), parked).await;
            answer.expect(subject.name).expect(subject.name);
        }
        subject.assert_at_rest("afterwards").await;
    }
}

/// Many callers that come and go, each dropped at a point of its own.
#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_at_random_leave_nothing_behind() {
    for subject in subjects(ms(100)) {
        let mut random = fastrand::Rng::with_seed(9);
        let mut tasks = Vec::new();
        for id in 0..200 {
            tasks.push(subject.send(id));
            sleep(ms(random.u64(..200))).await;
            if random.bool() {
                tasks[random.usize(..tasks.len())].abort();
            }
        }
        let mut answered = 0;
        for task in tasks {
            match tokio::time::timeout(secs(600), task).await.expect(subject.name) {
                Ok(answer) => {
                    answer.expect(subject.name);
                    answered += 1;
                }
                Err(error) => assert!(error.is_cancelled(), "{}", subject.name),
            }
        }
        assert!((1..200).contains(&answered), "{}: {answered}", subject.name);
        subject.assert_at_rest("afterwards").await;
        subject.assert_serves(4, "afterwards").await;
    }
}
