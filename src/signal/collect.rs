use super::{Reading, Readings};

/// The readings of one response, each counter once.
#[derive(Debug, Default)]
pub(super) struct Collect {
    pub(super) readings: Readings,
    /// A quota of calls in flight is used up.
    pub(super) concurrency: bool,
}

impl Collect {
    /// Adds what a counter says, if it says something. A limit of zero is how services say that they do not know,
    /// and so it is with what is left of it.
    pub(super) fn push(&mut self, mut reading: Reading) {
        if reading.limit == Some(0) {
            (reading.limit, reading.remaining) = (None, None);
        }
        let known = self.readings.as_slice().iter();
        let known = known.clone().any(|known| known.unit == reading.unit && known.policy == reading.policy);
        if !known && (reading.limit.is_some() || reading.remaining.is_some()) {
            self.readings.push(reading);
        }
    }
}
