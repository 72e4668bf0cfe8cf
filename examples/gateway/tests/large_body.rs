//! 100 MB up and down through the gateway, in memory that stays flat. Alone in its process, whose memory it measures.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request},
    routing::{get, post},
};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::convert::Infallible;
use tower_cooldown_gateway_example::{
    Gateway,
    settings::{Command, Settings},
};

const CHUNK: usize = 50_000;
const LENGTH: usize = 100_000_000;
/// Upstream, gateway and client together.
const MOST: usize = 32_000_000;

fn large() -> Body {
    Body::from_stream(
        stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![7; CHUNK]))).take(LENGTH / CHUNK),
    )
}

async fn measure(body: Body) -> usize {
    let mut chunks = body.into_data_stream();
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        length += chunk.unwrap().len();
    }
    length
}

/// The most memory that this process ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_hundred_megabytes_pass_in_flat_memory() {
    let app = Router::new()
        .route("/up", post(async |request: Request| measure(request.into_body()).await.to_string()))
        .route("/down", get(async || large()))
        .layer(DefaultBodyLimit::disable());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let words = format!("--listen 127.0.0.1:0 --upstream http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let settings: Settings = match Command::parse(words.split(' ').map(str::to_owned), |_| None) {
        Ok(Command::Serve(settings)) => settings,
        other => panic!("{other:?}"),
    };
    let gateway = Gateway::start(settings).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let url = |path: &str| format!("http://{}{path}", gateway.address());

    let before = peak();
    // With a length and without one.
    for length in [Some(LENGTH), None] {
        let mut request = Request::post(url("/up"));
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let answer = client.request(request.body(large()).unwrap()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), LENGTH.to_string());
    }
    let answer = client.request(Request::get(url("/down")).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(measure(Body::new(answer.into_body())).await, LENGTH);
    let grown = peak() - before;
    println!("100 MB up, twice, and down: {:.1} MB more memory", grown as f64 / 1e6);
    assert!(grown < MOST, "{grown} bytes");
}
