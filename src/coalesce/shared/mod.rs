//! What the services, the tasks and the handles of one [`Coalesce`](super::Coalesce) share.

mod place;

pub(super) use self::place::Seat;

use super::{
    BatchError,
    batch::{Batch, Part, Trigger},
    core::{Cost, Lane, Limits, Linger, Streak},
    group::{Group, SharedGroup},
    hashed::{AsItIs, Hashed},
    layer::Settings,
};
use crate::{
    lanes::{self, Line},
    wakers::Wakers,
};
use std::{
    collections::HashMap,
    hash::{Hash, RandomState},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

pub(super) struct Shared<S, Req, T, E, K, P> {
    /// In a cache line of its own: the settings are read by all while somebody has the lock.
    lanes: Line<Mutex<LanesOf<K, Req, T, E>>>,
    /// What each thread opened last: it joins that without the lock of all.
    latest: lanes::Lanes<Mutex<Latest<K, Req, T, E>>>,
    /// Cloned for each call. Behind a lock, because it need not be `Sync`.
    service: Mutex<S>,
    pub(super) settings: Settings<Req, K, P>,
    /// One permit for each request that may wait or be in flight.
    pub(super) room: Arc<Semaphore>,
    /// How many requests the last batch had: the next groups will be no larger, mostly.
    last_size: AtomicUsize,
    /// Of requests that came alone.
    streak: AtomicU32,
    idle: Notify,
    hash_state: RandomState,
}

/// The lanes of all keys, and what they hold.
type LanesOf<K, Req, T, E> = Lanes<K, SharedGroup<Req, T, E>>;

type Latest<K, Req, T, E> = Option<(Hashed<K>, Weak<Group<Req, T, E>>)>;

pub(super) struct Lanes<K, G> {
    by_key: HashMap<Hashed<K>, Lane<G>, AsItIs>,
    /// For requests whose key is one too many: each is a batch of its own here.
    crowd: Lane<G>,
    /// One that was idle, for the sake of its memory.
    spare: Lane<G>,
    draining: bool,
}

/// Which lane. `None` is the crowd.
pub(super) type LaneOf<K> = Option<Hashed<K>>;

impl<K: Hash + Eq, G> Lanes<K, G> {
    fn get_mut(&mut self, key: &LaneOf<K>) -> &mut Lane<G> {
        match key {
            Some(key) => self.by_key.get_mut(key).expect("a lane stays while it has a task"),
            None => &mut self.crowd,
        }
    }

    /// The lane of this key; `None` where it would be one too many.
    fn enter(&mut self, key: &Hashed<K>, max_keys: usize) -> Option<&mut Lane<G>>
    where
        K: Clone,
    {
        // The key is not cloned for a lane that is there: a second look at the map is cheaper.
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= max_keys {
                return None;
            }
            self.by_key.insert(key.clone(), mem::take(&mut self.spare));
        }
        self.by_key.get_mut(key)
    }

    fn remove(&mut self, key: &Hashed<K>) {
        self.spare = self.by_key.remove(key).unwrap_or_default();
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Lane<G>> {
        self.by_key.values_mut().chain(std::iter::once(&mut self.crowd))
    }

    fn is_idle(&self) -> bool {
        self.by_key.is_empty() && self.crowd.is_idle()
    }
}

/// What a task begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It waits for the end of the tick, and collects.
    Tick,
    /// It collects what is closed.
    Closed,
    /// It sends what is full, beside the one that collects, if the inner service is ready.
    Full,
}

impl Start {
    /// A collector for this lane.
    fn collecting<G>(lane: &Lane<G>) -> Self {
        if lane.front_is_closed() { Self::Closed } else { Self::Tick }
    }
}

impl<S, Req, T, E, K, P> Shared<S, Req, T, E, K, P> {
    pub(super) fn new(service: S, settings: Settings<Req, K, P>) -> Self {
        let lanes = Lanes {
            by_key: HashMap::default(),
            crowd: Lane::default(),
            spare: Lane::default(),
            draining: false,
        };
        Self {
            lanes: Line(Mutex::new(lanes)),
            latest: lanes::Lanes::new(|| Mutex::new(None)),
            service: Mutex::new(service),
            room: Arc::new(Semaphore::new(settings.capacity())),
            settings,
            last_size: AtomicUsize::new(1),
            streak: AtomicU32::new(Streak::default().count()),
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

    fn latest(&self, thread: usize) -> MutexGuard<'_, Latest<K, Req, T, E>> {
        self.latest.at(thread).lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn streak(&self) -> Streak {
        Streak::from_count(self.streak.load(Relaxed))
    }

    /// Threads that do so at the same time may lose what another has written: its length is approximate.
    fn set_streak(&self, streak: Streak) {
        // Most batches are larger than one, and leave this line to those who read it.
        if self.streak() != streak {
            self.streak.store(streak.count(), Relaxed);
        }
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
    /// A group has left its lane: nothing is kept of its key.
    fn forget(&self, group: &SharedGroup<Req, T, E>) {
        let mut latest = self.latest(group.thread);
        let forgotten = latest.take_if(|(_, latest)| std::ptr::eq(latest.as_ptr(), Arc::as_ptr(group)));
        drop(latest);
        drop(forgotten);
    }

    /// Closes all that is open.
    pub(super) fn close_all(&self, trigger: Trigger) {
        let mut wakers = Wakers::default();
        let mut lanes = self.lock();
        lanes.draining |= trigger == Trigger::Drain;
        for lane in lanes.all_mut() {
            lane.close_all().for_each(|open| open.close(trigger, &mut wakers));
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
        work: impl FnOnce(&mut Lane<SharedGroup<Req, T, E>>, &mut Wakers) -> R,
    ) -> R {
        let mut wakers = Wakers::default();
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key);
        let result = work(lane, &mut wakers);
        let idle = lane.is_idle();
        if let (true, Some(key)) = (idle, key) {
            lanes.remove(key);
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

    /// Forgets what is at the front and nobody waits for. Whether something is left; if not, the collector is over.
    pub(super) fn watch(&self, key: &LaneOf<K>, cx: &Context<'_>) -> bool {
        let mut gone = Vec::new();
        let found = self.with(key, |lane, _| {
            while let Some(group) = lane.front() {
                if group.watch(cx) {
                    return true;
                }
                gone.extend(lane.pop_front());
            }
            lane.stop_collecting();
            false
        });
        gone.iter().for_each(|group| self.forget(group));
        found
    }

    /// The task that was started to send a full batch found the service busy. Whether it collects from now on; else it
    /// is over.
    pub(super) fn not_sent(&self, key: &LaneOf<K>) -> bool {
        self.with(key, |lane, _| lane.not_sent())
    }

    /// Takes the next batch that somebody waits for, for the task that `collects` or for one that sends what is full,
    /// and says whether another task should collect. `None`: there is no such batch, and the task is over.
    #[allow(clippy::type_complexity, reason = "the batch, and what else is to be done")]
    pub(super) fn take(
        &self,
        key: &LaneOf<K>,
        collects: bool,
        trigger: Trigger,
    ) -> Option<(Batch<Req, T, E>, Option<Start>)> {
        let (parts, start) = self.with(key, |lane, _| {
            let mut parts = Vec::new();
            if collects || lane.front_is_closed() {
                parts = take_parts(lane, &self.settings.limits, trigger);
            }
            let found = parts.iter().any(Part::is_awaited);
            match (found, collects) {
                (true, true) => lane.collected(),
                (true, false) => {}
                (false, true) => lane.stop_collecting(),
                (false, false) => lane.stop_sending(),
            }
            let next = found && lane.wants_collector(self.settings.max_in_flight);
            (parts, next.then(|| Start::collecting(lane)))
        });
        parts.iter().filter(|part| part.is_last).for_each(|part| self.forget(&part.group));
        // Nobody else has them now, so that the locks are free for those who come.
        let batch = Batch::of(parts)?;
        let waited = batch.at.saturating_duration_since(batch.since);
        self.record_batch(batch.trigger, batch.requests.len(), batch.cost, waited);
        Some((batch, start))
    }

    /// A batch is sent.
    pub(super) fn record_batch(&self, trigger: Trigger, size: usize, cost: Cost, waited: Duration) {
        self.last_size.store(size, Relaxed);
        self.set_streak(self.streak().after(size));
        self.settings.statistics.record_batch(trigger, size, cost.weight, waited);
    }

    /// A task was dropped in the middle of its work. If no other is left for what waits, that is given up.
    pub(super) fn lost(&self, key: &LaneOf<K>, collecting: bool) {
        let given_up = self.with(key, |lane, _| {
            if collecting || lane.sent() {
                lane.stop_collecting();
            }
            let mut given_up = Vec::new();
            while let (false, Some(group)) = (lane.has_tasks(), lane.pop_front()) {
                given_up.push(group);
            }
            given_up
        });
        for group in given_up {
            self.forget(&group);
            group.fail(&BatchError::Closed);
        }
    }
}

/// Takes a batch from the front: a closed group as it is, or open ones, as much of them as fits. Nobody may wait for
/// some of its parts.
fn take_parts<Req, T, E>(
    lane: &mut Lane<SharedGroup<Req, T, E>>,
    limits: &Limits,
    trigger: Trigger,
) -> Vec<Part<Req, T, E>> {
    let (mut parts, mut cost) = (Vec::new(), Cost::default());
    while let Some(group) = lane.front() {
        let part = group.take(cost, limits, trigger);
        let (is_last, is_batch) = (part.is_last, lane.front_is_closed() && part.is_awaited());
        cost = cost.plus(part.cost);
        parts.push(part);
        if is_last {
            lane.pop_front();
        }
        if is_batch || !is_last || limits.reached_by(cost).is_some() {
            break;
        }
    }
    parts
}
