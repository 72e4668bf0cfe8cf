//! The gate with its clock: `Watch::poll`, `Gate::watch`, `closed_until` and `close`, with timers that fire in a thread of
//! their own, while others close the gate for longer and open it.

use crate::{
    parker::{block_on, check, spawn},
    wakers::Wakers,
};
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// Time, in ticks, and the timers of those who sleep, as tokio has them.
#[derive(Default)]
struct Clock {
    time: Mutex<(u64, Vec<(u64, Waker)>)>,
}

impl Clock {
    fn now(&self) -> u64 {
        self.time.lock().unwrap().0
    }

    /// `Sleep::poll`, each time as if it were reset. A timer that is left behind wakes for nothing, which does no harm.
    fn poll_until(&self, until: u64, waker: &Waker) -> Poll<()> {
        let mut time = self.time.lock().unwrap();
        if time.0 >= until {
            return Poll::Ready(());
        }
        time.1.push((until, waker.clone()));
        Poll::Pending
    }

    fn advance(&self) {
        let mut time = self.time.lock().unwrap();
        time.0 += 1;
        let now = time.0;
        let (due, left) = std::mem::take(&mut time.1).into_iter().partition(|(until, _)| *until <= now);
        time.1 = left;
        drop(time);
        let due: Vec<(u64, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

#[derive(Default)]
struct State {
    closed: Option<u64>,
    /// The last moment for which anybody has closed it since it was opened by hand.
    longest: u64,
    next_key: u64,
    handles: BTreeMap<u64, Option<Waker>>,
}

impl State {
    fn closed_until(&mut self, now: u64) -> Option<u64> {
        if self.closed.is_some_and(|closed| closed <= now) {
            self.closed = None;
        }
        self.closed
    }
}

struct Gate {
    clock: Clock,
    state: Mutex<State>,
    maybe_closed: AtomicBool,
}

impl Gate {
    fn closed_until(until: u64) -> Arc<Self> {
        let state = State { closed: Some(until), longest: until, ..State::default() };
        Arc::new(Self {
            clock: Clock::default(),
            state: Mutex::new(state),
            maybe_closed: AtomicBool::new(true),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.state.lock().unwrap(), &mut wakers);
        drop(wakers);
        result
    }

    fn watch(&self, key: &mut Option<u64>, waker: &Waker, now: u64) -> Option<u64> {
        if !self.maybe_closed.load(Relaxed) {
            return None;
        }
        self.with(|state, wakers| {
            let Some(until) = state.closed_until(now) else {
                assert!(self.clock.now() >= state.longest, "open before its time");
                if let Some(key) = key.take() {
                    wakers.discard(state.handles.remove(&key).flatten());
                }
                self.maybe_closed.swap(false, Relaxed);
                return None;
            };
            let next_key = &mut state.next_key;
            let key = *key.get_or_insert_with(|| {
                *next_key += 1;
                *next_key
            });
            wakers.replace(state.handles.entry(key).or_default(), waker);
            Some(until)
        })
    }

    fn poll_ready(&self, key: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            let Some(until) = self.watch(key, cx.waker(), now) else { return Poll::Ready(()) };
            if self.clock.poll_until(until, cx.waker()).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn ready(&self) {
        let mut key = None;
        block_on(poll_fn(|cx| self.poll_ready(&mut key, cx)));
        self.with(|state, wakers| {
            if let Some(key) = key.take() {
                wakers.discard(state.handles.remove(&key).flatten());
            }
        });
    }

    fn close_for(&self, wait: u64) {
        let until = self.clock.now() + wait;
        self.with(|state, wakers| {
            if state.closed.is_none_or(|closed| until > closed) {
                state.closed = Some(until);
                state.handles.values_mut().for_each(|waker| wakers.wake(waker.take()));
            }
            state.longest = state.longest.max(until);
            self.maybe_closed.store(true, Relaxed);
        });
    }

    fn reset(&self) {
        self.with(|state, wakers| {
            (state.closed, state.longest) = (None, 0);
            state.handles.values_mut().for_each(|waker| wakers.wake(waker.take()));
            self.maybe_closed.store(false, Relaxed);
        });
    }

    /// At the end: what the flag says is right, and nobody is left.
    fn is_at_rest(&self) {
        let mut state = self.state.lock().unwrap();
        let closed = state.closed_until(self.clock.now()).is_some();
        assert!(!closed || self.maybe_closed.load(Relaxed), "the flag has forgotten a closing");
        assert!(state.handles.is_empty());
    }
}

fn with_gate(gate: &Arc<Gate>, work: impl FnOnce(&Gate) + 'static) -> loom::thread::JoinHandle<()> {
    let gate = Arc::clone(gate);
    spawn(move || work(&gate))
}

/// It may look just before, while and after its time passes.
#[test]
fn who_waits_leaves_when_the_time_is_over_and_not_before() {
    check(3, || {
        let gate = Gate::closed_until(1);
        let waiters = [(); 2].map(|()| with_gate(&gate, Gate::ready));
        gate.clock.advance();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        gate.is_at_rest();
        assert!(!gate.maybe_closed.load(Relaxed));
    });
}

/// The timer of the first closing fires, and is no permission.
#[test]
fn who_waits_waits_longer_when_it_is_closed_for_longer() {
    check(3, || {
        let gate = Gate::closed_until(1);
        let waits = with_gate(&gate, Gate::ready);
        let closes = with_gate(&gate, |gate| gate.close_for(2));
        for _ in 0..3 {
            gate.clock.advance();
        }
        closes.join().unwrap();
        // It may have been closed at the last moment.
        gate.clock.advance();
        gate.clock.advance();
        waits.join().unwrap();
        gate.is_at_rest();
    });
}

/// One wakes by its timer, another by hand, at the same time.
#[test]
fn a_reset_while_the_time_passes_loses_nobody() {
    check(3, || {
        let gate = Gate::closed_until(1);
        let waiters = [(); 2].map(|()| with_gate(&gate, Gate::ready));
        let resets = with_gate(&gate, Gate::reset);
        gate.clock.advance();
        resets.join().unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        gate.is_at_rest();
    });
}
