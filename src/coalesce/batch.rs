//! One batch: its requests while it is open, and a place for the result of each.

use super::{
    BatchError,
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

/// What made a batch close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// It had its number of items, or the next request would have been too many.
    Items,
    /// It had its weight, or the next request would have been too much.
    Weight,
    /// The tick ended.
    Tick,
    /// The linger was over.
    Linger,
    /// Nothing else of its key was in flight, or a batch had just ended.
    Idle,
    /// The waiting room was full.
    Exhausted,
    /// [`Handle::flush`](super::Handle::flush).
    Flush,
    /// [`Handle::drain`](super::Handle::drain).
    Drain,
    /// A request that makes a batch of its own: it is oversize, or there were too many keys.
    Alone,
}

impl Trigger {
    /// All triggers, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Items,
        Self::Weight,
        Self::Tick,
        Self::Linger,
        Self::Idle,
        Self::Exhausted,
        Self::Flush,
        Self::Drain,
        Self::Alone,
    ];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Weight => "weight",
            Self::Tick => "tick",
            Self::Linger => "linger",
            Self::Idle => "idle",
            Self::Exhausted => "exhausted",
            Self::Flush => "flush",
            Self::Drain => "drain",
            Self::Alone => "alone",
        }
    }
}

/// What a caller gets.
pub(super) type Answer<T, E> = Result<T, BatchError<E>>;

pub(super) type SharedBatch<Req, T, E> = Arc<Batch<Req, T, E>>;

/// A batch that its callers and the task that sends it share.
///
/// Two locks, because those who come work on the one while those who are there already ask at the other. Who needs
/// both takes them one after the other.
#[repr(C)]
pub(super) struct Batch<Req, T, E> {
    /// In the cache line of the reference count, which those who come write too. (An alignment would part them.)
    queue: Mutex<Queue<Req>>,
    /// When its first request came.
    pub(super) since: Instant,
    room: Arc<Semaphore>,
    _apart: [u64; 8],
    /// By caller; made when first used.
    slots: Mutex<Vec<Slot<T, E>>>,
}

struct Queue<Req> {
    /// By caller, until they are sent; `None` once the caller has gone.
    requests: Vec<Option<(Req, Cost)>>,
    cost: Cost,
    /// Callers that wait for an answer.
    waiting: usize,
    closed: Option<Trigger>,
    /// The task that minds this batch.
    watcher: Option<Waker>,
}

enum Slot<T, E> {
    Waiting(Option<Waker>),
    Done(Answer<T, E>),
    /// The caller has gone, or has its answer.
    Over,
}

/// A request has come into a batch.
pub(super) struct Joined {
    pub(super) caller: usize,
    pub(super) full: Option<Trigger>,
}

impl<Req> Queue<Req> {
    fn push(&mut self, request: Req, cost: Cost) -> usize {
        self.cost = self.cost.plus(cost);
        self.waiting += 1;
        self.requests.push(Some((request, cost)));
        self.requests.len() - 1
    }
}

/// The requests of a closed batch, in the order in which they came.
pub(super) struct Load<Req> {
    pub(super) requests: Vec<Req>,
    /// Whose they are.
    pub(super) callers: Vec<usize>,
    pub(super) cost: Cost,
    pub(super) trigger: Trigger,
}

impl<Req, T, E> Batch<Req, T, E> {
    /// A batch with its first request, whose number is 0.
    pub(super) fn new(room: &Arc<Semaphore>, capacity: usize, request: Req, cost: Cost) -> Self {
        let mut queue = Queue {
            requests: Vec::with_capacity(capacity),
            cost: Cost::default(),
            waiting: 0,
            closed: None,
            watcher: None,
        };
        queue.push(request, cost);
        Self {
            queue: Mutex::new(queue),
            slots: Mutex::new(Vec::with_capacity(capacity)),
            _apart: [0; 8],
            since: Instant::now(),
            room: Arc::clone(room),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Req>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots, with one for this caller and all before it.
    fn slots(&self, caller: usize) -> MutexGuard<'_, Vec<Slot<T, E>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() <= caller {
            slots.resize_with(caller + 1, || Slot::Waiting(None));
        }
        slots
    }

    /// Adds a request, if its place is here: its number, and what it makes the batch close for.
    pub(super) fn offer(&self, request: Req, cost: Cost, limits: &Limits) -> Result<Joined, (Req, Place)> {
        let mut queue = self.queue();
        let full = match limits.place(queue.cost, cost) {
            Place::Join => None,
            Place::Fill(trigger) => Some(trigger),
            elsewhere => return Err((request, elsewhere)),
        };
        Ok(Joined { caller: queue.push(request, cost), full })
    }

    /// Nobody is added any more. The task that minds it is to be woken.
    pub(super) fn close(&self, trigger: Trigger, wakers: &mut Wakers) {
        let mut queue = self.queue();
        queue.closed.get_or_insert(trigger);
        wakers.wake(queue.watcher.take());
    }

    pub(super) fn wake_watcher(&self, wakers: &mut Wakers) {
        wakers.wake(self.queue().watcher.take());
    }

    /// Whether somebody waits for it still. If so, the task is woken when that changes, or the batch closes.
    pub(super) fn watch(&self, cx: &Context<'_>, wakers: &mut Wakers) -> bool {
        let mut queue = self.queue();
        if queue.waiting > 0 {
            wakers.replace(&mut queue.watcher, cx.waker());
        }
        queue.waiting > 0
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.queue().waiting > 0
    }

    /// Closes it, if it is not yet, and takes the requests out.
    pub(super) fn take(&self, trigger: Trigger) -> Load<Req> {
        let mut queue = self.queue();
        let trigger = *queue.closed.get_or_insert(trigger);
        let requests = mem::take(&mut queue.requests);
        let mut load = Load {
            requests: Vec::with_capacity(requests.len()),
            callers: Vec::with_capacity(requests.len()),
            cost: queue.cost,
            trigger,
        };
        for (caller, request) in requests.into_iter().enumerate() {
            if let Some((request, _)) = request {
                load.requests.push(request);
                load.callers.push(caller);
            }
        }
        load
    }

    /// Gives the callers their answers, and makes room for as many requests.
    pub(super) fn deliver(&self, answers: impl ExactSizeIterator<Item = (usize, Answer<T, E>)>) {
        let delivered = answers.len();
        let mut wakers = Vec::with_capacity(delivered);
        let mut unwanted = Vec::new();
        let mut slots = self.slots(0);
        for (caller, answer) in answers {
            if slots.len() <= caller {
                slots.resize_with(caller + 1, || Slot::Waiting(None));
            }
            let slot = &mut slots[caller];
            if let Slot::Waiting(waker) = slot {
                wakers.extend(waker.take());
                *slot = Slot::Done(answer);
            } else {
                unwanted.push(answer);
            }
        }
        drop(slots);
        self.queue().waiting -= delivered - unwanted.len();
        self.room.add_permits(delivered);
        // One caller's executor, or the result of one who has gone, must not harm the others.
        for waker in wakers {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
        for answer in unwanted {
            drop(catch_unwind(AssertUnwindSafe(|| drop(answer))));
        }
    }

    /// All that wait without an answer get this one. `sent` says whose requests were taken out before.
    pub(super) fn fail(&self, sent: &[usize], error: &BatchError<E>) {
        let queued = mem::take(&mut self.queue().requests);
        let here = queued.iter().enumerate().filter(|(_, request)| request.is_some()).map(|(n, _)| n);
        let callers: Vec<_> = sent.iter().copied().chain(here).collect();
        self.deliver(callers.into_iter().map(|caller| (caller, Err(error.share()))));
    }

    /// A caller asks for its answer.
    pub(super) fn poll(&self, caller: usize, cx: &Context<'_>) -> Poll<Answer<T, E>> {
        let mut wakers = Wakers::default(); // declared first: dropped when the lock is free
        let mut slots = self.slots(caller);
        let slot = &mut slots[caller];
        if let Slot::Waiting(waker) = slot {
            wakers.replace(waker, cx.waker());
            return Poll::Pending;
        }
        match mem::replace(slot, Slot::Over) {
            Slot::Done(answer) => Poll::Ready(answer),
            Slot::Waiting(_) | Slot::Over => unreachable!("a caller that has its answer asks no more"),
        }
    }

    /// A caller goes away. Before the batch is sent its request leaves with it.
    pub(super) fn leave(&self, caller: usize) {
        let slot = mem::replace(&mut self.slots(caller)[caller], Slot::Over);
        if let Slot::Waiting(_) = slot {
            let mut wakers = Wakers::default();
            let mut queue = self.queue();
            queue.waiting -= 1;
            if queue.waiting == 0 {
                wakers.wake(queue.watcher.take());
            }
            let request = queue.requests.get_mut(caller).and_then(Option::take);
            if let Some((_, cost)) = &request {
                queue.cost = queue.cost.minus(*cost);
                self.room.add_permits(1);
            }
            drop(queue);
            drop(wakers);
        }
    }
}

impl<Req, T, E> fmt::Debug for Batch<Req, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("Batch")
            .field("cost", &queue.cost)
            .field("waiting", &queue.waiting)
            .field("closed", &queue.closed)
            .finish_non_exhaustive()
    }
}
