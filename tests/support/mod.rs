//! What the test binaries share: an [`UpstreamOf`] that answers from a script and remembers who called when.
//!
//! All times are virtual. Use it under `#[tokio::test(start_paused = true)]`.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use futures::FutureExt;
use http::{Request, Response, header::RETRY_AFTER};
use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};
use tower::{BoxError, Service, ServiceExt};
use tower_cooldown::policy::{Known, Quota};
#[cfg(feature = "testing")]
use tower_cooldown::{AdaptiveCooldownLayer, retry::RetryPolicy};

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A policy that lets every call go at once; only refusals close the gate.
pub fn unpaced() -> Known {
    Known::new(Quota::new(1_000_000, ms(1)).unwrap())
}

/// A policy that lets one call go every `interval`, and none together.
pub fn every(interval: Duration) -> Known {
    Known::new(Quota::new(1, interval).unwrap().burst(1).unwrap())
}

/// The request with this number, which [`Upstream`] reads back from the path.
pub fn request(id: u64) -> Request<()> {
    Request::builder().uri(format!("/{id}")).body(()).unwrap()
}

/// Thirty-two callers that call as often as they are answered, and again what is refused. What the upstream counted
/// between `warm` and `end`, from now on.
#[cfg(feature = "testing")]
pub async fn closed_loop(
    upstream: &tower_cooldown::testing::Upstream,
    policy: impl tower_cooldown::policy::Policy + 'static,
    warm: Duration,
    end: Duration,
) -> tower_cooldown::testing::Counts {
    let start = Instant::now();
    let client = tower::ServiceBuilder::new()
        .layer(tower::retry::RetryLayer::new(RetryPolicy::new().max_retries(u32::MAX).without_budget()))
        .layer(AdaptiveCooldownLayer::with_policy(policy))
        .service(upstream.clone());
    for _ in 0..32 {
        let client = client.clone();
        tokio::spawn(async move { while client.clone().oneshot(Request::new(())).await.is_ok() {} });
    }
    sleep_until(start + warm).await;
    let first = upstream.counts();
    sleep_until(start + end).await;
    upstream.counts().since(first)
}

/// A call in a task of its own: what came of it, and how long that took.
pub type Sent<T, E> = JoinHandle<(Result<T, E>, Duration)>;

/// Sends the request with this number through a clone of `service`, in a task of its own, and says how long it
/// took. Tasks start in the order in which they are spawned.
pub fn send<S>(service: &S, id: u64) -> Sent<S::Response, S::Error>
where
    S: Service<Request<()>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
{
    let (service, start) = (service.clone(), Instant::now());
    tokio::spawn(async move { (service.oneshot(request(id)).await, start.elapsed()) })
}

/// Whether `service` is ready now. Leaves its readiness with it.
pub fn is_ready<S>(service: &mut S) -> bool
where
    S: Service<Request<()>>,
    S::Error: fmt::Debug,
{
    service.ready().now_or_never().map(|ready| ready.map(drop).unwrap()).is_some()
}

/// Lets every task run that can, without moving the clock.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// A future that counts how often it is polled.
pub fn count_polls<F: Future>(future: F) -> (impl Future<Output = F::Output>, Arc<AtomicUsize>) {
    let polls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&polls);
    let mut future = Box::pin(future);
    let counted = std::future::poll_fn(move |cx| {
        counter.fetch_add(1, SeqCst);
        future.as_mut().poll(cx)
    });
    (counted, polls)
}

/// One call as the upstream saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number in its path; 0 where there is none.
    pub id: u64,
    /// How many calls came before it.
    pub nth: usize,
    /// When it came, from the making of the upstream on.
    pub at: Duration,
}

/// What the upstream answers, and how long that takes it.
#[derive(Debug)]
pub struct Reply<E> {
    result: Result<Response<String>, E>,
    latency: Duration,
}

impl<E> Reply<E> {
    pub fn status(status: u16) -> Self {
        let response = Response::builder().status(status).body(String::new()).unwrap();
        Self { result: Ok(response), latency: Duration::ZERO }
    }

    pub fn error(error: impl Into<E>) -> Self {
        Self { result: Err(error.into()), latency: Duration::ZERO }
    }

    /// A 429 that asks for this many seconds.
    pub fn throttled(retry_after: u64) -> Self {
        Self::status(429).retry_after(&retry_after.to_string())
    }

    /// Adds a `Retry-After` header, as it stands.
    pub fn retry_after(mut self, value: &str) -> Self {
        if let Ok(response) = &mut self.result {
            response.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
        }
        self
    }

    /// Answers after this time.
    pub fn after(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }
}

/// A service that answers what it is told to, for requests with the body `B`.
///
/// It is strict: it panics where `call` comes to an instance whose own `poll_ready` was not `Ready` before.
/// Readiness is not cloned, and one `Ready` is good for one call.
pub struct UpstreamOf<B, E> {
    shared: Arc<Shared<E>>,
    ready: bool,
    body: PhantomData<fn(B)>,
}

pub type Upstream = UpstreamOf<(), BoxError>;

type Answer<E> = Box<dyn FnMut(Call) -> Reply<E> + Send>;

struct Shared<E> {
    start: Instant,
    answer: Mutex<Answer<E>>,
    calls: Mutex<Vec<Call>>,
    /// Where to panic next, once.
    panics_in: Mutex<Option<Place>>,
    ready_polls: AtomicUsize,
    clones: AtomicUsize,
    instances: AtomicUsize,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

/// A part of a service that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    PollReady,
    Call,
    Future,
    /// The drop of a future that has not ended.
    Drop,
}

impl<E> Shared<E> {
    fn check(&self, place: Place) {
        let due = {
            let mut panics_in = self.panics_in.lock().unwrap();
            let due = *panics_in == Some(place);
            if due {
                *panics_in = None;
            }
            due
        };
        assert!(!due, "told to panic in {place:?}");
    }
}

impl<B, E> UpstreamOf<B, E> {
    pub fn new(answer: impl FnMut(Call) -> Reply<E> + Send + 'static) -> Self {
        let shared = Shared {
            start: Instant::now(),
            answer: Mutex::new(Box::new(answer)),
            calls: Mutex::default(),
            panics_in: Mutex::new(None),
            ready_polls: AtomicUsize::new(0),
            clones: AtomicUsize::new(0),
            instances: AtomicUsize::new(1),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), ready: false, body: PhantomData }
    }

    /// 200, at once.
    pub fn ok() -> Self {
        Self::new(|_| Reply::status(200))
    }

    /// These statuses in turn, at once; the last one for ever.
    pub fn statuses<const N: usize>(statuses: [u16; N]) -> Self {
        Self::new(move |call| Reply::status(statuses[call.nth.min(N - 1)]))
    }

    /// All calls so far, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Their numbers.
    pub fn ids(&self) -> Vec<u64> {
        self.calls().iter().map(|call| call.id).collect()
    }

    /// Their times, in milliseconds.
    pub fn times(&self) -> Vec<u128> {
        self.calls().iter().map(|call| call.at.as_millis()).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.calls.lock().unwrap().len()
    }

    /// How often `poll_ready` was called, on all instances.
    pub fn ready_polls(&self) -> usize {
        self.shared.ready_polls.load(SeqCst)
    }

    /// How often an instance was cloned.
    pub fn clones(&self) -> usize {
        self.shared.clones.load(SeqCst)
    }

    /// Instances that live, this one among them.
    pub fn instances(&self) -> usize {
        self.shared.instances.load(SeqCst)
    }

    /// Panics the next time that it comes there.
    pub fn panic_once_in(&self, place: Place) {
        *self.shared.panics_in.lock().unwrap() = Some(place);
    }

    /// Calls whose future lives.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    /// The most of them at any time.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(SeqCst)
    }
}

impl<B, E> Clone for UpstreamOf<B, E> {
    fn clone(&self) -> Self {
        self.shared.clones.fetch_add(1, SeqCst);
        self.shared.instances.fetch_add(1, SeqCst);
        Self { shared: Arc::clone(&self.shared), ready: false, body: PhantomData }
    }
}

impl<B, E> Drop for UpstreamOf<B, E> {
    fn drop(&mut self) {
        self.shared.instances.fetch_sub(1, SeqCst);
    }
}

impl<B, E> fmt::Debug for UpstreamOf<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("calls", &self.calls()).field("ready", &self.ready).finish()
    }
}

impl<B, E> Service<Request<B>> for UpstreamOf<B, E> {
    type Response = Response<String>;
    type Error = E;
    type Future = Answering<E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.shared.ready_polls.fetch_add(1, SeqCst);
        self.shared.check(Place::PollReady);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called an instance that was not ready");
        self.shared.check(Place::Call);
        let at = self.shared.start.elapsed();
        let id = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
        let call = {
            let mut calls = self.shared.calls.lock().unwrap();
            let call = Call { id, nth: calls.len(), at };
            calls.push(call);
            call
        };
        // A script may panic on purpose; the next call is answered all the same.
        let reply = (self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner))(call);
        Answering {
            until: Instant::now() + reply.latency,
            timer: None,
            result: Some(reply.result),
            in_flight: InFlight::enter(Arc::clone(&self.shared)),
        }
    }
}

/// The future of [`UpstreamOf`]. A type of its own, so that the compiler sees that it is `Send`.
pub struct Answering<E> {
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    result: Option<Result<Response<String>, E>>,
    in_flight: InFlight<E>,
}

impl<E> Unpin for Answering<E> {}

impl<E> Future for Answering<E> {
    type Output = Result<Response<String>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.in_flight.0.check(Place::Future);
        if self.until > Instant::now() {
            let until = self.until;
            ready!(self.timer.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx));
        }
        Poll::Ready(self.result.take().expect("a future must not be polled after it has completed"))
    }
}

struct InFlight<E>(Arc<Shared<E>>);

impl<E> InFlight<E> {
    fn enter(shared: Arc<Shared<E>>) -> Self {
        let now = shared.in_flight.fetch_add(1, SeqCst) + 1;
        shared.peak.fetch_max(now, SeqCst);
        Self(shared)
    }
}

impl<E> Drop for Answering<E> {
    fn drop(&mut self) {
        if self.result.is_some() && !std::thread::panicking() {
            self.in_flight.0.check(Place::Drop);
        }
    }
}

impl<E> Drop for InFlight<E> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}
