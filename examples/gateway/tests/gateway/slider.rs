//! Who moves the rollout, over real sockets. The rules one by one are tested where they are written.

use crate::common::{Answer, gateway, send, settings_with, snapshot, upstream};
use axum::{Router, body::Body};
use hyper::Request;
use std::net::SocketAddr;
use tower_cooldown_gateway_example::{Gateway, settings::TOKEN};

async fn put(gateway: SocketAddr, fields: &[(&str, &str)], body: &'static str) -> Answer {
    let mut request = Request::put(format!("http://{gateway}/-/rollout"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    send(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn this_machine_moves_it_and_the_calls_follow() {
    let gateway = gateway(upstream(Router::new()).await, "").await;
    let address = gateway.address();
    let answer = put(address, &[], r#"{"percent": 0}"#).await;
    assert_eq!((answer.status().as_u16(), answer.text()), (200, r#"{"percent":0}"#));
    crate::common::get(format!("http://{address}/call")).await;
    let report = snapshot(address).await;
    assert_eq!(report["rollout"]["percent"], 0);
    assert_eq!(report["upstreams"][0]["statistics"]["control"]["refused"], 1, "404, outside the rollout");
    assert_eq!(report["upstreams"][0]["statistics"]["attempts"]["refused"], 0);
}

#[tokio::test]
async fn nonsense_moves_nothing() {
    let gateway = gateway(upstream(Router::new()).await, "--rollout 30").await;
    let long = Box::leak(format!(r#"{{"percent": {}1}}"#, " ".repeat(2000)).into_boxed_str());
    for body in
        ["", "50", r#"{"percent": 101}"#, r#"{"percent": -1}"#, r#"{"percent": 1, "x": 1}"#, "{", long]
    {
        let status = put(gateway.address(), &[], body).await.status();
        assert!(status == 400 || status == 413, "{status} for {body:?}");
    }
    assert_eq!(snapshot(gateway.address()).await["rollout"]["percent"], 30);
}

#[tokio::test]
async fn a_foreign_host_does_not() {
    let gateway = gateway(upstream(Router::new()).await, "--rollout 30").await;
    let origin = format!("http://{}", gateway.address());
    let cases: [&[(&str, &str)]; 5] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        // The name of the attacker's page, which leads to this machine since a second ago.
        &[("host", "evil.example"), ("origin", "http://evil.example")],
        &[("host", "evil.example")],
        &[("origin", &origin), ("x-forwarded-for", "192.0.2.1")],
    ];
    for fields in cases {
        let answer = put(gateway.address(), fields, r#"{"percent": 100}"#).await;
        assert_eq!(answer.status(), 403, "{fields:?}");
        assert_eq!(answer.json()["error"]["type"], "gateway_rollout");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // A browser asks before it lets a page of another site PUT; nobody tells it that it may.
    let url = format!("http://{}/-/rollout", gateway.address());
    let request = Request::options(url).header("origin", "https://evil.example");
    let answer =
        send(request.header("access-control-request-method", "PUT").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), answer.header("access-control-allow-origin")), (405, None));
    assert_eq!(snapshot(gateway.address()).await["rollout"]["percent"], 30);
    assert_eq!(put(gateway.address(), &[("origin", &origin)], r#"{"percent": 40}"#).await.status(), 200);
}

#[tokio::test]
async fn the_token_does_and_a_wrong_one_does_not() {
    let words = format!("--upstream http://{} --rollout 30", upstream(Router::new()).await);
    let settings = settings_with(&words, |name| (name == TOKEN).then(|| "secret".to_owned()));
    assert!(!format!("{settings:?}").contains("secret"));
    let gateway = Gateway::start(settings).await.unwrap();
    let host = ("host", "gateway.example");
    for (field, status) in
        [("Bearer secre", 403), ("Bearer secretx", 403), ("secret", 403), ("Bearer secret", 200)]
    {
        let answer = put(gateway.address(), &[host, ("authorization", field)], r#"{"percent": 70}"#).await;
        assert_eq!(answer.status(), status, "{field}");
    }
    assert_eq!(snapshot(gateway.address()).await["rollout"]["percent"], 70);
}
