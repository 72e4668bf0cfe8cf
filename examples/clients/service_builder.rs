//! This crate's layers as methods of tower's `ServiceBuilder`.
//!
//! ```sh
//! cargo run --example service_builder
//! ```

use http::{Request, Response, StatusCode};
use std::{convert::Infallible, time::Duration};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_cooldown::{
    ServiceBuilderExt,
    policy::{Known, Quota},
    retry::RetryPolicy,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for answer in run().await? {
        println!("{answer}");
    }
    Ok(())
}

/// The first provider allows two calls a second, and refuses this one for good.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let first = service_fn(|request: Request<String>| async move {
        let status = if request.body() == "odd" { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        let mut response = Response::new(format!("first: {}", request.body()));
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let second = service_fn(|request: Request<String>| async move {
        Ok::<_, Infallible>(Response::new(format!("second: {}", request.body())))
    });
    let client = ServiceBuilder::new()
        .micro_batch(2)?
        .fallback(second)
        .retry(RetryPolicy::new().max_retries(1))
        .adaptive_cooldown(Known::new(Quota::new(2, Duration::from_secs(1))?))
        .service(first);

    let mut answers = Vec::new();
    for text in ["even", "odd", "even"] {
        answers.push(client.clone().oneshot(Request::new(text.to_owned())).await?.into_body());
    }
    Ok(answers)
}
