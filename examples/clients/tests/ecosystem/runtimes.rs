//! One layer, and where it is built, kept and used.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use local::Server;
use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    policy::{Known, Quota},
};

/// One call every 100 ms.
fn paced() -> AdaptiveCooldownLayer {
    let quota = Quota::new(1, Duration::from_millis(100)).unwrap().burst(1).unwrap();
    AdaptiveCooldownLayer::with_policy(Known::new(quota))
}

fn hyper() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The same layer value around two services: one upstream, one gate.
#[tokio::test]
async fn a_layer_that_is_used_twice_has_one_gate() {
    let server = Server::echo(0).await.unwrap();
    let layer = paced();
    let (first, second) = (layer.layer(hyper()), layer.layer(hyper()));
    let start = Instant::now();
    for client in [&first, &second, &first, &second] {
        let request = Request::get(server.uri()).body(Full::default()).unwrap();
        assert_eq!(client.clone().oneshot(request).await.unwrap().status(), 200);
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(layer.handle().statistics().snapshot().attempts.accepted, 4);
}

/// Built where there is no runtime, in a `static`, and used from two runtimes at once. Each waits on its own clock,
/// and the end of the one does not disturb the other.
#[test]
fn a_static_layer_serves_two_runtimes() {
    static LAYER: LazyLock<AdaptiveCooldownLayer> = LazyLock::new(paced);
    LazyLock::force(&LAYER);
    let start = Instant::now();
    let threads = [3, 6].map(|calls| {
        thread::spawn(move || {
            Runtime::new().unwrap().block_on(async {
                let client =
                    LAYER.layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
                for _ in 0..calls {
                    client.clone().oneshot(Request::new(())).await.unwrap();
                }
            });
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(LAYER.handle().statistics().snapshot().attempts.accepted, 9);
}

/// The runtime of a call that waits is shut down: its place goes to those behind it.
#[test]
fn a_runtime_that_ends_takes_nothing_with_it() {
    let layer = paced();
    layer.handle().cool_for(Duration::from_millis(200));
    let client = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
    let ending = Runtime::new().unwrap();
    for _ in 0..100 {
        ending.spawn(client.clone().oneshot(Request::new(())));
    }
    drop(ending);
    let start = Instant::now();
    Runtime::new().unwrap().block_on(client.oneshot(Request::new(()))).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let gate = layer.handle().snapshot();
    assert_eq!((gate.waiting, gate.in_flight), (0, 0));
}
