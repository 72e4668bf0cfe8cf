#![doc = "Placeholder"]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cooldown;
mod error;
pub mod policy;
pub mod record;
pub mod rollout;
pub mod signal;

pub use self::{
    cooldown::{AdaptiveCooldown, AdaptiveCooldownLayer, Handle},
    error::InvalidSetting,
    record::WaitReason,
    rollout::Rollout,
    signal::Rejected,
};
