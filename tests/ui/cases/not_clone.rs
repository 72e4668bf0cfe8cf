//! The inner service is not `Clone`.

use http::{Request, Response};
use std::convert::Infallible;
use tower::{Layer, Service, util::BoxService};
use tower_cooldown::{AdaptiveCooldownLayer, MicroBatchLayer};

fn is_service<S: Service<Request<()>>>(_: S) {}

fn cooldown(client: BoxService<Request<()>, Response<()>, Infallible>) {
    is_service(AdaptiveCooldownLayer::new().layer(client));
}

fn micro_batch(client: BoxService<Request<()>, Response<()>, Infallible>) {
    is_service(MicroBatchLayer::new(2).unwrap().layer(client));
}

fn main() {}
