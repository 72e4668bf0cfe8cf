//! One process: callers who call as often as they can, until standard input ends.

use crate::args::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, task::JoinSet};
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    fleet::{Fleet, Mode},
    retry::RetryPolicy,
};
use tower_cooldown_fleet_example::PROCESS;

type Request = hyper::Request<Empty<Bytes>>;

pub(crate) async fn run(args: &Args, number: usize, server: &str) -> Result<(), BoxError> {
    let layer = match &args.redis {
        Some(url) => {
            let fleet = Fleet::redis(redis::Client::open(url.as_str())?, "example")?;
            fleet.check().await?;
            AdaptiveCooldownLayer::shared(fleet)
        }
        None => AdaptiveCooldownLayer::new(),
    };
    let handle = layer.handle();
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(1000).without_budget()))
        .layer(layer)
        .service(service_fn(move |request: Request| {
            let http = http.clone();
            async move {
                let (head, body) = http.request(request).await?.into_parts();
                Ok::<_, BoxError>(hyper::Response::from_parts(head, body.collect().await?.to_bytes()))
            }
        }))
        .boxed_clone();
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..args.callers {
        let (client, stop, failed) = (client.clone(), Arc::clone(&stop), Arc::clone(&failed));
        let request = hyper::Request::builder().uri(format!("http://{server}/")).header(PROCESS, number);
        let request = request.body(Empty::new())?;
        callers.spawn(async move {
            while !stop.load(Relaxed) {
                let answer = client.clone().oneshot(request.clone()).await;
                let served = answer.is_ok_and(|response| response.status().is_success());
                failed.fetch_add(u64::from(!served), Relaxed);
            }
        });
    }
    // Whoever started it ends it by closing its standard input, or by ending itself.
    let mut end = tokio::io::stdin();
    let mut nothing = [0; 1];
    let mut mode = None;
    loop {
        tokio::select! {
            _ = end.read(&mut nothing) => break,
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        let now = handle.fleet().map(|fleet| fleet.mode);
        if now != mode {
            mode = now;
            println!("mode {}", mode.unwrap_or(Mode::Alone));
        }
    }
    println!("commands {}", handle.fleet().map_or(0, |fleet| fleet.commands));
    stop.store(true, Relaxed);
    // Those who wait for a departure still get one, which takes a while where the quota is small.
    let rest = async { while callers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(120), rest).await.is_err() {
        println!("stuck");
    }
    println!("failed {}", failed.load(Relaxed));
    Ok(())
}
