//! The lines that the README shows compile and run as they stand there.

use http::{Request, Response};
use tower::{BoxError, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn the_lines_in_the_readme_run() -> Result<(), BoxError> {
    let http_client =
        service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new("tagged".to_owned())) });
    let second_provider = http_client;
    // begin
    use std::time::Duration;
    use tower::{ServiceBuilder, retry::RetryLayer};
    use tower_cooldown::{
        AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer,
        policy::{Known, Quota},
        record::Statistics,
        retry::RetryPolicy,
    };

    let statistics = Statistics::new();
    let quota = Quota::new(15, Duration::from_secs(60))?; // 15 calls a minute
    let client = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2)?.statistics(&statistics))
        .layer(FallbackLayer::new(second_provider).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(3)))
        .layer(AdaptiveCooldownLayer::with_policy(Known::new(quota)).statistics(&statistics))
        .service(http_client);
    // end
    let response = client.oneshot(Request::new("tag this page".to_owned())).await?;
    assert_eq!(response.body(), "tagged");
    assert_eq!(statistics.snapshot().success_rate(), Some(1.0));
    Ok(())
}

#[test]
fn the_readme_shows_these_lines() {
    let between = |text: &str, begin: &str, end: &str| {
        let text = text.split_once(begin).expect("a beginning").1;
        text.split_once(end).expect("an end").0.to_owned()
    };
    let here = between(include_str!("readme.rs"), "    // begin\n", "    // end\n");
    let here: String =
        here.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect();
    assert_eq!(between(include_str!("../README.md"), "```rust\n", "```"), here);
}
