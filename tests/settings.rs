//! Settings that change while calls pass and wait.

mod support;

use std::time::Duration;
use support::{Call, Reply, Upstream, every, is_ready, ms, request, secs, send, settle, unpaced};
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, WaitReason,
    cooldown::TooManyRequests,
    policy::{Known, Ladder, Learned, Policy, Quota},
};

fn quota(limit: u32, window: Duration) -> Quota {
    Quota::new(limit, window).unwrap().margin(Duration::ZERO)
}

fn times(calls: &[Call]) -> Vec<u128> {
    calls.iter().map(|call| call.at.as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_raised_quota_lets_those_go_who_wait() {
    let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota(2, secs(60))));
    let (handle, upstream) = (layer.handle(), Upstream::ok());
    let service = layer.layer(upstream.clone());
    let sent: Vec<_> = (0..6).map(|id| send(&service, id)).collect();
    settle().await;
    assert_eq!((upstream.calls().len(), handle.snapshot().waiting), (2, 4));
    advance(secs(10)).await;
    handle.change_policy(|known: Known| Ok(known.requests(quota(5, secs(60))))).unwrap();
    settle().await;
    assert_eq!(handle.snapshot().waiting, 1, "two of five were used already");
    for call in sent {
        call.await.unwrap().0.unwrap();
    }
    assert_eq!(times(&upstream.calls()), [0, 0, 10_000, 10_000, 10_000, 60_000]);
}

#[tokio::test(start_paused = true)]
async fn a_lowered_quota_holds_at_once() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1)));
    let (handle, upstream) = (layer.handle(), Upstream::ok());
    let service = layer.layer(upstream.clone());
    let sent: Vec<_> = (0..4).map(|id| send(&service, id)).collect();
    settle().await;
    let slow = Quota::new(1, secs(10)).unwrap().burst(1).unwrap();
    handle.change_policy(|known: Known| Ok(known.requests(slow))).unwrap();
    for call in sent {
        call.await.unwrap().0.unwrap();
    }
    assert_eq!(times(&upstream.calls()), [0, 10_000, 20_000, 30_000]);
}

#[tokio::test(start_paused = true)]
async fn another_policy_books_those_who_wait_anew() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(60)));
    let (handle, upstream) = (layer.handle(), Upstream::ok());
    let service = layer.layer(upstream.clone());
    let sent: Vec<_> = (0..4).map(|id| send(&service, id)).collect();
    settle().await;
    assert_eq!(handle.snapshot().rate, Some(1.0 / 60.0));
    handle.set_policy(every(secs(2)));
    for call in sent {
        call.await.unwrap().0.unwrap();
    }
    assert_eq!(times(&upstream.calls()), [0, 0, 2000, 4000], "the new one knows of no call");
    assert_eq!((handle.snapshot().rate, handle.snapshot().epoch), (Some(0.5), 1));
}

#[tokio::test(start_paused = true)]
async fn another_policy_does_not_open_a_closed_gate() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    let (handle, upstream) = (layer.handle(), Upstream::ok());
    let mut service = layer.layer(upstream.clone());
    handle.cool_for(secs(30));
    let sent = send(&service, 1);
    settle().await;
    handle.set_policy(Ladder::new());
    assert!(!is_ready(&mut service));
    sent.await.unwrap().0.unwrap();
    assert_eq!(times(&upstream.calls()), [30_000]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_max_wait_rejects_those_who_wait_for_longer() {
    let layer =
        AdaptiveCooldownLayer::with_policy(every(secs(10))).max_wait(secs(60)).reject_with(TooManyRequests);
    let handle = layer.handle();
    let service = layer.layer(Upstream::ok());
    let sent: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    settle().await;
    advance(secs(3)).await;
    handle.set_max_wait(Some(secs(25))).unwrap();
    assert_eq!(handle.snapshot().max_wait, Some(secs(25)));
    let mut ended = Vec::new();
    for call in sent {
        let (response, took) = call.await.unwrap();
        ended.push((response.unwrap().status().as_u16(), took.as_secs()));
    }
    assert_eq!(ended, [(200, 0), (200, 10), (200, 20), (429, 3), (429, 3)]);
    assert_eq!(handle.statistics().snapshot().attempts.rejected, 2);

    handle.set_max_wait(None).unwrap();
    let sent: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    for call in sent {
        assert_eq!(call.await.unwrap().0.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn poll_ready_and_calls_that_wait_for_an_answer_hear_of_max_wait_too() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).max_wait(secs(60)).reject_with(TooManyRequests);
    let handle = layer.handle();
    let mut service = layer.layer(Upstream::ok());
    handle.cool_for(secs(50));
    assert!(!is_ready(&mut service));
    let waiting = send(&service, 1);
    settle().await;
    handle.set_max_wait(Some(secs(5))).unwrap();
    settle().await;
    assert!(waiting.is_finished(), "it would wait for longer than it may");
    assert_eq!(waiting.await.unwrap().0.unwrap().status(), 429);

    // One in flight at a time: the second waits for the answer to the first.
    #[derive(Clone, Debug)]
    struct OneAtATime(Known);
    impl Policy for OneAtATime {
        fn departure(
            &self,
            arrived: tokio::time::Instant,
            cost: tower_cooldown::Cost,
        ) -> tower_cooldown::policy::Departure {
            self.0.departure(arrived, cost)
        }
        fn depart(&mut self, at: tokio::time::Instant, cost: tower_cooldown::Cost) {
            self.0.depart(at, cost);
        }
        fn max_in_flight(&self) -> Option<usize> {
            Some(1)
        }
        fn answered(
            &mut self,
            answer: &tower_cooldown::policy::Answer<'_>,
        ) -> Option<tower_cooldown::policy::Closing> {
            self.0.answered(answer)
        }
        fn reset(&mut self) {
            self.0.reset();
        }
    }
    let layer = AdaptiveCooldownLayer::with_policy(OneAtATime(unpaced()))
        .max_wait(secs(600))
        .reject_with(TooManyRequests);
    let (handle, service) =
        (layer.handle(), layer.layer(Upstream::new(|_| Reply::status(200).after(secs(100)))));
    let (first, second) = (send(&service, 1), send(&service, 2));
    settle().await;
    handle.set_max_wait(Some(secs(7))).unwrap();
    let (response, took) = second.await.unwrap();
    assert_eq!((response.unwrap().status().as_u16(), took), (429, secs(7)));
    assert_eq!(first.await.unwrap().0.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_bound_needs_an_answer() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    let handle = layer.handle();
    assert_eq!(handle.set_max_wait(Some(secs(1))).unwrap_err().field(), "max_wait");
    assert_eq!(handle.set_max_waiting(Some(1)).unwrap_err().field(), "max_waiting");
    handle.set_max_wait(None).unwrap();
    assert_eq!((handle.snapshot().max_wait, handle.snapshot().max_waiting), (None, None));
    handle.cool_for(secs(30));
    layer.layer(Upstream::ok()).oneshot(request(1)).await.unwrap();

    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1))).max_wait(Duration::MAX);
    let handle = layer.reject_with(TooManyRequests).handle();
    handle.set_max_waiting(Some(7)).unwrap();
    assert_eq!(handle.snapshot().max_waiting, Some(7));
}

#[tokio::test(start_paused = true)]
async fn fewer_may_wait_from_now_on() {
    let layer =
        AdaptiveCooldownLayer::with_policy(every(secs(1))).max_waiting(10).reject_with(TooManyRequests);
    let (handle, service) = (layer.handle(), layer.layer(Upstream::ok()));
    let sent: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    settle().await;
    handle.set_max_waiting(Some(2)).unwrap();
    settle().await;
    assert_eq!(handle.snapshot().waiting, 4, "those who wait stay");
    assert_eq!(service.clone().oneshot(request(9)).await.unwrap().status(), 429);
    for call in sent {
        assert_eq!(call.await.unwrap().0.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_none_leaves_everything_as_it_is() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(10)));
    let (handle, upstream) = (layer.handle(), Upstream::ok());
    let service = layer.layer(upstream.clone());
    let sent: Vec<_> = (0..3).map(|id| send(&service, id)).collect();
    settle().await;
    let wrong = handle.change_policy(|ladder: Ladder| Ok(ladder)).unwrap_err();
    assert!(wrong.field() == "policy" && wrong.to_string().contains("Ladder"), "{wrong}");
    handle.change_policy(|learned: Learned| learned.budget(0.1)).unwrap_err();
    let nonsense = handle.change_policy(|known: Known| Ok(known.requests(Quota::new(0, secs(1))?)));
    assert_eq!(nonsense.unwrap_err().field(), "limit");
    handle.change_policy(|known: Known| Ok(known)).unwrap();
    for call in sent {
        call.await.unwrap().0.unwrap();
    }
    assert_eq!(times(&upstream.calls()), [0, 10_000, 20_000]);
    assert_eq!(handle.snapshot().epoch, 0);
}

#[tokio::test(start_paused = true)]
async fn learned_keeps_what_it_learned() {
    let learned = Learned::new().seed(quota(60, secs(60)));
    let layer = AdaptiveCooldownLayer::with_policy(learned);
    let (handle, upstream) =
        (layer.handle(), Upstream::new(|call| Reply::status(if call.nth == 5 { 429 } else { 200 })));
    let service = layer.layer(upstream);
    for id in 0..20 {
        service.clone().oneshot(request(id)).await.unwrap();
    }
    let rate = handle.snapshot().rate;
    assert!(rate > Some(0.0) && rate != Learned::new().seed(quota(60, secs(60))).rate());
    handle.change_policy(|learned: Learned| learned.budget(0.002)).unwrap();
    assert_eq!(handle.snapshot().rate, rate);
}

#[tokio::test(start_paused = true)]
async fn the_ladder_keeps_its_calls_and_its_step() {
    let layer = AdaptiveCooldownLayer::with_policy(Ladder::new());
    let (handle, upstream) = (layer.handle(), Upstream::statuses([429]));
    let service = layer.layer(upstream.clone());
    service.clone().oneshot(request(0)).await.unwrap();
    let change = |ladder: Ladder| {
        let ladder = ladder.steps([ms(1), ms(2), ms(30_000), ms(4)]).after_refusal(ms(0), ms(0));
        ladder.pace(1, secs(1000), secs(100))
    };
    handle.change_policy(change).unwrap();
    advance(secs(2)).await;
    service.clone().oneshot(request(1)).await.unwrap(); // one call in the last 1000 s: waits for 100 s
    service.clone().oneshot(request(2)).await.unwrap();
    let times = times(&upstream.calls());
    assert_eq!(times[..2], [0, 102_000]);
    assert_eq!(handle.snapshot().closed_for, Some(ms(4)), "it was the third refusal in a row");
    let waits = handle.statistics().snapshot();
    assert_eq!(waits.wait(WaitReason::Preflight).count, 2);
}

#[cfg(feature = "keyed")]
#[tokio::test(start_paused = true)]
async fn the_gates_of_all_keys_change_together() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(100)))
        .max_wait(Duration::MAX)
        .reject_with(TooManyRequests)
        .keyed(|request: &http::Request<()>| request.uri().path().to_owned());
    let handle = layer.handle();
    let service = layer.layer(Upstream::ok());
    let sent: Vec<_> = [1, 1, 2, 2].map(|id| send(&service, id)).into();
    settle().await;
    handle.set_max_wait(Some(secs(500))).unwrap();
    handle
        .change_policy(|known: Known| Ok(known.requests(Quota::new(1, secs(2)).unwrap().burst(1).unwrap())))
        .unwrap();
    let mut took = Vec::new();
    for call in sent {
        took.push(call.await.unwrap().1.as_secs());
    }
    assert_eq!(took, [0, 2, 0, 2]);
    let (first, second) = (send(&service, 3), send(&service, 3));
    assert_eq!(
        (first.await.unwrap().1, second.await.unwrap().1),
        (secs(0), secs(2)),
        "a key that comes later"
    );
    let mut bounds = Vec::new();
    handle.for_each(|gate| bounds.push((gate.max_wait, gate.rate)));
    assert_eq!(bounds, [(Some(secs(500)), Some(0.5)); 4], "three keys and the overflow");

    assert_eq!(handle.change_policy(|ladder: Ladder| Ok(ladder)).unwrap_err().field(), "policy");
    handle.set_policy(unpaced());
    handle.set_max_waiting(Some(3)).unwrap();
    let sent: Vec<_> = [1, 1, 1].map(|id| send(&service, id)).into();
    for call in sent {
        assert_eq!(call.await.unwrap().1, Duration::ZERO);
    }
}
