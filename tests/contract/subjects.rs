//! Each layer over an [`Upstream`] with a limit on calls at once, and what can be seen of both from outside.

use crate::support::{Reply, Upstream, every, ms, request, secs, settle};
use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer},
    retry::RetryLayer,
    util::BoxCloneSyncService,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, BodyHintsLayer, CoalesceLayer, FallbackLayer, Handle, MicroBatchLayer,
    record::Statistics, retry::RetryPolicy,
};

pub(crate) type Client = BoxCloneSyncService<Request<()>, Response<()>, BoxError>;
pub(crate) type Call = BoxFuture<'static, Result<Response<()>, BoxError>>;

/// How many calls the upstream takes at a time.
pub(crate) const PERMITS: usize = 3;

/// One layer, or a stack of them.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) upstream: Upstream,
    permits: Arc<Semaphore>,
    instances: usize,
    /// Calls that the layer holds: waiting, or in flight.
    held: Box<dyn Fn() -> usize + Send>,
    statistics: Option<Statistics>,
    /// Its calls may wait in their futures. One that comes to a handle which is not ready waits there, too; other
    /// layers hand the fault on.
    pub(crate) waits: bool,
    /// A call that is let go, but not polled, keeps a place that others wait for, until it is dropped.
    pub(crate) parked_calls_keep_their_place: bool,
}

type Inner = ConcurrencyLimit<Upstream>;

fn erase<S, B>(service: S) -> Client
where
    S: Service<Request<()>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    Client::new(service.map_response(|response: Response<B>| response.map(drop)).map_err(Into::into))
}

impl Subject {
    /// A layer that passes every call on as it comes, over an upstream that takes `latency` for each.
    fn new(name: &'static str, latency: Duration, layer: impl FnOnce(Inner) -> Client) -> Self {
        let upstream = Upstream::new(move |_| Reply::status(200).after(latency));
        let permits = Arc::new(Semaphore::new(PERMITS));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
        let client = layer(limit.layer(upstream.clone()));
        Self {
            name,
            instances: upstream.instances(),
            client,
            upstream,
            permits,
            held: Box::new(|| 0),
            statistics: None,
            waits: false,
            parked_calls_keep_their_place: false,
        }
    }

    /// One whose calls wait in their futures.
    fn waiting(self, held: impl Fn() -> usize + Send + 'static) -> Self {
        Self { waits: true, held: Box::new(held), ..self }
    }

    fn gate(self, gate: Handle) -> Self {
        let statistics = Some(gate.statistics());
        let subject = self.waiting(move || gate.snapshot().waiting + gate.snapshot().in_flight);
        Self { statistics, ..subject }
    }

    pub(crate) fn permits_held(&self) -> usize {
        PERMITS - self.permits.available_permits()
    }

    /// Calls on record as given up, where the layer keeps records.
    pub(crate) fn cancelled(&self) -> Option<u64> {
        Some(self.statistics.as_ref()?.snapshot().attempts.cancelled)
    }

    /// Readies a handle and calls it.
    pub(crate) fn call(&self, id: u64) -> Call {
        self.client.clone().oneshot(request(id)).boxed()
    }

    /// The same in a task of its own.
    pub(crate) fn send(&self, id: u64) -> JoinHandle<Result<Response<()>, BoxError>> {
        tokio::spawn(self.call(id))
    }

    /// So many calls are answered.
    pub(crate) async fn assert_serves(&self, calls: u64, when: &str) {
        let name = self.name;
        let calls: Vec<_> = (0..calls).map(|id| self.send(900 + id)).collect();
        for call in calls {
            let answer = timeout(secs(600), call).await;
            let answer = answer.unwrap_or_else(|_| panic!("{name}: a call hangs {when}"));
            let response = answer.unwrap().unwrap_or_else(|error| panic!("{name}: {error} {when}"));
            assert_eq!(response.status(), 200, "{name} {when}");
        }
    }

    /// Nothing is left of any call.
    pub(crate) async fn assert_at_rest(&self, when: &str) {
        settle().await;
        sleep(secs(60)).await;
        let name = self.name;
        assert_eq!(self.upstream.in_flight(), 0, "{name} {when}");
        assert!(self.upstream.peak() <= PERMITS, "{name} {when}");
        assert_eq!(self.permits_held(), 0, "{name} {when}");
        assert_eq!(self.upstream.instances(), self.instances, "{name} {when}: a clone was left behind");
        assert_eq!((self.held)(), 0, "{name} {when}");
        if let Some(statistics) = &self.statistics {
            let (attempts, sent) = (statistics.snapshot().attempts, self.upstream.len() as u64);
            assert!(attempts.accepted <= sent && sent <= attempts.total(), "{name} {when}: {attempts:?}");
        }
    }
}

/// Every layer, alone, then in a stack. Each call takes `latency` upstream.
pub(crate) fn subjects(latency: Duration) -> Vec<Subject> {
    let cooldown = || AdaptiveCooldownLayer::with_policy(every(ms(200)));
    let retry = || RetryLayer::new(RetryPolicy::new());
    let pairs = || MicroBatchLayer::new(2).unwrap();
    let body = BodyHintsLayer::new();

    let layer = cooldown();
    let gate = layer.handle();
    let alone = Subject::new("cooldown", latency, |inner| erase(layer.layer(inner))).gate(gate);

    let layer = cooldown().keyed(|request: &Request<()>| request.method().clone());
    let gate = layer.for_key(&Method::GET).handle();
    let keyed = Subject::new("keyed", latency, |inner| erase(layer.layer(inner))).gate(gate);

    let layer = pairs();
    let statistics = Some(layer.get_statistics());
    let micro_batch = Subject::new("micro_batch", latency, |inner| erase(layer.layer(inner))).waiting(|| 0);
    let micro_batch = Subject { statistics, parked_calls_keep_their_place: true, ..micro_batch };

    let mut handle = None;
    let coalesce = Subject::new("coalesce", latency, |inner| {
        let service = CoalesceLayer::new(2).unwrap().max_in_flight(2).unwrap().layer(Batches { inner });
        handle = Some(service.handle());
        erase(service)
    });
    let handle = handle.unwrap();
    let coalesce = coalesce.waiting(move || handle.held());

    let layer = FallbackLayer::new(Upstream::ok());
    let fallback = Subject::new("fallback", latency, |inner| erase(layer.layer(inner)));
    let body_hints = Subject::new("body_hints", latency, |inner| erase(body.layer(inner)));

    let layer = cooldown();
    let gate = layer.handle();
    let stack = ServiceBuilder::new().layer(retry()).layer(layer);
    let retried = Subject::new("retry", latency, |inner| erase(stack.service(inner))).gate(gate);

    let layer = cooldown();
    let gate = layer.handle();
    let stack = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(pairs())
        .layer(FallbackLayer::new(body.layer(Upstream::ok())))
        .layer(retry())
        .layer(layer)
        .layer(body.clone());
    let whole = Subject::new("stack", latency, |inner| erase(stack.service(inner))).gate(gate);
    let whole = Subject { parked_calls_keep_their_place: true, ..whole };

    vec![alone, keyed, micro_batch, coalesce, fallback, body_hints, retried, whole]
}

/// One call for a batch: that of its first request, whose answer all of them get.
#[derive(Clone)]
struct Batches {
    inner: Inner,
}

impl Service<Vec<Request<()>>> for Batches {
    type Response = Vec<Result<Response<()>, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, batch: Vec<Request<()>>) -> Self::Future {
        let size = batch.len();
        let first = batch.into_iter().next().expect("no batch is empty");
        let answer = self.inner.call(first);
        let copies = move |response: Response<String>| {
            (0..size).map(|_| Ok(Response::builder().status(response.status()).body(()).unwrap())).collect()
        };
        answer.map(move |result| result.map(copies)).boxed()
    }
}
