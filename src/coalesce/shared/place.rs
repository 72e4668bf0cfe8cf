//! A request comes: where it goes, and what is to be started for it.

use super::{Shared, Start};
use crate::{
    coalesce::{
        BatchError, ResponseFuture, Trigger,
        core::{self, Cost, Linger, Place, Streak},
        group::{Group, Joined, SharedGroup},
        hashed::Hashed,
        layer::Settings,
        split::Split,
        task::{Alone, Task},
    },
    lanes::Lane,
    wakers::Wakers,
};
use std::{
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::Semaphore;

struct Entry<Req, T, E> {
    group: SharedGroup<Req, T, E>,
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
    P: Split<Req, S::Response, S::Error> + Send + Sync + 'static,
{
    /// Takes a request in, if there is room. `reserved` says that there is, for this one.
    pub(in crate::coalesce) fn enter(
        self: &Arc<Self>,
        reserved: bool,
        request: Req,
    ) -> ResponseFuture<Req, T, S::Error> {
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
        let mut request = request;
        if self.skips_tick(cost) {
            match Task::send_alone(self, &key, cost, request) {
                Ok(Alone::Answered(answer)) => return ResponseFuture::answered(answer),
                Ok(Alone::InFlight(group)) => {
                    seat.keep(); // the group gives it back
                    return ResponseFuture::waiting(group, 0);
                }
                Err(not_sent) => request = not_sent,
            }
        }
        match self.place(request, &key, cost) {
            Err(error) => ResponseFuture::failed(error),
            Ok(Entry { group, caller, start, crowded }) => {
                seat.keep(); // the group gives it back
                if let Some(start) = start {
                    Task::spawn(self, (!crowded).then_some(key), start);
                }
                ResponseFuture::waiting(group, caller)
            }
        }
    }
}

impl<S, Req, T, E, K, P> Shared<S, Req, T, E, K, P>
where
    K: Hash + Eq + Clone,
{
    /// Whether such a request need not wait for others, for all that is known of those before it.
    fn skips_tick(&self, cost: Cost) -> bool {
        let Settings { linger, limits, .. } = &self.settings;
        *linger == Linger::Tick && self.streak().skips_tick() && limits.allow(cost)
    }

    /// Whether nothing of this key is here. If so, a request that is sent alone is counted.
    pub(in crate::coalesce) fn send_alone(&self, key: &Hashed<K>) -> bool {
        let mut lanes = self.lock();
        let may_enter = !lanes.draining;
        may_enter && lanes.enter(key, self.settings.max_keys.get()).is_some_and(core::Lane::send_alone)
    }

    /// A request comes.
    fn place(&self, request: Req, key: &Hashed<K>, cost: Cost) -> Result<Entry<Req, T, E>, BatchError<E>> {
        let thread = self.thread();
        match self.join_latest(thread, request, key, cost) {
            Ok((group, caller)) => Ok(Entry { group, caller, start: None, crowded: false }),
            Err(request) => self.place_in_lane(thread, request, key, cost),
        }
    }

    /// Each thread has batches of its own while they are open, so that threads need not wait for one another; they are
    /// put together when they are sent. Not where their order can matter, because calls go one after another; and not with
    /// a linger, which all of them together may make needless.
    fn thread(&self) -> Lane {
        let settings = &self.settings;
        if settings.linger == Linger::Tick && settings.max_in_flight.get() > 1 {
            Lane::of_this_thread()
        } else {
            Lane::SHARED
        }
    }

    /// Puts a request into what the thread has opened last, unless it would be full then: most of them, where many come.
    fn join_latest(
        &self,
        thread: Lane,
        request: Req,
        key: &Hashed<K>,
        cost: Cost,
    ) -> Result<(SharedGroup<Req, T, E>, usize), Req> {
        let latest = self.latest(thread.index());
        let group = latest.as_ref().filter(|(of, _)| of == key).and_then(|(_, group)| group.upgrade());
        drop(latest);
        let Some(group) = group else { return Err(request) };
        let caller = group.join(request, cost, &self.settings.limits)?;
        Ok((group, caller))
    }

    fn place_in_lane(
        &self,
        thread: Lane,
        request: Req,
        key: &Hashed<K>,
        cost: Cost,
    ) -> Result<Entry<Req, T, E>, BatchError<E>> {
        let (settings, of) = (&self.settings, thread.index());
        let mut wakers = Wakers::default();
        let _before; // dropped when the lock is free
        let mut lanes = self.lock();
        if lanes.draining {
            return Err(BatchError::Closed);
        }
        let limits = &settings.limits;
        let (lane, crowded) = match lanes.enter(key, settings.max_keys.get()) {
            Some(lane) => (lane, false),
            None => (&mut lanes.crowd, true),
        };
        let offered = match lane.open_on(of) {
            Some(open) if !crowded => {
                open.offer(request, cost, limits).map(|joined| (Arc::clone(open), joined))
            }
            _ => Err((request, limits.place(Cost::default(), cost))),
        };
        let (group, Joined { caller, full }) = match offered {
            Ok(joined) => joined,
            Err((_, Place::Refuse)) => {
                if !crowded && lane.is_idle() {
                    lanes.remove(key);
                }
                return Err(BatchError::Oversize { items: cost.items, weight: cost.weight });
            }
            Err((request, place)) => {
                let alone = crowded || place == Place::Alone;
                if let Some(open) = lane.close(of) {
                    let trigger = if let Place::Next(trigger) = place { trigger } else { Trigger::Alone };
                    open.close(trigger, &mut wakers);
                }
                let hint = self.last_size.load(Relaxed).next_power_of_two().min(limits.max_items.get());
                let group = Group::new(&self.room, of, if alone { 1 } else { hint }, request, cost);
                let group = Arc::new(group);
                lane.open(of, Arc::clone(&group));
                let full = if alone { Some(Trigger::Alone) } else { limits.reached_by(cost) };
                if full.is_none() {
                    let opened = (key.clone(), Arc::downgrade(&group));
                    _before = self.latest(of).replace(opened);
                }
                (group, Joined { caller: 0, full })
            }
        };
        if let (Some(trigger), Some(open)) = (full, full.and_then(|_| lane.close(of))) {
            open.close(trigger, &mut wakers);
        }
        if lane.sending() > 0 {
            self.set_streak(Streak::BROKEN);
        }
        let start = if lane.wants_collector(settings.max_in_flight) {
            Some(Start::collecting(lane))
        } else {
            (full.is_some() && lane.wants_sender(settings.max_in_flight)).then_some(Start::Full)
        };
        drop(lanes);
        drop(wakers);
        Ok(Entry { group, caller, start, crowded })
    }
}

/// A place in the waiting room. Given back when it is dropped.
pub(in crate::coalesce) struct Seat<'a>(&'a Semaphore);

impl<'a> Seat<'a> {
    pub(in crate::coalesce) fn take(room: &'a Semaphore) -> Option<Self> {
        room.try_acquire().ok()?.forget();
        Some(Self(room))
    }

    /// Somebody else gives it back.
    pub(in crate::coalesce) const fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}
