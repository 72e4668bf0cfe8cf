//! Futures are moved a few times on their way, and there is one for each call: they stay small.

mod support;

use allocation_counter::measure;
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::{Future, ready},
    task::{Context, Waker},
};
use support::{every, secs, unpaced};
use tower::{Layer, Service, ServiceBuilder, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer, record::Statistics, retry::RetryPolicy,
};

fn bare() -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone {
    service_fn(|_| ready(Ok(Response::new(()))))
}

fn future_of<S: Service<Request<()>>>(_: &S) -> usize {
    size_of::<S::Future>()
}

#[test]
fn futures_are_small() {
    let statistics = Statistics::new();
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics);
    let fallback = FallbackLayer::new(bare()).statistics(&statistics);
    let batch = MicroBatchLayer::new(usize::MAX).unwrap().statistics(&statistics);
    let own = |name: &str, future: usize, most: usize| {
        let own = future - future_of(&bare());
        println!("{name}: {own} bytes beyond the inner future");
        assert!(own <= most, "{name}: {own}");
    };
    own("cooldown", future_of(&cooldown.layer(bare())), 128);
    own("micro-batch", future_of(&batch.layer(bare())), 64);
    own("fallback", future_of(&fallback.layer(bare())), 320);
    let retry = RetryLayer::new(RetryPolicy::new());
    let stack = ServiceBuilder::new().layer(batch).layer(fallback).layer(retry).layer(cooldown);
    own("full stack", future_of(&stack.service(bare())), 1000);
}

/// Besides the caller's own future: a place in the queue, what the call waits with, and a timer.
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_takes_no_more_than_300_bytes() {
    const CALLERS: usize = 10_000;
    let mut service = AdaptiveCooldownLayer::with_policy(every(secs(1))).layer(bare());
    let mut futures = Vec::with_capacity(CALLERS);
    let mut cx = Context::from_waker(Waker::noop());
    let memory = measure(|| {
        for _ in 0..CALLERS {
            let mut future = Box::pin(service.call(Request::new(())));
            let _ = future.as_mut().poll(&mut cx);
            futures.push(future);
        }
    });
    let (request, own) = (size_of::<Request<()>>(), size_of_val(&*futures[0]));
    let more = memory.bytes_current as usize / CALLERS - own - request;
    println!("{more} bytes beyond a future of {own} and a request of {request}");
    assert!(more <= 300, "{more}");
    drop(futures);
}
