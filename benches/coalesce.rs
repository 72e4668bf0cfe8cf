//! What coalescing costs and what it gains, beside the published batchers, in the same run.
//!
//! ```text
//! cargo bench --bench coalesce            # tables and ratios
//! cargo bench --bench coalesce -- --json  # one document
//! cargo bench --bench coalesce -- A C     # these scenarios only
//! ```
//!
//! Batches of 32 at most; a linger of 1 ms for those that need one (`batch-aint-one`'s `Balanced` policy and this
//! crate need none); `tower-buffer` makes no batches and stands for the bare service behind a channel.
//!
//! | scenario | callers, in a closed loop | a call takes |
//! |---|---|---|
//! | A | 64 | no time |
//! | B | 64 | a sleep of 2 ms, which is about 3 ms |
//! | C | 1 | no time |
//! | D | 4 | a sleep of 2 ms |
//! | E | 1 | a turn: it is pending once, and woken at once |
//!
//! Times are taken on two worker threads, in rounds that go round all of them; the table has the median round.
//! Allocations are counted in runs of their own, on one thread, where 64 callers make full batches.

use batch_aint_one::{Batcher, BatchingPolicy, Limits, Processor};
use serde::Serialize;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};
use tower::{BoxError, Service, ServiceExt, buffer::Buffer, util::BoxCloneService};
use tower_cooldown::{Coalesce, CoalesceLayer};
use tower_cooldown_benches::{print_json, wants_json};

const BATCH: usize = 32;
const LINGER: Duration = Duration::from_millis(1);
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(300);
/// One request in so many is timed: reading the clock twice takes a good part of what a request does.
const TIMED: u64 = 16;

struct Scenario {
    name: &'static str,
    callers: usize,
    call_takes: Takes,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "A", callers: 64, call_takes: Takes::NoTime },
    Scenario { name: "B", callers: 64, call_takes: Takes::TwoMillis },
    Scenario { name: "C", callers: 1, call_takes: Takes::NoTime },
    Scenario { name: "D", callers: 4, call_takes: Takes::TwoMillis },
    Scenario { name: "E", callers: 1, call_takes: Takes::ATurn },
];

#[derive(Clone, Copy, Default, PartialEq)]
enum Takes {
    #[default]
    NoTime,
    ATurn,
    TwoMillis,
}

#[derive(Serialize, Clone)]
struct Row {
    scenario: &'static str,
    #[serde(rename = "impl")]
    name: &'static str,
    req_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    allocs_per_req: f64,
    mean_batch: f64,
}

/// What answers: counts its calls and the requests in them.
#[derive(Clone, Default)]
struct Backend {
    takes: Takes,
    calls: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl Backend {
    fn new(takes: Takes) -> Self {
        Self { takes, ..Self::default() }
    }

    async fn answer(self, requests: usize) {
        self.calls.fetch_add(1, Relaxed);
        self.requests.fetch_add(requests as u64, Relaxed);
        match self.takes {
            Takes::NoTime => {}
            Takes::ATurn => a_turn().await,
            Takes::TwoMillis => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }

    fn mean_batch(&self) -> f64 {
        self.requests.load(Relaxed) as f64 / self.calls.load(Relaxed).max(1) as f64
    }
}

async fn a_turn() {
    let mut is_first = true;
    let turn = poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    turn.await;
}

#[derive(Clone, Copy, Debug)]
struct Item(u64);

/// One caller's way in: asks for one item and gets it back.
trait Client: Clone + Send + 'static {
    fn ask(&mut self, item: Item) -> impl Future<Output = u64> + Send;
}

// tower-cooldown

type Answers = Vec<Result<u64, Infallible>>;

#[derive(Clone)]
struct Many(Backend);

impl Service<Vec<Item>> for Many {
    type Response = Answers;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Answers, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, items: Vec<Item>) -> Self::Future {
        let backend = self.0.clone();
        Box::pin(async move {
            backend.answer(items.len()).await;
            Ok(items.into_iter().map(|Item(item)| Ok(item)).collect())
        })
    }
}

#[derive(Clone)]
struct Cooldown(Coalesce<Many, Item, u64>);

impl Client for Cooldown {
    async fn ask(&mut self, item: Item) -> u64 {
        self.0.ready().await.expect("it is not closed").call(item).await.expect("an answer")
    }
}

fn tower_cooldown(backend: Backend) -> Cooldown {
    let layer = CoalesceLayer::new(BATCH).expect("32 is not 0");
    Cooldown(tower::Layer::layer(&layer, Many(backend)))
}

// batch-aint-one

#[derive(Clone, Debug)]
struct Bao(Arc<Batcher<BaoProcessor>>);

#[derive(Clone)]
struct BaoProcessor(Backend);

impl std::fmt::Debug for BaoProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BaoProcessor")
    }
}

impl Processor for BaoProcessor {
    type Key = ();
    type Input = Item;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        items: impl Iterator<Item = Item> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        let items: Vec<_> = items.map(|Item(item)| item).collect();
        self.0.clone().answer(items.len()).await;
        Ok(items)
    }
}

impl Client for Bao {
    async fn ask(&mut self, item: Item) -> u64 {
        self.0.add((), item).await.expect("an answer")
    }
}

fn batch_aint_one(backend: Backend) -> Bao {
    let batcher = Batcher::builder()
        .name("bench")
        .processor(BaoProcessor(backend))
        .limits(Limits::builder().max_batch_size(BATCH).max_key_concurrency(4).build())
        .batching_policy(BatchingPolicy::Balanced { min_size_hint: BATCH })
        .build();
    Bao(Arc::new(batcher))
}

// tower-batch-control and tower-batch: the inner service gets item by item and a flush, and has to bring each result
// of the call to its caller itself. A oneshot channel per item does that, for results that need not be `Clone`, as the
// others' need not.

struct Pending {
    backend: Backend,
    items: Vec<(Item, oneshot::Sender<u64>)>,
}

type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Pending {
    fn new(backend: Backend) -> Self {
        Self { backend, items: Vec::with_capacity(BATCH) }
    }

    fn item(&mut self, item: Item) -> BoxFuture<u64> {
        let (sender, receiver) = oneshot::channel();
        self.items.push((item, sender));
        Box::pin(async move { Ok(receiver.await?) })
    }

    fn flush(&mut self) -> BoxFuture<u64> {
        let items = std::mem::replace(&mut self.items, Vec::with_capacity(BATCH));
        let backend = self.backend.clone();
        Box::pin(async move {
            backend.answer(items.len()).await;
            for (Item(item), caller) in items {
                caller.send(item).map_err(|_| "the caller has gone")?;
            }
            Ok(0)
        })
    }
}

impl tower_batch_control::RequestWeight for Item {}

impl Service<tower_batch_control::BatchControl<Item>> for Pending {
    type Response = u64;
    type Error = BoxError;
    type Future = BoxFuture<u64>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, control: tower_batch_control::BatchControl<Item>) -> Self::Future {
        match control {
            tower_batch_control::BatchControl::Item(item) => self.item(item),
            tower_batch_control::BatchControl::Flush => self.flush(),
        }
    }
}

impl Service<tower_batch::BatchControl<Item>> for Pending {
    type Response = u64;
    type Error = BoxError;
    type Future = BoxFuture<u64>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, control: tower_batch::BatchControl<Item>) -> Self::Future {
        match control {
            tower_batch::BatchControl::Item(item) => self.item(item),
            tower_batch::BatchControl::Flush => self.flush(),
        }
    }
}

/// Any clonable tower service of items.
#[derive(Clone)]
struct Tower<S>(S);

impl<S> Client for Tower<S>
where
    S: Service<Item, Response = u64, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    async fn ask(&mut self, item: Item) -> u64 {
        self.0.ready().await.expect("it works").call(item).await.expect("an answer")
    }
}

fn tower_batch_control(backend: Backend) -> impl Client {
    Tower(tower_batch_control::Batch::new(Pending::new(backend), BATCH, 4, LINGER))
}

fn tower_batch(backend: Backend) -> impl Client {
    Tower(tower_batch::Batch::new(Pending::new(backend), BATCH, LINGER))
}

// tower's Buffer: no batches

fn tower_buffer(backend: Backend) -> impl Client {
    let service = tower::service_fn(move |Item(item): Item| {
        let answer = backend.clone().answer(1);
        async move {
            answer.await;
            Ok::<_, BoxError>(item)
        }
    });
    Tower(Buffer::new(BoxCloneService::new(service), 64 * BATCH))
}

// measuring

/// One round: every caller asks again and again until the time is over.
fn round<C: Client>(runtime: &Runtime, scenario: &Scenario, make: impl FnOnce(Backend) -> C) -> Round {
    let backend = Backend::new(scenario.call_takes);
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let (asked, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (asked, over) = (Arc::new(asked), Arc::new(over));
    let elapsed = runtime.block_on(async {
        let client = make(backend.clone());
        let warm = async {
            for n in 0..3 {
                assert_eq!(client.clone().ask(Item(n)).await, n);
            }
        };
        warm.await;
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..scenario.callers as u64 {
            let (mut client, latencies) = (client.clone(), Arc::clone(&latencies));
            let (asked, over) = (Arc::clone(&asked), Arc::clone(&over));
            callers.spawn(async move {
                let (mut mine, mut count) = (Vec::with_capacity(1 << 13), 0);
                while !over.load(Relaxed) {
                    let begun = (count % TIMED == 0).then(Instant::now);
                    assert_eq!(client.ask(Item(caller)).await, caller);
                    mine.extend(begun.map(|begun| begun.elapsed().as_nanos() as u64));
                    count += 1;
                }
                asked.fetch_add(count, Relaxed);
                latencies.lock().expect("no caller panics").extend(mine);
            });
        }
        tokio::time::sleep(ROUND).await;
        over.store(true, Relaxed);
        callers.join_all().await;
        start.elapsed()
    });
    let mut latencies = std::mem::take(&mut *latencies.lock().expect("no caller panics"));
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
    Round {
        req_per_s: asked.load(Relaxed) as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        mean_batch: backend.mean_batch(),
    }
}

#[derive(Clone, Copy)]
struct Round {
    req_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    mean_batch: f64,
}

/// Allocations per request, counted on one thread after some rounds of warming up.
fn allocations<C: Client>(scenario: &Scenario, make: impl FnOnce(Backend) -> C) -> f64 {
    const WARM: u64 = 50;
    let each: u64 = if scenario.call_takes == Takes::TwoMillis { 50 } else { 2000 };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = runtime.block_on(async { make(Backend::new(scenario.call_takes)) });
    let go = |times: u64| {
        runtime.block_on(async {
            let callers = (0..scenario.callers as u64).map(|caller| {
                let mut client = client.clone();
                tokio::spawn(async move {
                    for _ in 0..times {
                        assert_eq!(client.ask(Item(caller)).await, caller);
                    }
                })
            });
            for caller in callers.collect::<Vec<_>>() {
                caller.await.expect("no caller panics");
            }
        });
    };
    go(WARM);
    // The difference of two runs leaves out what is allocated once per run.
    let runs = [each, 2 * each].map(|times| allocation_counter::measure(|| go(times)).count_total as f64);
    (runs[1] - runs[0]).max(0.0) / (each * scenario.callers as u64) as f64
}

fn measure(scenario: &'static Scenario) -> Vec<Row> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut rounds = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        rounds[0].push(round(&runtime, scenario, tower_cooldown));
        rounds[1].push(round(&runtime, scenario, batch_aint_one));
        rounds[2].push(round(&runtime, scenario, tower_batch_control));
        rounds[3].push(round(&runtime, scenario, tower_batch));
        rounds[4].push(round(&runtime, scenario, tower_buffer));
    }
    let allocs = [
        allocations(scenario, tower_cooldown),
        allocations(scenario, batch_aint_one),
        allocations(scenario, tower_batch_control),
        allocations(scenario, tower_batch),
        allocations(scenario, tower_buffer),
    ];
    let names = ["tower-cooldown", "batch-aint-one", "tower-batch-control", "tower-batch", "tower-buffer"];
    let rows = names.into_iter().zip(rounds).zip(allocs).map(|((name, mut rounds), allocs_per_req)| {
        let mut median = |of: fn(&Round) -> f64| {
            rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&rounds[ROUNDS / 2])
        };
        Row {
            scenario: scenario.name,
            name,
            req_per_s: median(|row| row.req_per_s),
            p50_us: median(|row| row.p50_us),
            p99_us: median(|row| row.p99_us),
            allocs_per_req,
            mean_batch: median(|row| row.mean_batch),
        }
    });
    rows.collect()
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<4}{:<22}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "", "req/s", "p50 us", "p99 us", "allocs/req", "mean batch"
    );
    for row in rows {
        println!(
            "{:<4}{:<22}{:>12.0}{:>12.1}{:>12.1}{:>12.2}{:>12.1}",
            row.scenario, row.name, row.req_per_s, row.p50_us, row.p99_us, row.allocs_per_req, row.mean_batch
        );
    }
    let find = |scenario, name| rows.iter().find(|row| row.scenario == scenario && row.name == name);
    println!();
    for peer in ["batch-aint-one", "tower-batch-control", "tower-batch", "tower-buffer"] {
        if let (Some(ours), Some(peer)) = (find("A", "tower-cooldown"), find("A", peer)) {
            println!("A  {:.2} times the throughput of {}", ours.req_per_s / peer.req_per_s, peer.name);
        }
    }
    if let (Some(ours), Some(unbatched)) = (find("B", "tower-cooldown"), find("B", "tower-buffer")) {
        println!("B  p50 is {:.3} of the unbatched one", ours.p50_us / unbatched.p50_us);
    }
    for scenario in ["C", "E"] {
        if let (Some(ours), Some(buffer)) = (find(scenario, "tower-cooldown"), find(scenario, "tower-buffer"))
        {
            let longer = ours.p50_us - buffer.p50_us;
            println!("{scenario}  an idle caller waits {longer:+.2} us, beside tower-buffer");
        }
        for peer in ["batch-aint-one", "tower-batch-control", "tower-batch"] {
            if let (Some(ours), Some(peer)) = (find(scenario, "tower-cooldown"), find(scenario, peer)) {
                let shorter = peer.p50_us / ours.p50_us;
                println!("{scenario}  {shorter:.0} times shorter than through {}", peer.name);
            }
        }
    }
}

fn main() {
    let asked: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_asked = |scenario: &&Scenario| asked.is_empty() || asked.iter().any(|name| name == scenario.name);
    let rows: Vec<_> = SCENARIOS.iter().filter(is_asked).flat_map(measure).collect();
    if wants_json() { print_json(&rows) } else { print_table(&rows) }
}
