//! What may be wrong around the gateway.

use crate::common::{client, gateway, nobody, post, settings, snapshot, upstream};
use axum::{Router, body::Body};
use http_body_util::BodyExt;
use hyper::Request;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower_cooldown_gateway_example::Gateway;

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let gateway = gateway(nobody().await, "").await;
    let answer = post(format!("http://{}/", gateway.address()), "", "").await;
    assert_eq!(answer.status(), 502);
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "gateway_unreachable");
    assert!(error["message"].as_str().unwrap().contains("refused"), "{error}");
    let report = snapshot(gateway.address()).await;
    assert_eq!(report["upstreams"][0]["statistics"]["attempts"]["failed"], 1);
    assert_eq!(report["open"], 0);
}

#[tokio::test]
async fn a_name_that_leads_nowhere_and_a_fallback_that_is_gone() {
    let flags = format!("--upstream http://nowhere.invalid --fallback http://{}", nobody().await);
    let gateway = Gateway::start(settings(&flags)).await.unwrap();
    let answer = post(format!("http://{}/", gateway.address()), "", "").await;
    assert_eq!(answer.status(), 502);
    let error = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        error.contains("dns") && error.contains("the fallback: ") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn an_upstream_that_says_nothing() {
    let app = Router::new().fallback(|| async { tokio::time::sleep(Duration::from_secs(60)).await });
    let gateway = gateway(upstream(app).await, "--timeout 200ms").await;
    let answer = post(format!("http://{}/", gateway.address()), "", "").await;
    assert_eq!(
        (answer.status().as_u16(), answer.json()["error"]["type"].as_str()),
        (504, Some("gateway_timeout"))
    );
}

#[tokio::test]
async fn an_upstream_that_breaks_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let length = socket.read(&mut [0; 4096]).await.unwrap();
        assert!(length > 0);
        let part = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
        socket.write_all(part.as_bytes()).await.unwrap();
    });
    let gateway = gateway(upstream, "").await;
    let request = Request::post(format!("http://{}/", gateway.address())).body(Body::empty()).unwrap();
    let mut body = client().request(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
    assert!(body.frame().await.unwrap().is_err(), "half an answer must not look like a whole one");
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        // Until the other side has had enough.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let gateway = gateway(upstream, "--timeout 5s").await;
    let answer = post(format!("http://{}/", gateway.address()), "", "hello").await;
    assert_eq!(
        (answer.status().as_u16(), answer.json()["error"]["type"].as_str()),
        (502, Some("gateway_unreachable"))
    );
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut both = settings("--upstream http://127.0.0.1:1");
    both.listen = address;
    let error = Gateway::start(both.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    both.listen = ([127, 0, 0, 1], 0).into();
    both.admin = Some(address);
    let error = Gateway::start(both).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
}
