use super::{
    AdaptiveCooldown, Handle, IntoError, NeverReject, NoDeadline,
    booking::SharedBounds,
    gate::{Gate, Settings},
};
use crate::{
    cost::OneRequest,
    policy::{Learned, Policy},
    record::Statistics,
    rollout::Everyone,
    signal::HttpClassifier,
};
use std::{any::type_name, borrow::Cow, fmt, sync::Arc, time::Duration};
use tower_layer::Layer;

/// Keeps the calls to one upstream inside its limit. See the [module docs](super).
///
/// The layer value holds the gate: its clones, all services made from it, and their clones share one. Make one
/// layer per upstream (and per credential, where the upstream counts by credential).
///
/// Settings come first, then [`handle`](Self::handle), clones and services: a setting that is made later gives
/// this layer a gate of its own, and leaves the one that is in use as it is. What may change while the program runs, the
/// [`Handle`] changes.
///
/// `C` reads the responses ([`Classify`](crate::signal::Classify)), `R` answers for calls that are not sent
/// ([`Reject`](super::Reject)), `A` says which calls the layer works on ([`Admit`](crate::rollout::Admit)), `W`
/// what they cost ([`CostOf`](crate::cost::CostOf)), `D` how much time they have
/// ([`TimeLeft`](super::TimeLeft)).
#[must_use]
#[derive(Clone)]
pub struct AdaptiveCooldownLayer<
    C = HttpClassifier,
    R = NeverReject,
    A = Everyone,
    W = OneRequest,
    D = NoDeadline,
> {
    gate: Arc<Gate>,
    options: Options<C, R, A, W, D>,
}

/// What the layer hands to its services besides the gate.
#[derive(Clone)]
pub(super) struct Options<C, R, A, W, D> {
    pub(super) classify: C,
    pub(super) reject: R,
    pub(super) admit: A,
    pub(super) cost: W,
    pub(super) deadline: D,
    pub(super) track_usage: bool,
}

const HAS_AN_ANSWER: &str = "the layer that is being built has an answer for rejected calls";

impl AdaptiveCooldownLayer {
    /// A gate with the default policy, [`Learned`], which finds the quota by itself.
    pub fn new() -> Self {
        Self::with_policy(Learned::new())
    }

    /// A gate with this policy.
    pub fn with_policy(policy: impl Policy + 'static) -> Self {
        Self::with_gate(Gate::new(Box::new(policy), Arc::default()))
    }

    /// A gate that is one with those of other processes. See [`crate::fleet`].
    ///
    /// It finds the quota by itself, as [`new`](Self::new) does. All gates of the fleet are one for the upstream: also
    /// two layers in one process, and the gates of a [keyed](super) layer, which then share one quota.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn shared(fleet: crate::fleet::Fleet) -> Self {
        Self::with_gate(Gate::shared(crate::fleet::Hook::new(fleet), Arc::default()))
    }

    fn with_gate(gate: Gate) -> Self {
        Self {
            gate: Arc::new(gate.by_thread()),
            options: Options {
                classify: HttpClassifier::new(),
                reject: NeverReject::new(),
                admit: Everyone,
                cost: OneRequest,
                deadline: NoDeadline,
                track_usage: false,
            },
        }
    }
}

impl Default for AdaptiveCooldownLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, A, W, D> AdaptiveCooldownLayer<C, NeverReject, A, W, D> {
    /// The longest that a call may wait for its departure, from the time it came. Default: no bound. (The time
    /// that the inner service then takes to get ready is its own.)
    ///
    /// The wait is known when the call is booked, so one that would take longer is rejected at once, without
    /// taking a place. A call that waits already is rejected as soon as a new closing makes its wait too long.
    /// While the gate is closed for longer than this, `poll_ready` answers `Ready`, so that calls come and are
    /// rejected, and served by a fallback, instead of piling up; see
    /// [`stay_pending`](AdaptiveCooldownLayer::stay_pending) for use below `Balance`.
    ///
    /// A rejected call ends with `S::Error::from(Rejected)`; see [`reject_with`](Self::reject_with), which comes
    /// after, for services whose error cannot be made that way. Layers further out recognise a [`Rejected`] in a
    /// `BoxError`, but not in an error type of your own: give them a [rule](HttpClassifier::with) for it.
    ///
    /// With a retry outside, a call that was answered 429 may be rejected at its second attempt, and the first
    /// answer is lost. To keep it, tell the retry to
    /// [decline](crate::retry::RetryPolicy::decline_if_closed_for) for the same time.
    ///
    /// [`Rejected`]: crate::Rejected
    pub fn max_wait(mut self, max_wait: Duration) -> AdaptiveCooldownLayer<C, IntoError, A, W, D> {
        self.bounds_mut().set_max_wait(Some(max_wait)).expect(HAS_AN_ANSWER);
        self.replace_reject(IntoError)
    }

    /// The most calls that may wait for their departure at a time. Default: no bound.
    ///
    /// One more is rejected at once, in the same way as a call that would exceed [`max_wait`](Self::max_wait).
    pub fn max_waiting(mut self, calls: usize) -> AdaptiveCooldownLayer<C, IntoError, A, W, D> {
        self.bounds_mut().set_max_waiting(Some(calls)).expect(HAS_AN_ANSWER);
        self.replace_reject(IntoError)
    }

    /// How much time a call has: [`GrpcTimeout`](super::GrpcTimeout), or a closure
    /// `Fn(&Request) -> Option<Duration>`. Default: no call has a deadline.
    ///
    /// A call that would have to wait for longer is rejected at once, with [`Rejected::past_deadline`], as with
    /// [`max_wait`](Self::max_wait); both may be set, and the sooner counts. The time counts from `call`; a retry
    /// further out asks anew for each attempt. While the gate is closed, `poll_ready` answers `Ready` so that each
    /// call is judged by its own time; [`stay_pending`](AdaptiveCooldownLayer::stay_pending) has the last word.
    ///
    /// It bounds the waiting only. A timeout of the client's own begins when the call is sent.
    ///
    /// ```
    /// use tower_cooldown::{
    ///     AdaptiveCooldownLayer,
    ///     cooldown::{GrpcStatus, GrpcTimeout},
    /// };
    ///
    /// // DEADLINE_EXCEEDED in place of a wait that would be too long for this call.
    /// let layer = AdaptiveCooldownLayer::new().deadline(GrpcTimeout).reject_with(GrpcStatus);
    /// # let _ = layer;
    /// ```
    ///
    /// [`Rejected::past_deadline`]: crate::Rejected::past_deadline
    pub fn deadline<D2>(self, deadline: D2) -> AdaptiveCooldownLayer<C, IntoError, A, W, D2> {
        self.with_deadline(deadline).replace_reject(IntoError)
    }
}

/// The second bound, after the first.
impl<C, A, W, D> AdaptiveCooldownLayer<C, IntoError, A, W, D> {
    /// See [`max_wait`](AdaptiveCooldownLayer::max_wait) of a layer without a bound.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.bounds_mut().set_max_wait(Some(max_wait)).expect(HAS_AN_ANSWER);
        self
    }

    /// See [`max_waiting`](AdaptiveCooldownLayer::max_waiting) of a layer without a bound.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.bounds_mut().set_max_waiting(Some(calls)).expect(HAS_AN_ANSWER);
        self
    }

    /// See [`deadline`](AdaptiveCooldownLayer::deadline) of a layer without a bound.
    pub fn deadline<D2>(self, deadline: D2) -> AdaptiveCooldownLayer<C, IntoError, A, W, D2> {
        self.with_deadline(deadline)
    }
}

impl<C, R, A, W, D> AdaptiveCooldownLayer<C, R, A, W, D> {
    /// How responses are read. Default: [`HttpClassifier`]. For rules of your own see [`crate::signal`].
    pub fn classify<C2>(self, classify: C2) -> AdaptiveCooldownLayer<C2, R, A, W, D> {
        let Options { reject, admit, cost, deadline, track_usage, .. } = self.options;
        AdaptiveCooldownLayer {
            gate: self.gate,
            options: Options { classify, reject, admit, cost, deadline, track_usage },
        }
    }

    /// What answers a call that is rejected because of [`max_wait`](AdaptiveCooldownLayer::max_wait), which
    /// comes first, or of its [`deadline`](AdaptiveCooldownLayer::deadline): [`TooManyRequests`](super::TooManyRequests),
    /// [`GrpcStatus`](super::GrpcStatus), or a closure `Fn(Rejected) -> Result<Response, Error>`. Default: an error,
    /// by [`IntoError`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_cooldown::{AdaptiveCooldownLayer, cooldown::TooManyRequests};
    ///
    /// let layer =
    ///     AdaptiveCooldownLayer::new().max_wait(Duration::from_secs(30)).reject_with(TooManyRequests);
    /// # let _ = layer;
    /// ```
    pub fn reject_with<R2>(self, reject: R2) -> AdaptiveCooldownLayer<C, R2, A, W, D> {
        self.replace_reject(reject)
    }

    fn with_deadline<D2>(mut self, deadline: D2) -> AdaptiveCooldownLayer<C, R, A, W, D2> {
        self.settings_mut().deadlines = true;
        let Options { classify, reject, admit, cost, track_usage, .. } = self.options;
        AdaptiveCooldownLayer {
            gate: self.gate,
            options: Options { classify, reject, admit, cost, deadline, track_usage },
        }
    }

    fn replace_reject<R2>(self, reject: R2) -> AdaptiveCooldownLayer<C, R2, A, W, D> {
        let Options { classify, admit, cost, deadline, track_usage, .. } = self.options;
        AdaptiveCooldownLayer {
            gate: self.gate,
            options: Options { classify, reject, admit, cost, deadline, track_usage },
        }
    }

    /// Lets `poll_ready` be `Pending` whenever the gate is closed, also for longer than `max_wait`.
    ///
    /// Below `Balance` this is what one wants: it goes to another endpoint. An endpoint that is ready to reject
    /// looks idle to it, and draws calls. The same goes for `LoadShed`. Off by default, because callers without
    /// such a layer would wait for longer than `max_wait` in `poll_ready`.
    pub fn stay_pending(mut self) -> Self {
        self.settings_mut().stay_pending = true;
        self
    }

    /// Which calls the layer works on: a [`Rollout`](crate::Rollout), or one that is sticky
    /// [by key](crate::Rollout::by). Default: all.
    ///
    /// Calls outside go straight to the inner service, whatever the gate's state. They are recorded in the
    /// control arm, and their answers do not move the gate.
    pub fn rollout<A2>(self, rollout: A2) -> AdaptiveCooldownLayer<C, R, A2, W, D> {
        let Options { classify, reject, cost, deadline, track_usage, .. } = self.options;
        let options = Options { classify, reject, admit: rollout, cost, deadline, track_usage };
        AdaptiveCooldownLayer { gate: self.gate, options }
    }

    /// What each call takes from the quotas: a closure `Fn(&Request) -> Cost`. Default: one request and no tokens.
    ///
    /// It is an estimate, and counts from when the call is booked. Where the upstream limits tokens as well, by a
    /// [declared](crate::policy::Known::tokens) quota or by the counters that it tells, a call leaves at the later
    /// of the two times. What the call cost in truth comes with the response
    /// ([`Signal::used`](crate::signal::Signal::used)) or from the caller ([`track_usage`](Self::track_usage)), and
    /// the difference is settled then.
    ///
    /// ```
    /// use http::Request;
    /// use tower_cooldown::{AdaptiveCooldownLayer, Cost};
    ///
    /// // About four characters make a token, and the answer is limited to 500.
    /// let layer = AdaptiveCooldownLayer::new()
    ///     .cost(|request: &Request<String>| Cost::one().input(request.body().len() as u32 / 4).output(500));
    /// # let _ = layer;
    /// ```
    pub fn cost<W2>(self, cost: W2) -> AdaptiveCooldownLayer<C, R, A, W2, D> {
        let Options { classify, reject, admit, deadline, track_usage, .. } = self.options;
        AdaptiveCooldownLayer {
            gate: self.gate,
            options: Options { classify, reject, admit, cost, deadline, track_usage },
        }
    }

    /// Puts a [`Usage`](crate::record::Usage) into the extensions of every response, with which the caller can
    /// report tokens. Off by default, because it costs an allocation per response. A plain closure as
    /// [`classify`](Self::classify) cannot do it; [`HttpClassifier::with`] a rule can.
    pub fn track_usage(mut self) -> Self {
        self.options.track_usage = true;
        self
    }

    /// The statistics to write to. Default: ones of its own, to be had from [`Handle::statistics`].
    pub fn statistics(mut self, statistics: &Statistics) -> Self {
        self.settings_mut().statistics = statistics.clone();
        self
    }

    /// The upstream's name in `tracing` events. Default: `upstream`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings_mut().name = name.into();
        self
    }

    #[cfg(feature = "keyed")]
    pub(super) fn into_parts(self) -> (Arc<Gate>, Options<C, R, A, W, D>) {
        (self.gate, self.options)
    }

    #[cfg(feature = "keyed")]
    pub(super) const fn from_parts(gate: Arc<Gate>, options: Options<C, R, A, W, D>) -> Self {
        Self { gate, options }
    }

    /// A view of the gate that can be kept and cloned. Take it after the settings are made.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.gate))
    }

    fn bounds_mut(&mut self) -> &mut SharedBounds {
        self.settings_mut().bounds.build()
    }

    fn settings_mut(&mut self) -> &mut Settings {
        if Arc::get_mut(&mut self.gate).is_none() {
            tracing::debug!(upstream = %self.gate.settings.name, "a late setting: the layer gets a gate of its own");
            self.gate = Arc::new(self.gate.fork().by_thread());
        }
        Arc::get_mut(&mut self.gate).expect("this layer alone has the gate that was just made").settings_mut()
    }
}

impl<S, C, R, A, W, D> Layer<S> for AdaptiveCooldownLayer<C, R, A, W, D>
where
    C: Clone,
    R: Clone,
    A: Clone,
    W: Clone,
    D: Clone,
{
    type Service = AdaptiveCooldown<S, C, R, A, W, D>;

    fn layer(&self, inner: S) -> Self::Service {
        self.gate.settings.statistics.claim_attempts();
        AdaptiveCooldown::new(inner, Arc::clone(&self.gate), self.options.clone())
    }
}

impl<C, R, A: fmt::Debug, W, D> fmt::Debug for AdaptiveCooldownLayer<C, R, A, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveCooldownLayer")
            .field("gate", &self.gate)
            .field("options", &self.options)
            .finish()
    }
}

/// Closures have no `Debug`; their type's name says where they were written.
impl<C, R, A: fmt::Debug, W, D> fmt::Debug for Options<C, R, A, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("classify", &type_name::<C>())
            .field("reject", &type_name::<R>())
            .field("admit", &self.admit)
            .field("cost", &type_name::<W>())
            .field("deadline", &type_name::<D>())
            .field("track_usage", &self.track_usage)
            .finish()
    }
}
