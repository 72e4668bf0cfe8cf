//! Eight clients with the whole stack and three upstreams, each a host of its own, on a network that loses messages:
//! every call ends exactly once, the books add up, and nothing is left.
//!
//! In virtual time, and the same for the same seed; `NETWORK_SEEDS` sets others (`7..8`). turmoil's network has no
//! retransmission, so what is lost here is worse than what real networks lose: a message that goes missing takes what is
//! on its way between the two hosts along, and breaks the connections that needed it; they hang, and run into timeouts.

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{Either, join_all, select},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, client, server};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    env,
    ops::Range,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, Handle, MicroBatchLayer,
    policy::{Known, Quota},
    record::Statistics,
    retry::RetryPolicy,
};
use turmoil::{
    Builder, Sim,
    net::{TcpListener, TcpStream},
};

const CLIENTS: usize = 8;
const ROUNDS: usize = 8;
const AT_ONCE: usize = 6;
const PORT: u16 = 80;
/// Refuses every other call; breaks down now and then; serves what the two cannot.
const UPSTREAMS: [&str; 3] = ["flips", "falters", "second"];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// ===== the upstreams =====

/// What one upstream answered, in all its lives: by status.
#[derive(Debug, Default)]
struct Served {
    requests: AtomicU64,
    granted: AtomicU64,
    refused: AtomicU64,
}

fn status_of(upstream: &str, request: u64) -> u16 {
    match (upstream, request % 20) {
        ("flips", n) => [200, 429][n as usize % 2],
        ("falters", 3) => 429,
        ("falters", 7) => 503,
        ("falters", 13) => 500,
        _ => 200,
    }
}

/// Says back which request it was.
async fn answer(
    upstream: &'static str,
    served: Arc<Served>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = served.requests.fetch_add(1, Relaxed);
    sleep(ms(2 + number % 15)).await;
    let status = status_of(upstream, number);
    match status {
        200 => served.granted.fetch_add(1, Relaxed),
        _ => served.refused.fetch_add(1, Relaxed),
    };
    let body = Full::from(request.uri().path().to_owned());
    Ok(Response::builder().status(status).body(body).expect("a response"))
}

async fn listen(upstream: &'static str, served: Arc<Served>) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let served = Arc::clone(&served);
        let service =
            hyper::service::service_fn(move |request| answer(upstream, Arc::clone(&served), request));
        let connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // One whose client was cut off would stay for ever.
        // Local tasks end in the order in which they came when the host crashes; others do in any.
        tokio::task::spawn_local(timeout(secs(5), connection));
    }
}

// ===== the clients =====

/// One request on a connection of its own, to the end of the body.
async fn exchange(upstream: &'static str, request: Request<()>) -> Result<Response<()>, BoxError> {
    let path = request.uri().path().to_owned();
    let stream = TcpStream::connect((upstream, PORT)).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let request = Request::builder().uri(&path).header("host", upstream).body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        assert_eq!(body, path.as_bytes(), "the answer to another request");
        Ok(Response::from_parts(head, ()))
    };
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((ended, exchange)) => {
            ended?;
            exchange.await
        }
    }
}

fn http(
    upstream: &'static str,
) -> impl Service<Request<()>, Response = Response<()>, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(move |request| async move { timeout(ms(500), exchange(upstream, request)).await? }.boxed())
}

/// A stack in one life of a client, and what its callers saw.
struct Life {
    upstream: &'static str,
    batch: Statistics,
    calls: Statistics,
    attempts: Statistics,
    gate: Handle,
    /// Calls that came to the stack, that were answered, that ended with an error.
    came: AtomicU64,
    answered: AtomicU64,
    errors: AtomicU64,
}

type Lives = Arc<Mutex<Vec<Arc<Life>>>>;

fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

/// Callers in bursts, of which some have no patience.
async fn burst(upstream: &'static str, client: usize, seed: u64, lives: Lives) {
    let (batch, calls, attempts) = (Statistics::new(), Statistics::new(), Statistics::new());
    let cooldown = if client < CLIENTS / 2 {
        AdaptiveCooldownLayer::new()
    } else {
        let quota = Quota::new(1_000_000, ms(1)).expect("a quota");
        AdaptiveCooldownLayer::with_policy(Known::new(quota).steps([ms(10), ms(20), ms(40), ms(80)]))
    };
    let cooldown = cooldown.statistics(&attempts).max_wait(secs(2));
    let life = Arc::new(Life {
        upstream,
        gate: cooldown.handle(),
        came: AtomicU64::default(),
        answered: AtomicU64::default(),
        errors: AtomicU64::default(),
        batch: batch.clone(),
        calls: calls.clone(),
        attempts: attempts.clone(),
    });
    lives.lock().unwrap().push(Arc::clone(&life));
    let counted = Arc::clone(&life);
    let stack = ServiceBuilder::new()
        .boxed_clone()
        .map_request(move |request: Request<()>| {
            add_one(&counted.came);
            request
        })
        .map_err(BoxError::from)
        .layer(MicroBatchLayer::new(4).expect("a size").pause(ms(5)).statistics(&batch))
        .layer(FallbackLayer::new(http("second")).statistics(&calls))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(2)))
        .layer(cooldown)
        .service(http(upstream));

    let mut random = fastrand::Rng::with_seed(seed * 100 + client as u64);
    for round in 0..ROUNDS {
        let burst = (0..AT_ONCE).map(|n| {
            let request =
                Request::builder().uri(format!("/{client}/{round}/{n}")).body(()).expect("a request");
            let patience = if random.u8(..8) == 0 { ms(random.u64(1..400)) } else { secs(600) };
            let (stack, life) = (stack.clone(), &life);
            async move {
                match timeout(patience, stack.oneshot(request)).await {
                    Ok(Ok(response)) => {
                        // 429 only where the second could not be reached, and then it is an error.
                        assert!(matches!(response.status().as_u16(), 200 | 429 | 500 | 503), "{response:?}");
                        add_one(&life.answered);
                    }
                    Ok(Err(error)) => {
                        assert!(error.to_string().len() > 5, "{error:?} does not say what happened");
                        add_one(&life.errors);
                    }
                    Err(_) => assert!(patience < secs(1), "a call that hangs"),
                }
            }
        });
        join_all(burst).await;
        sleep(ms(random.u64(..200))).await;
    }
}

async fn run_client(client: usize, seed: u64, lives: Lives, done: Arc<AtomicU64>) -> turmoil::Result {
    let [one, other] = ["flips", "falters"].map(|upstream| burst(upstream, client, seed, Arc::clone(&lives)));
    futures::future::join(one, other).await;
    sleep(secs(2)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    add_one(&done);
    Ok(())
}

// ===== the game =====

/// What happens to the hosts, in the middle of the bursts.
fn happen(sim: &mut Sim<'_>, millisecond: u64) {
    match millisecond {
        100 | 900 => sim.crash("falters"),
        600 | 1300 => sim.bounce("falters"),
        250 => sim.crash("client-3"),
        300 => sim.bounce("client-3"),
        350 => sim.hold("client-1", "flips"),
        700 => sim.release("client-1", "flips"),
        400 => sim.partition("client-2", "flips"),
        450 => sim.partition_oneway("second", "client-4"),
        1500 => sim.crash("second"),
        1800 => sim.bounce("second"),
        2500 => {
            sim.repair("client-2", "flips");
            sim.repair_oneway("second", "client-4");
        }
        _ => {}
    }
}

/// What came of it: calls, and what became of them, of all lives.
fn play(seed: u64) -> Vec<[u64; 6]> {
    let mut builder = Builder::new();
    builder.rng_seed(seed).enable_random_order().simulation_duration(secs(600));
    builder.min_message_latency(ms(1)).max_message_latency(ms(15)).fail_rate(0.01).repair_rate(0.8);
    let mut sim = builder.build();
    let served: [Arc<Served>; 3] = Default::default();
    for (upstream, served) in UPSTREAMS.into_iter().zip(&served) {
        let served = Arc::clone(served);
        sim.host(upstream, move || listen(upstream, Arc::clone(&served)));
    }
    let (lives, done) = (Lives::default(), Arc::new(AtomicU64::default()));
    for client in 0..CLIENTS {
        let (lives, done) = (Arc::clone(&lives), Arc::clone(&done));
        sim.host(format!("client-{client}"), move || {
            run_client(client, seed, Arc::clone(&lives), Arc::clone(&done))
        });
    }
    for millisecond in 0.. {
        happen(&mut sim, millisecond);
        sim.step().unwrap_or_else(|error| panic!("seed {seed}, after {millisecond} ms: {error}"));
        if done.load(Relaxed) == CLIENTS as u64 {
            break;
        }
        assert!(millisecond < 600_000, "seed {seed}: they do not come to an end");
    }
    drop(sim);

    let lives = lives.lock().unwrap();
    // Client 3 lived twice.
    assert_eq!(lives.len(), 2 * (CLIENTS + 1), "seed {seed}");
    for (upstream, served) in UPSTREAMS.into_iter().zip(&served) {
        let [mut sent, mut accepted, mut refused] = [0; 3];
        for life in lives.iter() {
            let (attempts, calls) = (life.attempts.snapshot().attempts, life.calls.snapshot().calls);
            if upstream == "second" {
                sent += calls.tried_fallback() + calls.cancelled;
                accepted += calls.fallbacks.iter().map(|of| of.served).sum::<u64>();
            } else if upstream == life.upstream {
                sent += attempts.total();
                accepted += attempts.accepted;
                refused += attempts.throttled + attempts.overloaded;
            }
        }
        // Requests and answers get lost; none comes from nowhere.
        let [requests, granted, denied] =
            [&served.requests, &served.granted, &served.refused].map(|count| count.load(Relaxed));
        let say = || format!("seed {seed}, {upstream}: {sent}, {accepted}, {refused} of {served:?}");
        assert!(requests <= sent && accepted <= granted && refused <= denied, "{}", say());
        assert!(accepted * 10 > granted * 7, "{}", say());
    }
    lives.iter().map(|life| life.close(seed)).collect()
}

impl Life {
    /// The books, when nothing goes on any more.
    fn close(&self, seed: u64) -> [u64; 6] {
        let [came, answered, errors] =
            [&self.came, &self.answered, &self.errors].map(|count| count.load(Relaxed));
        let (batch, calls) = (self.batch.snapshot().attempts, self.calls.snapshot().calls);
        let attempts = self.attempts.snapshot().attempts;
        let gate = self.gate.snapshot();
        let say = || {
            format!(
                "seed {seed}, {}: {came} came, {answered} answered, {errors} errors, {batch:?}, {calls:?}, {attempts:?}",
                self.upstream
            )
        };
        assert_eq!((gate.waiting, gate.in_flight), (0, 0), "{}", say());
        // Each call that came ended once: with an answer, with an error, or given up.
        assert_eq!((batch.total(), batch.finished()), (came, answered + errors), "{}", say());
        assert_eq!(calls.finished(), answered + errors, "{}", say());
        assert!(calls.total() <= came, "{}", say());
        let second = calls.tried_fallback();
        let failed: u64 = calls.fallbacks.iter().map(|of| of.fallback_failed + of.not_tried).sum();
        assert_eq!(calls.primary + calls.refused + second - failed, answered, "{}", say());
        assert_eq!(failed, errors, "{}", say());
        assert!(attempts.finished() >= calls.primary && attempts.accepted >= calls.primary, "{}", say());
        [came, answered, errors, second, attempts.throttled, attempts.failed]
    }
}

fn seeds() -> Range<u64> {
    let Ok(seeds) = env::var("NETWORK_SEEDS") else { return 0..3 };
    let (from, to) = seeds.split_once("..").expect("from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn on_a_network_that_loses_messages_every_call_ends_once_and_the_books_add_up() {
    let mut all = [0; 6];
    for seed in seeds() {
        println!("seed {seed}");
        for life in play(seed) {
            all.iter_mut().zip(life).for_each(|(sum, count)| *sum += count);
        }
    }
    let [came, answered, errors, second, throttled, failed] = all;
    println!(
        "{came} calls: {answered} answered, {second} of them sent to the second service, {errors} errors, {} given up; \
         {throttled} attempts refused, {failed} failed",
        came - answered - errors
    );
    // Everything that can happen did.
    assert!(answered * 10 > came * 7 && second > 0 && errors > 0 && throttled > 0 && failed > 0, "{all:?}");
    assert!(came > answered + errors, "{all:?}");
}

#[test]
fn the_same_seed_is_the_same_game() {
    assert_eq!(play(7), play(7));
}
