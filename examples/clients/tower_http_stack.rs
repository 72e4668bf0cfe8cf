//! tower-http around it: traces, timeouts, compression and decompression.
//!
//! ```sh
//! cargo run --example tower_http_stack
//! ```

use axum::{Router, body::Body, extract::Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use local::{Server, refusal};
use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    record::{Snapshot, Statistics},
    retry::RetryPolicy,
};
use tower_http::{
    compression::CompressionLayer, decompression::DecompressionLayer, timeout::TimeoutLayer,
    trace::TraceLayer,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).init();
    println!("{}", run().await?);
    Ok(())
}

pub(crate) async fn run() -> Result<Snapshot, BoxError> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    CALLS.store(0, SeqCst);
    // The server compresses its answers.
    let answer = |request: Request| async move {
        let is_compressed = request.headers().contains_key("accept-encoding");
        if CALLS.fetch_add(1, SeqCst) == 0 {
            return refusal();
        }
        let text =
            if is_compressed { "a long answer. ".repeat(100) } else { "nobody asked for gzip".to_owned() };
        axum::response::Response::new(Body::from(text))
    };
    let router = Router::new().fallback(answer).layer(CompressionLayer::new());
    let server = Server::start(router).await?;

    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        // Outside of the retry: once per call. The bodies are read outside of the gate.
        .layer(TraceLayer::new_for_http())
        .layer(DecompressionLayer::new())
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
        // Inside of the gate: for each attempt, without the time that it waits. It answers with a status, so that the
        // error stays that of the client.
        .layer(TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5)))
        .map_response(|response: http::Response<_>| response.map(Body::new)) // one that can be empty, for the timeout
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let request = Request::get(server.uri()).body(Full::default())?;
    let response = client.oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    assert_eq!(body, "a long answer. ".repeat(100));
    Ok(statistics.snapshot())
}
