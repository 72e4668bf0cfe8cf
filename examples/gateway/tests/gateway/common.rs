//! Upstreams, a client, and waiting.

use axum::{
    Router,
    body::{Body, Bytes},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use tower_cooldown_gateway_example::{
    Gateway,
    settings::{Command, Settings},
};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn settings(words: &str) -> Settings {
    settings_with(words, |_| None)
}

pub(crate) fn settings_with(words: &str, variable: impl Fn(&str) -> Option<String>) -> Settings {
    let words = format!("--listen 127.0.0.1:0 {words}");
    match Command::parse(words.split_whitespace().map(str::to_owned), variable) {
        Ok(Command::Serve(settings)) => settings,
        other => panic!("{words}: {other:?}"),
    }
}

/// A gateway in front of that upstream, with more flags.
pub(crate) async fn gateway(upstream: SocketAddr, flags: &str) -> Gateway {
    Gateway::start(settings(&format!("--upstream http://{upstream} {flags}"))).await.unwrap()
}

/// Serves on a port of its own until the test ends.
pub(crate) async fn upstream(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// A port on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|field| field.to_str().unwrap())
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(request: Request<Body>) -> Answer {
    let answer = async {
        let (head, body) = client().request(request).await.unwrap().into_parts();
        Answer { head: Response::from_parts(head, ()), body: body.collect().await.unwrap().to_bytes() }
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("no answer")
}

pub(crate) async fn get(url: String) -> Answer {
    send(Request::get(url).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(url: String, credential: &str, body: &'static str) -> Answer {
    let request = Request::post(url).header("authorization", credential).body(Body::new(Full::from(body)));
    send(request.unwrap()).await
}

pub(crate) async fn snapshot(gateway: SocketAddr) -> Value {
    get(format!("http://{gateway}/snapshot")).await.json()
}

/// Asks again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}
