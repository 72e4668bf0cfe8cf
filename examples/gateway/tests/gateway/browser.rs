//! The live page in a real browser.

use crate::{
    common::{gateway, post, upstream},
    devtools::Browser,
};
use axum::{Router, body::Body, extract::Request, response::Response};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::{AbortHandle, JoinSet};

/// An upstream that refuses for half a minute when told to.
async fn fickle() -> (SocketAddr, Arc<AtomicBool>) {
    let refuse = Arc::new(AtomicBool::new(false));
    let refuses = Arc::clone(&refuse);
    let app = Router::new().fallback(move |_: Request| {
        let refuse = refuses.load(Relaxed);
        async move {
            let status = if refuse { 429 } else { 200 };
            Response::builder().status(status).header("retry-after", "30").body(Body::from("answer")).unwrap()
        }
    });
    (upstream(app).await, refuse)
}

/// So many calls a second, whatever comes of them, until it is told to end.
fn load(gateway: SocketAddr, per_second: u32) -> AbortHandle {
    tokio::spawn(async move {
        let client = crate::common::client();
        let mut calls = JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        loop {
            ticks.tick().await;
            let request =
                Request::post(format!("http://{gateway}/call")).header("authorization", "Bearer secret");
            // What comes of it the page tells.
            calls.spawn(client.request(request.body(Body::from("{}")).unwrap()));
            while calls.try_join_next().is_some() {}
        }
    })
    .abort_handle()
}

const LIVE: &str = "document.getElementById('state')?.dataset.state === 'live'";
const CALLS: &str = "Number(document.querySelector('#waits tbody td')?.textContent.replaceAll(',', '') || 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_updates_under_load_shows_a_closed_gate_and_survives_a_restart() {
    let (upstream, refuse) = fickle().await;
    let first = gateway(upstream, "--quota 100000/s").await;
    let address = first.address();
    let load = load(address, 50);
    let Some(mut browser) = Browser::open(&format!("http://{address}/")).await else { return };

    browser.until(LIVE).await;
    browser.until("document.getElementById('success').textContent === '100 %'").await;
    let before = browser.eval(CALLS).await.as_f64().unwrap();
    browser.until(&format!("{CALLS} > {before}")).await;
    browser.until("document.querySelector('#success-chart path.served').getAttribute('d').length > 10").await;
    browser.until("/the gates allow 1.*00,000|the gates allow 9/.test(document.getElementById('rate-note').textContent)").await;
    let html = browser.eval("document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("secret"), "credentials are not shown");

    refuse.store(true, Relaxed);
    browser.until("/closed for \\d+\\.\\d s: the server asked/.test(document.querySelector('#gate-table .closed')?.textContent)").await;
    browser.until("document.querySelector('#gate-table tbody td:nth-child(4)').textContent > 0").await;
    refuse.store(false, Relaxed);

    let listen = address;
    let instance = browser.eval("instance").await;
    load.abort();
    // The call that waits for the gate would hold the end up; its client is gone.
    first.stop().await;
    browser.until("document.getElementById('state').textContent.startsWith('no answer since')").await;
    let mut settings = crate::common::settings(&format!("--upstream http://{upstream} --quota 100000/s"));
    settings.listen = listen;
    let second = tower_cooldown_gateway_example::Gateway::start(settings).await.unwrap();
    browser.until(&format!("{LIVE} && instance !== {instance}")).await;
    assert_eq!(post(format!("http://{listen}/call"), "Bearer new", "").await.status(), 200);
    browser.until(&format!("{CALLS} === 1")).await;
    browser.until("/restarted/.test(document.getElementById('rollout-state').textContent)").await;

    let broken = |complaint: &&String| !complaint.contains("ERR_CONNECTION_REFUSED");
    let complaints: Vec<_> = browser.complaints.iter().filter(broken).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.close().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_move_the_rollout_and_it_can_be_read_on_a_phone_by_day_and_night() {
    let (upstream, _) = fickle().await;
    let gateway = gateway(upstream, "").await;
    let address = gateway.address();
    let Some(mut browser) = Browser::open(&format!("http://{address}/")).await else { return };
    browser.until(LIVE).await;
    browser.until("!document.getElementById('percent').disabled").await;

    // By Tab alone, as far as the slider. What has the focus can be seen to have it.
    let mut stops = Vec::new();
    while stops.last().is_none_or(|stop| stop != "percent") {
        assert!(stops.len() < 20, "the slider cannot be reached: {stops:?}");
        browser.press("Tab", 9).await;
        let stop = browser.eval("document.activeElement.id || document.activeElement.className").await;
        assert_ne!(
            browser.eval("getComputedStyle(document.activeElement).outlineStyle").await,
            "none",
            "{stop}"
        );
        stops.push(stop.as_str().unwrap().to_owned());
    }
    for _ in 0..10 {
        browser.press("ArrowLeft", 37).await;
    }
    assert_eq!(browser.eval("document.getElementById('percent-text').textContent").await, "90 %");
    browser.until("document.getElementById('rollout-state').textContent === 'The rollout is at 90 %.'").await;
    assert_eq!(crate::common::snapshot(address).await["rollout"]["percent"], 90);

    // Everything has a name, in words.
    let nodes = browser.ask("Accessibility.getFullAXTree", serde_json::json!({})).await;
    for node in nodes["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default();
        let needs = ["slider", "image", "region", "link", "heading", "columnheader", "rowheader", "textbox"];
        let ignored = node["ignored"] == true;
        assert!(ignored || !needs.contains(&role) || !name.is_empty(), "{role} without a name: {node}");
    }

    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        for (width, height) in [(320, 640), (390, 844), (1280, 800)] {
            browser.resize(width, height, width < 500).await;
            let wide = browser.eval("document.documentElement.scrollWidth").await;
            assert!(wide.as_u64().unwrap() <= width.into(), "{wide} pixels on {width}");
        }
        let worst = browser.eval(CONTRAST).await;
        let ratio = worst["ratio"].as_f64().unwrap();
        assert!(ratio >= 4.5, "{scheme}: {worst}");
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    browser.close().await;
}

/// 30 calls a second, and not a word about it.
async fn limited() -> SocketAddr {
    let window = Arc::new(Mutex::new((Instant::now(), 0)));
    let app = Router::new().fallback(move || {
        let granted = {
            let mut window = window.lock().unwrap();
            if window.0.elapsed() >= Duration::from_secs(1) {
                *window = (Instant::now(), 0);
            }
            window.1 += 1;
            window.1 <= 30
        };
        async move {
            tokio::time::sleep(Duration::from_millis(if granted { 80 } else { 5 })).await;
            Response::builder().status(if granted { 200 } else { 429 }).body(Body::from("answer")).unwrap()
        }
    });
    upstream(app).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_too_much_load_each_part_has_something_to_show() {
    let flags = format!("--fallback http://{} --rollout 90 --max-wait 2s", fickle().await.0);
    let gateway = gateway(limited().await, &flags).await;
    let address = gateway.address();
    let load = load(address, 38);
    let Some(mut browser) = Browser::open(&format!("http://{address}/")).await else { return };
    browser.resize(1120, 800, false).await;
    browser.until(LIVE).await;
    let picture = std::env::var_os("GATEWAY_PICTURE");
    if picture.is_some() {
        tokio::time::sleep(Duration::from_secs(115)).await; // the whole of the history
    }
    for shown in [
        "parseFloat(document.getElementById('fallback').textContent) > 0",
        "document.querySelector('#fallback-chart path.fallback').getAttribute('d').length > 20",
        "document.querySelector('#rate-chart path.refused').getAttribute('d').includes('Z')",
        "document.querySelector('#rate-chart path.rate').getAttribute('d').length > 4",
        "document.querySelectorAll('#time-bar div').length >= 2",
        "document.querySelectorAll('#waits tbody tr').length === 4",
        "document.querySelectorAll('#gate-table tbody tr').length === 2",
        "[...document.querySelectorAll('#arms tbody tr')].every((arm) => Number(arm.cells[1].textContent.replace(',', '')) > 0)",
    ] {
        browser.until(shown).await;
    }
    let height = browser.eval("document.documentElement.scrollHeight").await.as_u64().unwrap() as u32;
    browser.resize(1120, height, false).await;
    let png = browser.picture().await;
    assert!(png.starts_with(b"\x89PNG") && png.len() < 200_000, "{} bytes", png.len());
    if let Some(file) = picture {
        std::fs::write(file, png).unwrap();
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    browser.close().await;
    load.abort();
}

/// The text that is hardest to read, by the contrast of WCAG 2 (relative luminance).
const CONTRAST: &str = r#"(() => {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 21 };
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName) || !element.checkVisibility()) continue;
    if (element.ariaHidden === "true") continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: element.textContent.slice(0, 40) };
  }
  return worst;
})()"#;
