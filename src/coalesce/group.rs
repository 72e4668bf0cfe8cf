//! Requests that came together, and a place for the answer to each.

use super::{
    BatchError, Trigger,
    batch::{Answer, Part},
    core::{Cost, Limits, Place},
};
use crate::wakers::Wakers;
use std::{
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::{sync::Semaphore, time::Instant};

pub(super) type SharedGroup<Req, T, E> = Arc<Group<Req, T, E>>;

/// The open batch of one key, or, where each thread opens one of its own, that of one thread. Its callers share it with
/// the tasks that send its requests: one task, or several where not all of it went into one call.
pub(super) struct Group<Req, T, E> {
    state: Mutex<State<Req, T, E>>,
    /// When its first request came.
    pub(super) since: Instant,
    /// Who may open the next one once this is closed.
    pub(super) thread: usize,
    room: Arc<Semaphore>,
}

/// A request, until it is sent; `None` once its caller has gone.
pub(super) type Queued<Req> = Option<(Req, Cost)>;

struct State<Req, T, E> {
    /// By caller, from `first` on.
    requests: Vec<Queued<Req>>,
    /// Those before have been taken out.
    first: usize,
    cost: Cost,
    /// Callers whose request is here.
    waiting: usize,
    /// Callers whose request was taken out, and who wait for its answer.
    in_flight: usize,
    /// Not all was taken out at once, so that there may be several calls.
    parted: bool,
    closed: Option<Trigger>,
    /// The tasks that mind it.
    watchers: Vec<Waker>,
    /// By caller.
    slots: Vec<Slot<T, E>>,
}

enum Slot<T, E> {
    Waiting(Option<Waker>),
    Done(Answer<T, E>),
    /// The caller has gone, or has its answer.
    Over,
}

/// A request has come in.
pub(super) struct Joined {
    pub(super) caller: usize,
    pub(super) full: Option<Trigger>,
}

impl<Req, T, E> State<Req, T, E> {
    fn new(capacity: usize) -> Self {
        Self {
            requests: Vec::with_capacity(capacity),
            first: 0,
            cost: Cost::default(),
            waiting: 0,
            in_flight: 0,
            parted: false,
            closed: None,
            watchers: Vec::new(),
            slots: Vec::with_capacity(capacity),
        }
    }

    fn push(&mut self, request: Req, cost: Cost) -> usize {
        self.cost = self.cost.plus(cost);
        self.waiting += 1;
        self.requests.push(Some((request, cost)));
        self.slots.push(Slot::Waiting(None));
        self.slots.len() - 1
    }

    /// How many from the front fit beside `cost`, and what they cost.
    fn fitting(&self, beside: Cost, limits: &Limits) -> (usize, Cost) {
        // A group alone is no larger than it may be, or was let in for that.
        if beside == Cost::default() || limits.allow(beside.plus(self.cost)) {
            return (self.requests.len(), self.cost);
        }
        let (mut count, mut fitting) = (0, Cost::default());
        for request in &self.requests {
            let next = request.as_ref().map_or(fitting, |(_, cost)| fitting.plus(*cost));
            if !limits.allow(beside.plus(next)) {
                break;
            }
            (count, fitting) = (count + 1, next);
        }
        (count, fitting)
    }

    fn wake_watchers(&mut self, wakers: &mut Wakers) {
        self.watchers.drain(..).for_each(|watcher| wakers.wake(Some(watcher)));
    }

    fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|watcher| watcher.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }
}

impl<Req, T, E> Group<Req, T, E> {
    /// A group with its first request, whose number is 0.
    pub(super) fn new(
        room: &Arc<Semaphore>,
        thread: usize,
        capacity: usize,
        request: Req,
        cost: Cost,
    ) -> Self {
        let mut state = State::new(capacity);
        state.push(request, cost);
        Self { state: Mutex::new(state), since: Instant::now(), thread, room: Arc::clone(room) }
    }

    /// A group of one, whose request was sent at that time.
    pub(super) fn in_flight(room: &Arc<Semaphore>, since: Instant) -> Self {
        let state = State {
            first: 1,
            in_flight: 1,
            closed: Some(Trigger::Idle),
            slots: vec![Slot::Waiting(None)],
            ..State::new(0)
        };
        Self { state: Mutex::new(state), since, thread: 0, room: Arc::clone(room) }
    }

    fn lock(&self) -> MutexGuard<'_, State<Req, T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ===== while it is open =====

    /// Adds a request, if its place is here: its number, and what it makes the batch close for.
    pub(super) fn offer(&self, request: Req, cost: Cost, limits: &Limits) -> Result<Joined, (Req, Place)> {
        let mut state = self.lock();
        let full = match (limits.place(state.cost, cost), state.closed) {
            (Place::Join, None) => None,
            (Place::Fill(trigger), None) => Some(trigger),
            (Place::Join | Place::Fill(_), Some(trigger)) => return Err((request, Place::Next(trigger))),
            (elsewhere, _) => return Err((request, elsewhere)),
        };
        Ok(Joined { caller: state.push(request, cost), full })
    }

    /// Adds a request, if its place is here and the batch is not full then: its number.
    pub(super) fn join(&self, request: Req, cost: Cost, limits: &Limits) -> Result<usize, Req> {
        let mut state = self.lock();
        match limits.place(state.cost, cost) {
            Place::Join if state.closed.is_none() => Ok(state.push(request, cost)),
            _ => Err(request),
        }
    }

    /// Nobody is added any more. The tasks that mind it are to be woken.
    pub(super) fn close(&self, trigger: Trigger, wakers: &mut Wakers) {
        let mut state = self.lock();
        state.closed.get_or_insert(trigger);
        state.wake_watchers(wakers);
    }

    pub(super) fn wake_watchers(&self, wakers: &mut Wakers) {
        self.lock().wake_watchers(wakers);
    }

    /// Whether somebody waits for it to be sent. If so, the task is woken when that changes, or the group closes; if
    /// not, it is closed, and may be forgotten.
    pub(super) fn watch(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if state.waiting > 0 {
            state.watch(cx.waker());
        } else {
            state.closed.get_or_insert(Trigger::Idle);
        }
        state.waiting > 0
    }

    /// Takes out the requests that somebody waits for, from the front, as many as fit beside those of `beside`. If
    /// nobody waits for what is left, it is closed.
    pub(super) fn take(self: &Arc<Self>, beside: Cost, limits: &Limits, trigger: Trigger) -> Part<Req, T, E> {
        let mut state = self.lock();
        let (count, cost) = state.fitting(beside, limits);
        let rest = state.requests.split_off(count);
        let requests = mem::replace(&mut state.requests, rest);
        let first = state.first;
        state.first += count;
        state.cost = state.cost.minus(cost);
        let taken = requests.iter().flatten().count();
        state.waiting -= taken;
        state.in_flight += taken;
        let is_last = state.waiting == 0;
        state.parted |= !is_last;
        let trigger = state.closed.unwrap_or(trigger);
        if is_last {
            state.closed = Some(trigger);
        }
        Part { group: Arc::clone(self), first, requests, cost, trigger, is_last }
    }

    // ===== answers =====

    /// Whether one of these callers waits for its answer. If so, the task is woken when that may have changed.
    pub(super) fn is_awaited_by(&self, mut callers: impl Iterator<Item = usize>, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        let is_awaited = if state.parted {
            callers.any(|caller| matches!(state.slots[caller], Slot::Waiting(_)))
        } else {
            state.in_flight > 0
        };
        if is_awaited {
            state.watch(cx.waker());
        }
        is_awaited
    }

    /// Gives the callers their answers, and makes room for as many requests.
    pub(super) fn deliver(&self, answers: impl ExactSizeIterator<Item = (usize, Answer<T, E>)>) {
        let delivered = answers.len();
        let (mut wakers, mut unwanted) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        for (caller, answer) in answers {
            let slot = &mut state.slots[caller];
            if let Slot::Waiting(waker) = slot {
                if let Some(waker) = waker.take() {
                    if wakers.is_empty() {
                        wakers.reserve_exact(delivered);
                    }
                    wakers.push(waker);
                }
                *slot = Slot::Done(answer);
                state.in_flight -= 1;
            } else {
                unwanted.push(answer);
            }
        }
        drop(state);
        self.room.add_permits(delivered);
        // One caller's executor, or the result of one who has gone, must not harm the others.
        for waker in wakers {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
        for answer in unwanted {
            drop(catch_unwind(AssertUnwindSafe(|| drop(answer))));
        }
    }

    /// Closes it; those whose requests are in it get this error.
    pub(super) fn fail(&self, error: &BatchError<E>) {
        let mut state = self.lock();
        state.closed.get_or_insert(Trigger::Drain);
        let requests = mem::take(&mut state.requests);
        let first = state.first;
        state.first += requests.len();
        state.in_flight += mem::take(&mut state.waiting);
        drop(state);
        let here = requests.iter().enumerate().filter(|(_, request)| request.is_some());
        let callers: Vec<_> = here.map(|(n, _)| first + n).collect();
        self.deliver(callers.into_iter().map(|caller| (caller, Err(error.share()))));
    }

    /// A caller asks for its answer.
    pub(super) fn poll(&self, caller: usize, cx: &Context<'_>) -> Poll<Answer<T, E>> {
        let mut wakers = Wakers::default(); // declared first: dropped when the lock is free
        let mut state = self.lock();
        let slot = &mut state.slots[caller];
        if let Slot::Waiting(waker) = slot {
            wakers.replace(waker, cx.waker());
            return Poll::Pending;
        }
        match mem::replace(slot, Slot::Over) {
            Slot::Done(answer) => Poll::Ready(answer),
            Slot::Waiting(_) | Slot::Over => unreachable!("a caller that has its answer asks no more"),
        }
    }

    /// A caller goes away. Before its request is sent, that leaves with it.
    pub(super) fn leave(&self, caller: usize) {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        let slot = mem::replace(&mut state.slots[caller], Slot::Over);
        let mut request = None;
        if let Slot::Waiting(_) = slot {
            let at = caller.checked_sub(state.first);
            request = at.and_then(|at| state.requests.get_mut(at)).and_then(Option::take);
            let left = if let Some((_, cost)) = &request {
                state.cost = state.cost.minus(*cost);
                state.waiting -= 1;
                state.waiting
            } else {
                state.in_flight -= 1;
                state.in_flight
            };
            if left == 0 || state.parted {
                state.wake_watchers(&mut wakers);
            }
        }
        drop(state);
        if request.is_some() {
            self.room.add_permits(1);
        }
        drop(wakers);
    }
}

impl<Req, T, E> fmt::Debug for Group<Req, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Group")
            .field("cost", &state.cost)
            .field("waiting", &state.waiting)
            .field("in_flight", &state.in_flight)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coalesce::core::Oversize;
    use futures::task::noop_waker_ref;
    use std::num::NonZeroUsize;
    use tokio_test::task;

    type Letters = Group<char, char, ()>;

    const LIMITS: Limits =
        Limits { max_items: NonZeroUsize::new(4).unwrap(), max_weight: 100, oversize: Oversize::SendAlone };

    const fn weighing(weight: u64) -> Cost {
        Cost { items: 1, weight }
    }

    /// The room for ten, of which these have taken a place each.
    fn group(requests: &[(char, u64)]) -> Arc<Letters> {
        let room = Arc::new(Semaphore::new(10 - requests.len()));
        let (first, weight) = requests[0];
        let group = Arc::new(Group::new(&room, 0, 1, first, weighing(weight)));
        for (n, (request, weight)) in requests.iter().enumerate().skip(1) {
            assert_eq!(group.join(*request, weighing(*weight), &LIMITS), Ok(n));
        }
        group
    }

    fn take(group: &Arc<Letters>, beside: Cost) -> (usize, String, Cost, bool) {
        let part = group.take(beside, &LIMITS, Trigger::Tick);
        let requests = part.requests.into_iter().flatten().map(|(request, _)| request).collect();
        (part.first, requests, part.cost, part.is_last)
    }

    fn answer(group: &Letters, callers: &[usize], answer: char) {
        group.deliver(callers.iter().map(|caller| (*caller, Ok(answer))));
    }

    fn poll(group: &Letters, caller: usize) -> Poll<Answer<char, ()>> {
        group.poll(caller, &Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn as_much_is_taken_as_fits_beside_the_rest() {
        let taken = group(&[('a', 0), ('b', 0), ('c', 0)]);
        let beside = Cost { items: 2, weight: 0 };
        assert_eq!(take(&taken, beside), (0, "ab".into(), Cost { items: 2, weight: 0 }, false));
        assert_eq!(taken.join('d', weighing(0), &LIMITS), Ok(3), "it is open");
        assert_eq!(take(&taken, beside), (2, "cd".into(), Cost { items: 2, weight: 0 }, true));
        assert_eq!(taken.join('e', weighing(0), &LIMITS), Err('e'), "it is closed");

        let heavy = group(&[('a', 10), ('b', 60), ('c', 1)]);
        assert_eq!(take(&heavy, weighing(50)).1, "a", "nobody goes past another");
        assert_eq!(take(&heavy, weighing(41)), (1, String::new(), Cost::default(), false));
        assert_eq!(take(&heavy, weighing(39)).1, "bc");
    }

    #[test]
    fn who_has_left_takes_no_place() {
        let left = group(&[('a', 90), ('b', 50), ('c', 50)].map(|(request, weight)| (request, weight / 10)));
        left.leave(0);
        assert_eq!(left.room.available_permits(), 8);
        assert_eq!(
            take(&left, Cost { items: 2, weight: 90 }),
            (0, "bc".into(), Cost { items: 2, weight: 10 }, true)
        );
        answer(&left, &[1, 2], 'x');
        assert_eq!(left.room.available_permits(), 10);
    }

    #[test]
    fn calls_of_one_group_are_answered_and_abandoned_apart() {
        let parted = group(&[('a', 0), ('b', 0), ('c', 0)]);
        take(&parted, Cost { items: 2, weight: 0 });
        take(&parted, Cost { items: 2, weight: 0 });
        let mut minding = [[0, 1].as_slice(), &[2]].map(|callers| (task::spawn(()), callers));
        let mut is_awaited = |call: usize| {
            let (task, callers) = &mut minding[call];
            let woken = task.is_woken();
            (task.enter(|cx, _| parted.is_awaited_by(callers.iter().copied(), cx)), woken)
        };
        assert_eq!([is_awaited(0), is_awaited(1)], [(true, false), (true, false)]);
        parted.leave(0);
        assert_eq!([is_awaited(0), is_awaited(1)], [(true, true), (true, true)]);
        parted.leave(1);
        assert_eq!([is_awaited(0), is_awaited(1)], [(false, true), (true, true)]);
        answer(&parted, &[2], 'x');
        assert_eq!(poll(&parted, 2).map(Result::ok), Poll::Ready(Some('x')));
        answer(&parted, &[0, 1], 'y');
        assert_eq!(parted.room.available_permits(), 10);
    }

    #[test]
    fn who_fails_with_the_group_is_who_is_still_in_it() {
        let failed = group(&[('a', 0), ('b', 0), ('c', 0)]);
        take(&failed, Cost { items: 3, weight: 0 });
        failed.leave(1);
        failed.fail(&BatchError::Closed);
        assert!(poll(&failed, 0).is_pending());
        assert!(matches!(poll(&failed, 2), Poll::Ready(Err(BatchError::Closed))));
        assert_eq!(failed.join('d', weighing(0), &LIMITS), Err('d'));
        answer(&failed, &[0], 'x');
        assert_eq!(failed.room.available_permits(), 10);
    }

    #[test]
    fn a_group_that_nobody_waits_for_takes_nobody_in() {
        let gone = group(&[('a', 0)]);
        let mut task = task::spawn(());
        assert!(task.enter(|cx, _| gone.watch(cx)));
        gone.leave(0);
        assert!(task.is_woken());
        assert!(!task.enter(|cx, _| gone.watch(cx)));
        assert_eq!(gone.join('b', weighing(0), &LIMITS), Err('b'));
        assert!(matches!(gone.offer('b', weighing(0), &LIMITS), Err(('b', Place::Next(Trigger::Idle)))));
    }
}
