//! Around axum's handlers: the gate guards what they call.
//!
//! A handler that has called an upstream answers with the upstream's 429; the gate closes, and the next requests wait
//! or are told to come back, before they cost anything.
//!
//! ```sh
//! cargo run --example axum_inbound
//! ```

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use local::{Server, refusal};
use reqwest::StatusCode;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tower::BoxError;
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle,
    cooldown::TooManyRequests,
    policy::{Known, Quota},
};

/// What the handlers share. Axum clones it for each request; the handle is a view of the one gate.
#[derive(Clone)]
struct App {
    asked: Arc<AtomicUsize>,
    gate: Handle,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let seen = run().await?;
    println!("on a route: {:?}\nthe gate, as a handler sees it: {}", seen.on_a_route, seen.gate);
    println!("on a router: {:?}", seen.on_a_router);
    println!("the upstream was asked {} times", seen.asked);
    Ok(())
}

/// The statuses in the order of the calls.
pub(crate) struct Seen {
    pub(crate) on_a_route: Vec<u16>,
    pub(crate) gate: String,
    pub(crate) on_a_router: Vec<u16>,
    pub(crate) asked: usize,
}

pub(crate) async fn run() -> Result<Seen, BoxError> {
    // Anything up to 100 a second; what is refused closes the gate. Who would wait is told to come back.
    let policy = Known::new(Quota::new(100, Duration::from_secs(1))?);
    let guard =
        AdaptiveCooldownLayer::with_policy(policy).max_wait(Duration::ZERO).reject_with(TooManyRequests);
    let app = App { asked: Arc::default(), gate: guard.handle() };

    // On one route: the other goes past the gate.
    let router = Router::new()
        .route("/ask", get(ask).layer(guard.clone()))
        .route("/gate", get(gate))
        .with_state(app.clone());
    let server = Server::start(router).await?;
    let mut on_a_route = Vec::new();
    for _ in 0..3 {
        on_a_route.push(status(&server, "/ask").await?);
    }
    let gate = reqwest::get(format!("{}/gate", server.uri())).await?.text().await?;

    // On a router: all of its routes share the gate, here the same one as above. It opens after 200 ms.
    let router = Router::new()
        .route("/ask", get(ask))
        .route("/ask/again", get(ask))
        .layer(guard)
        .with_state(app.clone());
    let server = Server::start(router).await?;
    let mut on_a_router = vec![status(&server, "/ask/again").await?];
    tokio::time::sleep(Duration::from_millis(300)).await;
    for path in ["/ask", "/ask/again"] {
        on_a_router.push(status(&server, path).await?);
    }
    Ok(Seen { on_a_route, gate, on_a_router, asked: app.asked.load(SeqCst) })
}

/// Calls an upstream that refuses the first call, and passes its answer on.
async fn ask(State(app): State<App>) -> Response {
    if app.asked.fetch_add(1, SeqCst) == 0 { refusal() } else { "answer".into_response() }
}

/// For the readiness of the whole, or a page for operators.
async fn gate(State(app): State<App>) -> Response {
    let closed = app.gate.snapshot().closed_for.is_some();
    let status = if closed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, if closed { "closed" } else { "open" }).into_response()
}

async fn status(server: &Server, path: &str) -> Result<u16, BoxError> {
    Ok(reqwest::get(format!("{}{path}", server.uri())).await?.status().as_u16())
}
