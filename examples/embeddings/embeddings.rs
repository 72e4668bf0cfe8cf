//! 2,000 texts, 64 tasks, one text per request, and a server with a quota of requests per minute.
//!
//! ```text
//! cargo run --release --example embeddings
//! ```
//!
//! Three clients, one after another, each with a server of its own: one that backs off after a 429; one with the
//! cooldown, which knows the quota; and the same with `CoalesceLayer` around it. The tasks are the same for all three:
//! each sends one text at a time and checks that the vector that comes back is that of its text.

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Bytes},
    header::CONTENT_TYPE,
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, CoalesceLayer,
    coalesce::http::OpenAiEmbeddings,
    policy::{Known, Quota},
    record::Statistics,
    retry::RetryPolicy,
};
use tower_cooldown_embeddings_example::{QUOTA, Seen, embedding, start};

const TEXTS: usize = 2000;
const TASKS: usize = 64;

struct Column {
    name: &'static str,
    elapsed: Duration,
    seen: Arc<Seen>,
    failed: u64,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let http = || Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let quota = Quota::new(QUOTA, Duration::from_secs(60))?.burst(QUOTA / 60)?;
    let cooldown = || AdaptiveCooldownLayer::with_policy(Known::new(quota));
    let retry = || RetryLayer::new(RetryPolicy::new().max_retries(10));

    let backoff = run("backoff", backing_off(http())).await?;
    let client = ServiceBuilder::new().layer(retry()).layer(cooldown()).service(http());
    let paced = run("cooldown", client).await?;

    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        // Calls are what is scarce: one in flight, and what comes meanwhile is in the next.
        .layer(CoalesceLayer::new(256)?.max_in_flight(1)?.statistics(&statistics).http(OpenAiEmbeddings))
        .layer(retry())
        .layer(cooldown().statistics(&statistics))
        .service(http());
    let coalesced = run("coalesced", client).await?;

    println!("{TEXTS} texts, one per request, from {TASKS} tasks; {QUOTA} requests per minute\n");
    print(&[&backoff, &paced, &coalesced]);
    println!("\n{}", statistics.snapshot());
    let calls = |column: &Column| column.seen.calls.load(Relaxed);
    let fewer = calls(&paced) / calls(&coalesced).max(1);
    println!("{fewer} times fewer calls than without the layer");
    Ok(())
}

/// All texts through one client.
async fn run<S, B>(name: &'static str, client: S) -> Result<Column, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError> + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (address, seen) = start().await?;
    let (next, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (client, next, failed) = (client.clone(), Arc::clone(&next), Arc::clone(&failed));
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= TEXTS {
                    return;
                }
                let text = format!("text number {n}");
                let url = format!("http://{address}/v1/embeddings");
                let embedded = embed(client.clone(), &url, &text).await;
                if !embedded.is_ok_and(|vector| vector == json!(embedding(&text))) {
                    failed.fetch_add(1, Relaxed);
                }
            }
        });
    }
    tasks.join_all().await;
    Ok(Column { name, elapsed: began.elapsed(), seen, failed: failed.load(Relaxed) })
}

/// One text, one request.
async fn embed<S, B>(client: S, url: &str, text: &str) -> Result<Value, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>>,
{
    let body = json!({ "model": "text-embedding-3-small", "input": text }).to_string();
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("authorization", "Bearer test")
        .body(Full::from(body))?;
    let response = client.oneshot(request).await.map_err(Into::into)?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let body = response.into_body().collect().await.map_err(Into::into)?.to_bytes();
    let mut answer: Value = serde_json::from_slice(&body)?;
    Ok(answer["data"][0]["embedding"].take())
}

/// What people write without a library: on a 429, wait, twice as long each time.
fn backing_off<S, B>(
    client: S,
) -> impl Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError> + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Send + 'static,
{
    tower::service_fn(move |request: Request<Full<Bytes>>| {
        let client = client.clone();
        async move {
            let mut wait = Duration::from_millis(250);
            loop {
                let response = client.clone().oneshot(request.clone()).await.map_err(Into::into)?;
                if response.status().as_u16() != 429 || wait > Duration::from_secs(60) {
                    return Ok(response);
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
        }
    })
}

fn print(columns: &[&Column]) {
    let row = |name: &str, value: &dyn Fn(&Column) -> String| {
        print!("{name:<12}");
        columns.iter().for_each(|column| print!("{:>14}", value(column)));
        println!();
    };
    row("", &|column| column.name.into());
    row("calls sent", &|column| column.seen.calls.load(Relaxed).to_string());
    row("429s", &|column| column.seen.refused.load(Relaxed).to_string());
    row("failed", &|column| column.failed.to_string());
    row("elapsed", &|column| format!("{:.1} s", column.elapsed.as_secs_f64()));
}
