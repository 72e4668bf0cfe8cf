//! Callers that give up and stall, services that are slow or fail to get ready, policies that panic: the gate goes
//! on.

mod support;

use http::Request;
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};
use support::{Reply, Upstream, every, is_ready, ms, request, secs, send, settle, unpaced};
use tokio::time::{Instant, Sleep, advance, sleep, timeout};
use tokio_test::task;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, Cost, Handle, WaitReason,
    policy::{Answer, Closing, Departure, Known, Ladder, Policy, Quota},
    record::{CallRecord, Statistics},
};

fn observed() -> (Statistics, Arc<Mutex<Vec<CallRecord>>>) {
    let records: Arc<Mutex<Vec<CallRecord>>> = Arc::default();
    let statistics = Statistics::with_observer({
        let records = Arc::clone(&records);
        move |record| records.lock().unwrap().push(*record)
    });
    (statistics, records)
}

// ===== callers =====

#[tokio::test(start_paused = true)]
async fn a_wait_in_poll_ready_that_was_given_up_is_not_that_of_a_later_call() {
    let (statistics, records) = observed();
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics);
    let mut given_up = layer.layer(Upstream::ok());
    let mut shed = ServiceBuilder::new().load_shed().layer(layer.clone()).service(Upstream::ok());
    layer.handle().cool_for(secs(1));
    timeout(ms(10), ServiceExt::<Request<()>>::ready(&mut given_up)).await.unwrap_err();
    shed.ready().await.unwrap().call(request(0)).await.unwrap_err();
    sleep(secs(3600)).await;
    given_up.ready().await.unwrap().call(request(1)).await.unwrap();
    shed.ready().await.unwrap().call(request(2)).await.unwrap();
    let waited: Vec<_> = records.lock().unwrap().iter().map(|record| record.waited).collect();
    assert_eq!(waited, [Duration::ZERO, Duration::ZERO]);
}

#[tokio::test(start_paused = true)]
async fn nor_does_it_use_up_max_wait() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).max_wait(secs(5));
    let mut service = layer.layer(Upstream::ok());
    layer.handle().cool_for(secs(2));
    timeout(ms(10), ServiceExt::<Request<()>>::ready(&mut service)).await.unwrap_err();
    sleep(secs(3600)).await;
    layer.handle().cool_for(secs(1));
    let start = Instant::now();
    service.ready().await.unwrap().call(request(1)).await.unwrap();
    assert_eq!(start.elapsed(), secs(1));
}

#[tokio::test(start_paused = true)]
async fn after_a_stall_nobody_is_rejected_who_could_still_leave_in_time() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1))).max_wait(secs(5));
    let service = layer.layer(Upstream::ok());
    let call = |id| {
        let mut service = service.clone();
        assert!(is_ready(&mut service));
        task::spawn(service.call(request(id)))
    };
    assert!(call(0).poll().is_ready());
    let (mut first, mut second) = (call(1), call(2));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    advance(secs(4)).await; // nobody was polled meanwhile
    // The first leaves at 4 s, the second at 5 s, these at 6, 7, 8 and 9 s.
    let mut late: Vec<_> = (3..7).map(call).collect();
    assert!(second.poll().is_pending());
    assert!(late.iter_mut().all(|call| call.poll().is_pending()));
}

struct LooksWhenDropped(Handle);

impl Wake for LooksWhenDropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for LooksWhenDropped {
    fn drop(&mut self) {
        self.0.snapshot();
    }
}

/// A deadlock cannot be seen from the thread that is in it, hence the second one, and a bound on the wall's clock.
#[test]
fn a_waker_that_looks_at_the_gate_when_dropped_does_not_lock_it_up() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let layer = AdaptiveCooldownLayer::with_policy(every(secs(1)));
            let mut service = layer.layer(Upstream::ok());
            service.ready().await.unwrap().call(request(0)).await.unwrap();
            let mut waiting = Box::pin(service.ready().await.unwrap().call(request(1)));
            let waker = Waker::from(Arc::new(LooksWhenDropped(layer.handle())));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            advance(secs(1)).await;
            waiting.await.unwrap();
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(secs(10)).expect("it hangs");
}

// ===== inner services =====

/// Takes its time to get ready, with each clone anew, or fails at it.
struct SlowToReady {
    inner: Upstream,
    delay: Duration,
    fails: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl SlowToReady {
    fn new(inner: Upstream, delay: Duration) -> Self {
        Self { inner, delay, fails: false, timer: None }
    }
}

impl Clone for SlowToReady {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), delay: self.delay, fails: self.fails, timer: None }
    }
}

impl Service<Request<()>> for SlowToReady {
    type Response = <Upstream as Service<Request<()>>>::Response;
    type Error = BoxError;
    type Future = <Upstream as Service<Request<()>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.fails {
            return Poll::Ready(Err("not today".into()));
        }
        let delay = self.delay;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(delay)));
        if !timer.is_elapsed() {
            ready!(timer.as_mut().poll(cx));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.timer = None;
        self.inner.call(request)
    }
}

/// One call a second, and no departure is ever taken back.
#[derive(Clone, Debug, Default)]
struct OnePerSecond {
    last: Option<Instant>,
    /// The next departure panics.
    panics: Arc<AtomicBool>,
}

impl Policy for OnePerSecond {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        match self.last {
            Some(last) => Departure::new(last + secs(1), WaitReason::Preflight),
            None => Departure::now(arrived),
        }
    }

    fn depart(&mut self, at: Instant, _: Cost) {
        assert!(!self.panics.swap(false, SeqCst), "told to panic");
        self.last = Some(at);
    }

    fn answered(&mut self, _: &Answer<'_>) -> Option<Closing> {
        None
    }

    fn reset(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn all_calls_are_sent_although_the_inner_service_is_slower_to_ready_than_the_pace() {
    async fn sent(policy: impl Policy + 'static, delay: Duration, calls: u64, within: Duration) {
        let upstream = Upstream::ok();
        let layer = AdaptiveCooldownLayer::with_policy(policy);
        let service = layer.layer(SlowToReady::new(upstream.clone(), delay));
        let _calls: Vec<_> = (0..calls).map(|id| send(&service, id)).collect();
        sleep(within).await;
        assert_eq!(upstream.len(), calls as usize, "{:?}", upstream.times());
        assert_eq!((layer.handle().snapshot().waiting, layer.handle().snapshot().in_flight), (0, 0));
    }
    let quota = |limit| Quota::new(limit, secs(1)).unwrap();
    sent(OnePerSecond::default(), ms(5), 20, secs(60)).await;
    sent(Ladder::new(), ms(1500), 20, secs(60)).await;
    sent(Known::new(quota(1)), ms(1500), 20, secs(60)).await;
    sent(Known::new(quota(2).burst(4).unwrap()), ms(20), 40, secs(60)).await;
    sent(every(ms(10)), ms(20), 50, secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_inner_service_failed_to_get_ready_was_not_sent() {
    let (statistics, records) = observed();
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(60))).statistics(&statistics);
    let mut broken = SlowToReady::new(Upstream::ok(), Duration::ZERO);
    broken.fails = true;
    layer.layer(broken).call(request(0)).await.unwrap_err();
    assert_eq!(records.lock().unwrap()[0].service, Duration::ZERO);
    // Its departure is there for the next.
    assert_eq!(send(&layer.layer(Upstream::ok()), 1).await.unwrap().1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_gate_further_in_rejected_was_not_sent_either() {
    let outer = AdaptiveCooldownLayer::with_policy(every(secs(60)));
    let inner = AdaptiveCooldownLayer::with_policy(unpaced()).max_wait(secs(1));
    let upstream = Upstream::ok();
    let service = ServiceBuilder::new().layer(outer.clone()).layer(inner.clone()).service(upstream.clone());
    inner.handle().cool_for(secs(30));
    service.clone().oneshot(request(0)).await.unwrap_err();
    inner.handle().reset();
    // The departure at the outer gate is there for the next call.
    assert_eq!(send(&service, 1).await.unwrap().1, Duration::ZERO);
    assert_eq!(upstream.ids(), [1]);
    let attempts = outer.handle().statistics().snapshot().attempts;
    assert_eq!((attempts.rejected, attempts.accepted, attempts.service.count), (1, 1, 1));
    assert!(outer.handle().snapshot().closed_for.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_the_inner_service_got_ready_is_its_own() {
    let (statistics, records) = observed();
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics);
    let slow = SlowToReady::new(Upstream::new(|_| Reply::status(200).after(secs(1))), secs(5));
    layer.layer(slow).call(request(0)).await.unwrap();
    let record = records.lock().unwrap()[0];
    assert_eq!((record.wait_reason, record.waited), (WaitReason::Normal, Duration::ZERO));
    assert_eq!(record.service, secs(6));
}

// ===== policies =====

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_hurts_the_one_who_asked_and_nobody_else() {
    let policy = OnePerSecond::default();
    let panics = Arc::clone(&policy.panics);
    let layer = AdaptiveCooldownLayer::with_policy(policy);
    let service = layer.layer(Upstream::new(|_| Reply::status(200).after(secs(2))));
    let in_flight = send(&service, 0);
    settle().await;
    let mut readied = service.clone();
    assert!(is_ready(&mut readied));
    let mut waiting = task::spawn(readied.call(request(1)));
    assert!(waiting.poll().is_pending());
    sleep(ms(1500)).await;

    // The answer to the first call lets the second go, and the policy panics at that.
    panics.store(true, SeqCst);
    assert!(in_flight.await.unwrap_err().is_panic());
    assert_eq!((layer.handle().snapshot().waiting, layer.handle().snapshot().in_flight), (1, 0));

    // So it does when a handle opens the gate.
    panics.store(true, SeqCst);
    catch_unwind(AssertUnwindSafe(|| layer.handle().reset())).unwrap_err();

    let start = Instant::now();
    waiting.await.unwrap();
    assert_eq!(start.elapsed(), secs(2));
    assert_eq!((layer.handle().snapshot().waiting, layer.handle().snapshot().in_flight), (0, 0));
}
