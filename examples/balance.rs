//! One client over three regions of a service, each with a quota of its own, by tower's `Balance`.
//!
//! ```sh
//! cargo run --release --example balance
//! ```
//!
//! Forty-eight workers call through `Balance` for a minute. From the twentieth second to the fortieth the region
//! `east` refuses every call and says for how long. Its gate closes, `Balance` sees that it is not ready, and the
//! calls flow to the other two; when the gate opens they come back. All the while the throughput is the sum of the
//! quotas of those that serve. Nobody outside the layers knows of regions, quotas or refusals.
//!
//! The clock is virtual, so the minute takes a second. With API keys in the place of regions nothing changes: one
//! layer per key, as each has its own quota.

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle,
    policy::{Known, Quota},
};

const LATENCY: Duration = Duration::from_millis(300);
const MINUTE: Duration = Duration::from_secs(60);
const MAINTENANCE: std::ops::Range<Duration> = Duration::from_secs(20)..Duration::from_secs(40);
const WORKERS: usize = 48;
/// Name, and calls a second.
const REGIONS: [(&str, u32); 3] = [("north", 20), ("south", 10), ("east", 10)];

type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<String>, BoxError>> + Send>>;

/// A region: a token bucket in front of an endpoint that takes its time.
#[derive(Clone, Debug)]
struct Region {
    start: Instant,
    name: &'static str,
    rate: f64,
    bucket: Arc<Mutex<(f64, Instant)>>,
    /// Calls answered in each second.
    answered: Arc<[AtomicU64; 60]>,
}

impl Region {
    fn new(name: &'static str, rate: u32) -> Self {
        let start = Instant::now();
        let answered = Arc::new([const { AtomicU64::new(0) }; 60]);
        Self { start, name, rate: rate.into(), bucket: Arc::new(Mutex::new((1.0, start))), answered }
    }

    /// How long to wait, if the call is refused.
    fn refuses(&self) -> Option<Duration> {
        let since = self.start.elapsed();
        if self.name == "east" && MAINTENANCE.contains(&since) {
            return Some(MAINTENANCE.end - since);
        }
        let mut bucket = self.bucket.lock().expect("nobody panics here");
        let (tokens, last) = *bucket;
        // Two tokens in store, because no network is so even that one would do.
        let tokens = (tokens + last.elapsed().as_secs_f64() * self.rate).min(2.0);
        let refused = tokens < 1.0;
        *bucket = (if refused { tokens } else { tokens - 1.0 }, Instant::now());
        refused.then(|| Duration::from_secs_f64((1.0 - tokens) / self.rate))
    }
}

impl Service<Request<String>> for Region {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> BoxFuture {
        let region = self.clone();
        Box::pin(async move {
            let refused = region.refuses();
            tokio::time::sleep(LATENCY).await;
            let mut response = Response::new(format!("hello from the {}", region.name));
            if let Some(wait) = refused {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                response.headers_mut().insert(RETRY_AFTER, format!("{:.3}", wait.as_secs_f64()).parse()?);
            } else if let Some(second) = region.answered.get(region.start.elapsed().as_secs() as usize) {
                second.fetch_add(1, Relaxed);
            }
            Ok(response)
        })
    }
}

/// What became of the minute.
#[derive(Debug)]
pub struct Report {
    regions: Vec<(Region, Handle)>,
}

impl Report {
    /// Calls that the region answered in these seconds.
    pub fn answered(&self, region: usize, seconds: std::ops::Range<usize>) -> u64 {
        self.regions[region].0.answered[seconds].iter().map(|second| second.load(Relaxed)).sum()
    }

    /// 429s of the region in the whole minute.
    pub fn refused(&self, region: usize) -> u64 {
        self.regions[region].1.statistics().snapshot().attempts.throttled
    }
}

/// A client that balances over the regions, and handles of their gates.
fn client(regions: &[Region]) -> Result<(impl Client, Vec<Handle>), BoxError> {
    let mut handles = Vec::new();
    let mut endpoints = Vec::new();
    for region in regions {
        let quota = Quota::new(region.rate as u32, Duration::from_secs(1))?.burst(1)?;
        let cooldown = AdaptiveCooldownLayer::with_policy(Known::new(quota)).name(region.name);
        handles.push(cooldown.handle());
        let endpoint = ServiceBuilder::new().layer(cooldown).service(region.clone());
        // The load is what waits and what is in flight. It is measured around the cooldown, so calls go where the
        // queue is shortest for the speed at which it moves.
        endpoints.push(PendingRequests::new(endpoint, CompleteOnResponse::default()));
    }
    let balance = Balance::new(ServiceList::new::<Request<String>>(endpoints));
    // `Balance` is not `Clone`; a buffer lets the workers share it.
    Ok((Buffer::new(balance, WORKERS), handles))
}

trait Client:
    Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send> + Clone + Send + 'static
{
}

impl<S> Client for S where
    S: Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Calls for a minute.
pub async fn run() -> Result<Report, BoxError> {
    let regions = REGIONS.map(|(name, rate)| Region::new(name, rate));
    let (client, handles) = client(&regions)?;
    let end = Instant::now() + MINUTE;
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                while Instant::now() < end {
                    client.clone().oneshot(Request::new("hello".to_owned())).await?;
                }
                Ok::<_, BoxError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(Report { regions: regions.into_iter().zip(handles).collect() })
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let report = run().await?;
    println!("calls answered      north    south     east      sum");
    for (first, note) in
        [(0, ""), (10, ""), (20, "east is in maintenance"), (30, ""), (40, "and back"), (50, "")]
    {
        let counts = [0, 1, 2].map(|region| report.answered(region, first..first + 10));
        let [north, south, east] = counts;
        println!(
            "{first:>3} s to {:>2} s   {north:>8} {south:>8} {east:>8} {:>8}   {note}",
            first + 10,
            counts.iter().sum::<u64>()
        );
    }
    let quotas = REGIONS.map(|(_, rate)| rate * 10);
    println!(
        "quota in 10 s  {:>8} {:>8} {:>8} {:>8}",
        quotas[0],
        quotas[1],
        quotas[2],
        quotas.iter().sum::<u32>()
    );
    let refused = [0, 1, 2].map(|region| report.refused(region));
    println!(
        "429s           {:>8} {:>8} {:>8} {:>8}",
        refused[0],
        refused[1],
        refused[2],
        refused.iter().sum::<u64>()
    );
    Ok(())
}
