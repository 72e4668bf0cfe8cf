//! An inner service that panics hurts the call that it was asked for, and no other.

use crate::{
    subjects::{Subject, subjects},
    support::{Place, ms, secs, settle},
};
use tokio::time::{sleep, timeout};

const PLACES: [Place; 4] = [Place::PollReady, Place::Call, Place::Future, Place::Drop];

async fn run(subject: Subject, place: Place, crowded: bool) {
    let when = format!("with a panic in {place:?}, crowded: {crowded}");
    let mut others = Vec::new();
    if crowded {
        others.extend((0..3).map(|id| subject.send(id)));
        settle().await;
    }
    subject.upstream.panic_once_in(place);
    let call = subject.send(7);
    others.extend((0..3).map(|id| subject.send(id)));
    if place == Place::Drop {
        sleep(ms(50)).await;
        let in_flight = if crowded { &others[0] } else { &call };
        in_flight.abort();
    }
    others.push(call);
    let mut hurt = 0;
    for call in others {
        let Ok(answer) = timeout(secs(600), call).await else {
            panic!("{} {when}: a call hangs", subject.name)
        };
        hurt += u64::from(!answer.is_ok_and(|answer| answer.is_ok()));
    }
    // The one that panicked; of a coalesced batch, the two that were in it.
    assert!((1..=2).contains(&hurt), "{} {when}: {hurt} calls failed", subject.name);
    if let Some(cancelled) = subject.cancelled() {
        // A handle that panics in `poll_ready` has made no call yet.
        let uncounted = u64::from(place == Place::PollReady);
        assert!((hurt - uncounted..=hurt).contains(&cancelled), "{} {when}: {cancelled}", subject.name);
    }
    subject.assert_serves(6, &when).await;
    subject.assert_at_rest(&when).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_hurts_one_call_and_nobody_else() {
    for place in PLACES {
        for crowded in [false, true] {
            for subject in subjects(ms(100)) {
                run(subject, place, crowded).await;
            }
        }
    }
}
