//! The body of the request is not `Clone`, and there is a retry.

use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use std::convert::Infallible;
use tower::{Layer, Service, retry::RetryLayer, util::BoxCloneService};
use tower_cooldown::retry::RetryPolicy;

type Body = BoxBody<&'static [u8], Infallible>;

fn is_service<S: Service<Request<Body>>>(_: S) {}

fn retry(client: BoxCloneService<Request<Body>, Response<()>, Infallible>) {
    is_service(RetryLayer::new(RetryPolicy::new()).layer(client));
}

fn main() {}
