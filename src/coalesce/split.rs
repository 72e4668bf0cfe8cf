//! Whether a call that failed is made again in halves.

use std::fmt;

/// Whether a failed call is made again in two halves, down to the request that made it fail.
///
/// Implemented by [`Whole`] (the default: never), by [`SplitWhen`], and, for HTTP, by
/// `http::SplitRefused`.
pub trait Split<Req, Res, Err> {
    /// Copies of the requests, to be sent again. Asked before each call of two requests or more; `None` where
    /// there will be no second call.
    fn copy(&self, requests: &[Req]) -> Option<Vec<Req>>;

    /// Whether this result is one of a call that should be split.
    fn splits(&self, result: Result<&Res, &Err>) -> bool;
}

/// A failed call fails all of its requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole;

impl<Req, Res, Err> Split<Req, Res, Err> for Whole {
    fn copy(&self, _: &[Req]) -> Option<Vec<Req>> {
        None
    }

    fn splits(&self, _: Result<&Res, &Err>) -> bool {
        false
    }
}

/// Splits calls whose result the closure says `true` to. Made by
/// [`CoalesceLayer::split_when`](super::CoalesceLayer::split_when).
#[derive(Clone, Copy)]
pub struct SplitWhen<F>(pub(super) F);

impl<F> fmt::Debug for SplitWhen<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SplitWhen")
    }
}

impl<F, Req, Res, Err> Split<Req, Res, Err> for SplitWhen<F>
where
    Req: Clone,
    F: Fn(Result<&Res, &Err>) -> bool,
{
    fn copy(&self, requests: &[Req]) -> Option<Vec<Req>> {
        Some(requests.to_vec())
    }

    fn splits(&self, result: Result<&Res, &Err>) -> bool {
        self.0(result)
    }
}
