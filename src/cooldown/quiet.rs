//! Answers that are counted and not told to the state.

use crate::lanes::{Lane, Lanes};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A gate by key has no lanes: there may be a million of them.
#[derive(Default)]
pub(super) struct Quiet {
    shared: AtomicU64,
    lanes: Option<Lanes<AtomicU64>>,
}

impl Quiet {
    /// For a gate that threads share.
    pub(super) fn with_lanes() -> Self {
        Self { lanes: Some(Lanes::new(Default::default)), ..Self::default() }
    }

    #[inline]
    pub(super) fn add_one(&self) {
        match &self.lanes {
            Some(lanes) => {
                let lane = Lane::of_this_thread();
                lane.add(lanes.get(lane), 1);
            }
            None => Lane::SHARED.add(&self.shared, 1),
        }
    }

    pub(super) fn sum(&self) -> u64 {
        let lanes = self.lanes.iter().flat_map(Lanes::iter);
        lanes.chain([&self.shared]).map(|lane| lane.load(Relaxed)).sum()
    }
}
