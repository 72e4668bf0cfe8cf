//! The end: what has begun is finished.

use crate::common::{PATIENCE, client, gateway, get, upstream};
use axum::{Router, body::Body, response::Response};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::Request;
use std::convert::Infallible;
use tokio::{net::TcpStream, sync::watch, task::JoinSet};

#[tokio::test]
async fn calls_that_wait_and_streams_that_run_come_to_their_end() {
    let (go, gone) = watch::channel(false);
    let app = Router::new().fallback(move || {
        let mut gone = gone.clone();
        async move {
            let rest = stream::once(async move {
                gone.wait_for(|gone| *gone).await.unwrap();
                Ok::<_, Infallible>("end")
            });
            Response::new(Body::from_stream(stream::iter([Ok("begin ")]).chain(rest)))
        }
    });
    // The third call waits for a second before it is sent.
    let gateway = gateway(upstream(app).await, "--quota 2/1s --admin 127.0.0.1:0").await;
    let (address, admin) = (gateway.address(), gateway.admin_address().unwrap());
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        calls.spawn(async move {
            let request = Request::post(format!("http://{address}/")).body(Body::from("hello")).unwrap();
            let answer = client().request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        });
    }
    crate::common::until("three are there", async || crate::common::snapshot(admin).await["open"] == 3).await;

    let stopping = tokio::spawn(gateway.stop());
    crate::common::until("no new connection is taken", async || TcpStream::connect(address).await.is_err())
        .await;
    assert_eq!(get(format!("http://{admin}/healthz")).await.status(), 503);
    go.send(true).unwrap();
    for body in tokio::time::timeout(PATIENCE, calls.join_all()).await.unwrap() {
        assert_eq!(body, "begin end");
    }
    tokio::time::timeout(PATIENCE, stopping).await.expect("it ends when they have").unwrap();
    assert!(TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn whoever_got_a_connection_gets_an_answer() {
    let gateway =
        gateway(upstream(Router::new().fallback(|| async { "ok" })).await, "--quota 1000000/s").await;
    let address = gateway.address();
    let mut senders = Vec::new();
    for _ in 0..50 {
        // On this side it is made; whether the gateway has taken it by then, nobody knows.
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        senders.push(sender);
    }
    let stopping = tokio::spawn(gateway.stop());
    let mut calls = JoinSet::new();
    for mut sender in senders {
        calls.spawn(async move {
            let request = Request::post("/").header("host", "gateway").body(Body::from("hello")).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        });
    }
    let answers = tokio::time::timeout(PATIENCE, calls.join_all()).await.unwrap();
    assert!(answers.iter().all(|answer| answer == "ok"), "{answers:?}");
    tokio::time::timeout(PATIENCE, stopping)
        .await
        .expect("connections without a call do not hold it up")
        .unwrap();
}
