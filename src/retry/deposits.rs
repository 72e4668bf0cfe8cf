//! What pays for retries, by default.

use crate::lanes::{Lane, Lanes};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tower::retry::budget::{Budget, TpsBudget};

/// The budget of [`TpsBudget::default`], which is told of accepted calls not one by one: each time it takes its lock and
/// reads the clock.
pub(super) struct Deposits {
    budget: TpsBudget,
    /// Accepted calls, by thread.
    accepted: Lanes<AtomicU64>,
}

/// So many are one deposit.
const CALLS: u64 = 8;

impl Default for Deposits {
    fn default() -> Self {
        // Tower's: 10 retries a second and a fifth of the accepted calls, which count for ten seconds.
        let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.2 * CALLS as f32);
        Self { budget, accepted: Lanes::new(Default::default) }
    }
}

impl Budget for Deposits {
    fn deposit(&self) {
        let lane = Lane::of_this_thread();
        let accepted = self.accepted.get(lane);
        lane.add(accepted, 1);
        // Threads that share a lane may now and then both see the eighth, or neither.
        if accepted.load(Relaxed) % CALLS == 0 {
            self.budget.deposit();
        }
    }

    fn withdraw(&self) -> bool {
        self.budget.withdraw()
    }
}

impl fmt::Debug for Deposits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.budget.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_pays_for_as_many_retries_as_towers() {
        let (ours, towers) = (Deposits::default(), TpsBudget::default());
        let retries = |budget: &dyn Budget, accepted| {
            (0..accepted).for_each(|_| budget.deposit());
            std::iter::repeat_with(|| budget.withdraw()).take_while(|paid| *paid).count()
        };
        for (accepted, secs, paid) in [(0, 0, 100), (800, 0, 160), (4_000, 11, 900), (7, 30, 100)] {
            tokio::time::advance(Duration::from_secs(secs)).await;
            assert_eq!(retries(&ours, accepted), paid, "{accepted} accepted");
            assert!(retries(&towers, accepted).abs_diff(paid) <= 2, "{accepted} accepted");
        }
    }
}
