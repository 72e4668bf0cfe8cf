//! Many HTTP requests, one HTTP call.

mod body;
mod codec;
#[cfg(feature = "embeddings")]
mod embeddings;
mod error;
mod exchange;
mod key;
mod layer;
mod service;

#[cfg(feature = "embeddings")]
pub use self::embeddings::{GeminiEmbeddings, OpenAiEmbeddings};
pub use self::{
    body::{HttpBody, ReadError},
    codec::{Codec, CodecError, Part, Share, SplitFrom, share_out},
    error::HttpError,
    exchange::{Answers, Exchange, Joinable, SplitRefused},
    layer::HttpCoalesceLayer,
    service::HttpCoalesce,
};

use self::exchange::Answer;
