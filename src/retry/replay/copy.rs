use super::ReplayBody;
use crate::retry::CopyRequest;
use http::Request;

/// Copies requests whose body is a [`ReplayBody`]: for [`RetryPolicy::copy_with`] and [`FallbackLayer::copy_with`].
///
/// A copy whose body turned out to be too large to be kept is not sent.
///
/// [`RetryPolicy::copy_with`]: crate::retry::RetryPolicy::copy_with
/// [`FallbackLayer::copy_with`]: crate::FallbackLayer::copy_with
#[derive(Clone, Copy, Debug, Default)]
pub struct ByReplay;

impl<B> CopyRequest<Request<ReplayBody<B>>> for ByReplay {
    fn copy(&self, request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
        request.body().is_kept().then(|| request.clone())
    }

    fn can_send(&self, copy: &Request<ReplayBody<B>>) -> bool {
        copy.body().can_start()
    }
}
