//! Limits that a service tells in the body of its answer, and nowhere else.
//!
//! Gemini says in the body how long to wait, and there alone; OpenAI says there that the balance is spent and that no
//! wait will help; a GraphQL service refuses with a 200. [`BodyHintsLayer`] reads such bodies, puts what they say as
//! [`BodyHints`](crate::signal::BodyHints) into the response's extensions, and gives the body back as it was.
//! [`HttpClassifier`](crate::signal::HttpClassifier) finds them there. What the header fields say goes before them.
//!
//! It belongs right below the cooldown, where a timeout per attempt may be between it and the client:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use std::time::Duration;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_cooldown::{AdaptiveCooldownLayer, BodyHintsLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let body = r#"{"error": {"code": 429, "details": [
//! #     {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.8s"}]}}"#;
//! # let gemini = service_fn(move |_: Request<String>| async move {
//! #     Ok::<_, BoxError>(Response::builder().status(429).body(Full::new(Bytes::from(body)))?)
//! # });
//! let cooldown = AdaptiveCooldownLayer::new();
//! let gate = cooldown.handle();
//! let mut client = ServiceBuilder::new()
//!     .layer(cooldown)
//!     .layer(BodyHintsLayer::new())
//!     .service(gemini); // answers 429, "retryDelay": "45.8s"
//!
//! let response = client.ready().await?.call(Request::new("hello".to_owned())).await?;
//! assert_eq!(gate.snapshot().closed_for, Some(Duration::from_millis(45_800)));
//! assert_eq!(response.into_body().collect().await?.to_bytes(), body); // still there
//! # Ok(())
//! # }
//! ```
//!
//! For services that refuse in another way, and answers that are large or late:
//!
//! ```
//! use http::StatusCode;
//! use std::time::Duration;
//! use tower_cooldown::{BodyHintsLayer, InvalidSetting};
//!
//! # fn main() -> Result<(), InvalidSetting> {
//! let layer = BodyHintsLayer::new()
//!     .also_status(StatusCode::FORBIDDEN) // GitHub
//!     .also_status(StatusCode::BAD_REQUEST) // AWS
//!     .timeout(Duration::from_millis(200))?;
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//!
//! 429 and 503, and the statuses that you [add](BodyHintsLayer::also_status):
//!
//! | service | what it says | what becomes of it | status to add |
//! |---|---|---|---|
//! | Gemini, Google Cloud | `RetryInfo.retryDelay`, or "Please retry in 26.66s" | the wait | |
//! | | `QuotaFailure`, `ErrorInfo`: `quotaValue` and the window in `quotaId` | a reading: limit, window | |
//! | | … `PerDay` | exhausted until midnight Pacific Time | |
//! | | … a limit of 0 | exhausted, for good | |
//! | Google's older services | `rateLimitExceeded`, `userRateLimitExceeded` / `dailyLimitExceeded` | throttled / exhausted | 403 |
//! | OpenAI, Groq | `insufficient_quota`, `billing_…` | exhausted | |
//! | | "Please try again in 6m0s", "(TPM): Limit 10000, Used 8554" | the wait, a reading | |
//! | | "Requested" above "Limit" | refused: that request never passes | |
//! | Azure OpenAI | "Please retry after 3 seconds" | the wait | |
//! | Anthropic | `rate_limit_error`, `overloaded_error` | throttled, overloaded | |
//! | | "credit balance is too low" | exhausted | 400 |
//! | AWS | the throttling codes of its SDKs in `__type`, `code`, `<Code>`, `x-amzn-errortype` | throttled | 400 |
//! | Shopify | `THROTTLED` with `throttleStatus` | throttled until the query's cost is there, a reading | 200 |
//! | GraphQL: GitHub, others | `RATE_LIMITED`, `RATE_LIMIT` | throttled | 200 |
//! | Linear | `RATELIMITED` | throttled | 400 |
//! | GitHub | "secondary rate limit" / "API rate limit exceeded" | throttled, for a minute / throttled | 403 |
//! | Discord, Telegram, Matrix | `retry_after`, `parameters.retry_after`, `retry_after_ms` | the wait | |
//! | HubSpot | `policyName` `DAILY` | exhausted | |
//! | Slack | `ratelimited` | throttled | 200 |
//! | [IETF problem types][draft] | `quota-exceeded`, `temporary-reduced-capacity`, `abnormal-usage-detected` | throttled, overloaded, throttled | |
//! | | `violated-policies` | a reading each; exhausted if one is a day's | |
//!
//! A wait of more than [ten minutes](BodyHintsLayer::max_retry_after) means exhausted, and for how long. A wait that is
//! told for an exhausted quota, and is shorter, is not believed: Gemini says "22s" where the day is spent. When a quota
//! by day is there again is known of Google's, which documents it; of others not. Numbers that make no sense are
//! ignored. The texts in the tests are from the services' documents and from recorded answers.
//!
//! Not read: streams (`text/event-stream`, gRPC, `multipart`, lines of JSON); anything with a `Content-Encoding`, so put
//! this above a layer that decompresses; successful answers that are not JSON; plain text.
//!
//! [`read_body`] does the same for a body that you have in your hands.
//!
//! [draft]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
//!
//! # What it costs
//!
//! An answer that is not read is passed on without a look at its body, and without an allocation. One that is read is
//! held up until its body has ended, 64 KiB of it have come, or a second is over since its head came, whichever is
//! first; all three are [settings](BodyHintsLayer). That time counts as service time of the call. The frames are kept
//! as they came and are not copied, except once to read them; the copy is gone when the response is returned. At most
//! 1024 frames are kept, and the last may be as long as the client makes it.
//!
//! # The body
//!
//! It becomes a [`PeekedBody<B>`], which yields the frames that were read, and then the rest: data, trailers, errors,
//! `size_hint` and `is_end_stream` are those of the inner body. Nothing is boxed. `B` has to be `Unpin`, because the
//! response moves after the first frames were read; the bodies of hyper, reqwest, axum and tonic are, and so is every
//! `Pin<Box<B>>`. A [fallback](crate::FallbackLayer)'s second service needs the same type of body: put this layer on
//! it too, or `.map_response(|response| response.map(PeekedBody::from))`.
//!
//! # Readiness, errors, cancellation, panics
//!
//! Readiness and errors are those of the inner service. An error of the body does not fail the call: the body yields it
//! when its turn comes. Dropping the future while the body is read drops the response, as it would a moment later; the
//! cooldown records the call as cancelled. The inner future is dropped before the body is read, with the permit that it
//! may hold. Waiting for a body that is late needs a tokio runtime with time enabled.

mod body;
mod eligible;
pub mod future;
mod layer;
mod read;
mod service;

pub use self::{
    body::PeekedBody, future::ResponseFuture, layer::BodyHintsLayer, read::read_body,
    service::BodyHintsService,
};
