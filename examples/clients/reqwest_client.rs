//! reqwest, which is a tower service itself, with its own types of request and response (feature `reqwest`).
//!
//! ```sh
//! cargo run --example reqwest_client
//! ```

use futures::stream;
use http::Request;
use local::Server;
use reqwest::{Body, Client};
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    record::{Snapshot, Statistics},
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayBody, ReplayLayer},
    },
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("bodies that are in memory\n{}", run().await?);
    println!("bodies that are streams\n{}", run_with_streams().await?);
    Ok(())
}

/// Requests whose body is in memory: reqwest copies them itself.
pub(crate) async fn run() -> Result<Snapshot, BoxError> {
    let server = Server::echo(1).await?;
    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(
            RetryPolicy::new().copy_with(|request: &reqwest::Request| request.try_clone()),
        ))
        .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
        .service(Client::new());

    // Requests are built as ever, by a `Client` of reqwest's.
    let builder = Client::new();
    for number in 0..3 {
        let request = builder.post(server.uri()).body(format!("call {number}")).build()?;
        let response: reqwest::Response = client.clone().oneshot(request).await?;
        assert_eq!(response.error_for_status()?.text().await?, format!("call {number}"));
    }
    Ok(statistics.snapshot())
}

/// Streams: what was sent is kept, up to 64 KiB a call, until it is known that it need not be sent again.
pub(crate) async fn run_with_streams() -> Result<Snapshot, BoxError> {
    let server = Server::echo(1).await?;
    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        .layer(ReplayLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
        .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
        .map_request(|request: Request<ReplayBody<Body>>| {
            reqwest::Request::try_from(request.map(Body::wrap)).expect("the address is one of HTTP")
        })
        .service(Client::new());

    let body = Body::wrap_stream(stream::iter(["in ", "three ", "pieces"].map(Ok::<_, std::io::Error>)));
    let response = client.oneshot(Request::post(server.uri()).body(body)?).await?;
    assert_eq!(response.error_for_status()?.text().await?, "in three pieces");
    Ok(statistics.snapshot())
}
