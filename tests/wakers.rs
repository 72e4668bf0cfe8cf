//! What the gate and the line do with wakers: each that waits has one, none stays behind, and none is woken or
//! dropped under the lock.

mod support;

use http::{Request, Response};
use std::{
    any::Any,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};
use support::{Upstream, every, ms, request, secs, unpaced};
use tower::{Layer, Service, service_fn};
use tower_cooldown::{AdaptiveCooldownLayer, Handle, MicroBatchLayer, Rollout};

/// Counts how often it is woken. When it is woken or dropped it looks at the gate, which hangs if that happens
/// under the gate's lock.
struct Looker {
    gate: Handle,
    woken: AtomicUsize,
}

impl Looker {
    fn new(gate: &Handle) -> Arc<Self> {
        Arc::new(Self { gate: gate.clone(), woken: AtomicUsize::new(0) })
    }

    fn woken(&self) -> usize {
        self.woken.load(SeqCst)
    }
}

impl Wake for Looker {
    fn wake(self: Arc<Self>) {
        self.gate.snapshot();
        self.woken.fetch_add(1, SeqCst);
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.gate.snapshot();
    }
}

fn poll_ready<S: Service<Request<()>>>(service: &mut S, looker: &Arc<Looker>) -> bool {
    let waker = Waker::from(Arc::clone(looker));
    service.poll_ready(&mut Context::from_waker(&waker)).is_ready()
}

#[tokio::test(start_paused = true)]
async fn all_handles_that_wait_are_woken_when_the_gate_opens() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = layer.handle();
    gate.cool_for(secs(60));
    let mut handles = [(); 3].map(|()| (layer.layer(Upstream::ok()), Looker::new(&gate)));
    for (service, looker) in &mut handles {
        assert!(!poll_ready(service, looker));
    }
    gate.reset();
    assert!(handles.iter().all(|(_, looker)| looker.woken() == 1));
    assert!(handles.iter_mut().all(|(service, looker)| poll_ready(service, looker)));
}

#[tokio::test(start_paused = true)]
async fn handles_learn_at_once_that_the_gate_stays_closed_for_longer() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).max_wait(secs(5));
    let gate = layer.handle();
    gate.cool_for(secs(1));
    let (mut service, looker) = (layer.layer(Upstream::ok()), Looker::new(&gate));
    assert!(!poll_ready(&mut service, &looker));
    gate.cool_for(secs(60));
    assert_eq!(looker.woken(), 1);
    assert!(poll_ready(&mut service, &looker), "ready to be rejected");
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_goes_away_leaves_no_waker_behind() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = layer.handle();
    gate.cool_for(secs(60));
    let (mut service, looker) = (layer.layer(Upstream::ok()), Looker::new(&gate));
    assert!(!poll_ready(&mut service, &looker));
    assert!(Arc::strong_count(&looker) > 1);
    drop(service);
    assert_eq!(Arc::strong_count(&looker), 1);

    // One that became ready leaves none either.
    let mut service = layer.layer(Upstream::ok());
    assert!(!poll_ready(&mut service, &looker));
    gate.reset();
    assert!(poll_ready(&mut service, &looker));
    assert_eq!(Arc::strong_count(&looker), 1);
}

#[tokio::test(start_paused = true)]
async fn a_woken_head_wakes_nobody_else() {
    // Five wait in call; the gate opens early: one is woken, leaves, and only then the next one's time comes.
    let layer = AdaptiveCooldownLayer::with_policy(every(ms(10)));
    let gate = layer.handle();
    let mut service = layer.layer(Upstream::ok());
    assert!(poll_ready(&mut service, &Looker::new(&gate)));
    gate.cool_for(secs(60));
    let mut calls: Vec<_> =
        (0..5).map(|id| (Box::pin(service.call(request(id))), Looker::new(&gate))).collect();
    for (call, looker) in &mut calls {
        let waker = Waker::from(Arc::clone(looker));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.reset();
    let woken: Vec<_> = calls.iter().map(|(_, looker)| looker.woken()).collect();
    assert_eq!(woken, [1, 1, 0, 0, 0], "the first leaves at once, the second has to set its timer");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_at_a_hundred_percent_shows_the_closed_gate() {
    let rollout = Rollout::percent(99).unwrap();
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    for keyed in [false, true] {
        let gate = layer.handle();
        gate.cool_for(secs(60));
        let looker = Looker::new(&gate);
        let by_path = rollout.by(|request: &Request<()>| request.uri().path().to_owned());
        let ready = || match keyed {
            true => poll_ready(&mut layer.clone().rollout(by_path.clone()).layer(Upstream::ok()), &looker),
            false => poll_ready(&mut layer.clone().rollout(rollout.clone()).layer(Upstream::ok()), &looker),
        };
        rollout.set(99).unwrap();
        assert!(ready(), "some calls go straight through");
        rollout.set(100).unwrap();
        assert!(!ready(), "none does");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_goes_away_leaves_no_waker_behind() {
    let gate = AdaptiveCooldownLayer::new().handle();
    let mut service = MicroBatchLayer::new(1).unwrap().layer(Upstream::ok());
    assert!(poll_ready(&mut service, &Looker::new(&gate)));
    let first = service.call(request(0));
    let looker = Looker::new(&gate);
    let waker = Waker::from(Arc::clone(&looker));
    let mut second = Box::pin(service.call(request(1)));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&looker), 2);
    drop(first);
    assert_eq!(looker.woken(), 1, "the head minds the pause");
    drop(second);
    assert_eq!(Arc::strong_count(&looker), 1);
}

/// On some executors a waker is all that keeps a task alive: with the last one goes the task, and with the task
/// another call that waits in the same line, which needs the line's lock.
#[tokio::test(start_paused = true)]
async fn a_waker_may_take_another_waiting_call_with_it() {
    struct Task {
        _call: Box<dyn Any + Send + Sync>,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let gate = AdaptiveCooldownLayer::new().handle();
    let layer = MicroBatchLayer::new(1).unwrap();
    let mut service = layer.layer(service_fn(|_: Request<()>| pending::<Result<Response<()>, ()>>()));
    assert!(poll_ready(&mut service, &Looker::new(&gate)));
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|id| service.call(request(id)));
    let (mut second, mut third) = (Box::pin(second), Box::pin(third));
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let last = Waker::from(Arc::new(Task { _call: Box::new(fourth) }));
    assert!(third.as_mut().poll(&mut Context::from_waker(&last)).is_pending());
    drop(last);
    assert!(third.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(layer.get_statistics().snapshot().attempts.cancelled, 1, "the fourth has gone");
    drop((first, second, third));
    assert_eq!(layer.get_statistics().snapshot().attempts.cancelled, 4);
}

/// An executor that panics when it is told to wake a task is at fault, but not the others who wait.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_takes_no_wake_up_along() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("told to panic");
        }
    }

    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = layer.handle();
    gate.cool_for(secs(60));
    let (mut first, mut second) = (layer.layer(Upstream::ok()), layer.layer(Upstream::ok()));
    let panics = Waker::from(Arc::new(Panics));
    assert!(Service::<Request<()>>::poll_ready(&mut first, &mut Context::from_waker(&panics)).is_pending());
    let looker = Looker::new(&gate);
    assert!(!poll_ready(&mut second, &looker));
    gate.reset();
    assert_eq!(looker.woken(), 1);
    assert!(poll_ready(&mut first, &looker) && poll_ready(&mut second, &looker));
}
