//! Calls that come back: as they are, again, later, or from elsewhere.

use crate::common::{Answer, gateway, get, nobody, post, send, settings_with, snapshot, upstream};
use axum::{Router, body::Body, extract::Request, response::Response};
use http_body_util::BodyExt;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tower_cooldown_gateway_example::{Gateway, settings::FALLBACK_AUTHORIZATION};

/// Answers with what it was asked.
async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let fields: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let seen = json!({
        "method": head.method.as_str(), "uri": head.uri.to_string(), "fields": fields,
        "body": String::from_utf8_lossy(&body),
    });
    Response::builder()
        .status(201)
        .header("connection", "x-of-the-connection")
        .header("x-of-the-connection", "1")
        .header("keep-alive", "timeout=5")
        .header("x-of-the-answer", "2")
        .body(Body::from(seen.to_string()))
        .unwrap()
}

fn field<'a>(seen: &'a serde_json::Value, name: &str) -> Vec<&'a str> {
    let fields = seen["fields"].as_array().unwrap();
    fields.iter().filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

fn status(status: u16, body: &'static str) -> Response {
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn a_call_passes_as_it_is() {
    let echo = upstream(Router::new().fallback(echo)).await;
    let gateway =
        Gateway::start(settings_with(&format!("--upstream http://{echo}/base"), |_| None)).await.unwrap();
    let request = Request::put(format!("http://{}/a%20b/c?d=e&f", gateway.address()))
        .header("connection", "x-secret-hop")
        .header("x-secret-hop", "1")
        .header("te", "trailers")
        .header("authorization", "Bearer mine")
        .header("x-mine", "one")
        .header("x-mine", "two")
        .body(Body::from("hello"))
        .unwrap();
    let answer = send(request).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.header("x-of-the-answer"), Some("2"));
    assert!(answer.header("via").unwrap().starts_with("1.1 tower-cooldown-"));
    for name in ["x-of-the-connection", "keep-alive", "connection"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let seen = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["uri"], "/base/a%20b/c?d=e&f");
    assert_eq!(seen["body"], "hello");
    assert_eq!(field(&seen, "host"), [echo.to_string()]);
    assert_eq!(field(&seen, "authorization"), ["Bearer mine"]);
    assert_eq!(field(&seen, "x-mine"), ["one", "two"]);
    assert_eq!(field(&seen, "content-length"), ["5"]);
    for name in ["x-secret-hop", "te", "connection", "transfer-encoding"] {
        assert_eq!(field(&seen, name), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn paths_lead_to_different_upstreams() {
    let (one, two) =
        (upstream(Router::new().fallback(echo)).await, upstream(Router::new().fallback(echo)).await);
    let flags =
        format!("--upstream /a=http://{one} --upstream /a/b=http://{two}/v2 --upstream /c=http://{one}/c");
    let gateway = Gateway::start(settings_with(&flags, |_| None)).await.unwrap();
    for (path, host, seen) in [
        ("/a", one, "/"),
        ("/a/x?y", one, "/x?y"),
        ("/a?y", one, "/?y"),
        ("/a/b/x", two, "/v2/x"),
        ("/a/bc", one, "/bc"),
        ("/c/x", one, "/c/x"),
    ] {
        let answer = get(format!("http://{}{path}", gateway.address())).await.json();
        assert_eq!(answer["uri"], seen, "{path}");
        assert_eq!(field(&answer, "host"), [host.to_string()], "{path}");
    }
    assert_eq!(get(format!("http://{}/ab", gateway.address())).await.status(), 404);
    // A host has its own gates and its own book, whichever paths lead to it.
    let report = snapshot(gateway.address()).await;
    let books = |upstream: &serde_json::Value| {
        let calls = upstream["statistics"]["attempts"]["accepted"].as_u64().unwrap();
        (upstream["name"].as_str().unwrap().to_owned(), upstream["keys"].as_u64().unwrap(), calls)
    };
    let mut seen: Vec<_> = report["upstreams"].as_array().unwrap().iter().map(books).collect();
    seen.sort_by_key(|(_, _, calls)| *calls);
    assert_eq!(seen, [(two.to_string(), 1, 1), (one.to_string(), 1, 5)]);
}

#[tokio::test]
async fn a_429_is_tried_again_and_stops_its_own_credential_only() {
    let calls = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(move |request: Request| {
        let first = request.headers()["authorization"] == "Bearer one" && calls.fetch_add(1, Relaxed) == 0;
        async move {
            let mut response = status(if first { 429 } else { 200 }, "answer");
            if first {
                response.headers_mut().insert("retry-after", "1".parse().unwrap());
            }
            response
        }
    });
    let gateway = gateway(upstream(app).await, "").await;
    let url = format!("http://{}/", gateway.address());
    let start = Instant::now();
    let one = tokio::spawn(post(url.clone(), "Bearer one", "hello"));
    tokio::time::sleep(Duration::from_millis(300)).await; // real time, because of the sockets; it waits for a second
    let report = snapshot(gateway.address()).await;
    let gates = report["upstreams"][0]["gates"].as_array().unwrap();
    assert_eq!(gates.len(), 1);
    assert!(gates[0]["closed_for"].as_f64().unwrap() > 0.1, "{gates:?}");
    assert_eq!(gates[0]["closed_because"], "rate_limit");
    assert!(!report.to_string().contains("Bearer"));

    assert_eq!(post(url, "Bearer two", "hello").await.status(), 200);
    assert!(start.elapsed() < Duration::from_millis(900), "the other credential had to wait");
    let answer = one.await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text()), (200, "answer"));
    assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_quota_is_kept() {
    let gateway = gateway(upstream(Router::new().fallback(echo)).await, "--quota 2/1s").await;
    let url = format!("http://{}/", gateway.address());
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(post(url.clone(), "Bearer one", "").await.status(), 201);
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn who_would_wait_for_too_long_is_told_so() {
    let gateway = gateway(upstream(Router::new().fallback(echo)).await, "--quota 1/1h --max-wait 1s").await;
    let url = format!("http://{}/", gateway.address());
    assert_eq!(post(url.clone(), "Bearer one", "").await.status(), 201);
    let answer = post(url, "Bearer one", "").await;
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.json()["error"]["type"], "gateway_rejected");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3700).contains(&wait), "{wait}");
}

#[tokio::test]
async fn the_fallback_serves_without_the_clients_credential() {
    let broken = upstream(Router::new().fallback(|| async { status(500, "broken") })).await;
    let second = upstream(Router::new().fallback(echo)).await;
    let gone = nobody().await;
    for first in [broken, gone] {
        let flags = format!("--upstream http://{first} --fallback http://{second}/second");
        let variable = |name: &str| (name == FALLBACK_AUTHORIZATION).then(|| "Bearer second".to_owned());
        for (flags, has) in [
            (settings_with(&flags, |_| None), vec![]),
            (settings_with(&flags, variable), vec!["Bearer second"]),
        ] {
            let gateway = Gateway::start(flags).await.unwrap();
            let answer =
                post(format!("http://{}/tag?key=first&a=b", gateway.address()), "Bearer first", "hello")
                    .await;
            assert_eq!(answer.status(), 201);
            let seen = answer.json();
            assert_eq!(
                (seen["uri"].as_str(), seen["body"].as_str()),
                (Some("/second/tag?a=b"), Some("hello"))
            );
            assert_eq!(field(&seen, "authorization"), has);
            assert_eq!(snapshot(gateway.address()).await["upstreams"][0]["fallback_rate"], 1.0);
        }
    }
}

#[tokio::test]
async fn a_stream_is_sent_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let app = Router::new().fallback(move |request: Request| {
        count.fetch_add(1, Relaxed);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 300 * 1024);
            status(503, "busy")
        }
    });
    let gateway = gateway(upstream(app).await, "").await;
    let request =
        Request::post(format!("http://{}/", gateway.address())).body(Body::from(vec![0; 300 * 1024]));
    let answer: Answer = send(request.unwrap()).await;
    assert_eq!((answer.status().as_u16(), answer.text()), (503, "busy"));
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test]
async fn a_gateway_that_leads_to_itself_is_found_out() {
    let address = nobody().await;
    let mut settings = settings_with(&format!("--upstream http://{address}"), |_| None);
    settings.listen = address;
    let gateway = Gateway::start(settings).await.unwrap();
    let answer = post(format!("http://{}/", gateway.address()), "", "").await;
    assert_eq!(
        (answer.status().as_u16(), answer.json()["error"]["type"].as_str()),
        (508, Some("gateway_loop"))
    );
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length() {
    let app = Router::new().fallback(|| async {
        Response::builder().header("content-length", "5").body(Body::empty()).unwrap()
    });
    let gateway = gateway(upstream(app).await, "").await;
    let url = format!("http://{}/x", gateway.address());
    let answer = send(Request::head(url).body(Body::empty()).unwrap()).await;
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("5"), 0));
}
