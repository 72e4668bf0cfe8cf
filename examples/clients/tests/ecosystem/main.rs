//! Each example runs, and does what it says; and what goes wrong with real clients and servers.

#![allow(dead_code, reason = "each example has a `main`")]

#[path = "../../axum_inbound.rs"]
mod axum_inbound;
#[path = "../../axum_outbound.rs"]
mod axum_outbound;
mod bodies;
mod connections;
#[path = "../../hyper_client.rs"]
mod hyper_client;
mod layers;
#[path = "../../openai_client.rs"]
mod openai_client;
#[path = "../../reqwest_client.rs"]
mod reqwest_client;
mod runtimes;
#[path = "../../service_builder.rs"]
mod service_builder;
#[path = "../../tonic_client.rs"]
mod tonic_client;
#[path = "../../tonic_server.rs"]
mod tonic_server;
#[path = "../../tower_http_stack.rs"]
mod tower_http_stack;

use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;
use tower_cooldown::record::Snapshot;

/// What an example came to, in the time that it has.
macro_rules! within_30_s {
    ($run:expr) => {
        timeout(Duration::from_secs(30), $run).await.expect("it ends by itself").unwrap()
    };
}

/// What was sent, and how much of it was refused.
fn sent(snapshot: &Snapshot) -> (u64, u64) {
    let attempts = &snapshot.attempts;
    assert_eq!((attempts.failed, attempts.cancelled), (0, 0), "{snapshot}");
    (attempts.accepted, attempts.throttled)
}

#[tokio::test]
async fn hyper_client() {
    for http2 in [false, true] {
        let snapshot = within_30_s!(hyper_client::run(http2));
        let (accepted, throttled) = sent(&snapshot);
        assert_eq!((accepted, throttled), (10, 2), "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn reqwest_client() {
    assert_eq!(sent(&within_30_s!(reqwest_client::run())), (3, 1));
    assert_eq!(sent(&within_30_s!(reqwest_client::run_with_streams())), (1, 1));
}

#[tokio::test]
async fn tonic_client() {
    let snapshot = within_30_s!(tonic_client::run());
    assert_eq!(sent(&snapshot), (2, 1));
    assert_eq!(snapshot.attempts.rejected, 1);
}

#[tokio::test]
async fn tonic_server() {
    let seen = within_30_s!(tonic_server::run());
    let codes = [Code::ResourceExhausted, Code::DeadlineExceeded, Code::Ok, Code::ResourceExhausted];
    assert_eq!(seen.codes, codes);
    assert_eq!(seen.handled, 2);
}

#[tokio::test]
async fn axum_inbound() {
    let seen = within_30_s!(axum_inbound::run());
    assert_eq!(seen.on_a_route, [429, 429, 429]);
    assert_eq!(seen.gate, "closed");
    assert_eq!(seen.on_a_router, [429, 200, 200]);
    assert_eq!(seen.asked, 3);
}

#[tokio::test]
async fn axum_outbound() {
    assert_eq!(sent(&within_30_s!(axum_outbound::run())), (5, 1));
}

#[tokio::test]
async fn tower_http_stack() {
    assert_eq!(sent(&within_30_s!(tower_http_stack::run())), (1, 1));
}

#[tokio::test]
async fn openai_client() {
    assert_eq!(sent(&within_30_s!(openai_client::run())), (1, 1));
}

#[tokio::test]
async fn service_builder() {
    let answers = within_30_s!(service_builder::run());
    assert_eq!(answers, ["first: even", "second: odd", "first: even"]);
}
