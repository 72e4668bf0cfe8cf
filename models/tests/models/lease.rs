//! `Untold`: calls that leave and are accepted by a thread's lease, and what the state is told of them, and when.

use crate::parker::{check, spawn};
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

#[derive(Default)]
struct State {
    closed: bool,
    departures: u32,
    accepted: u32,
    leased: [bool; 2],
}

#[derive(Default)]
struct Lease {
    in_force: bool,
    left: u32,
    departures: u32,
    accepted: u32,
}

/// As `src/cooldown/gate.rs` and `untold.rs`, without time. A lease is for one call.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    leases: [Mutex<Lease>; 2],
}

impl Gate {
    /// Whether the call may leave.
    fn leave(&self, thread: usize) -> bool {
        let mut lease = self.leases[thread].lock().unwrap();
        if lease.left > 0 {
            lease.left -= 1;
            lease.departures += 1;
            return true;
        }
        drop(lease);
        let mut state = self.state.lock().unwrap();
        self.visit(&mut state, false);
        if state.closed {
            return false;
        }
        state.departures += 1;
        state.leased[thread] = true;
        let mut lease = self.leases[thread].lock().unwrap();
        (lease.in_force, lease.left) = (true, 1);
        true
    }

    fn accepted(&self, thread: usize) {
        let mut lease = self.leases[thread].lock().unwrap();
        if lease.in_force {
            lease.accepted += 1;
            return;
        }
        drop(lease);
        let mut state = self.state.lock().unwrap();
        self.visit(&mut state, true);
        state.accepted += 1;
        assert!(state.accepted <= state.departures);
    }

    /// How many have left by then.
    fn close(&self) -> u32 {
        let mut state = self.state.lock().unwrap();
        self.visit(&mut state, true);
        state.closed = true;
        state.departures
    }

    fn visit(&self, state: &mut State, ends: bool) {
        let leased = state.leased;
        let leases = || (0..2).filter(|thread| leased[*thread]).map(|n| self.leases[n].lock().unwrap());
        for mut lease in leases() {
            state.departures += std::mem::take(&mut lease.departures);
            state.accepted += std::mem::take(&mut lease.accepted);
            if ends {
                (lease.in_force, lease.left) = (false, 0);
            }
        }
        for mut lease in leases() {
            state.departures += std::mem::take(&mut lease.departures);
        }
        if ends {
            state.leased = [false; 2];
        }
        assert!(state.accepted <= state.departures, "an answer to a call that has not left");
    }
}

#[test]
fn nobody_leaves_by_a_lease_once_it_is_closed_and_nobody_is_forgotten() {
    check(3, || {
        let (gate, left) = (Arc::new(Gate::default()), Arc::new(AtomicU32::new(0)));
        let threads = [0, 1].map(|thread| {
            let (gate, left) = (Arc::clone(&gate), Arc::clone(&left));
            spawn(move || {
                for _ in 0..2 {
                    left.fetch_add(gate.leave(thread).into(), Relaxed);
                }
            })
        });
        let at_closing = gate.close();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((left.load(Relaxed), gate.close()), (at_closing, at_closing));
    });
}

/// It may leave on one thread and be answered on another, just when the state is told.
#[test]
fn who_was_accepted_has_left() {
    check(3, || {
        let (gate, left) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        for thread in [0, 1] {
            assert!(gate.leave(thread));
            gate.accepted(thread);
        }
        let caller = {
            let (gate, left) = (Arc::clone(&gate), Arc::clone(&left));
            spawn(move || {
                assert!(gate.leave(0), "by the lease");
                left.store(true, Relaxed);
            })
        };
        let other = {
            let (gate, left) = (Arc::clone(&gate), Arc::clone(&left));
            spawn(move || {
                if left.load(Relaxed) {
                    gate.accepted(1);
                }
            })
        };
        gate.visit(&mut gate.state.lock().unwrap(), false);
        caller.join().unwrap();
        other.join().unwrap();
        assert_eq!(gate.close(), 3);
    });
}
