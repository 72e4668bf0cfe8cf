//! A client inside an axum handler: one gate for all requests that the server handles.
//!
//! ```sh
//! cargo run --example axum_outbound
//! ```

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use futures::future::try_join_all;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use local::Server;
use std::time::Duration;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    cooldown::TooManyRequests,
    record::{Snapshot, Statistics},
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayLayer},
    },
};

/// The stack has a long type. In a state it is best erased; the gate is shared all the same.
type Upstream = BoxCloneSyncService<Request, Response, BoxError>;

#[derive(Clone)]
struct App {
    upstream: Upstream,
    upstream_uri: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("{}", run().await?);
    Ok(())
}

pub(crate) async fn run() -> Result<Snapshot, BoxError> {
    let upstream = Server::echo(1).await?;
    let statistics = Statistics::new();
    let hyper: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let stack = ServiceBuilder::new()
        .layer(ReplayLayer::new(16 * 1024))
        .retry(RetryPolicy::new().copy_with(ByReplay))
        .layer(
            AdaptiveCooldownLayer::new()
                .statistics(&statistics)
                .max_wait(Duration::from_secs(5))
                .reject_with(TooManyRequests),
        )
        .map_request(|request: http::Request<_>| request.map(Body::new))
        .map_response(|response: http::Response<_>| response.map(Body::new))
        .map_err(BoxError::from)
        .service(hyper);
    let app = App { upstream: Upstream::new(stack), upstream_uri: upstream.uri().to_owned() };
    let server = Server::start(Router::new().route("/ask", post(ask)).with_state(app)).await?;

    let client = reqwest::Client::new();
    let calls = (0..5).map(|number| {
        let call = client.post(format!("{}/ask", server.uri())).body(format!("question {number}")).send();
        async { Ok::<_, BoxError>(call.await?.error_for_status()?.text().await?) }
    });
    let answers = try_join_all(calls).await?;
    assert_eq!(answers, [0, 1, 2, 3, 4].map(|number| format!("question {number}")));
    Ok(statistics.snapshot())
}

async fn ask(State(app): State<App>, request: Request) -> Response {
    let outbound = Request::post(&app.upstream_uri).body(request.into_body());
    let answer = async { app.upstream.oneshot(outbound?).await };
    answer.await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}
