//! The stack in tasks: `tokio::spawn` proves that its futures are `Send`, also where the error is a `BoxError`.

mod support;

use http::{Request, Response};
use support::request;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer, Rollout, retry::RetryPolicy};

async fn answer(_: Request<()>) -> Result<Response<String>, BoxError> {
    Ok(Response::new(String::new()))
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_runs_in_a_task() {
    let client = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2).unwrap())
        .layer(FallbackLayer::new(service_fn(answer)))
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new().max_wait(support::secs(9)).rollout(Rollout::on()))
        .service_fn(answer);
    let mut clone = client.clone();
    let task = tokio::spawn(async move { clone.ready().await?.call(request(1)).await });
    task.await.unwrap().unwrap();
    let task = tokio::spawn(async move { client.oneshot(request(1)).await });
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn so_does_a_type_erased_one() {
    let client = ServiceBuilder::new()
        .boxed_clone()
        .layer(AdaptiveCooldownLayer::new())
        .service(service_fn(answer).boxed_clone());
    let task = tokio::spawn(async move { client.oneshot(request(1)).await });
    task.await.unwrap().unwrap();
}
