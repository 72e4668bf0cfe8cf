//! Around a tonic server whose handlers depend on an upstream: once that has refused a call, further calls are told to
//! come back before they cost anything.
//!
//! ```sh
//! cargo run --example tonic_server
//! ```

use local::grpc::{Server, Tagger, TaggerClient, Text};
use std::time::{Duration, Instant};
use tonic::{Code, Request, transport::Endpoint};
use tower::BoxError;
use tower_cooldown::{
    AdaptiveCooldownLayer,
    cooldown::{GrpcStatus, GrpcTimeout},
    policy::{Known, Quota},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let seen = run().await?;
    println!("statuses: {:?}\nthe handler was called {} times", seen.codes, seen.handled);
    Ok(())
}

pub(crate) struct Seen {
    pub(crate) codes: Vec<Code>,
    pub(crate) handled: usize,
}

pub(crate) async fn run() -> Result<Seen, BoxError> {
    let policy = Known::new(Quota::new(100, Duration::from_secs(1))?);
    let guard = AdaptiveCooldownLayer::with_policy(policy)
        .max_wait(Duration::from_secs(1))
        .deadline(GrpcTimeout)
        .reject_with(GrpcStatus);
    let (tagger, gate) = (Tagger::new(1), guard.handle());
    let server = Server::start(tagger.clone(), guard).await?;
    let mut client = TaggerClient::new(Endpoint::from_shared(server.uri().to_owned())?.connect().await?);

    // Refused by the handler. From here on the gate is closed, for as long as its `RetryInfo` says.
    let mut codes = vec![code(&mut client, None).await];
    // A caller that has no time is told so at once.
    let start = Instant::now();
    codes.push(code(&mut client, Some(Duration::from_millis(50))).await);
    assert!(start.elapsed() < Tagger::DELAY);
    // One that has the time waits, and is served.
    codes.push(code(&mut client, None).await);
    // Closed for longer than anybody waits.
    gate.cool_for(Duration::from_secs(60));
    codes.push(code(&mut client, None).await);
    Ok(Seen { codes, handled: tagger.calls() })
}

async fn code(client: &mut TaggerClient<tonic::transport::Channel>, timeout: Option<Duration>) -> Code {
    let mut request = Request::new(Text::new("hello"));
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    client.tag(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}
