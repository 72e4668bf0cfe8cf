//! Who waits, and who is in the present group: plain functions of state, event and time.

use crate::wakers::Wakers;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    task::{Context, Waker},
    time::Duration,
};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) size: NonZeroUsize,
    pub(super) parallel: NonZeroUsize,
    pub(super) pause: Duration,
}

#[derive(Debug)]
pub(super) struct Line {
    settings: Settings,
    /// Requests that the present group has had.
    members: usize,
    in_flight: usize,
    /// When the last member finished.
    finished: Option<Instant>,
    next_ticket: u64,
    /// In the order in which they came. A waker is there from the first poll on.
    queue: BTreeMap<u64, Option<Waker>>,
    /// Called up, and not started yet. They count as members in flight.
    called: BTreeSet<u64>,
}

/// The answer to a request that looks again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Start,
    /// It will be woken; if there is a time, it has to look again then itself.
    Wait(Option<Instant>),
}

impl Line {
    pub(super) const fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: 0,
            in_flight: 0,
            finished: None,
            next_ticket: 0,
            queue: BTreeMap::new(),
            called: BTreeSet::new(),
        }
    }

    pub(super) const fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    /// A request comes: it starts, or gets a ticket.
    pub(super) fn enter(&mut self, now: Instant) -> Result<(), u64> {
        self.begin_group_if_due(now);
        if self.queue.is_empty() && self.has_place() {
            self.members += 1;
            self.in_flight += 1;
            return Ok(());
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert(ticket, None);
        Err(ticket)
    }

    pub(super) fn look(&mut self, ticket: u64, now: Instant, cx: &Context<'_>, wakers: &mut Wakers) -> Look {
        self.call_up(now, wakers);
        if self.called.remove(&ticket) {
            return Look::Start;
        }
        let is_head = self.queue.first_key_value().is_some_and(|(head, _)| *head == ticket);
        if let Some(waker) = self.queue.get_mut(&ticket) {
            wakers.replace(waker, cx.waker());
        }
        // The head of the queue minds the pause for all.
        Look::Wait(self.resumes().filter(|_| is_head))
    }

    /// A member finished, or went away in flight.
    pub(super) fn finish(&mut self, now: Instant, wakers: &mut Wakers) {
        self.in_flight -= 1;
        self.finished = Some(now);
        self.begin_group_if_due(now);
        if !self.queue.is_empty() {
            self.call_up(now, wakers);
            self.wake_head(wakers);
        }
    }

    /// A waiting request went away, or one that was called up and had not started.
    pub(super) fn cancel(&mut self, ticket: u64, now: Instant, wakers: &mut Wakers) {
        if let Some(waker) = self.queue.remove(&ticket) {
            wakers.discard(waker);
        } else if self.called.remove(&ticket) {
            self.members -= 1;
            self.in_flight -= 1;
        }
        self.call_up(now, wakers);
        self.wake_head(wakers);
    }

    /// When the next group may begin, while nothing is in flight.
    fn resumes(&self) -> Option<Instant> {
        let finished = self.finished.filter(|_| self.in_flight == 0)?;
        Some(crate::policy::later(finished, self.settings.pause))
    }

    fn begin_group_if_due(&mut self, now: Instant) {
        if self.resumes().is_some_and(|resumes| resumes <= now) {
            self.members = 0;
            self.finished = None;
        }
    }

    fn has_place(&self) -> bool {
        self.members < self.settings.size.get() && self.in_flight < self.settings.parallel.get()
    }

    /// Calls up those at the head of the queue that there is room for.
    fn call_up(&mut self, now: Instant, wakers: &mut Wakers) {
        self.begin_group_if_due(now);
        while self.has_place() {
            let Some((ticket, waker)) = self.queue.pop_first() else { return };
            self.members += 1;
            self.in_flight += 1;
            self.called.insert(ticket);
            wakers.wake(waker);
        }
    }

    /// The pause has begun, or the one who minded it has gone.
    fn wake_head(&mut self, wakers: &mut Wakers) {
        if self.resumes().is_some() {
            wakers.wake(self.queue.first_entry().and_then(|mut head| head.get_mut().take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn line(size: usize, parallel: usize) -> Line {
        let (size, parallel) = (NonZeroUsize::new(size).unwrap(), NonZeroUsize::new(parallel).unwrap());
        Line::new(Settings { size, parallel, pause: PAUSE })
    }

    /// Looks without anybody to wake.
    fn look(line: &mut Line, ticket: u64, now: Instant) -> Look {
        line.look(ticket, now, &Context::from_waker(Waker::noop()), &mut Wakers::default())
    }

    fn finish(line: &mut Line, now: Instant) {
        line.finish(now, &mut Wakers::default());
    }

    #[test]
    fn the_next_group_waits_for_the_last_one_and_the_pause() {
        let start = Instant::now();
        let mut line = line(2, 2);
        assert_eq!([line.enter(start), line.enter(start)], [Ok(()), Ok(())]);
        let third = line.enter(start).unwrap_err();
        let fourth = line.enter(start).unwrap_err();

        let done = start + Duration::from_secs(1);
        finish(&mut line, done);
        assert_eq!(look(&mut line, third, done + PAUSE), Look::Wait(None), "one is in flight still");
        finish(&mut line, done);
        let resumes = done + PAUSE;
        assert_eq!(look(&mut line, third, done), Look::Wait(Some(resumes)));
        assert_eq!(look(&mut line, fourth, done), Look::Wait(None), "the head minds the pause");
        assert_eq!(look(&mut line, third, resumes), Look::Start);
        assert_eq!(look(&mut line, fourth, resumes), Look::Start);
    }

    #[test]
    fn one_at_a_time_is_two_then_a_pause() {
        let start = Instant::now();
        let mut line = line(2, 2);
        assert_eq!(line.enter(start), Ok(()));
        finish(&mut line, start);
        assert_eq!(line.enter(start), Ok(()));
        finish(&mut line, start);
        assert!(line.enter(start).is_err());
    }

    #[test]
    fn an_idle_line_begins_anew() {
        let start = Instant::now();
        let mut line = line(2, 2);
        assert_eq!(line.enter(start), Ok(()));
        finish(&mut line, start);
        let later = start + PAUSE;
        assert_eq!([line.enter(later), line.enter(later)], [Ok(()), Ok(())]);
    }

    #[test]
    fn inside_a_group_no_more_than_the_parallel_ones() {
        let start = Instant::now();
        let mut line = line(3, 1);
        assert_eq!(line.enter(start), Ok(()));
        let second = line.enter(start).unwrap_err();
        let third = line.enter(start).unwrap_err();
        assert_eq!(look(&mut line, second, start), Look::Wait(None));
        finish(&mut line, start);
        assert_eq!(look(&mut line, third, start), Look::Wait(None));
        assert_eq!(look(&mut line, second, start), Look::Start);
        finish(&mut line, start);
        assert_eq!(look(&mut line, third, start), Look::Start);
    }

    #[test]
    fn who_goes_away_makes_room() {
        let start = Instant::now();
        let mut line = line(1, 1);
        assert_eq!(line.enter(start), Ok(()));
        let [second, third, fourth] = [0; 3].map(|_| line.enter(start).unwrap_err());
        // waiting in the queue
        line.cancel(second, start, &mut Wakers::default());
        finish(&mut line, start);
        let resumes = start + PAUSE;
        assert_eq!(look(&mut line, third, start), Look::Wait(Some(resumes)));
        // called up, not started: the next one takes the place without another pause
        assert_eq!(look(&mut line, fourth, resumes), Look::Wait(None));
        line.cancel(third, resumes, &mut Wakers::default());
        assert_eq!(look(&mut line, fourth, resumes), Look::Start);
    }
}
