//! What the program shows where it is told of no upstream: one of its own, with a quota that nobody told the gateway, and
//! callers that want more than that.

use crate::{serve::serve, settings::Route};
use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{StatusCode, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};
use tower::{BoxError, ServiceExt, service_fn};
use tower_cooldown::testing::{HintStyle, Limit, Upstream};

/// Calls a second that the upstream allows.
const QUOTA: u64 = 20;
const CALLERS: usize = 16;
/// For a caller whose call failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What runs while this is there.
#[derive(Debug)]
pub struct Demo {
    tasks: JoinSet<()>,
    /// The upstream serves as long as this is here.
    _open: watch::Sender<bool>,
    upstream: SocketAddr,
}

impl Demo {
    /// Starts the upstream, on a free port of loopback.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start() -> Result<Self, BoxError> {
        let latency = Duration::from_millis(120);
        let upstream = Upstream::new([Limit::token_bucket(QUOTA, Duration::from_secs(1), QUOTA)?])
            .hints(HintStyle::RetryAfter)
            .latency(latency, latency / 2)?;
        let app = Router::new().fallback_service(service_fn(move |request: Request| {
            let upstream = upstream.clone();
            async move {
                let answer = upstream.oneshot(request).await.map(|answer| answer.map(Body::from));
                Ok::<_, Infallible>(answer.unwrap_or_else(|error| {
                    let mut answer = Response::new(Body::from(error.to_string()));
                    *answer.status_mut() = StatusCode::BAD_GATEWAY;
                    answer
                }))
            }
        }));
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream = listener.local_addr()?;
        let (open, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, app, 1000, stopped));
        Ok(Self { tasks, _open: open, upstream })
    }

    /// Where the gateway is to send its calls.
    ///
    /// # Panics
    /// Never: an address is the authority of a URL.
    pub fn route(&self) -> Route {
        let to = format!("http://{}", self.upstream).parse().expect("an address makes a URL");
        Route { path: String::new(), to }
    }

    /// What this is, in a line.
    pub fn words(&self) -> String {
        format!(
            "a demonstration, because there is no --upstream: {CALLERS} callers, and an upstream at {} that allows {QUOTA} \
             calls a second; --help lists the flags",
            self.upstream
        )
    }

    /// Calls the gateway from now on.
    pub fn call(&mut self, gateway: SocketAddr) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        for caller in 0..CALLERS {
            let client = client.clone();
            self.tasks.spawn(async move {
                let url: Uri = format!("http://{gateway}/items/{caller}").parse().expect("a URL");
                loop {
                    match client.get(url.clone()).await {
                        Ok(answer) if answer.status().is_success() => {
                            drop(answer.into_body().collect().await)
                        }
                        _ => sleep(PAUSE).await,
                    }
                }
            });
        }
    }
}
