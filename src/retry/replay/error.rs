use std::{error::Error, fmt};

/// Why a [`ReplayBody`](super::ReplayBody) ended early.
///
/// It implements `Error` for all errors that can be printed, `BoxError` among them, and therefore has no `source`: a
/// `BoxError` is not an `Error` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError<E> {
    /// The body itself failed.
    Body(E),
    /// The body was read before, and not kept whole.
    NotKept,
    /// Another copy is being read since.
    Superseded,
}

impl<E: fmt::Display> fmt::Display for ReplayError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => error.fmt(f),
            Self::NotKept => f.write_str("the body was sent before and could not be kept whole"),
            Self::Superseded => f.write_str("another copy of this body is being sent"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for ReplayError<E> {}
