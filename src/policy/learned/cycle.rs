use super::seconds_between;
use tokio::time::Instant;

/// The time from one opening of the gate to the next, and what was accepted in it.
///
/// Accepted calls over elapsed time, from one re-opening to the next, *is* the quota, whatever its shape: a window is
/// used up and new at both ends, and a bucket is empty at both ends. (BBR finds a policer in the same way; see
/// `tcp_bbr.c`, "long-term bandwidth".) Time in which nobody wanted to call is left out.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    start: Instant,
    accepted: u32,
    idle: f64,
    /// When so many had been accepted, in seconds from the start; the newest one last.
    marks: [Mark; MARKS],
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: f32,
    accepted: u32,
}

const MARKS: usize = 8;

/// A cycle that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) accepted: f64,
    /// The time that it took, without the idle part.
    pub(super) elapsed: f64,
    /// The rate in its last part, where that can be told.
    pub(super) recent: Option<f64>,
}

impl Cycle {
    pub(super) const fn new(start: Instant) -> Self {
        Self { start, accepted: 0, idle: 0.0, marks: [Mark { at: 0.0, accepted: 0 }; MARKS], len: 0 }
    }

    pub(super) const fn accepted(&self) -> u32 {
        self.accepted
    }

    /// For so many seconds nobody called.
    pub(super) fn idle(&mut self, seconds: f64) {
        self.idle += seconds;
    }

    /// A call that left at `departed` was accepted. Marks are made `every` so many seconds.
    pub(super) fn count(&mut self, departed: Instant, requests: u32, every: f64) {
        self.accepted = self.accepted.saturating_add(requests);
        let at = seconds_between(self.start, departed) as f32;
        let last = self.marks[..self.len].last();
        if last.is_none_or(|last| f64::from(at - last.at) > every) {
            if self.len == MARKS {
                self.marks.rotate_left(1);
                self.len -= 1;
            }
            self.marks[self.len] = Mark { at, accepted: self.accepted };
            self.len += 1;
        }
    }

    /// It ends with the opening at `opened`, after a refusal at `refused`. Its last part is the shortest one that took
    /// `span` seconds up to the refusal.
    pub(super) fn end(&self, refused: Instant, opened: Instant, span: f64) -> Measured {
        let all = seconds_between(self.start, opened);
        let elapsed = (all - self.idle).max(1e-6);
        let until = seconds_between(self.start, refused);
        let recent = self.marks[..self.len].iter().rev().find(|mark| until - f64::from(mark.at) >= span);
        let recent = recent.map(|mark| {
            // Half a call more, because it is anywhere between two.
            (f64::from(self.accepted - mark.accepted) + 0.5) / (all - f64::from(mark.at))
        });
        Measured { accepted: self.accepted.into(), elapsed, recent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_window_is_measured_from_opening_to_opening() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut cycle = Cycle::new(start);
        (0..15).for_each(|call| cycle.count(at(f64::from(call)), 1, 1.0));
        let measured = cycle.end(at(15.0), at(60.0), 1000.0);
        assert_eq!(measured.accepted / measured.elapsed, 0.25);
        assert_eq!(measured.recent, None);
    }

    #[test]
    fn idle_time_does_not_count() {
        let start = Instant::now();
        let mut cycle = Cycle::new(start);
        (0..10).for_each(|_| cycle.count(start, 1, 1.0));
        cycle.idle(5.0);
        let ten = start + Duration::from_secs(10);
        assert_eq!(cycle.end(ten, ten, 1.0).elapsed, 5.0);
    }

    #[test]
    fn the_last_part_tells_of_a_change() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut cycle = Cycle::new(start);
        (0..100).for_each(|call| cycle.count(at(f64::from(call)), 1, 2.0));
        (0..200).for_each(|call| cycle.count(at(100.0 + f64::from(call) / 10.0), 1, 2.0));
        let measured = cycle.end(at(120.0), at(121.0), 6.0);
        let recent = measured.recent.unwrap();
        assert!((8.0..10.5).contains(&recent), "{recent}");
        assert!(measured.accepted / measured.elapsed < 3.0);
    }
}
