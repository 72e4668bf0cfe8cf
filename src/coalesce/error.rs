//! The error of [`Coalesce`](super::Coalesce).

use std::{error::Error, fmt, sync::Arc};

/// Why a request got no response.
///
/// The layer stays usable after all of them.
///
/// It implements `Error` for all errors that can be printed, `BoxError` among them, and therefore has no
/// `source`: a `BoxError` is not an `Error` itself. Use [`inner`](Self::inner).
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The inner service has failed this request. Others of its batch may have been answered.
    Item(E),
    /// The inner service has failed the whole call; all requests of the batch share the error.
    Batch(Arc<E>),
    /// The inner service has not answered with one result per request. Which one belongs to whom is not known
    /// then, so no request of the batch gets any.
    #[non_exhaustive]
    LengthMismatch {
        /// Requests in the batch.
        expected: usize,
        /// Results; where there are more than expected, at least so many.
        got: usize,
    },
    /// The inner service panicked, in any of its parts, or the closure did that reads a request's key or weight.
    Panicked,
    /// The request was not sent, or its call was given up: no tokio runtime is there, the runtime shut down, or
    /// the layer was [drained](super::Handle::drain).
    Closed,
    /// The call took longer than the layer's [`timeout`](super::CoalesceLayer::timeout).
    TimedOut,
    /// The waiting room is full. The request was not sent.
    Rejected,
    /// The request alone is larger than a batch may be, and the layer rejects those. It was not sent.
    #[non_exhaustive]
    Oversize {
        /// How many items it counts for.
        items: usize,
        /// Its weight.
        weight: u64,
    },
}

impl<E> BatchError<E> {
    /// The inner service's error, if it is one of those.
    pub fn inner(&self) -> Option<&E> {
        match self {
            Self::Item(error) => Some(error),
            Self::Batch(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the request certainly never came to the inner service, so that sending it again cannot do
    /// anything twice.
    pub const fn was_not_sent(&self) -> bool {
        matches!(self, Self::Rejected | Self::Oversize { .. })
    }

    /// The same for each request of a batch.
    pub(super) fn share(&self) -> Self {
        match self {
            Self::Batch(error) => Self::Batch(Arc::clone(error)),
            Self::LengthMismatch { expected, got } => Self::LengthMismatch { expected: *expected, got: *got },
            Self::TimedOut => Self::TimedOut,
            Self::Panicked => Self::Panicked,
            Self::Closed | Self::Item(_) | Self::Rejected | Self::Oversize { .. } => Self::Closed,
        }
    }
}

impl<E: fmt::Display> fmt::Display for BatchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(error) => error.fmt(f),
            Self::Batch(error) => write!(f, "the batch failed: {error}"),
            Self::LengthMismatch { expected, got } => {
                write!(f, "{got} results came back for a batch of {expected} requests")
            }
            Self::Panicked => f.write_str("the service that answers the batch panicked"),
            Self::Closed => f.write_str("the batch was given up: its runtime or its layer is closed"),
            Self::TimedOut => f.write_str("the batch took too long"),
            Self::Rejected => f.write_str("not sent: the waiting room of the batches is full"),
            Self::Oversize { items, weight } => {
                write!(f, "not sent: with {items} items and a weight of {weight} larger than a batch may be")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for BatchError<E> {}
