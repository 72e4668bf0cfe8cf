//! What it costs to read a response.
//!
//! ```sh
//! cargo bench --bench signals             # a table
//! cargo bench --bench signals -- --json   # {"rows":[..]}
//! ```

use http::Response;
use serde::Serialize;
use std::{convert::Infallible, hint::black_box, time::Instant};
use tower_cooldown::signal::{Classify, HttpClassifier};
use tower_cooldown_benches::{print_json, wants_json};

#[derive(Serialize)]
struct Row {
    response: &'static str,
    ns: f64,
    allocations: u64,
}

const ORDINARY: [(&str, &str); 12] = [
    ("date", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", "512"),
    ("connection", "keep-alive"),
    ("server", "nginx"),
    ("cache-control", "no-store"),
    ("vary", "accept-encoding"),
    ("x-request-id", "5c1d5e8e-3d1b-4a7f-9a55-0a1b2c3d4e5f"),
    ("strict-transport-security", "max-age=31536000"),
    ("alt-svc", "h3=\":443\""),
    ("set-cookie", "session=abc; Path=/"),
    ("x-content-type-options", "nosniff"),
];
const OPENAI: [(&str, &str); 6] = [
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-limit-tokens", "30000"),
    ("x-ratelimit-remaining-requests", "499"),
    ("x-ratelimit-remaining-tokens", "29983"),
    ("x-ratelimit-reset-requests", "120ms"),
    ("x-ratelimit-reset-tokens", "6m0s"),
];
const ANTHROPIC: [(&str, &str); 12] = [
    ("anthropic-ratelimit-requests-limit", "50"),
    ("anthropic-ratelimit-requests-remaining", "49"),
    ("anthropic-ratelimit-requests-reset", "2026-02-25T20:02:32Z"),
    ("anthropic-ratelimit-tokens-limit", "40000"),
    ("anthropic-ratelimit-tokens-remaining", "39000"),
    ("anthropic-ratelimit-tokens-reset", "2026-02-25T20:02:33Z"),
    ("anthropic-ratelimit-input-tokens-limit", "30000"),
    ("anthropic-ratelimit-input-tokens-remaining", "30000"),
    ("anthropic-ratelimit-input-tokens-reset", "2026-02-25T20:02:31Z"),
    ("anthropic-ratelimit-output-tokens-limit", "8000"),
    ("anthropic-ratelimit-output-tokens-remaining", "8000"),
    ("anthropic-ratelimit-output-tokens-reset", "2026-02-25T20:02:31Z"),
];
const IETF: [(&str, &str); 2] = [
    ("ratelimit-policy", "\"burst\";q=100;w=60,\"daily\";q=1000;w=86400"),
    ("ratelimit", "\"burst\";r=50;t=30"),
];

fn response(status: u16, sets: &[&[(&'static str, &'static str)]]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in sets.iter().copied().flatten() {
        response = response.header(*name, *value);
    }
    response.body(()).expect("valid fields")
}

fn measure(name: &'static str, response: &Response<()>) -> Row {
    let classifier = HttpClassifier::new();
    let read = || black_box(classifier.classify(Ok::<_, &Infallible>(black_box(response))));
    let allocations = allocation_counter::measure(|| {
        read();
    })
    .count_total;
    // The best of many short runs: what is above it is the machine's.
    let ns = (0..200).map(|_| {
        let start = Instant::now();
        (0..2000).for_each(|_| {
            read();
        });
        start.elapsed().as_nanos() as f64 / 2000.0
    });
    Row { response: name, ns: ns.fold(f64::INFINITY, f64::min), allocations }
}

fn main() {
    let junk: Vec<(&str, &str)> = vec![("x-ratelimit-limit-minute", "\"a\";r=1,,,;;=99999"); 40];
    let rows = [
        measure("200, no fields", &response(200, &[])),
        measure("200, 12 ordinary fields", &response(200, &[&ORDINARY])),
        measure("429, Retry-After", &response(429, &[&[("retry-after", "30")]])),
        measure("200, 12 ordinary and OpenAI's 6", &response(200, &[&ORDINARY, &OPENAI])),
        measure("200, OpenAI's 6", &response(200, &[&OPENAI])),
        measure("200, Anthropic's 12 and a date", &response(200, &[&ORDINARY[..1], &ANTHROPIC])),
        measure("200, RateLimit", &response(200, &[&IETF])),
        measure("200, 40 fields of junk", &response(200, &[&junk])),
    ];
    if wants_json() {
        print_json(&rows);
        return;
    }
    println!("{:<34} {:>8} {:>12}", "response", "ns", "allocations");
    for row in &rows {
        println!("{:<34} {:>8.0} {:>12}", row.response, row.ns, row.allocations);
    }
}
