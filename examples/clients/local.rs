//! A server on loopback, for the examples: it refuses some calls, as services with a quota do.

pub mod grpc;

use axum::{
    Router,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An HTTP server (1.1, and 2 without TLS) that serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    uri: String,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves this router on a port that is free.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start(router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let uri = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the server ended: {error}");
            }
        });
        Ok(Self { uri, task })
    }

    /// One that answers with the body of the request, but for the first `refusals` calls: those it refuses, after it
    /// has read them, and asks to wait for 200 ms.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn echo(refusals: usize) -> io::Result<Self> {
        let calls = Arc::new(AtomicUsize::new(0));
        let answer = move |body: Bytes| {
            let refused = calls.fetch_add(1, SeqCst) < refusals;
            async move { if refused { refusal() } else { body.into_response() } }
        };
        Self::start(Router::new().fallback(answer)).await
    }

    /// Where it is: `http://127.0.0.1:..`
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A 429 that asks to wait for 200 ms, in the way of OpenAI.
pub fn refusal() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "200")], "slow down").into_response()
}
