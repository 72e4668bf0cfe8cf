//! A tonic client: RESOURCE_EXHAUSTED with `RetryInfo` is a throttle, for unary and for streaming calls, and a call
//! whose deadline is too soon fails at once.
//!
//! ```sh
//! cargo run --example tonic_client
//! ```

use futures::TryStreamExt;
use local::grpc::{Server, Tagger, TaggerClient, Text};
use std::time::{Duration, Instant};
use tonic::{Code, Request, body::Body, client::GrpcService, transport::Endpoint};
use tower::{BoxError, ServiceBuilder, layer::util::Identity, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    cooldown::{GrpcStatus, GrpcTimeout},
    record::{Snapshot, Statistics},
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayBody, ReplayLayer},
    },
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("{}", run().await?);
    Ok(())
}

pub(crate) async fn run() -> Result<Snapshot, BoxError> {
    let server = Server::start(Tagger::new(1), Identity::new()).await?;
    let statistics = Statistics::new();
    let cooldown =
        AdaptiveCooldownLayer::new().statistics(&statistics).deadline(GrpcTimeout).reject_with(GrpcStatus);
    let gate = cooldown.handle();
    let stack = ServiceBuilder::new()
        .layer(ReplayLayer::new(64 * 1024)) // tonic's bodies are streams
        .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
        .layer(cooldown)
        .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        .service(Endpoint::from_shared(server.uri().to_owned())?.connect_lazy());
    let mut client = TaggerClient::new(stack);

    // The first call is refused, and asked to wait.
    let start = Instant::now();
    let word = client.tag(Text::new("unary calls")).await?.into_inner().word;
    assert_eq!(word, "unary");
    assert!(start.elapsed() >= Tagger::DELAY);
    assert_eq!(all(&mut client, "and streaming calls").await?, ["and", "streaming", "calls"]);

    // The gate is closed for longer than this call has.
    gate.cool_for(Duration::from_secs(60));
    let mut request = Request::new(Text::new("no time"));
    request.set_timeout(Duration::from_secs(5));
    let start = Instant::now();
    let status = client.tag(request).await.expect_err("a deadline that is too soon");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(1), "at once");
    println!("{status}");
    Ok(statistics.snapshot())
}

async fn all<T>(client: &mut TaggerClient<T>, text: &str) -> Result<Vec<String>, tonic::Status>
where
    T: GrpcService<Body, ResponseBody = Body>,
    T::Error: Into<BoxError>,
{
    client.tag_all(Text::new(text)).await?.into_inner().map_ok(|word| word.word).try_collect().await
}
