use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

/// Wakers taken out of a shared state, to be woken or dropped when its lock is free again.
///
/// Waking and dropping a waker runs the executor's code, and may even drop another waiting future, which needs
/// the same lock.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    taken: Vec<Taken>,
}

#[derive(Debug)]
enum Taken {
    Wake(Waker),
    Discard(Waker),
}

impl Wakers {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.taken.extend(waker.map(Taken::Wake));
    }

    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.taken.extend(waker.map(Taken::Discard));
    }

    /// Puts a clone of `new` in the place of `old`, unless it wakes the same task.
    pub(crate) fn replace(&mut self, old: &mut Option<Waker>, new: &Waker) {
        if !old.as_ref().is_some_and(|old| old.will_wake(new)) {
            self.discard(old.replace(new.clone()));
        }
    }

    #[cold]
    fn release(&mut self) {
        for taken in self.taken.drain(..) {
            // One task's executor must not keep the others from being woken. It may panic at a drop as well.
            drop(catch_unwind(AssertUnwindSafe(|| match taken {
                Taken::Wake(waker) => waker.wake(),
                Taken::Discard(waker) => drop(waker),
            })));
        }
    }
}

/// Wakes, also if the work on the state ended in a panic. The lock has to be free by then.
impl Drop for Wakers {
    #[inline]
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            self.release();
        }
    }
}
