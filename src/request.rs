//! Copies of requests, for layers that may have to send one twice.

/// Makes a copy of a request, where that can be done.
///
/// Implemented by [`ByClone`] (the default: the request is `Clone`), and by every closure
/// `Fn(&Request) -> Option<Request>`, for requests that can be copied only sometimes:
/// `|request: &reqwest::Request| request.try_clone()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot copy a `{Req}`",
    note = "to send a request again it has to be `Clone`; an `http::Request<B>` is if its body `B` is",
    note = "or say how to copy it: `.copy_with(|request: &_| -> Option<_> {{ .. }})`, `None` where it cannot be copied"
)]
pub trait CopyRequest<Req> {
    /// A copy, or `None` if this request cannot be copied. It is then sent once only.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Whether a copy that was made before can still be sent, now that it is needed. By default it can.
    fn can_send(&self, copy: &Req) -> bool {
        let _ = copy;
        true
    }
}

/// Copies requests that are `Clone`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClone;

impl<Req: Clone> CopyRequest<Req> for ByClone {
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<F, Req> CopyRequest<Req> for F
where
    F: Fn(&Req) -> Option<Req>,
{
    fn copy(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}
