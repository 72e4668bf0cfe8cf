//! Request bodies that are streams, over real connections.

use axum::{Router, body::Body, extract::Request as Inbound, response::IntoResponse};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use local::{Server, refusal};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayLayer},
    },
};

const PIECE: usize = 16 * 1024;
const PIECES: usize = 32;

/// Half a megabyte that comes slowly, each piece of other letters.
fn slow_stream() -> Body {
    let pieces = (0..PIECES).map(|piece| Bytes::from(vec![b'a' + piece as u8 % 26; PIECE]));
    Body::from_stream(stream::iter(pieces).then(|piece| async {
        sleep(Duration::from_millis(2)).await;
        Ok::<_, Infallible>(piece)
    }))
}

fn is_whole(body: &[u8]) -> bool {
    let mut pieces = body.chunks(PIECE).enumerate();
    body.len() == PIECE * PIECES
        && pieces.all(|(index, piece)| piece.iter().all(|letter| *letter == b'a' + index as u8 % 26))
}

/// Sends the stream through a stack that keeps `cap` bytes of it.
async fn send(server: &Server, http2: bool, cap: usize) -> (u16, Bytes) {
    let hyper = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<_>();
    let client = ServiceBuilder::new()
        .layer(ReplayLayer::new(cap))
        .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
        .layer(AdaptiveCooldownLayer::new())
        .service(hyper);
    let response = client.oneshot(Request::post(server.uri()).body(slow_stream()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

/// The server reads all of it and then refuses the first call.
#[tokio::test]
async fn a_stream_is_sent_again_whole_or_not_at_all() {
    for http2 in [false, true] {
        for (cap, status, received) in [(PIECE * PIECES, 200, 2), (PIECE * PIECES - 1, 429, 1)] {
            let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
            let seen = Arc::clone(&bodies);
            let router = Router::new().layer(axum::extract::DefaultBodyLimit::disable()).fallback(
                async move |body: Bytes| {
                    let mut bodies = seen.lock().unwrap();
                    bodies.push(body.clone());
                    if bodies.len() == 1 { refusal() } else { body.into_response() }
                },
            );
            let server = Server::start(router).await.unwrap();
            assert_eq!(send(&server, http2, cap).await.0, status, "HTTP/2: {http2}");
            let bodies = bodies.lock().unwrap();
            assert_eq!(bodies.len(), received);
            assert!(bodies.iter().all(|body| is_whole(body)), "HTTP/2: {http2}");
        }
    }
}

/// The server refuses the first call when it has seen its head, while the client still sends.
#[tokio::test]
async fn an_answer_before_the_end_of_the_request() {
    for http2 in [false, true] {
        let calls = Arc::<AtomicUsize>::default();
        let router = Router::new().fallback(move |request: Inbound| {
            let first = calls.fetch_add(1, SeqCst) == 0;
            async move {
                if first {
                    return refusal();
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                body.into_response()
            }
        });
        let server = Server::start(router).await.unwrap();
        let (status, body) = send(&server, http2, PIECE * PIECES).await;
        assert_eq!(status, 200, "HTTP/2: {http2}");
        assert!(is_whole(&body), "HTTP/2: {http2}");
    }
}
