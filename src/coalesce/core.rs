//! What goes into a batch, when it closes, and who works on it: plain functions of state, event and time.

use super::Trigger;
use std::{collections::VecDeque, num::NonZeroUsize, time::Duration};
use tokio::time::Instant;

/// When an open batch closes that is not full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Linger {
    /// At the end of the tick: once every task that could run has had its turn. It arms no timer, so a request
    /// that comes alone leaves at once, and those that come together leave together. Where they come
    /// [one at a time](super#one-at-a-time) for long, they do not wait for the end of the tick.
    #[default]
    Tick,
    /// This long after its first request, for busy and idle times alike. Tokio's timers have steps of 1 ms and
    /// round up: a linger of 1 ms takes about 2 ms.
    Fixed(Duration),
    /// Like [`Tick`](Self::Tick) while no other batch of its key is in flight. While one is, when one of them
    /// ends, or after this time at the latest.
    WhileBusy {
        /// The longest time that a batch waits for another one to end.
        max: Duration,
    },
}

/// What to do with a request that is larger than a whole batch may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oversize {
    /// It makes a batch of its own.
    #[default]
    SendAlone,
    /// It gets [`BatchError::Oversize`](super::BatchError::Oversize).
    Reject,
}

/// What a request, or all of a batch, takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) items: usize,
    pub(super) weight: u64,
}

impl Cost {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            weight: self.weight.saturating_add(other.weight),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_sub(other.items),
            weight: self.weight.saturating_sub(other.weight),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_items: NonZeroUsize,
    pub(super) max_weight: u64,
    pub(super) oversize: Oversize,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the open batch, which stays open.
    Join,
    /// Into the open batch, which is full then.
    Fill(Trigger),
    /// Into a new batch; the open one closes, because the request does not fit.
    Next(Trigger),
    /// Into a batch of its own, closed at once.
    Alone,
    /// Nowhere.
    Refuse,
}

impl Limits {
    /// Where a request of this cost goes, with so much in the open batch. The check comes before the adding, so
    /// that no batch is ever larger than it may be, but for one that a single request makes.
    pub(super) fn place(&self, open: Cost, cost: Cost) -> Place {
        if self.exceeded_by(cost).is_some() {
            return if self.oversize == Oversize::Reject { Place::Refuse } else { Place::Alone };
        }
        let total = open.plus(cost);
        match (self.exceeded_by(total), self.reached_by(total)) {
            (Some(trigger), _) => Place::Next(trigger),
            (None, Some(trigger)) => Place::Fill(trigger),
            (None, None) => Place::Join,
        }
    }

    /// Whether that much closes a batch.
    pub(super) const fn reached_by(&self, total: Cost) -> Option<Trigger> {
        if total.items >= self.max_items.get() {
            Some(Trigger::Items)
        } else if total.weight >= self.max_weight {
            Some(Trigger::Weight)
        } else {
            None
        }
    }

    /// Whether a batch may hold that much.
    pub(super) const fn allow(&self, total: Cost) -> bool {
        self.exceeded_by(total).is_none()
    }

    const fn exceeded_by(&self, total: Cost) -> Option<Trigger> {
        if total.items > self.max_items.get() {
            Some(Trigger::Items)
        } else if total.weight > self.max_weight {
            Some(Trigger::Weight)
        } else {
            None
        }
    }
}

/// Batches of one request, one after another, while nothing else of their key was in flight.
///
/// After a long streak a request is not kept until the end of the tick: nobody has come in any of them. Only one in about
/// [`LONG`](Self::LONG) still is, to find out whether that has changed. So of requests that could go together again one
/// is sent alone, or, where calls end before the next request is there, at most three times so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak(u32);

impl Streak {
    pub(super) const LONG: u32 = 64;
    pub(super) const BROKEN: Self = Self(0);

    pub(super) const fn from_count(count: u32) -> Self {
        Self(count)
    }

    pub(super) const fn count(self) -> u32 {
        self.0
    }

    /// Another batch was sent, of that many requests.
    pub(super) const fn after(self, requests: usize) -> Self {
        match self.0.checked_add(1) {
            Some(longer) if requests == 1 => Self(longer),
            None if requests == 1 => Self(Self::LONG),
            _ => Self::BROKEN,
        }
    }

    pub(super) const fn is_long(self) -> bool {
        self.0 >= Self::LONG
    }

    /// Whether the next request need not wait for the end of the tick.
    pub(super) const fn skips_tick(self) -> bool {
        // Those that are kept are `LONG` and `LONG + 1` apart, in turn. Of those that come in groups of any size, one of
        // three is not the last of its group, so that others join it.
        self.is_long() && !matches!(self.0 % (2 * Self::LONG + 1), 0 | Self::LONG)
    }
}

/// Whether the open batch closes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Close(Trigger),
    /// It is to be looked at again then, or when it is woken.
    Wait(Instant),
}

impl Linger {
    /// `since` is when the batch opened, `sending` how many others of its key are in flight, `completed` whether
    /// one of them has ended since the batch opened.
    pub(super) fn look(self, since: Instant, sending: usize, completed: bool, now: Instant) -> Look {
        let (linger, trigger) = match self {
            Self::Tick => return Look::Close(Trigger::Tick),
            Self::Fixed(linger) => (linger, Trigger::Linger),
            Self::WhileBusy { .. } if sending == 0 || completed => return Look::Close(Trigger::Idle),
            Self::WhileBusy { max } => (max, Trigger::Linger),
        };
        let until = crate::policy::later(since, linger);
        if until <= now { Look::Close(trigger) } else { Look::Wait(until) }
    }
}

/// The groups of one key, and how many tasks work on them. `G` is a group: what is open on one thread, or was.
///
/// At most one task collects: it waits for what is open to close and for the inner service to be ready. When it
/// has taken its batch it only sends, and another one may collect.
#[derive(Debug)]
pub(super) struct Lane<G> {
    /// With their threads, each of which opens one at a time; in the order in which they were opened.
    open: Vec<(usize, G)>,
    /// In the order in which they are sent.
    closed: VecDeque<G>,
    tasks: usize,
    collecting: bool,
    /// A batch ended after the open one was opened.
    completed: bool,
}

impl<G> Default for Lane<G> {
    fn default() -> Self {
        Self { open: Vec::new(), closed: VecDeque::new(), tasks: 0, collecting: false, completed: false }
    }
}

impl<G> Lane<G> {
    pub(super) fn open(&mut self, thread: usize, group: G) {
        debug_assert!(self.open_on(thread).is_none(), "a thread opens one at a time");
        self.open.push((thread, group));
        self.completed = false;
    }

    pub(super) fn open_on(&self, thread: usize) -> Option<&G> {
        self.open.iter().find(|(of, _)| *of == thread).map(|(_, group)| group)
    }

    pub(super) fn all_open(&self) -> impl Iterator<Item = &G> {
        self.open.iter().map(|(_, group)| group)
    }

    /// Closes what this thread has open, if there is something.
    pub(super) fn close(&mut self, thread: usize) -> Option<&G> {
        let at = self.open.iter().position(|(of, _)| *of == thread)?;
        let (_, group) = self.open.remove(at);
        self.closed.push_back(group);
        self.closed.back()
    }

    /// Closes whatever is open, and shows it.
    pub(super) fn close_all(&mut self) -> impl Iterator<Item = &G> {
        let before = self.closed.len();
        self.closed.extend(self.open.drain(..).map(|(_, group)| group));
        self.closed.range(before..)
    }

    /// What is sent next.
    pub(super) fn front(&self) -> Option<&G> {
        self.closed.front().or_else(|| self.all_open().next())
    }

    pub(super) fn front_is_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    pub(super) fn pop_front(&mut self) -> Option<G> {
        self.closed.pop_front().or_else(|| (!self.open.is_empty()).then(|| self.open.remove(0).1))
    }

    pub(super) const fn completed(&self) -> bool {
        self.completed
    }

    /// Batches in flight.
    pub(super) const fn sending(&self) -> usize {
        self.tasks - self.collecting as usize
    }

    /// Whether there is work and a task should be started for it. If so, it is counted as collecting.
    pub(super) fn wants_collector(&mut self, max_in_flight: NonZeroUsize) -> bool {
        let wants = !self.collecting && self.tasks < max_in_flight.get() && self.front().is_some();
        if wants {
            self.tasks += 1;
            self.collecting = true;
        }
        wants
    }

    /// Whether a batch is full while another task collects, so that one more should be started, to send it. If so, it
    /// is counted.
    pub(super) fn wants_sender(&mut self, max_in_flight: NonZeroUsize) -> bool {
        let wants = self.front_is_closed() && self.tasks < max_in_flight.get();
        self.tasks += usize::from(wants);
        wants
    }

    /// Whether nothing is here. If so, a request that was not put in here is sent, and counted like a batch.
    pub(super) fn send_alone(&mut self) -> bool {
        let idle = self.is_idle();
        self.tasks += usize::from(idle);
        idle
    }

    /// The task that was started to send does not. Whether it goes on as the collector; else it is over.
    pub(super) fn not_sent(&mut self) -> bool {
        let collects = !self.collecting && self.front().is_some();
        self.collecting |= collects;
        self.tasks -= usize::from(!collects);
        collects
    }

    /// The collector has taken its batch and sends it.
    pub(super) fn collected(&mut self) {
        debug_assert!(self.collecting, "a collector collects");
        self.collecting = false;
    }

    /// A batch has ended. Whether the task that sent it goes on as the collector; else it is over.
    ///
    /// It does so also where there is no work: those who have just been answered come again at once, if at all.
    pub(super) fn sent(&mut self) -> bool {
        self.completed = !self.open.is_empty();
        if !self.collecting {
            self.collecting = true;
            return true;
        }
        self.tasks -= 1;
        false
    }

    /// Like [`sent`](Self::sent), but where there is no work the task is over.
    pub(super) fn sent_alone(&mut self) -> bool {
        let goes_on = self.sent();
        let over = goes_on && self.front().is_none();
        if over {
            self.stop_collecting();
        }
        goes_on && !over
    }

    /// The task that collected is over.
    pub(super) fn stop_collecting(&mut self) {
        self.collecting = false;
        self.tasks -= 1;
    }

    /// The task that was started to send is over.
    pub(super) fn stop_sending(&mut self) {
        self.tasks -= 1;
    }

    /// Whether a task is left.
    pub(super) const fn has_tasks(&self) -> bool {
        self.tasks > 0
    }

    /// Nothing waits and nobody works: the lane may go.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks == 0 && self.front().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn limits(oversize: Oversize) -> Limits {
        Limits { max_items: NonZeroUsize::new(3).unwrap(), max_weight: 100, oversize }
    }

    const fn cost(items: usize, weight: u64) -> Cost {
        Cost { items, weight }
    }

    #[test]
    fn a_batch_closes_when_it_is_full_and_never_holds_more() {
        let limits = limits(Oversize::SendAlone);
        assert_eq!(limits.place(cost(0, 0), cost(1, 10)), Place::Join);
        assert_eq!(limits.place(cost(2, 20), cost(1, 10)), Place::Fill(Trigger::Items));
        assert_eq!(limits.place(cost(1, 90), cost(1, 10)), Place::Fill(Trigger::Weight));
        assert_eq!(limits.place(cost(1, 99), cost(1, 99)), Place::Next(Trigger::Weight));
        assert_eq!(limits.place(cost(2, 2), cost(2, 2)), Place::Next(Trigger::Items));
        assert_eq!(limits.place(cost(1, u64::MAX), cost(1, 50)), Place::Next(Trigger::Weight));
    }

    #[test]
    fn what_is_larger_than_a_batch_goes_alone_or_nowhere() {
        for cost in [cost(1, 101), cost(4, 1), cost(1, u64::MAX)] {
            assert_eq!(limits(Oversize::SendAlone).place(Cost::default(), cost), Place::Alone);
            assert_eq!(limits(Oversize::Reject).place(Cost::default(), cost), Place::Refuse);
        }
        assert_eq!(limits(Oversize::Reject).place(cost(0, 0), cost(1, 100)), Place::Fill(Trigger::Weight));
    }

    #[test]
    fn a_tick_knows_no_time() {
        let now = Instant::now();
        assert_eq!(Linger::Tick.look(now, 3, false, now), Look::Close(Trigger::Tick));
    }

    #[test]
    fn a_fixed_linger_counts_from_the_first_request() {
        let now = Instant::now();
        let linger = Linger::Fixed(Duration::from_millis(5));
        let until = now + Duration::from_millis(5);
        assert_eq!(linger.look(now, 0, true, now), Look::Wait(until));
        assert_eq!(linger.look(now, 0, false, until), Look::Close(Trigger::Linger));
        let endless = Linger::Fixed(Duration::MAX).look(now, 0, false, now);
        assert!(matches!(endless, Look::Wait(until) if until > now), "{endless:?}");
    }

    #[test]
    fn while_busy_waits_for_another_batch_but_not_for_ever() {
        let now = Instant::now();
        let linger = Linger::WhileBusy { max: Duration::from_millis(5) };
        let until = now + Duration::from_millis(5);
        assert_eq!(linger.look(now, 0, false, now), Look::Close(Trigger::Idle));
        assert_eq!(linger.look(now, 1, false, now), Look::Wait(until));
        assert_eq!(linger.look(now, 1, true, now), Look::Close(Trigger::Idle));
        assert_eq!(linger.look(now, 1, false, until), Look::Close(Trigger::Linger));
    }

    #[test]
    fn after_a_long_streak_ticks_are_skipped_but_for_one_in_so_many() {
        let mut streak = Streak::default();
        for count in 0..5 * Streak::LONG {
            let skips = count > Streak::LONG && ![129, 193, 258].contains(&count);
            assert_eq!((streak.count(), streak.skips_tick()), (count, skips));
            assert_eq!(streak.is_long(), count >= Streak::LONG);
            streak = streak.after(1);
        }
        assert_eq!(streak.after(2), Streak::BROKEN);
        assert_eq!(Streak::from_count(u32::MAX).after(1), Streak::from_count(Streak::LONG), "it stays long");
        assert!(!Streak::BROKEN.is_long() && !Streak::BROKEN.skips_tick());
    }

    #[test]
    fn groups_of_any_size_end_a_streak() {
        let kept = (Streak::LONG + 1..).filter(|count| !Streak(*count).skips_tick()).take(4);
        for three in kept.collect::<Vec<_>>().windows(3) {
            for size in 2..150 {
                let is_joined = |first: u32| three.iter().any(|count| (first + count) % size != size - 1);
                assert!((0..size).all(is_joined), "{size}");
            }
        }
    }

    #[test]
    fn a_request_is_sent_alone_only_where_nothing_is() {
        let mut lane = Lane::default();
        assert!(lane.send_alone());
        assert!(!lane.send_alone(), "one is in flight");
        assert_eq!(lane.sending(), 1);
        assert!(!lane.is_idle());
        assert!(!lane.sent_alone(), "nothing has come");
        assert!(lane.is_idle());

        assert!(lane.send_alone());
        lane.open(0, 1);
        assert!(lane.sent_alone(), "goes on with what has come");
        assert!(!lane.wants_collector(MAX), "it collects");
        assert_eq!(lane.pop_front(), Some(1));
        lane.collected();
        assert!(!lane.sent_alone());
        assert!(lane.is_idle());

        lane.open(0, 2);
        assert!(!lane.send_alone(), "one waits");
        assert!(lane.wants_collector(MAX));
        assert!(!lane.send_alone(), "one collects");
        assert_eq!(lane.pop_front(), Some(2));
        lane.collected();
        lane.open(0, 3);
        assert!(lane.wants_collector(MAX));
        assert!(!lane.sent_alone(), "another collects");
    }

    #[test]
    fn one_task_collects_and_no_more_than_the_allowed_ones_send() {
        let mut lane = Lane::default();
        assert!(!lane.wants_collector(MAX), "no work");
        lane.open(0, 1);
        assert!(lane.wants_collector(MAX));
        assert!(!lane.wants_collector(MAX), "one collects");
        assert_eq!(lane.pop_front(), Some(1));
        lane.collected();
        assert_eq!(lane.sending(), 1);

        lane.open(0, 2);
        assert!(lane.wants_collector(MAX));
        assert_eq!(lane.pop_front(), Some(2));
        lane.collected();
        lane.open(0, 3);
        assert!(!lane.wants_collector(MAX), "both are in flight");
        assert!(lane.sent(), "goes on with the third");
        assert!(lane.completed());
        assert!(!lane.sent(), "one collects");
        assert_eq!(lane.pop_front(), Some(3));
        lane.collected();
        assert!(!lane.is_idle());
        assert!(lane.sent(), "looks once more");
        assert!(!lane.is_idle());
        lane.stop_collecting();
        assert!(lane.is_idle());
    }

    #[test]
    fn what_is_full_is_sent_beside_the_one_that_collects() {
        let mut lane = Lane::default();
        assert!(!lane.wants_sender(MAX), "nothing is full");
        lane.open(0, 1);
        assert!(lane.wants_collector(MAX));
        assert!(!lane.wants_sender(MAX), "it is open");
        lane.close(0);
        assert!(lane.wants_sender(MAX));
        assert!(!lane.wants_sender(MAX) && !lane.wants_collector(MAX), "two tasks are all");
        assert!(!lane.not_sent(), "another collects");
        assert!(lane.wants_sender(MAX));
        lane.stop_collecting();
        assert!(lane.not_sent(), "nobody else does");
        assert!(!lane.wants_collector(MAX));
        assert_eq!(lane.pop_front(), Some(1));
        lane.collected();
        assert!(lane.sent());
        lane.stop_collecting();

        lane.open(0, 2);
        lane.close(0);
        assert!(lane.wants_sender(MAX));
        assert_eq!(lane.pop_front(), Some(2));
        assert!(!lane.not_sent(), "there is nothing to collect");
        lane.open(0, 3);
        lane.close(0);
        assert!(lane.wants_sender(MAX));
        assert_eq!(lane.pop_front(), Some(3));
        lane.stop_sending();
        assert!(lane.is_idle());
    }

    #[test]
    fn closed_batches_leave_before_the_open_one() {
        let mut lane = Lane::default();
        lane.open(0, 'a');
        lane.close(0);
        lane.open(0, 'b');
        lane.close(0);
        lane.open(0, 'c');
        assert!(lane.front_is_closed());
        assert_eq!(
            [lane.pop_front(), lane.pop_front(), lane.pop_front(), lane.pop_front()],
            [Some('a'), Some('b'), Some('c'), None]
        );
    }

    #[test]
    fn each_thread_has_one_open_and_they_are_sent_in_the_order_of_opening() {
        let mut lane = Lane::default();
        lane.open(2, 'a');
        lane.open(1, 'b');
        lane.open(3, 'c');
        assert_eq!((lane.open_on(1), lane.open_on(4)), (Some(&'b'), None));
        assert_eq!(lane.close(1), Some(&'b'));
        assert_eq!(lane.close(1), None);
        assert_eq!(lane.open_on(1), None);
        lane.open(1, 'd');
        assert_eq!(lane.pop_front(), Some('b'), "closed before open");
        assert_eq!(lane.all_open().collect::<String>(), "acd");
        assert_eq!(lane.pop_front(), Some('a'));
        assert_eq!(lane.close_all().collect::<String>(), "cd");
        assert_eq!([lane.pop_front(), lane.pop_front(), lane.pop_front()], [Some('c'), Some('d'), None]);
    }

    #[test]
    fn a_collector_that_finds_nothing_leaves_nothing_behind() {
        let mut lane = Lane::default();
        lane.open(0, 1);
        assert!(lane.wants_collector(MAX));
        lane.pop_front();
        lane.stop_collecting();
        assert!(lane.is_idle() && !lane.has_tasks());
    }
}
