//! The shared state of one upstream: [`State`] behind a lock, and where its calls are recorded.

use super::{
    booking::{Bounds, Closed, Leave, Moved, SharedBounds},
    state::State,
    untold::Untold,
};
#[cfg(feature = "redis")]
use crate::fleet::{Front, Hook};
use crate::{
    Cost, WaitReason,
    lanes::Lane,
    policy::{Answer, Closing, Policy},
    record::Statistics,
    signal::{Signal, Verdict},
    wakers::Wakers,
};
use std::{
    borrow::Cow,
    fmt,
    hint::spin_loop,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

/// What each call writes comes first; the end of the state, which they only read, keeps it apart from the rest.
/// (An alignment would do that better, and cost a hundred bytes for each key.)
#[repr(C)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// Whether the gate may be closed: lets `poll_ready` pass an open gate without the lock. It is set and
    /// cleared under the lock; a stale reading does no harm, because `call` decides.
    maybe_closed: AtomicBool,
    /// Calls and answers that the state was not told of.
    untold: Untold,
    pub(super) settings: Arc<Settings>,
    /// Where the state is shared by many processes: what talks to them.
    #[cfg(feature = "redis")]
    fleet: Option<Arc<Hook>>,
    #[cfg(test)]
    locked: std::sync::atomic::AtomicUsize,
}

/// What a gate was told when it was made. The gates of one layer, by key, share it.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) name: Cow<'static, str>,
    pub(super) statistics: Statistics,
    pub(super) bounds: SharedBounds,
    pub(super) stay_pending: bool,
    /// Calls may have deadlines of their own.
    pub(super) deadlines: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: Cow::Borrowed("upstream"),
            statistics: Statistics::new(),
            bounds: SharedBounds::default(),
            stay_pending: false,
            deadlines: false,
        }
    }
}

/// Waits of 8 spins, 16, and so on to 256: some microseconds each, and more than a critical section and what disturbs it
/// in all. Whoever looks often takes the lock's cache line from the one who has it.
const SPINS: RangeInclusive<u32> = 3..=8;

impl Gate {
    pub(super) fn new(policy: Box<dyn Policy>, settings: Arc<Settings>) -> Self {
        Self {
            state: Mutex::new(State::new(policy)),
            maybe_closed: AtomicBool::new(false),
            untold: Untold::default(),
            settings,
            #[cfg(feature = "redis")]
            fleet: None,
            #[cfg(test)]
            locked: Default::default(),
        }
    }

    /// For a gate that threads share, and of which there are not too many.
    pub(super) fn by_thread(mut self) -> Self {
        self.untold = Untold::by_thread();
        self
    }

    /// The gate of one process of a fleet.
    #[cfg(feature = "redis")]
    pub(super) fn shared(fleet: Arc<Hook>, settings: Arc<Settings>) -> Self {
        let mut gate = Self::new(fleet.policy(), settings);
        gate.fleet = Some(fleet);
        gate
    }

    #[cfg(feature = "redis")]
    pub(super) fn fleet(&self) -> Option<&Arc<Hook>> {
        self.fleet.as_ref()
    }

    /// A gate of its own with the same policy and settings.
    pub(super) fn fork(&self) -> Self {
        #[cfg(feature = "redis")]
        if let Some(fleet) = &self.fleet {
            return Self::shared(fleet.fork(), Arc::clone(&self.settings));
        }
        Self::new(self.lock_told().fresh_policy(), Arc::clone(&self.settings))
    }

    pub(super) fn settings_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// A panic under the lock can only come from a policy. Nothing is half done when one is called, so the state
    /// can be used after it.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        #[cfg(test)]
        self.locked.fetch_add(1, Relaxed);
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_soon(),
        }
    }

    /// Another thread has the lock, for less time than it takes to go to sleep. A mutex that anybody slept on calls
    /// the system at each unlocking until nobody comes for a while, so it is worth waiting without.
    #[cold]
    fn lock_soon(&self) -> MutexGuard<'_, State> {
        for round in SPINS {
            for _ in 0..1_u32 << round {
                spin_loop();
            }
            match self.state.try_lock() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(state)) => return state.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, with a state that has heard of all who left. Nobody leaves without the lock from here on.
    fn lock_told(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.leased() != 0 {
            self.untold.end_leases(&mut state);
        }
        state
    }

    /// Books a call that nothing holds back.
    #[inline(always)]
    pub(super) fn book_open(&self, (arrived, cost): (Instant, Cost), now: Instant) -> Option<Leave> {
        match self.untold.of_this_thread() {
            Some((of, thread)) => {
                thread.depart(cost, now).or_else(|| self.book_anew(of, (arrived, cost), now))
            }
            None => self.lock().book_open((arrived, cost), now),
        }
    }

    /// The same for a thread that has no lease: it gets one, if there is room for that beside those of others. If not,
    /// theirs are over, too.
    #[inline(never)]
    fn book_anew(&self, thread: Lane, (arrived, cost): (Instant, Cost), now: Instant) -> Option<Leave> {
        let mut state = self.lock();
        let others = if state.leased() == 0 { 0 } else { self.untold.tell(&mut state, now) };
        if let Some((leave, lease)) = state.lease(cost, others, now) {
            self.untold.renew(thread, lease, &mut state);
            return Some(leave);
        }
        if state.leased() != 0 {
            self.untold.end_leases(&mut state);
        }
        state.book_open((arrived, cost), now)
    }

    /// Works on the state, then wakes whom that concerns.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = {
            let mut state = self.lock_told();
            let result = work(&mut state, &mut wakers);
            #[cfg(feature = "redis")]
            if let Some(fleet) = &self.fleet {
                fleet.set_waiting(state.waiting());
            }
            result
        };
        drop(wakers);
        result
    }

    /// Whether a service handle may go on to its inner service: `Some` says until when not, and that the
    /// handle will be woken if the gate opens before.
    pub(super) fn watch(&self, handle: &mut Option<u64>, waker: &Waker, now: Instant) -> Option<Closed> {
        if !self.maybe_closed() {
            return None;
        }
        let (closed, opened) = self.with(|state, wakers| match state.closed_until(now) {
            Some(closed) => {
                state.watch(handle, waker, wakers);
                (Some(closed), false)
            }
            None => {
                state.unwatch(handle, wakers);
                (None, self.maybe_closed.swap(false, Relaxed))
            }
        });
        if opened {
            tracing::info!(upstream = %self.settings.name, "gate open");
        }
        closed
    }

    /// The longest time that a handle waits in `poll_ready`: none, where each call has a deadline of its own.
    pub(super) fn max_pending(&self) -> Option<Duration> {
        let Settings { stay_pending, deadlines, .. } = &*self.settings;
        let max_pending = if *deadlines { Some(Duration::ZERO) } else { self.bounds().max_wait };
        max_pending.filter(|_| !stay_pending)
    }

    /// To be asked under the lock, where they are to hold.
    pub(super) fn bounds(&self) -> Bounds {
        self.settings.bounds.get()
    }

    pub(super) fn maybe_closed(&self) -> bool {
        self.maybe_closed.load(Relaxed)
    }

    #[cfg(feature = "keyed")]
    pub(super) fn is_closed(&self) -> bool {
        self.maybe_closed() && self.lock().closed_until(Instant::now()).is_some()
    }

    /// When the last call left.
    #[cfg(feature = "keyed")]
    pub(super) fn last_departure(&self) -> Option<Instant> {
        self.lock().last_departure()
    }

    pub(super) fn unwatch(&self, handle: &mut Option<u64>) {
        if handle.is_some() {
            self.with(|state, wakers| state.unwatch(handle, wakers));
        }
    }

    #[inline]
    pub(super) fn answered(&self, signal: &Signal, leave: Leave, at: Instant) {
        match is_plain(signal) {
            true if leave.quiet => self.untold.add_answer(),
            true if leave.late && self.untold.accepted(leave, at) => {}
            _ => self.heard(signal, leave, at),
        }
    }

    fn heard(&self, signal: &Signal, leave: Leave, at: Instant) {
        let mut answer = Answer::new(signal, leave.at, at).cost(leave.cost);
        let moved = self.with(|state, wakers| {
            let moved = state.answered(&mut answer, leave, wakers);
            if moved != Moved::No {
                self.maybe_closed.store(true, Relaxed);
            }
            moved
        });
        match moved {
            Moved::Closed(closing) => {
                self.settings.statistics.record_cooldown(closing.reason);
                tracing::warn!(
                    upstream = %self.settings.name,
                    verdict = ?signal.verdict,
                    wait_ms = closing.wait.as_millis(),
                    reason = closing.reason.as_str(),
                    "gate closed"
                );
            }
            Moved::Extended => tracing::debug!(upstream = %self.settings.name, "gate closed for longer"),
            Moved::No => {}
        }
    }

    /// What a call took from the quotas in truth.
    pub(super) fn settle(&self, leave: Leave, used: Cost) {
        let now = Instant::now();
        self.with(|state, wakers| state.settle(leave, used, now, wakers));
    }

    pub(super) fn cool_for(&self, wait: Duration) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.close(Closing::adaptive(wait), true, now, wakers);
            self.maybe_closed.store(true, Relaxed);
        });
        self.settings.statistics.record_cooldown(WaitReason::Adaptive);
        #[cfg(feature = "redis")]
        if let Some(fleet) = &self.fleet {
            fleet.cool_for(wait);
        }
        tracing::warn!(upstream = %self.settings.name, wait_ms = wait.as_millis(), "gate closed by hand");
    }

    pub(super) fn reset(&self) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.reset(now, wakers);
            self.maybe_closed.store(false, Relaxed);
        });
        tracing::info!(upstream = %self.settings.name, "gate reset");
    }

    pub(super) fn replace_policy(&self, policy: Box<dyn Policy>) {
        let now = Instant::now();
        self.with(|state, wakers| state.replace_policy(policy, now, wakers));
        tracing::info!(upstream = %self.settings.name, "policy replaced");
    }

    /// `change` is called under the lock, and may panic.
    pub(super) fn change_policy<E>(
        &self,
        change: impl FnOnce(&dyn Policy) -> Result<Box<dyn Policy>, E>,
    ) -> Result<(), E> {
        let now = Instant::now();
        self.with(|state, wakers| state.change_policy(change, now, wakers))?;
        tracing::info!(upstream = %self.settings.name, "policy changed");
        Ok(())
    }

    /// The bounds have changed.
    pub(super) fn rebound(&self) {
        let now = Instant::now();
        self.with(|state, wakers| state.bound(self.bounds().max_wait, now, wakers));
    }

    /// How many calls of this state have left and are not answered.
    pub(super) fn in_flight(&self, state: &State) -> usize {
        // A call that leaves and is answered while they are added up may be in the one and not in the other.
        let answered = self.untold.answers() as usize;
        let in_flight = state.in_flight().wrapping_sub(answered) as isize;
        in_flight.max(0) as usize
    }

    /// Shows the state to `look`, with the time until which the gate is closed.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(&mut State, Option<Closed>, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.lock_told();
        let closed = state.closed_until(now);
        look(&mut state, closed, now)
    }
}

#[cfg(feature = "redis")]
impl Front for Gate {
    fn renew(&self, closing: Closing, new_epoch: bool) {
        let now = Instant::now();
        self.with(|state, wakers| {
            state.renew(closing, new_epoch, now, wakers);
            let closed = state.closed_until(now).is_some();
            self.maybe_closed.fetch_or(closed, Relaxed);
        });
    }
}

/// A success that says nothing else.
#[inline]
fn is_plain(signal: &Signal) -> bool {
    let hints = &signal.hints;
    signal.verdict == Verdict::Accepted
        && hints.readings.is_empty()
        && hints.retry_after.is_none()
        && hints.exhausted_for.is_none()
        && !hints.concurrency
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gate = f.debug_struct("Gate");
        gate.field("name", &self.settings.name);
        self.inspect(|state, closed, now| {
            gate.field("policy", &state.policy().policy())
                .field("closed_for", &closed.map(|closed| closed.until - now))
                .field("epoch", &state.epoch())
                .field("waiting", &state.waiting())
                .field("in_flight", &self.in_flight(state))
                .finish_non_exhaustive()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        WaitReason::Normal,
        cooldown::{anchor::GateRef, attempt::Attempt},
        deferred::Permit,
        policy::{Known, Ladder, Quota},
        signal::{Reading, Unit},
    };

    fn call(gate: &Arc<Gate>, signal: &Signal) {
        let now = Instant::now();
        let mut attempt =
            Attempt::book(GateRef::Direct(Arc::clone(gate)), (now, Normal), (Cost::one(), None), now);
        assert!(attempt.may_send());
        attempt.answered(signal, now);
    }

    #[test]
    fn an_open_gate_is_locked_once() {
        for lanes in [false, true] {
            let policy = Ladder::new().pace(100, Duration::ZERO, Duration::ZERO).unwrap();
            let gate = Gate::new(Box::new(policy), Arc::default());
            let gate = Arc::new(if lanes { gate.by_thread() } else { gate });
            let in_flight = || gate.in_flight(&gate.lock_told());
            let mut locked = 0;
            let mut calls = |signal: Signal, times| {
                assert!(!gate.maybe_closed());
                let before = gate.locked.load(Relaxed);
                call(&gate, &signal);
                locked = gate.locked.load(Relaxed) - before;
                assert_eq!(locked, times, "{signal:?}");
                assert_eq!(in_flight(), 0);
            };
            calls(Signal::new(Verdict::Accepted), 1);
            calls(Signal::new(Verdict::Failed), 2);
            calls(Signal::new(Verdict::Accepted).reading(Reading::new(Unit::Requests)), 2);
            calls(Signal::new(Verdict::Throttled), 2);
            gate.reset();
            calls(Signal::new(Verdict::Accepted), 1);
        }
    }

    fn by_thread(policy: impl Policy + 'static) -> Gate {
        Gate::new(Box::new(policy), Arc::default()).by_thread()
    }

    fn leave(gate: &Gate, now: Instant) -> Option<Leave> {
        gate.book_open((now, Cost::one()), now)
    }

    #[test]
    fn a_thread_with_a_lease_needs_no_lock() {
        let gate = by_thread(Ladder::new().pace(100, Duration::ZERO, Duration::ZERO).unwrap());
        let now = Instant::now();
        for calls in 1..=100_usize {
            let leave = leave(&gate, now).unwrap();
            assert!(leave.quiet);
            gate.answered(&Signal::new(Verdict::Accepted), leave, now);
            assert_eq!(gate.locked.load(Relaxed), calls.div_ceil(33), "one, and 32 by the lease");
        }
        let after = now + Duration::from_millis(1);
        assert!(leave(&gate, after).is_some());
        assert_eq!(gate.locked.load(Relaxed), 5, "it is over after a millisecond");
        assert!(leave(&gate, after).is_some());
        assert_eq!(gate.inspect(|state, _, _| gate.in_flight(state)), 2);
    }

    #[test]
    fn nobody_leaves_by_a_lease_once_the_gate_is_closed() {
        let gate = by_thread(Ladder::new().pace(100, Duration::ZERO, Duration::ZERO).unwrap());
        let now = Instant::now();
        let [first, second] = [0, 0].map(|_| leave(&gate, now).unwrap());
        gate.answered(&Signal::new(Verdict::Throttled), first, now);
        assert_eq!(leave(&gate, now), None);
        gate.answered(&Signal::new(Verdict::Throttled), second, now);
        assert_eq!(gate.inspect(|state, _, _| (gate.in_flight(state), state.epoch())), (0, 1));
        gate.reset();
        assert_eq!(leave(&gate, now).map(|leave| leave.epoch), Some(2));
    }

    /// Whatever the threads do, no more leave than the quota says, and no fewer.
    #[test]
    fn threads_with_leases_share_a_quota_to_the_call() {
        const QUOTA: u32 = 2_500;
        let quota = Quota::new(QUOTA, Duration::from_secs(3600)).unwrap();
        let gate = by_thread(Known::new(quota));
        let now = Instant::now();
        let left: u32 = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                scope.spawn(|| {
                    let calls = (0..2 * QUOTA).filter_map(|_| leave(&gate, now));
                    calls.map(|leave| gate.answered(&Signal::new(Verdict::Accepted), leave, now)).count()
                })
            });
            threads.map(|thread| thread.join().unwrap() as u32).iter().sum()
        });
        assert_eq!(left, QUOTA);
        assert_eq!(gate.inspect(|state, _, _| gate.in_flight(state)), 0);
    }

    /// Hears of all, may hear of successes later, and notes what is wrong.
    #[derive(Clone, Debug, Default)]
    struct Audit {
        departures: u32,
        answers: u32,
        last: Option<Instant>,
    }

    impl Policy for Audit {
        fn departure(&self, arrived: Instant, _: Cost) -> crate::policy::Departure {
            crate::policy::Departure::now(arrived)
        }

        fn has_room_for(&self, calls: usize, _: Instant) -> bool {
            calls <= 200
        }

        fn hears_later(&self) -> bool {
            true
        }

        fn depart(&mut self, at: Instant, _: Cost) {
            assert!(self.last.is_none_or(|last| last <= at), "times do not go backwards");
            self.last = Some(at);
            self.departures += 1;
        }

        fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
            self.answers += 1;
            assert!(self.answers <= self.departures, "an answer to a call that has not left");
            assert!(answer.departed <= answer.at);
            let refused = answer.signal.verdict.is_pushback() && answer.current;
            refused.then(|| Closing::adaptive(Duration::ZERO))
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn a_policy_hears_of_each_departure_and_each_answer_once_however_many_threads_there_are() {
        const CALLS: u32 = 20_000;
        let gate = by_thread(Audit::default());
        let in_flight = Mutex::new(Vec::new());
        let threads = || {
            for n in 0..CALLS {
                // Not always the own one: the calls of one thread may be answered on another.
                let leave = loop {
                    // A refusal has closed the gate up to a time that may be later than this.
                    if let Some(leave) = leave(&gate, Instant::now()) {
                        break leave;
                    }
                };
                let leave = match n % 5 {
                    0 => std::mem::replace(
                        in_flight.lock().unwrap().first_mut().unwrap_or(&mut { leave }),
                        leave,
                    ),
                    _ => leave,
                };
                let verdict = if n % 997 == 0 { Verdict::Throttled } else { Verdict::Accepted };
                gate.answered(&Signal::new(verdict), leave, Instant::now());
            }
        };
        in_flight.lock().unwrap().push(leave(&gate, Instant::now()).unwrap());
        std::thread::scope(|scope| {
            [(); 4].map(|()| scope.spawn(threads)).map(|thread| thread.join().unwrap())
        });
        let last = in_flight.into_inner().unwrap().pop().unwrap();
        gate.answered(&Signal::new(Verdict::Accepted), last, Instant::now());
        gate.inspect(|state, _, _| {
            assert_eq!(gate.in_flight(state), 0);
            let audit = state.policy().policy().as_any().downcast_ref::<Audit>().unwrap();
            assert_eq!((audit.departures, audit.answers), (4 * CALLS + 1, 4 * CALLS + 1));
        });
        let locked = gate.locked.load(Relaxed);
        assert!(locked < 4 * CALLS as usize, "most are let go and heard without the lock: {locked}");
    }

    #[test]
    fn a_success_that_is_told_later_is_told_before_a_refusal() {
        let gate = by_thread(Audit::default());
        let now = Instant::now();
        let [first, second, third] = [0; 3].map(|_| leave(&gate, now).unwrap());
        let locked = || gate.locked.load(Relaxed);
        assert_eq!(locked(), 1);
        gate.answered(&Signal::new(Verdict::Accepted), second, now);
        gate.answered(&Signal::new(Verdict::Accepted), first, now);
        assert_eq!(locked(), 1, "it is heard later");
        gate.answered(&Signal::new(Verdict::Throttled), third, now);
        assert_eq!(locked(), 2);
        let told = gate.inspect(|state, _, _| format!("{:?}", state.policy().policy()));
        assert!(told.starts_with("Audit { departures: 3, answers: 3,"), "{told}");
        // The lease was of the epoch before.
        let fourth = leave(&gate, now + Duration::from_millis(1)).unwrap();
        gate.answered(
            &Signal::new(Verdict::Accepted),
            Leave { epoch: 0, ..fourth },
            now + Duration::from_millis(1),
        );
        assert_eq!(locked(), 5, "the departure, the answer, and the look in between");
    }

    /// One by key has nothing by thread.
    #[test]
    fn a_gate_is_small() {
        let policy = crate::policy::Known::new(crate::policy::Quota::new(9, Duration::from_secs(1)).unwrap());
        let reference_counts = 2 * size_of::<usize>();
        let learned = size_of::<crate::policy::Learned>();
        for (policy, most) in [(size_of_val(&policy), 512), (size_of::<Ladder>(), 512), (learned, 1024)] {
            let gate = reference_counts + size_of::<Gate>() + policy;
            println!("{gate} bytes");
            assert!(gate <= most, "{gate}");
        }
    }

    #[test]
    fn a_success_after_a_refusal_is_told_to_the_policy() {
        let gate = Arc::new(Gate::new(Box::new(Ladder::new().steps([Duration::ZERO; 4])), Arc::default()));
        call(&gate, &Signal::new(Verdict::Throttled));
        assert!(gate.lock().policy().needs_success());
        let now = Instant::now() + Duration::from_secs(10);
        let leave = gate.book_open((now, Cost::one()), now).expect("nothing holds it back");
        gate.answered(&Signal::new(Verdict::Accepted), leave, now);
        assert!(!gate.lock().policy().needs_success());
    }
}
