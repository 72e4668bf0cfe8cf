use super::{
    Coalesce, Linger, Oversize, SplitWhen, Whole,
    core::{Cost, Limits},
};
use crate::{InvalidSetting, record::Statistics};
use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tower::Service;
use tower_layer::Layer;

/// Makes one call of many requests. See the [module docs](super).
///
/// `Req` is a single request, `K` the key of those that may share a call, `P` says which failed calls are
/// [split](super::Split).
///
/// Each service that the layer makes has batches of its own, which its clones share: two services that one layer
/// makes may lead to two upstreams.
#[must_use]
pub struct CoalesceLayer<Req, K = (), P = Whole> {
    pub(super) settings: Settings<Req, K, P>,
}

/// What happens to a call when all of its callers have gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Abandon {
    /// It is dropped.
    #[default]
    Cancel,
    /// It goes on to its end. For writes.
    Finish,
}

/// What happens to a request for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// `poll_ready` is `Pending` until there is.
    #[default]
    Wait,
    /// It gets [`BatchError::Rejected`](super::BatchError::Rejected) at once.
    Reject,
}

type Read<Req, R> = Arc<dyn Fn(&Req) -> R + Send + Sync>;

pub(super) struct Settings<Req, K, P> {
    pub(super) limits: Limits,
    pub(super) max_in_flight: NonZeroUsize,
    pub(super) max_keys: NonZeroUsize,
    capacity: Option<NonZeroUsize>,
    pub(super) overflow: Overflow,
    pub(super) linger: Linger,
    pub(super) abandon: Abandon,
    pub(super) timeout: Option<Duration>,
    pub(super) split: P,
    pub(super) statistics: Statistics,
    key: Read<Req, K>,
    items: Option<Read<Req, usize>>,
    weight: Option<Read<Req, u64>>,
}

impl<Req, K, P> Settings<Req, K, P> {
    /// Requests that wait or are in flight, at most.
    pub(super) fn capacity(&self) -> usize {
        let default =
            || self.max_in_flight.get().saturating_mul(4 * self.limits.max_items.get().min(1 << 20));
        self.capacity.map_or_else(default, NonZeroUsize::get).min(Semaphore::MAX_PERMITS)
    }

    /// Asks the closures of the user.
    pub(super) fn read(&self, request: &Req) -> (K, Cost) {
        let items = self.items.as_ref().map_or(1, |items| items(request).max(1));
        let weight = self.weight.as_ref().map_or(0, |weight| weight(request));
        ((self.key)(request), Cost { items, weight })
    }

    /// The same with another key and another rule for splitting.
    fn with<K2, P2>(
        self,
        rekey: impl FnOnce(Read<Req, K>) -> Read<Req, K2>,
        resplit: impl FnOnce(P) -> P2,
    ) -> Settings<Req, K2, P2> {
        let Self {
            limits,
            max_in_flight,
            max_keys,
            capacity,
            overflow,
            linger,
            abandon,
            timeout,
            split,
            statistics,
            key,
            items,
            weight,
        } = self;
        let (key, split) = (rekey(key), resplit(split));
        Settings {
            limits,
            max_in_flight,
            max_keys,
            capacity,
            overflow,
            linger,
            abandon,
            timeout,
            split,
            statistics,
            key,
            items,
            weight,
        }
    }
}

impl<Req> CoalesceLayer<Req> {
    /// Batches of at most `max_items` requests, closed at the end of the [tick](Linger::Tick), 4 in flight.
    ///
    /// # Errors
    /// If `max_items` is zero.
    pub fn new(max_items: usize) -> Result<Self, InvalidSetting> {
        let settings = Settings {
            limits: Limits {
                max_items: InvalidSetting::positive("max_items", max_items)?,
                max_weight: u64::MAX,
                oversize: Oversize::default(),
            },
            max_in_flight: NonZeroUsize::new(4).expect("4 is not 0"),
            max_keys: NonZeroUsize::new(1024).expect("1024 is not 0"),
            capacity: None,
            overflow: Overflow::default(),
            linger: Linger::default(),
            abandon: Abandon::default(),
            timeout: None,
            split: Whole,
            statistics: Statistics::new(),
            key: Arc::new(|_| ()),
            items: None,
            weight: None,
        };
        Ok(Self { settings })
    }
}

impl<Req, K, P> CoalesceLayer<Req, K, P> {
    /// Batches whose requests together weigh at most `max`, by what `weight` says of each: tokens, bytes, rows.
    /// Default: no bound.
    ///
    /// `weight` is called once per request. If it panics, the request gets
    /// [`BatchError::Panicked`](super::BatchError::Panicked).
    ///
    /// # Errors
    /// If `max` is zero.
    pub fn max_weight(
        mut self,
        max: u64,
        weight: impl Fn(&Req) -> u64 + Send + Sync + 'static,
    ) -> Result<Self, InvalidSetting> {
        if max == 0 {
            return Err(InvalidSetting::new("max_weight", "must be at least 1, is 0"));
        }
        self.settings.limits.max_weight = max;
        self.settings.weight = Some(Arc::new(weight));
        Ok(self)
    }

    /// Weighs requests, without a bound of their weight but the one that is there.
    #[cfg(feature = "http-coalesce")]
    pub(super) fn weigh(mut self, weight: impl Fn(&Req) -> u64 + Send + Sync + 'static) -> Self {
        self.settings.weight = Some(Arc::new(weight));
        self
    }

    /// Lowers the bounds of a batch to these, where they are higher.
    #[cfg(feature = "http-coalesce")]
    pub(super) fn at_most(&mut self, items: usize, weight: u64) {
        let limits = &mut self.settings.limits;
        limits.max_items = limits.max_items.min(NonZeroUsize::new(items).unwrap_or(NonZeroUsize::MIN));
        limits.max_weight = limits.max_weight.min(weight);
    }

    /// How many items a request counts for towards `max_items`. Default: 1, which is also the least.
    pub fn count_items(mut self, items: impl Fn(&Req) -> usize + Send + Sync + 'static) -> Self {
        self.settings.items = Some(Arc::new(items));
        self
    }

    /// What to do with a request that is larger than a batch may be. Default: [`Oversize::SendAlone`].
    pub const fn oversize(mut self, oversize: Oversize) -> Self {
        self.settings.limits.oversize = oversize;
        self
    }

    /// Only requests with the same key share a call. Default: all do.
    ///
    /// Each key has batches of its own, and [`max_in_flight`](Self::max_in_flight) calls of its own: a slow one
    /// does not hold up the others. A key is known only while it has requests.
    pub fn key<K2>(self, key: impl Fn(&Req) -> K2 + Send + Sync + 'static) -> CoalesceLayer<Req, K2, P> {
        CoalesceLayer { settings: self.settings.with(|_| Arc::new(key) as Read<Req, K2>, |split| split) }
    }

    /// Splits a failed call in halves, and those again, down to the request that makes it fail: where
    /// `when` says `true` to its result. Default: never; all requests of a failed call fail.
    ///
    /// For failures that one bad request causes (400, 413, 422), of calls that may be made twice. With `n` requests
    /// in a batch and one of them bad it costs about 2 log₂ n calls more, one after another, and a copy of each
    /// request.
    pub fn split_when<F>(self, when: F) -> CoalesceLayer<Req, K, SplitWhen<F>>
    where
        Req: Clone,
    {
        self.split(SplitWhen(when))
    }

    /// Like [`split_when`](Self::split_when), with a [`Split`](super::Split) of your own.
    pub fn split<P2>(self, split: P2) -> CoalesceLayer<Req, K, P2> {
        CoalesceLayer { settings: self.settings.with(|key| key, |_| split) }
    }

    /// How many keys are known at once. A request with one more is a batch of its own, so that nobody can fill the
    /// memory with keys. Default: 1024.
    ///
    /// # Errors
    /// If `max` is zero.
    pub fn max_keys(mut self, max: usize) -> Result<Self, InvalidSetting> {
        self.settings.max_keys = InvalidSetting::positive("max_keys", max)?;
        Ok(self)
    }

    /// Calls in flight at once, per key. Default: 4. For a bound over all keys, put a
    /// `tower::limit::ConcurrencyLimitLayer` below.
    ///
    /// With one, requests of a key are sent in the order in which they came, from whatever thread; with more, those of
    /// one thread are. (See the [module docs](super#order-and-threads).)
    ///
    /// By Little's law `max_in_flight × max_items / duration of a call` requests pass per second, no more.
    ///
    /// # Errors
    /// If `max` is zero.
    pub fn max_in_flight(mut self, max: usize) -> Result<Self, InvalidSetting> {
        self.settings.max_in_flight = InvalidSetting::positive("max_in_flight", max)?;
        Ok(self)
    }

    /// The size of the waiting room: requests that wait or are in flight, over all keys. Default: four times
    /// `max_items × max_in_flight`.
    ///
    /// # Errors
    /// If `capacity` is zero.
    pub fn capacity(mut self, capacity: usize) -> Result<Self, InvalidSetting> {
        self.settings.capacity = Some(InvalidSetting::positive("capacity", capacity)?);
        Ok(self)
    }

    /// What happens when the waiting room is full. Default: [`Overflow::Wait`].
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// When a batch closes that is not full. Default: [`Linger::Tick`], without a timer.
    pub const fn linger(mut self, linger: Linger) -> Self {
        self.settings.linger = linger;
        self
    }

    /// What happens to a call whose callers have all gone. Default: [`Abandon::Cancel`].
    pub const fn on_abandon(mut self, abandon: Abandon) -> Self {
        self.settings.abandon = abandon;
        self
    }

    /// How long a call may take, from sending on. Default: no bound, and no timer.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// The statistics to write to. Default: ones of its own.
    pub fn statistics(mut self, statistics: &Statistics) -> Self {
        self.settings.statistics = statistics.clone();
        self
    }

    /// Where the layer writes to.
    pub fn get_statistics(&self) -> Statistics {
        self.settings.statistics.clone()
    }
}

impl<Req, K, P: Clone> Clone for Settings<Req, K, P> {
    fn clone(&self) -> Self {
        Self {
            split: self.split.clone(),
            statistics: self.statistics.clone(),
            key: Arc::clone(&self.key),
            items: self.items.clone(),
            weight: self.weight.clone(),
            ..*self
        }
    }
}

impl<Req, K, P: Clone> Clone for CoalesceLayer<Req, K, P> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone() }
    }
}

impl<S, Req, T, K, P> Layer<S> for CoalesceLayer<Req, K, P>
where
    S: Service<Vec<Req>>,
    S::Response: IntoIterator<Item = Result<T, S::Error>>,
    P: Clone,
{
    type Service = Coalesce<S, Req, T, K, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce::new(inner, self.settings.clone())
    }
}

impl<Req, K, P> fmt::Debug for Settings<Req, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("limits", &self.limits)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_keys", &self.max_keys)
            .field("capacity", &self.capacity())
            .field("overflow", &self.overflow)
            .field("linger", &self.linger)
            .field("abandon", &self.abandon)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<Req, K, P> fmt::Debug for CoalesceLayer<Req, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CoalesceLayer").field(&self.settings).finish()
    }
}
