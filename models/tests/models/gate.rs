//! `Gate::watch`, `answered`, `cool_for` and `reset`: the flag that lets `poll_ready` pass an open gate without the
//! lock, and the wakers of those who wait.

use crate::{
    parker::{block_on, check, spawn},
    wakers::Wakers,
};
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Poll, Waker},
};

#[derive(Default)]
struct State {
    closed: bool,
    epoch: u64,
    next_key: u64,
    handles: BTreeMap<u64, Option<Waker>>,
}

/// As `src/cooldown/gate.rs`, with a state that knows no time.
struct Gate {
    state: Mutex<State>,
    maybe_closed: AtomicBool,
}

impl Gate {
    fn new(closed: bool) -> Arc<Self> {
        let state = Mutex::new(State { closed, ..State::default() });
        Arc::new(Self { state, maybe_closed: AtomicBool::new(closed) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.state.lock().unwrap(), &mut wakers);
        drop(wakers);
        result
    }

    /// `poll_ready`
    fn watch(&self, key: &mut Option<u64>, waker: &Waker) -> Poll<()> {
        if !self.maybe_closed.load(Relaxed) {
            return Poll::Ready(());
        }
        self.with(|state, wakers| {
            if !state.closed {
                if let Some(key) = key.take() {
                    wakers.discard(state.handles.remove(&key).flatten());
                }
                self.maybe_closed.swap(false, Relaxed);
                return Poll::Ready(());
            }
            let next_key = &mut state.next_key;
            let key = *key.get_or_insert_with(|| {
                *next_key += 1;
                *next_key
            });
            wakers.replace(state.handles.entry(key).or_default(), waker);
            Poll::Pending
        })
    }

    fn unwatch(&self, key: &mut Option<u64>) {
        self.with(|state, wakers| {
            if let Some(key) = key.take() {
                wakers.discard(state.handles.remove(&key).flatten());
            }
        });
    }

    fn close(&self) {
        self.with(|state, wakers| {
            state.closed = true;
            state.epoch += 1;
            for waker in state.handles.values_mut() {
                wakers.wake(waker.take());
            }
            self.maybe_closed.store(true, Relaxed);
        });
    }

    fn reset(&self) {
        self.with(|state, wakers| {
            state.closed = false;
            state.epoch += 1;
            for waker in state.handles.values_mut() {
                wakers.wake(waker.take());
            }
            self.maybe_closed.store(false, Relaxed);
        });
    }

    /// `call`: what counts, whatever `poll_ready` said.
    fn may_leave(&self) -> bool {
        self.with(|state, _| !state.closed)
    }

    fn ready(&self) {
        let mut key = None;
        block_on(poll_fn(|cx| self.watch(&mut key, cx.waker())));
        self.unwatch(&mut key);
    }
}

#[test]
fn who_waits_for_the_gate_is_woken_when_it_opens() {
    check(3, || {
        let gate = Gate::new(true);
        let waiters = [(); 2].map(|()| {
            let gate = Arc::clone(&gate);
            spawn(move || gate.ready())
        });
        gate.reset();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert!(gate.state.lock().unwrap().handles.is_empty());
    });
}

/// The flag may be stale for a moment, but not for good.
#[test]
fn a_gate_that_closes_and_opens_keeps_nobody() {
    check(3, || {
        let gate = Gate::new(false);
        let waiter = spawn({
            let gate = Arc::clone(&gate);
            move || gate.ready()
        });
        let other = spawn({
            let gate = Arc::clone(&gate);
            move || {
                gate.close();
                gate.reset();
            }
        });
        waiter.join().unwrap();
        other.join().unwrap();
        assert!(gate.may_leave());
        assert!(!gate.maybe_closed.load(Relaxed));
    });
}

/// One looks and finds the gate open just when another closes it: the flag must say closed at the end.
#[test]
fn a_closing_is_never_forgotten_by_the_flag() {
    check(3, || {
        let gate = Gate::new(true);
        gate.state.lock().unwrap().closed = false; // its time is over, and nobody has looked yet
        let looks = spawn({
            let gate = Arc::clone(&gate);
            move || {
                let mut key = None;
                let _ = gate.watch(&mut key, Waker::noop());
                gate.unwatch(&mut key);
            }
        });
        gate.close();
        looks.join().unwrap();
        assert!(gate.maybe_closed.load(Relaxed) && !gate.may_leave());
    });
}

/// The wakers of those who go are not those of the ones who stay.
#[test]
fn a_waiter_that_goes_away_takes_no_wake_up_along() {
    check(3, || {
        let gate = Gate::new(true);
        let stays = spawn({
            let gate = Arc::clone(&gate);
            move || gate.ready()
        });
        let gone = Arc::new(AtomicUsize::new(0));
        let goes = spawn({
            let (gate, gone) = (Arc::clone(&gate), Arc::clone(&gone));
            move || {
                let mut key = None;
                let _ = gate.watch(&mut key, Waker::noop());
                gate.unwatch(&mut key);
                gone.fetch_add(1, Relaxed);
            }
        });
        gate.reset();
        stays.join().unwrap();
        goes.join().unwrap();
        assert_eq!(gone.load(Relaxed), 1);
        assert!(gate.state.lock().unwrap().handles.is_empty());
    });
}
