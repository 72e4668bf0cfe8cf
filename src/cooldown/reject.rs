use crate::signal::Rejected;
use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};

/// Makes the answer for a call that is not sent because it would wait for longer than
/// [`max_wait`](crate::AdaptiveCooldownLayer::max_wait).
///
/// Implemented by [`TooManyRequests`], [`IntoError`], and every closure
/// `Fn(Rejected) -> Result<Response, Error>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make a `Result<{Res}, {Err}>` for a call that is not sent",
    note = "after `max_wait`, calls that would wait for longer are answered with an error made by `{Err}::from(Rejected)`",
    note = "implement `From<Rejected>` for `{Err}`, or say what to answer with `.reject_with(..)`: \
            `TooManyRequests` for an HTTP response, or a closure"
)]
pub trait Reject<Res, Err> {
    /// The answer to a rejected call.
    fn reject(&self, rejected: Rejected) -> Result<Res, Err>;
}

impl<F, Res, Err> Reject<Res, Err> for F
where
    F: Fn(Rejected) -> Result<Res, Err>,
{
    fn reject(&self, rejected: Rejected) -> Result<Res, Err> {
        self(rejected)
    }
}

/// Answers with a 429 that has an empty body, `Retry-After` in whole seconds (rounded up), and the
/// [`Rejected`] itself in the response's extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct TooManyRequests;

impl<B: Default, Err> Reject<Response<B>, Err> for TooManyRequests {
    fn reject(&self, rejected: Rejected) -> Result<Response<B>, Err> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(rejected.retry_after_secs()));
        response.extensions_mut().insert(rejected);
        Ok(response)
    }
}

/// Answers with an error: `Err::from(rejected)`. A `BoxError` can be made of it; an error type of your own
/// needs a `From<Rejected>`, and the layers further out a [rule](crate::signal::HttpClassifier::with) by which they
/// recognise it.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntoError;

impl<Res, Err: From<Rejected>> Reject<Res, Err> for IntoError {
    fn reject(&self, rejected: Rejected) -> Result<Res, Err> {
        Err(rejected.into())
    }
}

/// No call is ever rejected: the state of a layer without `max_wait`. It cannot be made by hand.
#[derive(Clone, Copy, Debug)]
pub struct NeverReject {
    _private: (),
}

impl NeverReject {
    pub(super) const fn new() -> Self {
        Self { _private: () }
    }
}

impl<Res, Err> Reject<Res, Err> for NeverReject {
    fn reject(&self, _: Rejected) -> Result<Res, Err> {
        unreachable!("a gate without max_wait rejects nothing, and max_wait replaces NeverReject")
    }
}
