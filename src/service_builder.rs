//! [`ServiceBuilderExt`]: this crate's layers as methods of tower's `ServiceBuilder`.

use crate::{
    AdaptiveCooldownLayer, CoalesceLayer, FallbackLayer, InvalidSetting, MicroBatchLayer, policy::Policy,
};
use tower::ServiceBuilder;
use tower_layer::Stack;

/// Adds this crate's layers to [`ServiceBuilder`], as its own methods add tower's.
///
/// They make layers with the default settings. For others, for a handle, or for statistics that are read from
/// elsewhere, build the layer and give it to [`ServiceBuilder::layer`].
///
/// ```
/// use http::{Request, Response};
/// use std::time::Duration;
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_cooldown::{
///     ServiceBuilderExt,
///     policy::{Known, Quota},
///     retry::RetryPolicy,
/// };
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// # let first = service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new("tagged".to_owned())) });
/// # let second = first.clone();
/// let client = ServiceBuilder::new()
///     .micro_batch(2)?
///     .fallback(second)
///     .retry(RetryPolicy::new()) // tower's own method
///     .adaptive_cooldown(Known::new(Quota::new(15, Duration::from_secs(60))?))
///     .service(first);
///
/// let response = client.oneshot(Request::new("tag this page".to_owned())).await?;
/// assert_eq!(response.body(), "tagged");
/// # Ok(())
/// # }
/// ```
///
/// The order is that of the [guide](crate#the-order-of-layers): what comes first is outermost.
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// Waits before calls and after 429s, by this policy. See [`AdaptiveCooldownLayer::with_policy`].
    ///
    /// The builder's clones, and all services that are made with it, share one gate.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use tower_cooldown::{ServiceBuilderExt, policy::Learned};
    ///
    /// let builder = ServiceBuilder::new().adaptive_cooldown(Learned::new());
    /// # let _: ServiceBuilder<_> = builder;
    /// ```
    fn adaptive_cooldown(
        self,
        policy: impl Policy + 'static,
    ) -> ServiceBuilder<Stack<AdaptiveCooldownLayer, L>>;

    /// Lets requests pass in groups of at most `size`, with a pause between. See [`MicroBatchLayer::new`].
    ///
    /// # Errors
    /// If `size` is zero.
    fn micro_batch(self, size: usize) -> Result<ServiceBuilder<Stack<MicroBatchLayer, L>>, InvalidSetting>;

    /// Sends calls that the first service cannot serve to a second one. See [`FallbackLayer::new`].
    fn fallback<F>(self, second: F) -> ServiceBuilder<Stack<FallbackLayer<F>, L>>;

    /// Makes one call of up to `max_items` requests. See [`CoalesceLayer::new`].
    ///
    /// ```
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_cooldown::ServiceBuilderExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BoxError> {
    /// let lengths = service_fn(|texts: Vec<String>| async move {
    ///     Ok::<_, BoxError>(texts.iter().map(|text| Ok(text.len())).collect::<Vec<Result<_, BoxError>>>())
    /// });
    /// let client = ServiceBuilder::new().coalesce::<String>(100)?.service(lengths);
    /// assert_eq!(client.oneshot("four".to_owned()).await?, 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If `max_items` is zero.
    fn coalesce<Req>(
        self,
        max_items: usize,
    ) -> Result<ServiceBuilder<Stack<CoalesceLayer<Req>, L>>, InvalidSetting>;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn adaptive_cooldown(
        self,
        policy: impl Policy + 'static,
    ) -> ServiceBuilder<Stack<AdaptiveCooldownLayer, L>> {
        self.layer(AdaptiveCooldownLayer::with_policy(policy))
    }

    fn micro_batch(self, size: usize) -> Result<ServiceBuilder<Stack<MicroBatchLayer, L>>, InvalidSetting> {
        Ok(self.layer(MicroBatchLayer::new(size)?))
    }

    fn fallback<F>(self, second: F) -> ServiceBuilder<Stack<FallbackLayer<F>, L>> {
        self.layer(FallbackLayer::new(second))
    }

    fn coalesce<Req>(
        self,
        max_items: usize,
    ) -> Result<ServiceBuilder<Stack<CoalesceLayer<Req>, L>>, InvalidSetting> {
        Ok(self.layer(CoalesceLayer::new(max_items)?))
    }
}

mod sealed {
    pub trait Sealed {}

    impl<L> Sealed for tower::ServiceBuilder<L> {}
}
