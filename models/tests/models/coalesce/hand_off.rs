//! The hand-off between those who come, the task that collects, and those that send: `Shared::place`, and the rounds
//! of `Task`; with a group for each thread, which that thread may join without the lanes' lock.

use super::core::Lane;
use crate::parker::{check, spawn};
use loom::sync::{Arc, Mutex};
use std::num::NonZeroUsize;

#[derive(Default)]
struct Group {
    requests: Vec<u32>,
    closed: bool,
}

type SharedGroup = Arc<Mutex<Group>>;

#[derive(Default)]
struct Shared {
    lane: Mutex<Lane<SharedGroup>>,
    latest: [Mutex<Option<SharedGroup>>; 2],
    sent: Mutex<Vec<u32>>,
    /// Requests have come one at a time for long.
    streak: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Collecting,
    Full,
}

/// So many fill a batch.
const FULL: usize = 2;
const MAX_IN_FLIGHT: [NonZeroUsize; 2] = [NonZeroUsize::MIN, NonZeroUsize::new(2).unwrap()];

impl Shared {
    /// A request comes. Whether a task is to be started, and for what.
    fn place(&self, thread: usize, request: u32, max_in_flight: NonZeroUsize) -> Option<Start> {
        // `join_latest`
        let latest = self.latest[thread].lock().unwrap().clone();
        if let Some(group) = latest {
            let mut group = group.lock().unwrap();
            if !group.closed && group.requests.len() + 1 < FULL {
                group.requests.push(request);
                return None;
            }
        }
        // `place_in_lane`
        let mut lane = self.lane.lock().unwrap();
        let open = lane.open_on(thread).cloned();
        let joined = open.filter(|open| {
            let mut open = open.lock().unwrap();
            let joins = !open.closed;
            open.requests.extend(joins.then_some(request));
            joins
        });
        let group = joined.unwrap_or_else(|| {
            lane.close(thread);
            let group = SharedGroup::default();
            group.lock().unwrap().requests.push(request);
            lane.open(thread, Arc::clone(&group));
            *self.latest[thread].lock().unwrap() = Some(Arc::clone(&group));
            group
        });
        let mut group = group.lock().unwrap();
        let full = group.requests.len() == FULL;
        if full {
            group.closed = true;
            lane.close(thread);
        }
        if lane.wants_collector(max_in_flight) {
            Some(Start::Collecting)
        } else {
            (full && lane.wants_sender(max_in_flight)).then_some(Start::Full)
        }
    }

    /// Rounds, until there is nothing left, as in `Task::run`. Those whom it starts are run by it later.
    fn task(&self, first: Start, max_in_flight: NonZeroUsize) {
        let mut started = vec![first];
        while let Some(start) = started.pop() {
            let mut collects = start == Start::Collecting;
            loop {
                // `has_work`
                let mut lane = self.lane.lock().unwrap();
                if collects && lane.front().is_none() {
                    lane.stop_collecting();
                    break;
                }
                drop(lane);
                // `take`
                let mut lane = self.lane.lock().unwrap();
                let found = (collects || lane.front_is_closed()).then(|| lane.pop_front()).flatten();
                let Some(group) = found else {
                    if collects {
                        lane.stop_collecting()
                    } else {
                        lane.stop_sending()
                    }
                    break;
                };
                let mut group = group.lock().unwrap();
                group.closed = true;
                let batch = std::mem::take(&mut group.requests);
                drop(group);
                if collects {
                    lane.collected();
                }
                started.extend(lane.wants_collector(max_in_flight).then_some(Start::Collecting));
                assert!(lane.sending() <= max_in_flight.get());
                drop(lane);
                self.sent.lock().unwrap().extend(batch);
                // `next_round`
                if !self.next_round() {
                    break;
                }
                collects = true;
            }
        }
    }

    fn next_round(&self) -> bool {
        let mut lane = self.lane.lock().unwrap();
        if self.streak { lane.sent_alone() } else { lane.sent() }
    }

    fn call(&self, thread: usize, request: u32, max_in_flight: NonZeroUsize) {
        // `Task::send_alone`
        if self.streak && self.lane.lock().unwrap().send_alone() {
            self.sent.lock().unwrap().push(request);
            if self.next_round() {
                self.task(Start::Collecting, max_in_flight);
            }
            return;
        }
        if let Some(start) = self.place(thread, request, max_in_flight) {
            self.task(start, max_in_flight);
        }
    }

    fn assert_sent(&self, requests: &[u32]) {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.sort_unstable();
        assert_eq!(sent, requests);
        assert!(self.lane.lock().unwrap().is_idle());
    }
}

/// Two requests from one thread and one from another, at the same time.
fn three_requests(streak: bool) {
    for max_in_flight in MAX_IN_FLIGHT {
        check(3, move || {
            let shared = Arc::new(Shared { streak, ..Shared::default() });
            let callers = [1, 2].map(|request| {
                let shared = Arc::clone(&shared);
                spawn(move || shared.call(0, request, max_in_flight))
            });
            shared.call(1, 3, max_in_flight);
            for caller in callers {
                caller.join().unwrap();
            }
            shared.assert_sent(&[1, 2, 3]);
        });
    }
}

/// Where a request comes just when the last task finds nothing to do, one of the two has to see it.
#[test]
fn no_request_is_left_behind_and_none_is_sent_twice() {
    three_requests(false);
}

/// Where requests come one at a time, the first is sent by its caller, and what comes meanwhile by a task.
#[test]
fn who_is_sent_alone_leaves_nothing_behind() {
    three_requests(true);
}

/// A thread joins what it has opened without the lanes' lock, while a task on another takes just that; and fills what
/// another task waits for.
#[test]
fn a_group_that_is_taken_takes_nobody_in() {
    for max_in_flight in MAX_IN_FLIGHT {
        check(3, move || {
            let shared = Arc::new(Shared::default());
            let started = shared.place(0, 1, max_in_flight).expect("it is the first");
            let task = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.task(started, max_in_flight))
            };
            shared.call(0, 2, max_in_flight);
            shared.call(0, 3, max_in_flight);
            task.join().unwrap();
            shared.assert_sent(&[1, 2, 3]);
        });
    }
}
