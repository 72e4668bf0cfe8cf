//! The error cannot be made from a `Rejected`.

use http::{Request, Response};
use std::{convert::Infallible, time::Duration};
use tower::{Layer, Service, util::BoxCloneService};
use tower_cooldown::AdaptiveCooldownLayer;

fn is_service<S: Service<Request<()>>>(_: S) {}

fn max_wait(client: BoxCloneService<Request<()>, Response<()>, Infallible>) {
    is_service(AdaptiveCooldownLayer::new().max_wait(Duration::from_secs(1)).layer(client));
}

fn main() {}
