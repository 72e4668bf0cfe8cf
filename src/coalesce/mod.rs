//! Many requests, one call.

mod batch;
mod core;
mod error;
mod future;
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
