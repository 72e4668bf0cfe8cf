//! When the next call may leave: pure decisions, without a clock, without I/O, without `async`.
//!
//! A [`Policy`] is a state machine. It is told what left ([`Policy::depart`]) and what came back
//! ([`Policy::answered`]), and says when the next call may leave ([`Policy::departure`]). The gate of
//! [`AdaptiveCooldownLayer`](crate::AdaptiveCooldownLayer) does the rest: it holds the clock, the queue, the
//! wakers and the epochs.
//!
//! | policy | for |
//! |---|---|
//! | [`Learned`] | a quota that nobody told: the default |
//! | [`Ladder`] | an upstream of which nothing is known: fixed waits before calls, fixed steps after 429s |
//! | [`Known`] | a quota that the provider documents: so many calls in so much time |
//!
//! # Your own policy
//!
//! This one leaves a second between any two calls. On a refusal it closes for as long as the server says, or else
//! for a minute:
//!
//! ```
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer, Cost, WaitReason,
//!     policy::{Answer, Closing, Departure, Policy},
//! };
//!
//! #[derive(Clone, Debug, Default)]
//! struct OnePerSecond {
//!     last: Option<Instant>,
//! }
//!
//! impl Policy for OnePerSecond {
//!     fn departure(&self, arrived: Instant, _: Cost) -> Departure {
//!         match self.last {
//!             Some(last) => Departure::new(last + Duration::from_secs(1), WaitReason::Preflight),
//!             None => Departure::now(arrived),
//!         }
//!     }
//!
//!     fn depart(&mut self, at: Instant, _: Cost) {
//!         self.last = Some(at);
//!     }
//!
//!     fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
//!         if !answer.signal.verdict.is_pushback() {
//!             return None;
//!         }
//!         let told = answer.signal.hints.retry_after.map(Closing::told);
//!         // A burst of refusals is one event: the late ones count only if the server says until when.
//!         if answer.current { told.or(Some(Closing::adaptive(Duration::from_secs(60)))) } else { told }
//!     }
//!
//!     fn reset(&mut self) {
//!         *self = Self::default();
//!     }
//! }
//!
//! let layer = AdaptiveCooldownLayer::with_policy(OnePerSecond::default());
//! # let _ = layer;
//! ```

mod bucket;
mod escalation;
mod known;
mod ladder;
pub mod learned;
mod log;
mod mirror;
mod quota;

pub use self::{known::Known, ladder::Ladder, learned::Learned, quota::Quota};

pub(crate) use self::mirror::Mirrored;

use crate::{
    Cost, WaitReason,
    signal::{Signal, Verdict},
};
use std::{any::Any, fmt, time::Duration};
use tokio::time::Instant;

/// Decides when calls leave. See the [module docs](self).
///
/// Its methods are called under the gate's lock: they have to be quick, must not call back into the gate, and
/// should not panic.
/// Waiting callers need a copy of the policy to book on, hence `Clone`; the copy is made when the queue forms
/// and when it has to be booked anew, not per call.
pub trait Policy: BoxedClone + fmt::Debug + Send {
    /// When a call that came at `arrived` and costs that much may leave, after everything that
    /// [left](Self::depart) so far.
    ///
    /// A time that is past means now. For calls that wait, the answer is asked for again whenever something
    /// changed, with the same `arrived`; it should not depend on how often or when it is asked.
    fn departure(&self, arrived: Instant, cost: Cost) -> Departure;

    /// Whether that many calls, of [one request](Cost::one) each, may leave one after another without a wait, the
    /// first one now and the others now or at any later time, as long as nothing but departures is told meanwhile
    /// (and successes, if it [may hear of them later](Self::hears_later)).
    /// The gate may then let them go without asking. It tells of them before it asks or tells anything else, as if
    /// they had left together with the last of them, less than a millisecond after the first (or evenly within that
    /// time, if it tells of successes with them). That makes calls a
    /// little cheaper, and much cheaper where threads share the gate. Default: false.
    fn has_room_for(&self, calls: usize, now: Instant) -> bool {
        let _ = (calls, now);
        false
    }

    /// A call leaves at `at`. The times never go backwards.
    fn depart(&mut self, at: Instant, cost: Cost);

    /// The call that left at `at` was not sent after all: its caller gave it up, or the service below kept it
    /// waiting, and it will leave again. By default it counts all the same.
    fn recall(&mut self, at: Instant, cost: Cost) {
        let _ = (at, cost);
    }

    /// The call that left at `departed` went away in flight, without an answer. The upstream may have counted it.
    /// Does nothing by default.
    fn abandoned(&mut self, departed: Instant) {
        let _ = departed;
    }

    /// What the call that left at `departed` has cost in truth, where it was `booked` for something else. Comes
    /// after the answer, if at all. Does nothing by default.
    fn settle(&mut self, departed: Instant, booked: Cost, used: Cost) {
        let _ = (departed, booked, used);
    }

    /// The most calls that may be in flight at a time. The gate holds back the next one until an answer came, in
    /// addition to [`departure`](Self::departure). A call that was let go, but whose future is not polled, no longer
    /// counts after a second. Default: no bound.
    fn max_in_flight(&self) -> Option<usize> {
        None
    }

    /// Whether the policy has to hear that a call which leaves now was [accepted](crate::signal::Verdict::Accepted),
    /// if nothing closes the gate in between. Where it need not, and the answer tells of no counters, the gate
    /// does not ask for the lock again: that makes a call cheaper by an eighth, and by more where several threads
    /// share the gate. It is asked when a call leaves; where there is a bound on the calls in flight, all are heard.
    /// Default: true.
    fn needs_success(&self) -> bool {
        true
    }

    /// Whether the policy may hear a little later that a call was [accepted](crate::signal::Verdict::Accepted), if
    /// nothing else happens at the gate meanwhile. Where it also [has room](Self::has_room_for) for some more calls, the
    /// gate then collects, in each thread and for a millisecond at most, what has left and what was accepted, and
    /// [tells of it together](Self::passed) before it asks or tells anything else. Default: false.
    fn hears_later(&self) -> bool {
        false
    }

    /// Calls have left, and calls were accepted, of one request each: what is told together, if the policy
    /// [may hear later](Self::hears_later). By default each is told by [`depart`](Self::depart) and
    /// [`answered`](Self::answered), in turn. They close nothing.
    fn passed(&mut self, calls: &Passed) {
        calls.in_turn(self);
    }

    /// The rate at which it lets calls leave at present, in requests a second, if it has one: for those who look at
    /// the gate. Default: none.
    fn rate(&self) -> Option<f64> {
        None
    }

    /// Whether this policy stands back where the server tells its own counters.
    ///
    /// The gate counts down what the server tells (see [`Reading`](crate::signal::Reading)) under every policy, and
    /// a call leaves at the later of the two times. Where this is true and the server's counter is known well
    /// enough to go by, the counter alone decides. Default: false.
    fn trusts_readings(&self) -> bool {
        false
    }

    /// Whether this policy goes by the server's own counters itself, so that the gate keeps none beside it.
    /// Default: false.
    fn keeps_counters(&self) -> bool {
        false
    }

    /// An answer came in. `Some` closes the gate, to all, for that long; a closing that is shorter than the
    /// one already in force changes nothing. The gate does not read the server's hints by itself: honour
    /// [`retry_after`](crate::signal::Hints::retry_after) here.
    ///
    /// The gate makes one event of each burst: where [`Answer::current`] is false, another answer to calls
    /// that left at the same time has been heard already, or a reset lies between. Such an answer should close
    /// the gate only if the server said until when, and should neither escalate nor clear anything.
    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing>;

    /// Forget what was learned from refusals; calls that left still count.
    fn reset(&mut self);
}

/// Clones a policy behind a `Box`. Implemented for every policy that is `Clone`; nothing to do by hand.
pub trait BoxedClone {
    /// A copy in a box of its own.
    fn boxed_clone(&self) -> Box<dyn Policy>;

    /// To find out which policy it is.
    fn as_any(&self) -> &dyn Any;
}

impl<P: Policy + Clone + 'static> BoxedClone for P {
    fn boxed_clone(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// When a call may leave, and why not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The earliest time.
    pub at: Instant,
    /// What to record if the call had to wait for it: [`WaitReason::Preflight`] for a place in the pace or quota.
    pub reason: WaitReason,
}

impl Departure {
    /// Not before `at`, for this reason.
    pub const fn new(at: Instant, reason: WaitReason) -> Self {
        Self { at, reason }
    }

    /// At once: a call that came at `arrived` need not wait.
    pub const fn now(arrived: Instant) -> Self {
        Self::new(arrived, WaitReason::Normal)
    }
}

/// What came back for one call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// What the answer says.
    pub signal: &'a Signal,
    /// When the call left.
    pub departed: Instant,
    /// What it was booked for.
    pub cost: Cost,
    /// When the answer came.
    pub at: Instant,
    /// Whether the call left in the present epoch, which is to say after the last closing.
    pub current: bool,
}

impl<'a> Answer<'a> {
    /// An answer in the present epoch to a call that cost one request, for testing a policy.
    pub const fn new(signal: &'a Signal, departed: Instant, at: Instant) -> Self {
        Self { signal, departed, cost: Cost::one(), at, current: true }
    }

    /// The same for a call that cost that much.
    #[must_use]
    pub const fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// The same for a call that left before the last closing.
    #[must_use]
    pub const fn late(mut self) -> Self {
        self.current = false;
        self
    }
}

/// Calls that have left, and calls that were accepted, as one. See [`Policy::passed`].
///
/// An accepted call left by now, but maybe not together with these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passed {
    /// How many have left.
    pub departures: u32,
    /// When the first of them did.
    pub first: Instant,
    /// When the last of them did.
    pub last: Instant,
    /// How many were accepted.
    pub accepted: u32,
    /// When these left, if each took as long as all did on average.
    pub departed: Instant,
    /// When the last answer came.
    pub at: Instant,
}

impl Passed {
    /// So many calls that left at that time, all at once, and so many that were accepted then.
    pub const fn new(departures: u32, accepted: u32, at: Instant) -> Self {
        Self { departures, first: at, last: at, accepted, departed: at, at }
    }

    /// The time from one departure to the next, if they are evenly spread.
    fn apart(&self) -> Duration {
        self.last.saturating_duration_since(self.first) / self.departures.saturating_sub(1).max(1)
    }

    /// In turn, so that there seem to be no more in flight than there are.
    fn in_turn(&self, policy: &mut (impl Policy + ?Sized)) {
        const SUCCESS: Signal = Signal::new(Verdict::Accepted);
        let (mut at, apart) = (self.first, self.apart());
        for n in 0..self.departures.max(self.accepted) {
            if n < self.departures {
                policy.depart(at, Cost::one());
                at = (at + apart).min(self.last);
            }
            if n < self.accepted {
                let closing = policy.answered(&Answer::new(&SUCCESS, self.departed, self.at));
                debug_assert_eq!(closing, None, "a success closes nothing");
            }
        }
    }
}

/// For how long the gate closes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// How long, from the answer on.
    pub wait: Duration,
    /// What to record for the calls that wait for it.
    pub reason: WaitReason,
}

impl Closing {
    /// A closing that the server asked for.
    pub const fn told(wait: Duration) -> Self {
        Self { wait, reason: WaitReason::RateLimit }
    }

    /// A closing that the policy chose.
    pub const fn adaptive(wait: Duration) -> Self {
        Self { wait, reason: WaitReason::Adaptive }
    }
}

/// `at + wait`, or a time too far away to matter (tokio's own timers end earlier) where that overflows.
pub(crate) fn later(at: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    at.checked_add(wait.min(FAR)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Least;

    impl Policy for Least {
        fn departure(&self, arrived: Instant, _: Cost) -> Departure {
            Departure::now(arrived)
        }

        fn depart(&mut self, _: Instant, _: Cost) {}

        fn answered(&mut self, _: &Answer<'_>) -> Option<Closing> {
            None
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn a_policy_that_says_the_least_hears_everything_and_bounds_nothing() {
        assert_eq!((Least.rate(), Least.max_in_flight()), (None, None));
        assert!(Least.needs_success());
        assert!(!Least.has_room_for(1, Instant::now()) && !Least.hears_later());
        assert!(!Least.trusts_readings() && !Least.keeps_counters());
    }

    #[test]
    fn a_time_that_is_too_far_away_is_in_thirty_years() {
        let now = Instant::now();
        let years = |years: u64| Duration::from_secs(years * 365 * 86_400);
        assert_eq!(later(now, Duration::MAX), now + years(30));
        assert_eq!(later(now, years(29)), now + years(29));
    }
}
