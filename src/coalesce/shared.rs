//! What the services, the tasks and the handles of one [`Coalesce`](super::Coalesce) share.

use super::{
    BatchError, ResponseFuture,
    batch::{Batch, Joined, Load, SharedBatch, Trigger},
    core::{Cost, Lane, Linger, Place},
    hashed::{AsItIs, Hashed},
    layer::Settings,
    task::Task,
};
use crate::{lanes::Line, wakers::Wakers};
use std::{
    collections::HashMap,
    hash::{Hash, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, Semaphore};

pub(super) struct Shared<S, Req, T, E, K, P> {
    /// In a cache line of its own: the settings are read by all while somebody has the lock.
    lanes: Line<Mutex<LanesOf<K, Req, T, E>>>,
    /// Cloned for each call. Behind a lock, because it need not be `Sync`.
    service: Mutex<S>,
    pub(super) settings: Settings<Req, K, P>,
    /// One permit for each request that may wait or be in flight.
    pub(super) room: Arc<Semaphore>,
    /// How many requests the last batch had: the next one will be about as large.
    last_size: AtomicUsize,
    idle: Notify,
    hash_state: RandomState,
}

/// The lanes of all keys, and what they hold.
type LanesOf<K, Req, T, E> = Lanes<K, SharedBatch<Req, T, E>>;

pub(super) struct Lanes<K, B> {
    by_key: HashMap<Hashed<K>, Lane<B>, AsItIs>,
    /// For requests whose key is one too many: each is a batch of its own here.
    crowd: Lane<B>,
    draining: bool,
}

/// Which lane. `None` is the crowd.
pub(super) type LaneOf<K> = Option<Hashed<K>>;

impl<K: Hash + Eq, B> Lanes<K, B> {
    fn get_mut(&mut self, key: &LaneOf<K>) -> &mut Lane<B> {
        match key {
            Some(key) => self.by_key.get_mut(key).expect("a lane stays while it has a task"),
            None => &mut self.crowd,
        }
    }

    /// The lane of this key; `None` where it would be one too many.
    fn enter(&mut self, key: &Hashed<K>, max_keys: usize) -> Option<&mut Lane<B>>
    where
        K: Clone,
    {
        // The key is not cloned for a lane that is there: a second look at the map is cheaper.
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= max_keys {
                return None;
            }
            self.by_key.insert(key.clone(), Lane::default());
        }
        self.by_key.get_mut(key)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Lane<B>> {
        self.by_key.values_mut().chain(std::iter::once(&mut self.crowd))
    }

    fn is_idle(&self) -> bool {
        self.by_key.is_empty() && self.crowd.is_idle()
    }
}

fn close<Req, T, E>(lane: &mut Lane<SharedBatch<Req, T, E>>, trigger: Trigger, wakers: &mut Wakers) {
    if let Some(batch) = lane.close() {
        batch.close(trigger, wakers);
    }
}

/// A task is to be started for this lane; it waits for the end of the tick first, or not.
pub(super) struct Start {
    pub(super) tick: bool,
}

impl<S, Req, T, E, K, P> Shared<S, Req, T, E, K, P> {
    pub(super) fn new(service: S, settings: Settings<Req, K, P>) -> Self {
        let lanes = Lanes { by_key: HashMap::default(), crowd: Lane::default(), draining: false };
        Self {
            lanes: Line(Mutex::new(lanes)),
            service: Mutex::new(service),
            room: Arc::new(Semaphore::new(settings.capacity())),
            settings,
            last_size: AtomicUsize::new(1),
            idle: Notify::new(),
            hash_state: RandomState::new(),
        }
    }

    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        self.service.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, LanesOf<K, Req, T, E>> {
        self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait or are in flight.
    pub(super) fn held(&self) -> usize {
        self.settings.capacity() - self.room.available_permits()
    }
}

impl<S, Req, T, E, K, P> Shared<S, Req, T, E, K, P>
where
    K: Hash + Eq + Clone,
{
    /// A request comes.
    fn place(&self, request: Req, key: &Hashed<K>, cost: Cost) -> Result<Entry<Req, T, E>, BatchError<E>> {
        let settings = &self.settings;
        let mut wakers = Wakers::default();
        let mut lanes = self.lock();
        if lanes.draining {
            return Err(BatchError::Closed);
        }
        let limits = &settings.limits;
        let (lane, crowded) = match lanes.enter(key, settings.max_keys.get()) {
            Some(lane) => (lane, false),
            None => (&mut lanes.crowd, true),
        };
        let offered = match &lane.open {
            Some(open) if !crowded => {
                open.offer(request, cost, limits).map(|joined| (Arc::clone(open), joined))
            }
            _ => Err((request, limits.place(Cost::default(), cost))),
        };
        let (batch, Joined { caller, full }) = match offered {
            Ok(joined) => joined,
            Err((_, Place::Refuse)) => {
                if !crowded && lane.is_idle() {
                    lanes.by_key.remove(key);
                }
                return Err(BatchError::Oversize { items: cost.items, weight: cost.weight });
            }
            Err((request, place)) => {
                let alone = crowded || place == Place::Alone;
                let trigger = if let Place::Next(trigger) = place { trigger } else { Trigger::Alone };
                close(lane, trigger, &mut wakers);
                let hint = self.last_size.load(Relaxed).next_power_of_two().min(limits.max_items.get());
                let batch = Arc::new(Batch::new(&self.room, if alone { 1 } else { hint }, request, cost));
                lane.open(Arc::clone(&batch));
                let full = if alone { Some(Trigger::Alone) } else { limits.reached_by(cost) };
                (batch, Joined { caller: 0, full })
            }
        };
        if let Some(trigger) = full {
            close(lane, trigger, &mut wakers);
        }
        let start =
            lane.wants_collector(settings.max_in_flight).then(|| Start { tick: !lane.front_is_closed() });
        drop(lanes);
        drop(wakers);
        Ok(Entry { batch, caller, start, crowded })
    }

    /// Closes every open batch.
    pub(super) fn close_all(&self, trigger: Trigger) {
        let mut wakers = Wakers::default();
        let mut lanes = self.lock();
        lanes.draining |= trigger == Trigger::Drain;
        for lane in lanes.all_mut() {
            close(lane, trigger, &mut wakers);
        }
        drop(lanes);
        drop(wakers);
        if trigger == Trigger::Drain {
            self.room.close();
        }
    }

    /// The waiting room is full: what is in it need not wait for more.
    pub(super) fn exhausted(&self) {
        if self.settings.linger != Linger::Tick {
            self.close_all(Trigger::Exhausted);
        }
    }

    /// Until nothing waits and no task is left.
    pub(super) async fn until_idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.lock().is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Works on a lane, and forgets it if it is idle afterwards.
    pub(super) fn with<R>(
        &self,
        key: &LaneOf<K>,
        work: impl FnOnce(&mut Lane<SharedBatch<Req, T, E>>, &mut Wakers) -> R,
    ) -> R {
        let mut wakers = Wakers::default();
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key);
        let result = work(lane, &mut wakers);
        let idle = lane.is_idle();
        if let (true, Some(key)) = (idle, key) {
            lanes.by_key.remove(key);
        }
        let all_idle = idle && lanes.is_idle();
        drop(lanes);
        drop(wakers);
        if all_idle {
            self.idle.notify_waiters();
        }
        result
    }

    /// Whether anything is left to collect; if not, the collector is over.
    pub(super) fn has_work(&self, key: &LaneOf<K>) -> bool {
        self.with(key, |lane, _| {
            let work = lane.front().is_some();
            if !work {
                lane.stop_collecting();
            }
            work
        })
    }

    /// Takes the next batch that somebody waits for, and says whether another task should collect. `None`: there is
    /// no such batch, and the collector is over. What is in the batch is empty where all have gone just now.
    #[allow(clippy::type_complexity, reason = "the batch and what is in it")]
    pub(super) fn take(
        &self,
        key: &LaneOf<K>,
        trigger: Trigger,
    ) -> Option<(SharedBatch<Req, T, E>, Load<Req>, Option<Start>)> {
        let (batch, start) = self.with(key, |lane, _| {
            while let Some(batch) = lane.pop_front() {
                if batch.is_awaited() {
                    lane.collected();
                    let next = lane.wants_collector(self.settings.max_in_flight);
                    return Some((batch, next.then(|| Start { tick: !lane.front_is_closed() })));
                }
            }
            lane.stop_collecting();
            None
        })?;
        // Nobody else has it now, so that the lock is free for those who come.
        let load = batch.take(trigger);
        if !load.requests.is_empty() {
            self.last_size.store(load.requests.len(), Relaxed);
            self.settings.statistics.record_batch(
                load.trigger,
                load.requests.len(),
                load.cost.weight,
                batch.since.elapsed(),
            );
        }
        Some((batch, load, start))
    }

    /// A task was dropped in the middle of its work. If no other is left for what waits, that is given up.
    pub(super) fn lost(&self, key: &LaneOf<K>, collecting: bool) {
        let given_up = self.with(key, |lane, _| {
            if collecting || lane.sent() {
                lane.stop_collecting();
            }
            let mut given_up = Vec::new();
            while let (false, Some(batch)) = (lane.has_tasks(), lane.pop_front()) {
                given_up.push(batch);
            }
            given_up
        });
        for batch in given_up {
            batch.fail(&[], &BatchError::Closed);
        }
    }
}

struct Entry<Req, T, E> {
    batch: SharedBatch<Req, T, E>,
    caller: usize,
    start: Option<Start>,
    crowded: bool,
}

impl<S, Req, T, K, P> Shared<S, Req, T, S::Error, K, P>
where
    S: tower::Service<Vec<Req>> + Clone + Send + 'static,
    S::Response: IntoIterator<Item = Result<T, S::Error>>,
    S::Future: Send,
    S::Error: Send + Sync + 'static,
    Req: Send + 'static,
    T: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    P: super::split::Split<Req, S::Response, S::Error> + Send + Sync + 'static,
{
    /// Takes a request in, if there is room. `reserved` says that there is, for this one.
    pub(super) fn enter(self: &Arc<Self>, reserved: bool, request: Req) -> ResponseFuture<Req, T, S::Error> {
        let seat = if reserved { Some(Seat(&self.room)) } else { Seat::take(&self.room) };
        let Some(seat) = seat else {
            if self.room.is_closed() {
                return ResponseFuture::failed(BatchError::Closed);
            }
            self.exhausted();
            return ResponseFuture::failed(BatchError::Rejected);
        };
        // Code of others, which may panic: nothing is held here but the seat.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let (key, cost) = self.settings.read(&request);
            (Hashed::new(key, &self.hash_state), cost)
        }));
        let Ok((key, cost)) = read else { return ResponseFuture::failed(BatchError::Panicked) };
        match self.place(request, &key, cost) {
            Err(error) => ResponseFuture::failed(error),
            Ok(Entry { batch, caller, start, crowded }) => {
                seat.keep(); // the batch gives it back
                if let Some(start) = start {
                    Task::spawn(self, (!crowded).then_some(key), start);
                }
                ResponseFuture::waiting(batch, caller)
            }
        }
    }
}

/// A place in the waiting room. Given back when it is dropped.
pub(super) struct Seat<'a>(&'a Semaphore);

impl<'a> Seat<'a> {
    pub(super) fn take(room: &'a Semaphore) -> Option<Self> {
        room.try_acquire().ok()?.forget();
        Some(Self(room))
    }

    /// Somebody else gives it back.
    pub(super) const fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}
