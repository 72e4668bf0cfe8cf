/// A bound on the calls in flight, where the upstream limits those and not their rate.
///
/// Refusals say so, or it shows: a limit on calls in flight refuses just when more are in flight than ever since the
/// last refusal, while a limit on the rate refuses at any number. Three times in a row are no accident. The bound is one
/// fewer than were refused, and one more after as many accepted calls as pay for one refusal.
#[derive(Clone, Debug)]
pub(super) struct Cap {
    most: Option<usize>,
    /// Calls accepted under this bound.
    accepted: f64,
    /// The most calls in flight since the last refusal, and how many were accepted since.
    peak: usize,
    since: u32,
    /// How many times in a row a refusal came at the peak.
    at_peak: u32,
    /// Nothing was accepted since the last refusal for too many calls in flight.
    again: bool,
}

/// With fewer calls in flight, a peak says nothing.
const FEW: usize = 4;
/// With fewer calls since the last refusal, there was no time for a peak.
const MANY: u32 = 50;
const NO_ACCIDENT: u32 = 3;

impl Cap {
    pub(super) const fn new() -> Self {
        Self { most: None, accepted: 0.0, peak: 0, since: 0, at_peak: 0, again: false }
    }

    pub(super) const fn most(&self) -> Option<usize> {
        self.most
    }

    pub(super) fn departed(&mut self, in_flight: usize) {
        self.peak = self.peak.max(in_flight);
    }

    /// `price` is how many accepted calls pay for a refusal.
    pub(super) fn accepted(&mut self, price: f64) {
        self.again = false;
        self.since = self.since.saturating_add(1);
        let Some(most) = &mut self.most else { return };
        self.accepted += 1.0;
        if self.accepted >= price {
            *most = most.saturating_add(1);
            self.accepted = 0.0;
        }
    }

    /// A call was refused, one of so many in flight. Whether that was because there were too many: it says so, or it
    /// says nothing at all (`is_silent`) and shows.
    pub(super) fn refused(&mut self, in_flight: usize, says_so: bool, is_silent: bool) -> bool {
        let shows = is_silent && self.since >= MANY && in_flight >= FEW && in_flight >= self.peak;
        self.at_peak = if shows { self.at_peak + 1 } else { 0 };
        (self.peak, self.since) = (0, 0);
        let bounded = self.most.is_some_and(|most| in_flight >= most);
        if says_so || bounded && is_silent && !self.again || self.at_peak >= NO_ACCIDENT {
            self.most = Some(in_flight.saturating_sub(1).max(1));
            self.accepted = 0.0;
            self.at_peak = 0;
            self.again = true;
            return true;
        }
        if bounded {
            // Fewer calls in flight did not help: it is something else.
            self.most = None;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_refusals_at_the_peak_are_no_accident() {
        let mut cap = Cap::new();
        for n in 0..3 {
            (0..=11).for_each(|in_flight| cap.departed(in_flight));
            (0..50).for_each(|_| cap.accepted(100.0));
            assert_eq!(cap.refused(11, false, true), n == 2, "{n}");
        }
        assert_eq!(cap.most(), Some(10));
    }

    #[test]
    fn refusals_at_any_number_say_nothing() {
        let mut cap = Cap::new();
        for n in 0..100 {
            (0..=11).for_each(|in_flight| cap.departed(in_flight));
            (0..50).for_each(|_| cap.accepted(100.0));
            assert!(!cap.refused(if n % 2 == 0 { 11 } else { 8 }, false, true));
        }
        assert_eq!(cap.most(), None);
    }

    #[test]
    fn it_grows_when_that_is_paid_for_and_shrinks_when_it_is_refused() {
        let mut cap = Cap::new();
        assert!(cap.refused(11, true, false));
        (0..100).for_each(|_| cap.accepted(100.0));
        assert_eq!(cap.most(), Some(11));
        assert!(cap.refused(11, false, true));
        assert_eq!(cap.most(), Some(10));
        assert!(!cap.refused(10, false, true), "nothing was accepted in between: fewer did not help");
        assert_eq!(cap.most(), None);
    }
}
