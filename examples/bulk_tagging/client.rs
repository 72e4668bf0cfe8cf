//! The innermost services: HTTP clients, alike for all three runs.

use crate::pages::translate;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
pub(crate) use tower::BoxError;
use tower::{Service, ServiceExt, service_fn};

pub(crate) type Request = http::Request<Full<Bytes>>;
pub(crate) type Response = http::Response<Bytes>;

/// What all runs are made of: each of the three ways to ask is one of these, and so is each server's client.
pub(crate) trait Client: Service<Request, Response = Response, Error = BoxError> + Clone {}
impl<S: Service<Request, Response = Response, Error = BoxError> + Clone> Client for S {}

/// Service time: the mean over the exchanges with the primary that it accepted, from sending the request to the
/// end of the answer's body. No waiting, no retries, no refusals in it, in any of the runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceTime(Arc<Sum>);

#[derive(Debug, Default)]
struct Sum {
    micros: AtomicU64,
    count: AtomicU64,
}

impl ServiceTime {
    fn add(&self, time: Duration) {
        self.0.micros.fetch_add(time.as_micros() as u64, Relaxed);
        self.0.count.fetch_add(1, Relaxed);
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros(self.0.micros.load(Relaxed) / self.0.count.load(Relaxed).max(1))
    }
}

/// hyper's client, with the body read to its end: answers are small, and one that breaks off in the middle is an
/// error that the layers above can see and retry.
pub(crate) fn http_client(time_limit: Duration, service_time: ServiceTime) -> impl Client {
    let mut connector = HttpConnector::new();
    // Without this a body may wait 40 ms for the acknowledgement of its head.
    connector.set_nodelay(true);
    let client: HyperClient<_, Full<Bytes>> = HyperClient::builder(TokioExecutor::new()).build(connector);
    service_fn(move |request: Request| {
        let (client, service_time) = (client.clone(), service_time.clone());
        async move {
            let sent = Instant::now();
            let exchange = async {
                let (head, body) = client.request(request).await?.into_parts();
                Ok::<_, BoxError>(Response::from_parts(head, body.collect().await?.to_bytes()))
            };
            let response = timeout(time_limit, exchange).await??;
            if response.status().is_success() {
                service_time.add(sent.elapsed());
            }
            Ok(response)
        }
    })
}

/// The fallback: takes what the primary takes, and asks the chat-completions server at `base`.
pub(crate) fn fallback_client(base: String, client: impl Client) -> impl Client {
    service_fn(move |request: Request| {
        let (base, client) = (base.clone(), client.clone());
        async move { client.oneshot(translate(request, &base).await?).await }
    })
}
