use super::{CodecError, ReadError};
use std::{error::Error, fmt};

/// What went wrong between an HTTP request and its response.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError<E> {
    /// The inner service's error.
    Service(E),
    /// The body of the request could not be read.
    RequestBody(ReadError),
    /// The body of the response could not be read.
    ResponseBody(ReadError),
    /// The requests could not be joined, or the answer could not be split, so that nobody gets what may be another's.
    Codec(CodecError),
}

impl<E: fmt::Display> fmt::Display for HttpError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            Self::RequestBody(error) => write!(f, "request: {error}"),
            Self::ResponseBody(error) => write!(f, "response: {error}"),
            Self::Codec(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for HttpError<E> {}
