//! When a request came. It comes to the layers of a stack one within the other's `call`, so they read the clock once: a
//! reading costs as much as most of what a layer does.

use std::cell::Cell;
use tokio::time::Instant;

thread_local! {
    static CAME: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// When the request came that a layer further out is just handing on; now, if there is none.
#[inline]
pub(crate) fn came() -> Instant {
    CAME.get().unwrap_or_else(Instant::now)
}

/// While it is there, requests came when this one did: an inner service is called with it.
pub(crate) struct HandOn {
    before: Option<Instant>,
}

impl HandOn {
    #[inline]
    pub(crate) fn new(came: Instant) -> Self {
        Self { before: CAME.replace(Some(came)) }
    }
}

impl Drop for HandOn {
    #[inline]
    fn drop(&mut self) {
        CAME.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_request_comes_to_all_layers_at_the_same_time() {
        let first = came();
        {
            let _outer = HandOn::new(first);
            assert_eq!(came(), first);
            let later = Instant::now();
            {
                let _inner = HandOn::new(later);
                assert_eq!(came(), later);
            }
            assert_eq!(came(), first);
        }
        assert!(CAME.get().is_none(), "the next one comes when it comes");
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let call = || {
            let _outer = HandOn::new(Instant::now());
            panic!("told to");
        };
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        assert!(CAME.get().is_none());
    }
}
