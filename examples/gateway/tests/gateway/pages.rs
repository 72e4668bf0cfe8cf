//! The gateway's own pages, and that they take no more paths than they say.

use crate::common::{gateway, get, post, send, snapshot, upstream};
use axum::{Router, body::Body, extract::Request};

fn app() -> Router {
    Router::new().fallback(|request: Request| async move { format!("upstream {}", request.uri()) })
}

#[tokio::test]
async fn pages_are_there_for_reading_and_everything_else_is_the_upstreams() {
    let gateway = gateway(upstream(app()).await, "").await;
    let url = |path: &str| format!("http://{}{path}", gateway.address());
    for (path, kind, part) in [
        ("/", "text/html; charset=utf-8", "<h1>Gateway</h1>"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# TYPE tower_cooldown_"),
        ("/healthz", "text/plain; charset=utf-8", "ok"),
        ("/snapshot", "application/json", "\"upstreams\""),
    ] {
        let answer = get(url(path)).await;
        assert_eq!((answer.status().as_u16(), answer.header("content-type")), (200, Some(kind)), "{path}");
        assert!(answer.text().contains(part), "{path}");
        let with_query = format!("{path}?q=1");
        assert_eq!(get(url(&with_query)).await.text(), format!("upstream {with_query}"));
        assert_eq!(post(url(path), "", "").await.text(), format!("upstream {path}"));
    }
    assert_eq!(get(url("/-/rollout")).await.status(), 405);
    assert_eq!(get(url("/metrics/x")).await.text(), "upstream /metrics/x");
}

#[tokio::test]
async fn with_a_listener_of_their_own_they_take_no_path() {
    let gateway = gateway(upstream(app()).await, "--admin 127.0.0.1:0").await;
    for path in ["/", "/metrics", "/healthz", "/snapshot", "/-/rollout"] {
        let answer = get(format!("http://{}{path}", gateway.address())).await;
        assert_eq!(answer.text(), format!("upstream {path}"));
    }
    let admin = gateway.admin_address().unwrap();
    assert_eq!(get(format!("http://{admin}/healthz")).await.text(), "ok\n");
    assert_eq!(get(format!("http://{admin}/v1/other")).await.status(), 404, "it is no way to the upstream");
    assert_eq!(snapshot(admin).await["upstreams"][0]["statistics"]["attempts"]["accepted"], 5);
}

#[tokio::test]
async fn the_page_asks_nobody_else() {
    let gateway = gateway(upstream(app()).await, "").await;
    let answer = get(format!("http://{}/", gateway.address())).await;
    let policy = answer.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    let html = answer.text();
    for outside in ["http://", "https://", "//cdn", "@import", "url("] {
        let found = html.replace("http://www.w3.org/2000/svg", "").contains(outside);
        assert!(!found, "the page names {outside}");
    }
    assert!(!html.contains("{nonce}") && !html.contains("/* script */"));
    let again = get(format!("http://{}/", gateway.address())).await;
    assert_ne!(again.header("content-security-policy"), Some(policy), "a nonce is used once");
}

#[tokio::test]
async fn the_snapshot_tells_gates_rates_and_history() {
    let gateway = gateway(upstream(app()).await, "--quota 500/min").await;
    let request = Request::post(format!("http://{}/x", gateway.address())).header("x-api-key", "hidden");
    send(request.body(Body::empty()).unwrap()).await;
    let report = snapshot(gateway.address()).await;
    let upstream = &report["upstreams"][0];
    assert_eq!(upstream["success_rate"], 1.0);
    assert_eq!(upstream["keys"], 1);
    assert!(upstream["gates"][0]["closed_for"].is_null());
    let rate = upstream["gates"][0]["rate"].as_f64().unwrap();
    assert!((rate - 500.0 / 60.0).abs() < 0.2, "{rate}");
    assert!(
        report["history"]
            .as_array()
            .unwrap()
            .iter()
            .all(|second| second["waited"].as_array().unwrap().len() == 5)
    );
    assert_eq!(report["rollout"], serde_json::json!({ "percent": 100, "movable": true }));
    assert!(!report.to_string().contains("hidden"));
}
