//! The error of [`Fallback`](super::Fallback).

use crate::record::FallbackReason;
use std::{error::Error, fmt};

/// No service answered.
///
/// It implements `Error` for all errors that can be printed, `BoxError` among them, and therefore has no
/// `source`: a `BoxError` is not an `Error` itself. Use [`primary`](Self::primary) and
/// [`fallback`](Self::fallback).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackError<E1, E2> {
    /// The first service failed, and the fallback was not tried for that reason, or could not be, because the
    /// request cannot be copied.
    Primary(E1),
    /// Both failed.
    #[non_exhaustive]
    Both {
        /// Why the call went to the fallback.
        reason: FallbackReason,
        /// The first service's error; `None` if it answered, but could not serve the call.
        primary: Option<E1>,
        /// The fallback's error.
        fallback: E2,
    },
}

impl<E1, E2> FallbackError<E1, E2> {
    /// The first service's error, if it had one.
    pub const fn primary(&self) -> Option<&E1> {
        match self {
            Self::Primary(primary) => Some(primary),
            Self::Both { primary, .. } => primary.as_ref(),
        }
    }

    /// The fallback's error, if it was tried.
    pub const fn fallback(&self) -> Option<&E2> {
        match self {
            Self::Primary(_) => None,
            Self::Both { fallback, .. } => Some(fallback),
        }
    }
}

impl<E1: fmt::Display, E2: fmt::Display> fmt::Display for FallbackError<E1, E2> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(primary) => primary.fmt(f),
            Self::Both { reason, primary, fallback } => {
                write!(f, "the primary could not serve the call ({}", reason.as_str())?;
                if let Some(primary) = primary {
                    write!(f, ": {primary}")?;
                }
                write!(f, "), and the fallback failed: {fallback}")
            }
        }
    }
}

impl<E1: fmt::Debug + fmt::Display, E2: fmt::Debug + fmt::Display> Error for FallbackError<E1, E2> {}
