//! A thread that waits to be woken, as an executor does with a task.

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Wake, Waker},
};

#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

/// loom's `Arc` is not the standard library's, which `Wake` wants.
struct Handle(Arc<Parker>);

impl Wake for Handle {
    fn wake(self: std::sync::Arc<Self>) {
        *self.0.woken.lock().unwrap() = true;
        self.0.changed.notify_one();
    }
}

/// Polls when it is woken, and never else. A wake-up that is lost is a deadlock, which loom reports.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(std::sync::Arc::new(Handle(Arc::clone(&parker))));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = parker.woken.lock().unwrap();
        while !std::mem::take(&mut *woken) {
            woken = parker.changed.wait(woken).unwrap();
        }
    }
}

pub fn spawn(work: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    thread::spawn(work)
}

/// With so many switches between threads at most that are not forced: enough for every fault that is known, and a
/// bound on the time.
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
