//! Limits that are told in the body.

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
