//! The server closes its HTTP/2 connection while calls wait.

use axum::{Router, body::Bytes as Body, response::IntoResponse};
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use local::{
    grpc::{Tagger, TaggerClient, Text},
    refusal,
};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tonic::transport::Endpoint;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle,
    policy::{Known, Quota},
    record::Statistics,
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayBody, ReplayLayer},
    },
};

/// A server whose first connection is cut off when the gate has closed.
struct Cutting {
    uri: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S, B>(service: S, gate: Handle) -> Cutting
where
    S: Service<Request<hyper::body::Incoming>, Response = http::Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A connection that is cut off ends with an error; the client's side of it is what is tested.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
            if counted.fetch_add(1, SeqCst) == 0 {
                let gate = gate.clone();
                tokio::spawn(async move {
                    closed(&gate).await;
                    // The others come, and wait.
                    sleep(Duration::from_millis(50)).await;
                    connection.abort();
                });
            }
        }
    });
    Cutting { uri, connections, task }
}

/// Once it has closed, it stays so for longer than this test needs to look.
async fn closed(gate: &Handle) {
    while gate.snapshot().epoch == 0 {
        sleep(Duration::from_millis(5)).await;
    }
}

fn layer(statistics: &Statistics) -> AdaptiveCooldownLayer {
    let quota = Quota::new(1000, Duration::from_secs(1)).unwrap();
    AdaptiveCooldownLayer::with_policy(Known::new(quota)).statistics(statistics)
}

#[tokio::test]
async fn hyper_makes_a_new_one_and_nobody_fails() {
    let statistics = Statistics::new();
    let cooldown = layer(&statistics);
    let gate = cooldown.handle();
    let calls = Arc::<AtomicUsize>::default();
    let router = Router::new().fallback(move |body: Body| {
        let first = calls.fetch_add(1, SeqCst) == 0;
        async move { if first { refusal() } else { body.into_response() } }
    });
    let server = serve(router.into_service(), cooldown.handle()).await;
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(cooldown)
        .service(Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>());

    let call = |number: usize| {
        let (client, uri) = (client.clone(), server.uri.clone());
        async move {
            let body = Full::new(Bytes::from(number.to_string()));
            let response = client.oneshot(Request::post(uri).body(body).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        }
    };
    // The first is refused and waits for its second attempt; the others come meanwhile.
    let later = async {
        closed(&gate).await;
        join_all((1..8).map(call)).await
    };
    let (first, later) = tokio::join!(call(0), later);
    assert_eq!(first, "0");
    assert_eq!(later, (1..8).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(server.connections.load(SeqCst), 2);
    assert_eq!((statistics.snapshot().attempts.accepted, statistics.snapshot().attempts.failed), (8, 0));
}

#[tokio::test]
async fn so_does_a_tonic_channel() {
    let statistics = Statistics::new();
    let cooldown = layer(&statistics);
    let gate = cooldown.handle();
    let tagger = Tagger::new(1);
    let server = serve(tagger, cooldown.handle()).await;
    let stack = ServiceBuilder::new()
        .layer(ReplayLayer::new(1024))
        .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
        .layer(cooldown)
        .map_request(|request: Request<ReplayBody<tonic::body::Body>>| request.map(tonic::body::Body::new))
        .service(Endpoint::from_shared(server.uri.clone()).unwrap().connect_lazy());
    let call = || {
        let mut client = TaggerClient::new(stack.clone());
        async move { client.tag(Text::new("word")).await.unwrap().into_inner().word }
    };
    let later = async {
        closed(&gate).await;
        join_all((1..8).map(|_| call())).await
    };
    let (first, later) = tokio::join!(call(), later);
    assert_eq!(first, "word");
    assert_eq!(later, ["word"; 7]);
    assert_eq!(server.connections.load(SeqCst), 2);
    assert_eq!((statistics.snapshot().attempts.accepted, statistics.snapshot().attempts.failed), (8, 0));
}
