//! hyper-util's client, over HTTP/1 and over HTTP/2.
//!
//! ```sh
//! cargo run --example hyper_client
//! ```

use bytes::Bytes;
use futures::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use local::Server;
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    record::{Snapshot, Statistics},
    retry::RetryPolicy,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for http2 in [false, true] {
        println!("HTTP/{}\n{}", if http2 { 2 } else { 1 }, run(http2).await?);
    }
    Ok(())
}

/// Ten calls at once, of which the server refuses two.
pub(crate) async fn run(http2: bool) -> Result<Snapshot, BoxError> {
    let server = Server::echo(2).await?;
    let hyper = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Full<Bytes>>();

    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
        .service(hyper);

    let calls = (0..10).map(|number| {
        let (client, uri) = (client.clone(), server.uri());
        async move {
            let body = Full::new(Bytes::from(format!("call {number}")));
            let response = client.oneshot(Request::post(uri).body(body)?).await?;
            assert_eq!(response.status(), 200);
            Ok::<_, BoxError>(response.into_body().collect().await?.to_bytes())
        }
    });
    for (number, body) in try_join_all(calls).await?.iter().enumerate() {
        assert_eq!(body, format!("call {number}").as_bytes());
    }
    Ok(statistics.snapshot())
}
