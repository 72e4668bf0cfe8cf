//! Real sockets, and a server that breaks in every way that a server or the network before it can: each call ends
//! exactly once, is counted, and says what happened.
//!
//! On the wall's clock, because sockets know no other; all waits are bounded, and short.

mod support;

use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{ms, secs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, Handle, MicroBatchLayer,
    policy::{Known, Quota},
    record::Statistics,
    retry::RetryPolicy,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    /// Takes the request, and resets the connection.
    ResetBeforeTheHead,
    ResetInTheHead,
    ResetInTheBody,
    /// A byte now and then, and no end.
    TrickleTheHead,
    TrickleTheBody,
    /// Closes its own side, and goes on listening.
    CloseHalfBeforeTheHead,
    CloseHalfInTheBody,
    TalkNonsense,
    SayNothing,
}

const FAULTS: [Does; 9] = [
    Does::ResetBeforeTheHead,
    Does::ResetInTheHead,
    Does::ResetInTheBody,
    Does::TrickleTheHead,
    Does::TrickleTheBody,
    Does::CloseHalfBeforeTheHead,
    Does::CloseHalfInTheBody,
    Does::TalkNonsense,
    Does::SayNothing,
];

/// What the server does with the request that has this number.
type Script = dyn FnMut(usize) -> Does + Send;

#[derive(Clone)]
struct Upstream {
    script: Arc<Mutex<Box<Script>>>,
    requests: Arc<AtomicUsize>,
}

/// Listens until it is dropped, with all its connections.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Upstream {
    fn new(script: impl FnMut(usize) -> Does + Send + 'static) -> Self {
        Self { script: Arc::new(Mutex::new(Box::new(script))), requests: Arc::default() }
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    async fn listen(&self, address: SocketAddr) -> Server {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, mut tasks) = (self.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let upstream = upstream.clone();
                connections.spawn(async move { upstream.serve(stream).await });
            }
        });
        Server { address, _tasks: tasks }
    }

    /// One request after another, until the client hangs up or the script says so. What goes wrong while writing
    /// concerns nobody: the client has gone.
    async fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        loop {
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return,
                }
            }
            request.clear();
            let number = self.requests.fetch_add(1, SeqCst);
            let does = (self.script.lock().unwrap())(number);
            let Does::Answer(status) = does else { return misbehave(does, stream).await };
            let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 4\r\n\r\ndone");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn misbehave(does: Does, mut stream: TcpStream) {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    const LONG: Duration = secs(10);
    let _ = match does {
        Does::ResetInTheHead | Does::TrickleTheHead => stream.write_all(&HEAD[..20]).await,
        Does::ResetInTheBody | Does::CloseHalfInTheBody | Does::TrickleTheBody => {
            stream.write_all(HEAD).await
        }
        Does::TalkNonsense => stream.write_all(b"220 mail.example.com ESMTP ready\r\n\r\n").await,
        _ => Ok(()),
    };
    let _ = stream.flush().await;
    match does {
        Does::ResetBeforeTheHead | Does::ResetInTheHead | Does::ResetInTheBody => {
            sleep(ms(5)).await; // so that what was written gets there
            stream.set_zero_linger().unwrap();
        }
        Does::CloseHalfBeforeTheHead | Does::CloseHalfInTheBody => {
            let _ = stream.shutdown().await;
            sleep(LONG).await;
        }
        Does::TrickleTheHead | Does::TrickleTheBody => {
            while stream.write_all(b"x").await.is_ok() {
                sleep(ms(20)).await;
            }
        }
        _ => sleep(LONG).await,
    }
}

const PRIMARY: &str = "primary";

trait Client:
    Service<Request<()>, Response = Response<&'static str>, Error = BoxError, Future: Send> + Clone + Send
{
}
impl<S> Client for S where
    S: Service<Request<()>, Response = Response<&'static str>, Error = BoxError, Future: Send> + Clone + Send
{
}

/// hyper's client, with the body read to its end, in 200 ms.
fn client(address: SocketAddr) -> impl Client + 'static {
    let client: HyperClient<_, Empty<Bytes>> =
        HyperClient::builder(TokioExecutor::new()).build(HttpConnector::new());
    service_fn(move |_: Request<()>| {
        let client = client.clone();
        async move {
            let request = Request::builder().uri(format!("http://{address}/")).body(Empty::new())?;
            let exchange = async {
                let (head, body) = client.request(request).await?.into_parts();
                assert!(body.collect().await?.to_bytes() == "done", "a body that nobody sent");
                Ok::<_, BoxError>(Response::from_parts(head, PRIMARY))
            };
            timeout(ms(200), exchange).await?
        }
    })
}

/// A gate that is open again soon, and where to look at it.
fn gate(statistics: &Statistics) -> AdaptiveCooldownLayer {
    let quota = Known::new(Quota::new(1_000_000, ms(1)).unwrap()).steps([ms(1), ms(2), ms(4), ms(8)]);
    AdaptiveCooldownLayer::with_policy(quota).statistics(statistics)
}

/// Everything, over the server at `address`. The second service never fails.
fn stack(address: SocketAddr, statistics: &Statistics) -> (impl Client + 'static, Handle) {
    let cooldown = gate(statistics);
    let handle = cooldown.handle();
    let second = service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new("second")) });
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(MicroBatchLayer::new(16).unwrap().pause(ms(1)).statistics(statistics))
        .layer(FallbackLayer::new(second).statistics(statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(1)))
        .layer(cooldown)
        .service(client(address));
    (client, handle)
}

/// Sends so many calls, sixteen at a time: who answered them. None is lost, none hangs, and all are counted.
async fn burst(client: &impl Client, calls: usize, statistics: &Statistics, gate: &Handle) -> [usize; 2] {
    let before = statistics.snapshot().calls.total();
    let answers = stream::iter(0..calls)
        .map(|_| timeout(secs(20), client.clone().oneshot(Request::new(()))))
        .buffer_unordered(16);
    let answers: Vec<_> = answers.collect().await;
    let mut by = [0, 0];
    for answer in answers {
        let response =
            answer.expect("no call hangs").expect("the second service serves what the first cannot");
        assert_eq!(response.status(), 200);
        by[usize::from(*response.body() != PRIMARY)] += 1;
    }
    let snapshot = statistics.snapshot();
    assert_eq!(snapshot.calls.total() - before, calls as u64, "{snapshot}");
    assert_eq!((gate.snapshot().waiting, gate.snapshot().in_flight), (0, 0));
    by
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_an_error_that_is_counted_and_the_next_call_is_served() {
    for fault in FAULTS {
        let upstream = Upstream::new(move |number| if number % 2 == 0 { fault } else { Does::Answer(200) });
        let (server, statistics) = (upstream.listen(anywhere()).await, Statistics::new());
        let cooldown = gate(&statistics);
        let handle = cooldown.handle();
        let client = ServiceBuilder::new().layer(cooldown).service(client(server.address));
        for round in 1..=3 {
            let start = Instant::now();
            let error = client.clone().oneshot(Request::new(())).await.expect_err("it broke");
            assert!(!error.to_string().is_empty() && start.elapsed() < secs(5), "{fault:?}: {error}");
            client.clone().oneshot(Request::new(())).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
            let attempts = statistics.snapshot().attempts;
            assert_eq!((attempts.failed, attempts.accepted), (round, round), "{fault:?}: {attempts:?}");
        }
        assert_eq!((handle.snapshot().waiting, handle.snapshot().in_flight), (0, 0), "{fault:?}");
        assert_eq!(upstream.requests(), 6, "{fault:?}: nothing is sent twice behind the caller's back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_refuses_and_every_call_falls_back() {
    // The port was free a moment ago.
    let address = Upstream::new(|_| Does::Answer(200)).listen(anywhere()).await.address;
    let statistics = Statistics::new();
    let (client, gate) = stack(address, &statistics);
    assert_eq!(burst(&client, 100, &statistics, &gate).await, [0, 100]);
    let attempts = statistics.snapshot().attempts;
    assert_eq!(attempts.failed, 100, "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_faults_at_random_no_call_is_lost() {
    let mut random = fastrand::Rng::with_seed(11);
    let upstream = Upstream::new(move |_| match random.usize(..20) {
        index @ 0..9 => FAULTS[index],
        9 => Does::Answer(503),
        10 | 11 => Does::Answer(429),
        _ => Does::Answer(200),
    });
    let server = upstream.listen(anywhere()).await;
    let statistics = Statistics::new();
    let (client, gate) = stack(server.address, &statistics);
    let [first, second] = burst(&client, 400, &statistics, &gate).await;
    assert!(first > 100 && second > 100, "{first} and {second}");
    let attempts = statistics.snapshot().attempts;
    assert_eq!(attempts.accepted, first as u64);
    // An attempt on a connection that the server has just closed may fail before the request is there.
    assert!(attempts.total() >= upstream.requests() as u64, "{attempts:?}, {} requests", upstream.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_refuses_every_other_call_gets_each_call_again() {
    let upstream = Upstream::new(|number| Does::Answer(if number % 2 == 0 { 429 } else { 200 }));
    let server = upstream.listen(anywhere()).await;
    let statistics = Statistics::new();
    let (client, gate) = stack(server.address, &statistics);
    for _ in 0..100 {
        // One at a time: the first attempt is refused, the second one is not.
        assert_eq!(burst(&client, 1, &statistics, &gate).await, [1, 0]);
    }
    let attempts = statistics.snapshot().attempts;
    assert_eq!((attempts.throttled, attempts.accepted, attempts.total()), (100, 100, 200), "{attempts:?}");
    assert_eq!(upstream.requests(), 200);
    // And many at a time, which meet in whichever order.
    burst(&client, 200, &statistics, &gate).await;
    let attempts = statistics.snapshot().attempts;
    assert_eq!(attempts.total(), upstream.requests() as u64, "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_a_burst_loses_no_call() {
    let upstream = Upstream::new(|_| Does::Answer(200));
    let server = upstream.listen(anywhere()).await;
    let (address, statistics) = (server.address, Statistics::new());
    let (client, gate) = stack(address, &statistics);
    let restart = async {
        while upstream.requests() < 100 {
            sleep(ms(1)).await;
        }
        drop(server);
        // Down until some calls have found it so.
        while statistics.snapshot().attempts.failed < 20 {
            sleep(ms(1)).await;
        }
        upstream.listen(address).await
    };
    let (by, _server) = tokio::join!(burst(&client, 600, &statistics, &gate), restart);
    assert_eq!(by[0] + by[1], 600);
    assert!(by[0] >= 200 && by[1] >= 10, "{by:?}");
    assert_eq!(burst(&client, 50, &statistics, &gate).await, [50, 0], "it is back");
}
