//! The hand-off between those who come, the task that collects, and those that send: `Shared::place`, and the rounds
//! of `Task`.

use super::core::Lane;
use crate::parker::{check, spawn};
use loom::sync::{Arc, Mutex};
use std::num::NonZeroUsize;

#[derive(Default)]
struct Shared {
    lane: Mutex<Lane<Vec<u32>>>,
    sent: Mutex<Vec<u32>>,
}

const MAX_IN_FLIGHT: [NonZeroUsize; 2] = [NonZeroUsize::MIN, NonZeroUsize::new(2).unwrap()];

impl Shared {
    /// A request comes. Whether a task is to be started.
    fn place(&self, request: u32, max_in_flight: NonZeroUsize) -> bool {
        let mut lane = self.lane.lock().unwrap();
        match &mut lane.open {
            Some(open) => open.push(request),
            None => lane.open(vec![request]),
        }
        lane.wants_collector(max_in_flight)
    }

    /// Rounds, until there is nothing left, as in `Task::run`. Those whom it starts are run by it later.
    fn task(&self, max_in_flight: NonZeroUsize) {
        let mut started = 1;
        while started > 0 {
            started -= 1;
            loop {
                // `has_work`
                let mut lane = self.lane.lock().unwrap();
                if lane.front().is_none() {
                    lane.stop_collecting();
                    break;
                }
                drop(lane);
                // `take`
                let mut lane = self.lane.lock().unwrap();
                let Some(batch) = lane.pop_front() else {
                    lane.stop_collecting();
                    break;
                };
                lane.collected();
                started += usize::from(lane.wants_collector(max_in_flight));
                assert!(lane.sending() <= max_in_flight.get());
                drop(lane);
                self.sent.lock().unwrap().extend(batch);
                // `next_round`
                if !self.lane.lock().unwrap().sent() {
                    break;
                }
            }
        }
    }
}

/// Where a request comes just when the last task finds nothing to do, one of the two has to see it.
#[test]
fn no_request_is_left_behind_and_none_is_sent_twice() {
    for max_in_flight in MAX_IN_FLIGHT {
        check(3, move || {
            let shared = Arc::new(Shared::default());
            let callers = [1, 2].map(|request| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    if shared.place(request, max_in_flight) {
                        shared.task(max_in_flight);
                    }
                })
            });
            if shared.place(3, max_in_flight) {
                shared.task(max_in_flight);
            }
            for caller in callers {
                caller.join().unwrap();
            }
            let mut sent = shared.sent.lock().unwrap().clone();
            sent.sort_unstable();
            assert_eq!(sent, [1, 2, 3]);
            assert!(shared.lane.lock().unwrap().is_idle());
        });
    }
}
