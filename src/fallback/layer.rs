use super::Fallback;
use crate::{
    record::{FallbackReason, Statistics},
    request::ByClone,
    signal::HttpClassifier,
};
use std::{any::type_name, fmt};
use tower_layer::Layer;

/// Sends calls that the inner service cannot serve to a second one. See the [module docs](super).
///
/// `F` is the second service, `C` reads the first one's responses ([`Classify`](crate::signal::Classify)), `K`
/// copies the requests ([`CopyRequest`](crate::retry::CopyRequest)).
#[must_use]
#[derive(Clone)]
pub struct FallbackLayer<F, C = HttpClassifier, K = ByClone> {
    fallback: F,
    options: Options<C, K>,
}

#[derive(Clone)]
pub(super) struct Options<C, K> {
    pub(super) classify: C,
    pub(super) copy: K,
    /// Whether to fall back, by reason.
    pub(super) reasons: [bool; FallbackReason::ALL.len()],
    pub(super) statistics: Statistics,
}

impl<F> FallbackLayer<F> {
    /// Falls back to this service for every reason but [`FallbackReason::ClientError`].
    pub fn new(fallback: F) -> Self {
        let options = Options {
            classify: HttpClassifier::new(),
            copy: ByClone,
            reasons: FallbackReason::ALL.map(|reason| reason != FallbackReason::ClientError),
            statistics: Statistics::new(),
        };
        Self { fallback, options }
    }
}

impl<F, C, K> FallbackLayer<F, C, K> {
    /// Falls back for this reason, too. Default: for all but [`FallbackReason::ClientError`].
    pub fn also(mut self, reason: FallbackReason) -> Self {
        self.options.reasons[reason as usize] = true;
        self
    }

    /// Does not fall back for this reason. Default: see [`also`](Self::also).
    pub fn except(mut self, reason: FallbackReason) -> Self {
        self.options.reasons[reason as usize] = false;
        self
    }

    /// How the first service's responses are read. Default: [`HttpClassifier`].
    pub fn classify<C2>(self, classify: C2) -> FallbackLayer<F, C2, K> {
        let Options { copy, reasons, statistics, .. } = self.options;
        FallbackLayer { fallback: self.fallback, options: Options { classify, copy, reasons, statistics } }
    }

    /// How requests are copied. Default: [`ByClone`]. A request that is not copied stays with the first
    /// service.
    pub fn copy_with<K2>(self, copy: K2) -> FallbackLayer<F, C, K2> {
        let Options { classify, reasons, statistics, .. } = self.options;
        FallbackLayer { fallback: self.fallback, options: Options { classify, copy, reasons, statistics } }
    }

    /// The statistics to write to. Default: ones of its own.
    pub fn statistics(mut self, statistics: &Statistics) -> Self {
        self.options.statistics = statistics.clone();
        self
    }

    /// Where the layer writes to.
    pub fn get_statistics(&self) -> Statistics {
        self.options.statistics.clone()
    }
}

impl<S, F: Clone, C: Clone, K: Clone> Layer<S> for FallbackLayer<F, C, K> {
    type Service = Fallback<S, F, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        self.options.statistics.expect_calls();
        Fallback::new(inner, self.fallback.clone(), self.options.clone())
    }
}

impl<F: fmt::Debug, C, K> fmt::Debug for FallbackLayer<F, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer")
            .field("fallback", &self.fallback)
            .field("options", &self.options)
            .finish()
    }
}

impl<C, K> fmt::Debug for Options<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = FallbackReason::ALL.into_iter().filter(|reason| self.reasons[*reason as usize]);
        f.debug_struct("Options")
            .field("classify", &type_name::<C>())
            .field("copy", &type_name::<K>())
            .field("reasons", &reasons.map(FallbackReason::as_str).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
