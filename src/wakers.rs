use std::task::Waker;

/// Wakers taken out of a shared state, to be woken or dropped when its lock is free again.
///
/// Waking and dropping a waker runs the executor's code, and may even drop another waiting future, which needs
/// the same lock.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    wake: Vec<Waker>,
    discard: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.wake.extend(waker);
    }

    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.discard.extend(waker);
    }

    /// Puts a clone of `new` in the place of `old`, unless it wakes the same task.
    pub(crate) fn replace(&mut self, old: &mut Option<Waker>, new: &Waker) {
        if !old.as_ref().is_some_and(|old| old.will_wake(new)) {
            self.discard(old.replace(new.clone()));
        }
    }
}

/// Wakes, also if the work on the state ended in a panic. The lock has to be free by then.
impl Drop for Wakers {
    fn drop(&mut self) {
        self.wake.drain(..).for_each(Waker::wake);
    }
}
