//! Requests in groups: those who are called up are woken, whoever finishes or goes away meanwhile.

use super::line::{Line, Look, Settings};
use crate::{
    parker::{block_on, check, spawn},
    wakers::Wakers,
};
use loom::sync::{Arc, Mutex};
use std::{
    future::poll_fn,
    num::NonZeroUsize,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

struct Shared {
    line: Mutex<Line>,
    now: Instant,
}

impl Shared {
    /// One at a time, two in a group, without a pause.
    fn new() -> Arc<Self> {
        let (size, parallel) = (NonZeroUsize::new(2).unwrap(), NonZeroUsize::MIN);
        let line = Mutex::new(Line::new(Settings { size, parallel, pause: Duration::ZERO }));
        Arc::new(Self { line, now: Instant::now() })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Line, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.line.lock().unwrap(), &mut wakers);
        drop(wakers);
        result
    }

    fn call(&self) {
        if let Err(ticket) = self.with(|line, _| line.enter(self.now)) {
            block_on(poll_fn(|cx| match self.with(|line, wakers| line.look(ticket, self.now, cx, wakers)) {
                Look::Start => Poll::Ready(()),
                Look::Wait(None) => Poll::Pending,
                Look::Wait(Some(_)) => unreachable!("there is no pause"),
            }));
        }
        self.with(|line, wakers| line.finish(self.now, wakers));
    }

    /// Comes, looks once, and goes away.
    fn give_up(&self) {
        match self.with(|line, _| line.enter(self.now)) {
            Ok(()) => self.with(|line, wakers| line.finish(self.now, wakers)),
            Err(ticket) => {
                let cx = Context::from_waker(Waker::noop());
                match self.with(|line, wakers| line.look(ticket, self.now, &cx, wakers)) {
                    Look::Start => self.with(|line, wakers| line.finish(self.now, wakers)),
                    Look::Wait(_) => self.with(|line, wakers| line.cancel(ticket, self.now, wakers)),
                }
            }
        }
    }
}

#[test]
fn every_group_ends_and_the_next_one_begins() {
    check(3, || {
        let shared = Shared::new();
        let others = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            spawn(move || shared.call())
        });
        shared.call();
        for other in others {
            other.join().unwrap();
        }
        assert!(shared.with(|line, _| line.enter(shared.now)).is_ok(), "the line is empty");
    });
}

#[test]
fn who_goes_away_takes_nobodys_turn_along() {
    check(3, || {
        let shared = Shared::new();
        let goes = spawn({
            let shared = Arc::clone(&shared);
            move || shared.give_up()
        });
        let stays = spawn({
            let shared = Arc::clone(&shared);
            move || shared.call()
        });
        shared.call();
        goes.join().unwrap();
        stays.join().unwrap();
        assert!(shared.with(|line, _| line.enter(shared.now)).is_ok(), "the line is empty");
    });
}
