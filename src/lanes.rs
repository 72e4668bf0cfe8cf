//! Counters that threads do not have to take from one another.
//!
//! An atomic addition costs as much as a dozen plain ones, and ten times that where another processor has just done
//! the same. So each thread has a lane of its own, where it alone writes, and a plain load and store count; whoever
//! reads adds up all lanes. There are as many lanes as processors, and a first one for all threads beyond that, who
//! add atomically.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread,
};

/// The lane of the thread that asks; it stays there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane(usize, PhantomData<*const ()>);

const SHARED: usize = 0;
/// The thread has not asked yet.
const UNKNOWN: usize = usize::MAX;
const MAX_OWNED: usize = 63;

/// A bit for each lane that has an owner.
static OWNED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWNER: Owner = const { Owner };
}

/// Gives the thread's lane back when the thread ends.
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        let lane = LANE.replace(SHARED);
        if lane != SHARED && lane != UNKNOWN {
            // The next owner continues with what this one has written.
            OWNED.fetch_and(!(1 << lane), Release);
        }
    }
}

impl Lane {
    /// For counters that have no lanes.
    pub(crate) const SHARED: Self = Self(SHARED, PhantomData);

    #[inline]
    pub(crate) fn of_this_thread() -> Self {
        match LANE.get() {
            UNKNOWN => Self::take(),
            lane => Self(lane, PhantomData),
        }
    }

    /// Its number, of which [`SHARED`](Self::SHARED) has the first.
    pub(crate) const fn index(self) -> usize {
        self.0
    }

    #[cold]
    fn take() -> Self {
        // A thread that is ending gets no lane that nobody would give back.
        let lane = OWNER.try_with(|_| Self::free()).unwrap_or(SHARED);
        LANE.set(lane);
        Self(lane, PhantomData)
    }

    fn free() -> usize {
        let free = |owned: u64| (1..count()).find(|lane| owned & (1 << lane) == 0);
        OWNED
            .fetch_update(AcqRel, Acquire, |owned| free(owned).map(|lane| owned | (1 << lane)))
            .ok()
            .and_then(free)
            .unwrap_or(SHARED)
    }

    /// `counter` is one of this lane's.
    #[inline]
    pub(crate) fn add(self, counter: &AtomicU64, amount: u64) {
        if self.0 == SHARED {
            counter.fetch_add(amount, Relaxed);
        } else {
            counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// The same for the greatest value so far.
    #[inline]
    pub(crate) fn max(self, greatest: &AtomicU64, value: u64) {
        if value > greatest.load(Relaxed) {
            greatest.fetch_max(value, Relaxed);
        }
    }
}

/// How many lanes there are, the shared one included.
fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        thread::available_parallelism().map_or(1, usize::from).saturating_add(1).min(MAX_OWNED) + 1
    })
}

/// A `T` for each lane.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: Box<[Line<T>]>,
}

/// On cache lines of its own, so that writing to it does not take what is next to it from other processors.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Line<T>(pub(crate) T);

impl<T> Lanes<T> {
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        Self { lanes: (0..count()).map(|_| Line(make())).collect() }
    }

    /// Only the lane that all share, for what is rarely counted.
    pub(crate) fn shared(make: impl Fn() -> T) -> Self {
        Self { lanes: Box::new([Line(make())]) }
    }

    #[inline]
    pub(crate) fn get(&self, lane: Lane) -> &T {
        &self.lanes[lane.0].0
    }

    /// The lane with this [number](Lane::index).
    pub(crate) fn at(&self, index: usize) -> &T {
        &self.lanes[index].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().map(|line| &line.0)
    }
}

/// A `T` for each lane, from the first use on.
pub(crate) struct LazyLanes<T> {
    lanes: OnceLock<Lanes<T>>,
    make: fn() -> T,
}

impl<T> LazyLanes<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { lanes: OnceLock::new(), make }
    }

    pub(crate) fn all(&self) -> &Lanes<T> {
        self.lanes.get_or_init(|| Lanes::new(self.make))
    }

    #[inline]
    pub(crate) fn get(&self, lane: Lane) -> &T {
        self.all().get(lane)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.get().into_iter().flat_map(Lanes::iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn nothing_is_lost_however_many_threads_count() {
        const ADDITIONS: u64 = 10_000;
        let lanes = Lanes::new(|| AtomicU64::new(0));
        let threads = count() * 2 + 1;
        for _ in 0..3 {
            let all_have_a_lane = Barrier::new(threads);
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        Lane::of_this_thread();
                        all_have_a_lane.wait();
                        for _ in 0..ADDITIONS {
                            let lane = Lane::of_this_thread();
                            lane.add(lanes.get(lane), 1);
                        }
                    });
                }
            });
        }
        let sum: u64 = lanes.iter().map(|lane| lane.load(Relaxed)).sum();
        assert_eq!(sum, 3 * threads as u64 * ADDITIONS);
    }

    #[test]
    fn two_threads_never_own_the_same_lane() {
        let all_have_a_lane = Barrier::new(count() + 3);
        let lane = || {
            let Lane(lane, _) = Lane::of_this_thread();
            all_have_a_lane.wait();
            lane
        };
        let mut lanes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count() + 3).map(|_| scope.spawn(lane)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        lanes.retain(|lane| *lane != SHARED);
        let owned = lanes.len();
        lanes.sort_unstable();
        lanes.dedup();
        assert_eq!(lanes.len(), owned);
    }
}
