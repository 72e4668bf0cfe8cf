//! The eight rules of the gate, checked through the layer: random calls, answers, cancellations, commands, quotas
//! that change, and a clock that moves, against a [model](model) that knows the rules and none of the code.
//!
//! `RULES_CASES=10000` runs so many cases; `RULES_SEED=17` runs that one alone and says what happens in it.

#[path = "../support/mod.rs"]
mod support;

mod model;
mod upstream;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};
use tokio::runtime::Builder;
use world::World;

/// Cases that failed once. They come first.
const REGRESSIONS: &[u64] = &[];

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn run(seed: u64, verbose: bool) -> world::Tally {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, verbose);
        for _ in 0..150 {
            world.step().await;
        }
        world.finish().await
    })
}

#[test]
fn whatever_happens_the_rules_hold() {
    if let Some(seed) = number("RULES_SEED") {
        run(seed, true);
        return;
    }
    let cases = number("RULES_CASES").unwrap_or(256);
    let mut sum = world::Tally::default();
    for seed in REGRESSIONS.iter().copied().chain(0..cases) {
        match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            Ok(tally) => sum.add(&tally),
            Err(panic) => {
                eprintln!(
                    "case {seed} fails: RULES_SEED={seed} shows it. Add it to REGRESSIONS when it is mended"
                );
                resume_unwind(panic);
            }
        }
    }
    println!("{cases} cases: {sum:?}");
    // They are not empty: everything that the rules speak of has happened, and often.
    let world::Tally { calls, waited, cancelled, rejected, closings, pending } = sum;
    for (what, count, least) in [
        ("calls", calls, 40 * cases),
        ("waited", waited, 5 * cases),
        ("cancelled", cancelled, 2 * cases),
        ("rejected", rejected, cases),
        ("closings", closings, 2 * cases),
        ("pending in poll_ready", pending, cases),
    ] {
        assert!(count >= least, "only {count} {what} in {cases} cases");
    }
}
