//! Many requests, one call.
//!
//! Some services take an array: embeddings, rerank, moderation, classification, bulk inserts. [`CoalesceLayer`] takes
//! single requests from any number of tasks, makes one call of those that come together, and gives each its own
//! result:
//!
//! ```
//! use std::convert::Infallible;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_cooldown::{CoalesceLayer, record::Statistics};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Many at once: one result for each, in their order.
//! let lengths = service_fn(|texts: Vec<String>| async move {
//!     Ok::<_, Infallible>(texts.into_iter().map(|text| Ok(text.len())).collect::<Vec<_>>())
//! });
//!
//! let statistics = Statistics::new();
//! let client = ServiceBuilder::new()
//!     .layer(CoalesceLayer::new(32)?.statistics(&statistics))
//!     .service(lengths);
//!
//! // One at a time, from anywhere.
//! let calls = ["a", "bb", "ccc"].map(|text| client.clone().oneshot(text.to_owned()));
//! assert_eq!(futures::future::try_join_all(calls).await?, [1, 2, 3]);
//! assert_eq!(statistics.snapshot().coalesced.calls_saved(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! HTTP requests are joined by a codec, with the feature `http-coalesce`; for embedding APIs there are codecs, with the
//! feature `embeddings`. See the module `http`.
//!
//! # Which layer when
//!
//! | | [`MicroBatchLayer`](crate::MicroBatchLayer) | [`CoalesceLayer`] |
//! |---|---|---|
//! | what it does | lets calls pass in small groups, with a pause between | makes one call of many |
//! | calls to the service | as many as before | fewer |
//! | the inner service | `Service<Req>` | `Service<Vec<Req>>`, or HTTP and a codec |
//! | the caller waits | for its group's turn | for the end of the tick, about a microsecond, or not at all |
//! | for | services that dislike bursts; scripts that work through a list | services that take arrays, and count calls |
//! | a task | none | one per call, while there is work |
//!
//! They go together: coalesce outside, micro-batch below it, and whole batches pass in small groups.
//!
//! Neither, for chat completions and the like from a server that batches continuously (vLLM, TGI, and what the large
//! providers run): it forms its batch anew for every token, from all requests that it has, and has no call for several
//! prompts. Holding requests back only adds to their time; a [cooldown](crate::cooldown) and a concurrency limit are
//! the right tools. Nor where a call costs next to nothing beside its items: with 5 ms per call and 5 ms per item, no
//! batch makes it more than twice as fast; with 50 ms and 1 ms, one of 32 makes it 20 times as fast.
//!
//! # When a batch closes
//!
//! - When it has [`max_items`](CoalesceLayer::new), or [`max_weight`](CoalesceLayer::max_weight). It leaves at once, if
//!   fewer than [`max_in_flight`](CoalesceLayer::max_in_flight) others are under way. A request that does not fit opens
//!   the next batch; one that fits in none is [sent alone](Oversize).
//! - At the end of the [tick](Linger::Tick): the task that sends it waits until all that could run has run, and takes
//!   what is there then. No timer is involved. A request that comes alone leaves at once;
//!   [where they come so for long](#one-at-a-time), within its call.
//! - With [`Linger::Fixed`], a time after its first request; with [`Linger::WhileBusy`], when another call ends.
//! - When the [waiting room](CoalesceLayer::capacity) is full, and on [`flush`](Handle::flush).
//!
//! A batch is taken when the inner service is *ready*: while that waits for a permit or a gate, more requests join. So
//! the slower the service, the fuller the batches. The idea of a batch per tick is that of Facebook's DataLoader.
//!
//! Where calls are what is scarce, as under a quota of requests per minute, say
//! [`max_in_flight(1)`](CoalesceLayer::max_in_flight): what comes during a call is in the next one.
//!
//! # Order, and threads
//!
//! A batch has its requests in the order in which they came, and each gets the result at its place. While several calls
//! may be in flight, each thread has an open batch of its own, so that threads need not wait for one another; when the
//! tick ends they are put together, up to the bounds of a batch. Which of two requests from different threads comes
//! first is not said then, nor which of two calls in flight comes to the service first. With
//! [`max_in_flight(1)`](CoalesceLayer::max_in_flight) all requests of a key are sent in the order in which they came.
//!
//! # One at a time
//!
//! When 64 batches in a row had one request each, with no other of its key in flight, nobody is expected any more: with
//! [`Linger::Tick`] the next request is sent within its call, if the inner service is ready, and a task minds it only if
//! it is not answered at once. Then a call begins about as soon as through `tower::buffer`. What that costs where
//! requests come together again: the first of them goes alone, and with the others it is as before. (A service that always
//! answers at once is never found busy. One request in 64 waits for the tick, for its sake: at most 192 of them go alone.)
//!
//! # Where it goes in a stack
//!
//! Outside of the cooldown and of retries, so that the gate counts calls and not requests, and a call is retried as a
//! whole.
//!
//! # Errors
//!
//! [`BatchError`] says whether this request failed or the whole call. A call that fails, panics or answers with the
//! wrong number of results fails its own requests and no others; the layer goes on. With
//! [`split_when`](CoalesceLayer::split_when) a failed call is made again in halves, down to the request that is to
//! blame.
//!
//! # Readiness
//!
//! `poll_ready` reserves a place in the waiting room, which is given back by the call's end, or when the service is
//! dropped; it is `Pending` while there is none. A service that was readied and is kept without a call keeps its place.
//! It does not ask the inner service; the task does. A call without a place, as `Steer` makes them, takes one if there
//! is one, and is [rejected](BatchError::Rejected) if not.
//!
//! # Cancellation
//!
//! A call that is dropped before its batch is sent is not sent; later, its result is dropped. When all callers of a call
//! have gone, it is [dropped or goes on](Abandon). A future that is kept but never polled again holds nobody up.
//!
//! # Tasks and runtimes
//!
//! Building needs no runtime; a call needs tokio's. The task is started by the first request, in the runtime where it is
//! called, and is over one tick after the last; there is no worker to shut down. If its runtime shuts down, its callers
//! get [`BatchError::Closed`]; calls from another runtime work. [`Handle::drain`] ends it in good order.
//!
//! The inner service is cloned for each call. What it makes has to be `Send + 'static`, because it runs in that task. The
//! call of a request that [comes alone](#one-at-a-time) begins where the request was made, as in layers without a task:
//! also in its span, and while it holds what its maker holds.
//!
//! # Panics
//!
//! A panic of the inner service, in any of its parts, or of the closures for keys and weights, is caught and becomes
//! [`BatchError::Panicked`]. Under `panic = "abort"` it cannot be.
//!
//! # Differences from `tower::buffer`
//!
//! `Buffer` puts a worker between callers and a service that is not `Clone`, and sends their requests one by one; its
//! worker lives as long as its handles, and its errors are boxed. Here the requests become one, the task is over when
//! there is no work, and [`BatchError`] keeps the service's error.
//!
//! # Records
//!
//! [`Snapshot::coalesced`](crate::record::Snapshot::coalesced): batches, requests, calls and how many were saved, weight,
//! sizes, what made batches close, how long their first request waited.

mod batch;
mod core;
mod error;
mod future;
mod group;
mod handle;
mod hashed;
#[cfg(feature = "http-coalesce")]
pub mod http;
mod layer;
mod service;
mod shared;
mod split;
mod task;

pub use self::{
    batch::Trigger,
    core::{Linger, Oversize},
    error::BatchError,
    future::ResponseFuture,
    handle::{Handle, NotDrained},
    layer::{Abandon, CoalesceLayer, Overflow},
    service::Coalesce,
    split::{Split, SplitWhen, Whole},
};
