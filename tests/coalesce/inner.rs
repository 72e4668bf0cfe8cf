//! A service of batches that answers from a script and remembers what it was sent.

use futures::future::BoxFuture;
use std::{
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_cooldown::{
    Coalesce, CoalesceLayer,
    coalesce::{BatchError, Split},
};

/// Not `Clone`, not `Sync`-friendly on purpose: nothing of the kind is asked of errors or answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What a request is answered: its own number, so that a mix-up shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) u64);

pub(crate) type Answers = Vec<Result<Answer, Fault>>;
pub(crate) type Outcome = Result<Answer, BatchError<Fault>>;

pub(crate) enum Reply {
    /// Each its own number, after this time.
    Echo(Duration),
    /// This, after this time.
    Give(Answers, Duration),
    Fail(&'static str),
    Never,
    PanicInCall,
    PanicInFuture,
    PanicInDrop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) items: Vec<u64>,
    pub(crate) at: Duration,
}

type Script = dyn FnMut(&Sent) -> Reply + Send;
type Ready = dyn FnMut() -> Poll<Result<(), Fault>> + Send;

struct Shared {
    start: Instant,
    script: Mutex<Box<Script>>,
    ready: Mutex<Option<Box<Ready>>>,
    sent: Mutex<Vec<Sent>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    dropped: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
}

impl Inner {
    pub(crate) fn new(script: impl FnMut(&Sent) -> Reply + Send + 'static) -> Self {
        let shared = Shared {
            start: Instant::now(),
            script: Mutex::new(Box::new(script)),
            ready: Mutex::new(None),
            sent: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Each call takes this long.
    pub(crate) fn taking(time: Duration) -> Self {
        Self::new(move |_| Reply::Echo(time))
    }

    /// What `poll_ready` says.
    pub(crate) fn when_ready(self, ready: impl FnMut() -> Poll<Result<(), Fault>> + Send + 'static) -> Self {
        *self.shared.ready.lock().unwrap() = Some(Box::new(ready));
        self
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().unwrap().clone()
    }

    /// The batches, without their times.
    pub(crate) fn batches(&self) -> Vec<Vec<u64>> {
        self.sent().into_iter().map(|sent| sent.items).collect()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.shared.peak.load(SeqCst)
    }

    /// Calls that were dropped before they had ended.
    pub(crate) fn dropped(&self) -> usize {
        self.shared.dropped.load(SeqCst)
    }
}

/// Counts a call as in flight; panics in its drop if told to.
struct Flight {
    shared: Arc<Shared>,
    ended: bool,
    panic_in_drop: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, SeqCst);
        if !self.ended {
            self.shared.dropped.fetch_add(1, SeqCst);
        }
        assert!(!self.panic_in_drop || std::thread::panicking(), "panic in drop");
    }
}

impl Service<Vec<u64>> for Inner {
    type Response = Answers;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Answers, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut ready = self.shared.ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ready.as_mut().map_or(Poll::Ready(Ok(())), |ready| ready())
    }

    fn call(&mut self, items: Vec<u64>) -> Self::Future {
        let sent = Sent { items, at: self.shared.start.elapsed() };
        self.shared.sent.lock().unwrap().push(sent.clone());
        let reply = (self.shared.script.lock().unwrap())(&sent);
        assert!(!matches!(reply, Reply::PanicInCall), "panic in call");
        let now = self.shared.in_flight.fetch_add(1, SeqCst) + 1;
        self.shared.peak.fetch_max(now, SeqCst);
        let panic_in_drop = matches!(reply, Reply::PanicInDrop);
        let mut flight = Flight { shared: Arc::clone(&self.shared), ended: false, panic_in_drop };
        let echo = move || sent.items.iter().map(|&item| Ok(Answer(item))).collect();
        Box::pin(async move {
            let flight = &mut flight;
            let result = match reply {
                Reply::Echo(time) => {
                    rest(time).await;
                    Ok(echo())
                }
                Reply::Give(answers, time) => {
                    rest(time).await;
                    Ok(answers)
                }
                Reply::Fail(error) => Err(Fault(error)),
                Reply::Never => pending().await,
                Reply::PanicInDrop => Ok(echo()),
                Reply::PanicInFuture | Reply::PanicInCall => panic!("panic in the future"),
            };
            flight.ended = true;
            result
        })
    }
}

async fn rest(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

pub(crate) fn layer(max_items: usize) -> CoalesceLayer<u64> {
    CoalesceLayer::new(max_items).unwrap()
}

pub(crate) fn coalesce(inner: &Inner, max_items: usize) -> Coalesce<Inner, u64, Answer> {
    layer(max_items).layer(inner.clone())
}

/// Asks for one item, in a task of its own.
pub(crate) fn ask<K, P>(service: &Coalesce<Inner, u64, Answer, K, P>, item: u64) -> JoinHandle<Outcome>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    P: Split<u64, Answers, Fault> + Send + Sync + 'static,
{
    tokio::spawn(service.clone().oneshot(item))
}

/// Asks for several, each in a task, and waits for all.
pub(crate) async fn ask_all<K, P>(
    service: &Coalesce<Inner, u64, Answer, K, P>,
    items: impl IntoIterator<Item = u64>,
) -> Vec<Outcome>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    P: Split<u64, Answers, Fault> + Send + Sync + 'static,
{
    let asked: Vec<_> = items.into_iter().map(|item| ask(service, item)).collect();
    let mut outcomes = Vec::new();
    for asked in asked {
        outcomes.push(asked.await.expect("no caller panics"));
    }
    outcomes
}

/// Whether each got its own number.
pub(crate) fn assert_answered(outcomes: &[Outcome], items: impl IntoIterator<Item = u64>) {
    let items: Vec<_> = items.into_iter().collect();
    assert_eq!(outcomes.len(), items.len());
    for (outcome, item) in outcomes.iter().zip(items) {
        assert!(matches!(outcome, Ok(Answer(answer)) if *answer == item), "{item}: {outcome:?}");
    }
}

/// The number of tasks that live in this runtime. The test itself is none.
pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
