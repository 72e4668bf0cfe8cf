//! tower's ways to put layers together: options, tuples, erased types. The error stays that of the client.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Response, StatusCode},
    routing::get,
};
use std::{convert::Infallible, time::Duration};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    layer::layer_fn,
    service_fn,
    util::{BoxCloneService, BoxCloneServiceLayer, BoxCloneSyncService, Either},
};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer, cooldown::TooManyRequests,
    fallback::FallbackError, retry::replay::ReplayLayer,
};

fn client()
-> impl Service<Request, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync {
    service_fn(|_| async { Ok(Response::new(Body::empty())) })
}

async fn status<S>(service: S) -> StatusCode
where
    S: Service<Request, Response = Response<Body>>,
    S::Error: std::fmt::Debug,
{
    service.oneshot(Request::new(Body::empty())).await.unwrap().status()
}

/// Compiles if the error is this one.
fn fails_with<E, S: Service<Request, Error = E>>(service: S) -> S {
    service
}

#[tokio::test]
async fn the_error_is_that_of_the_client() {
    let limited = AdaptiveCooldownLayer::new().max_wait(Duration::ZERO).reject_with(TooManyRequests);
    let cooldown = fails_with::<Infallible, _>(limited.layer(client()));
    let batch = fails_with::<Infallible, _>(MicroBatchLayer::new(2).unwrap().layer(cooldown));
    let fallback = FallbackLayer::new(client()).copy_with(|_: &Request| None).layer(batch);
    assert_eq!(status(fails_with::<FallbackError<Infallible, Infallible>, _>(fallback)).await, 200);
}

#[tokio::test]
async fn an_optional_layer() {
    for some in [true, false] {
        let cooldown = some.then(AdaptiveCooldownLayer::new);
        let client = ServiceBuilder::new().option_layer(cooldown).service(client());
        assert_eq!(status(fails_with::<BoxError, _>(client.map_err(Into::into))).await, 200);
    }
    // The same, keeping the error: both sides have one.
    for some in [true, false] {
        let client = match some.then(AdaptiveCooldownLayer::new) {
            Some(cooldown) => Either::Left(cooldown.layer(client())),
            None => Either::Right(client()),
        };
        assert_eq!(status(client).await, 200);
    }
}

#[tokio::test]
async fn a_tuple_of_layers() {
    let layers = (MicroBatchLayer::new(2).unwrap(), AdaptiveCooldownLayer::new());
    assert_eq!(status(fails_with::<Infallible, _>(layers.layer(client()))).await, 200);
    let router: Router = Router::new().route("/", get(async || "hello")).layer((
        ReplayLayer::new(1024),
        layer_fn(|inner| {
            ServiceBuilder::new()
                .map_request(|request: http::Request<_>| request.map(Body::new))
                .service(inner)
        }),
        AdaptiveCooldownLayer::new(),
    ));
    assert_eq!(status(router).await, 200);
}

#[tokio::test]
async fn erased_types() {
    let service: BoxCloneService<Request, Response<Body>, Infallible> =
        AdaptiveCooldownLayer::new().layer(client()).boxed_clone();
    assert_eq!(status(AdaptiveCooldownLayer::new().layer(service)).await, 200);
    let service = BoxCloneSyncService::new(AdaptiveCooldownLayer::new().layer(client()));
    assert_eq!(status(MicroBatchLayer::new(2).unwrap().layer(service)).await, 200);
    let layer: BoxCloneServiceLayer<_, Request, Response<Body>, Infallible> =
        BoxCloneServiceLayer::new(AdaptiveCooldownLayer::new());
    assert_eq!(status(layer.layer(client())).await, 200);
}

/// In a `Router` every request gets clones, and axum makes the service anew for each route: there is one gate.
#[tokio::test]
async fn a_router_shares_the_gate() {
    let cooldown = AdaptiveCooldownLayer::new().max_wait(Duration::ZERO).reject_with(TooManyRequests);
    let gate = cooldown.handle();
    let router: Router = Router::new()
        .route("/", get(async || StatusCode::TOO_MANY_REQUESTS))
        .route("/other", get(async || StatusCode::OK))
        .layer(cooldown);
    assert_eq!(status(router.clone()).await, 429);
    let other = Request::get("/other").body(Body::empty()).unwrap();
    assert_eq!(router.clone().oneshot(other).await.unwrap().status(), 429);
    assert_eq!(gate.statistics().snapshot().attempts.rejected, 1);
}
