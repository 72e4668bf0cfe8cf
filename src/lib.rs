#![doc = "Placeholder"]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cooldown;
mod deferred;
mod error;
pub mod fallback;
pub mod micro_batch;
pub mod policy;
pub mod record;
mod request;
pub mod retry;
pub mod rollout;
pub mod signal;
mod wakers;

pub use self::{
    cooldown::{AdaptiveCooldown, AdaptiveCooldownLayer, Handle},
    error::InvalidSetting,
    fallback::{Fallback, FallbackLayer},
    micro_batch::{MicroBatch, MicroBatchLayer},
    record::WaitReason,
    rollout::Rollout,
    signal::Rejected,
};
