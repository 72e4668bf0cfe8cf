//! Whatever comes from Redis, as answers and as news: what is believed is finite; a process does not lose its epoch, holds
//! no departure of an older one, and none while it is closed; and it always knows when its next call leaves.
//!
//! The crate's own files, as they stand, without the connection. The input is a line for each event:
//!
//! | line | |
//! |---|---|
//! | `r` and 19 numbers | the answer of the script |
//! | `n` and a text | what is published |
//! | `t` and a number | so many milliseconds pass |
//! | `c` | a call asks, and leaves if it may |
//! | `e` | Redis answers with an error |
//! | `o`, `s`, `u` | the gate is opened by hand; news are subscribed to, and no longer |

#![no_main]

/// Where the crate's files look for their neighbours.
mod policy {
    pub(crate) use tower_cooldown::policy::Answer;
    use std::time::Duration;
    use tokio::time::Instant;

    pub(crate) fn later(at: Instant, wait: Duration) -> Instant {
        at.checked_add(wait).unwrap_or(at)
    }
}

use tower_cooldown::{Cost, signal};

#[path = "../../src/fleet"]
mod fleet {
    mod counters;
    mod learn;
    mod lease;
    mod ledger;
    mod places;
    mod process;
    mod reply;
    mod snapshot;
    mod turn;

    use self::{
        ledger::Rules,
        process::{Heard, Process},
        reply::{grant, said},
        snapshot::Mode,
        turn::Grant,
    };
    use std::time::Duration;
    use tokio::time::Instant;

    const CALL: crate::Cost = crate::Cost::one();
    const PATIENCE: Duration = Duration::from_millis(50);
    /// What was heard by two ways is the same time within this.
    const GRACE: Duration = Duration::from_millis(10);
    /// All that can be believed.
    const CENTURIES: Duration = Duration::from_secs(300 * 366 * 24 * 60 * 60);

    struct Game {
        process: Process,
        now: Instant,
        epoch: f64,
    }

    impl Game {
        fn numbers(text: &str) -> Option<Vec<f64>> {
            text.split(' ').take(20).map(|number| number.parse().ok()).collect()
        }

        fn believed(grant: &Grant) {
            let numbers = [
                grant.known.epoch,
                grant.known.closed,
                grant.known.pace,
                grant.members,
                grant.count,
                grant.first,
                grant.gap,
                grant.seq,
                grant.hold,
            ];
            assert!(numbers.iter().all(|number| number.is_finite() && *number >= 0.0), "{grant:?}");
            assert!(grant.known.pace > 0.0 && grant.count <= 1e5, "{grant:?}");
        }

        fn check(&mut self, heard: Heard) {
            let process = &self.process;
            assert!(process.epoch >= self.epoch, "{} after {}", process.epoch, self.epoch);
            assert!(heard.closed_for <= CENTURIES);
            if heard.new_epoch {
                self.epoch = process.epoch;
            }
            let opens = self.now + heard.closed_for;
            if process.mode != Mode::Alone {
                let leaves = process.departure(self.now);
                assert!(leaves + GRACE >= opens || heard.closed_for.is_zero(), "{leaves:?} before {opens:?}");
            }
            assert!(process.lease.first().is_none_or(|slot| slot.at + GRACE >= opens || !heard.new_epoch));
        }

        fn event(&mut self, line: &str) {
            let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
            let now = self.now;
            match kind {
                "r" => {
                    let numbers = Self::numbers(rest.trim_start()).unwrap_or_default();
                    let turn = self.process.speak(1, false, now);
                    match grant(&numbers) {
                        Some(grant) => {
                            Self::believed(&grant);
                            let before = self.process.lease.len();
                            let old = grant.known.epoch < self.process.epoch;
                            let heard = self.process.granted(&grant, now, now);
                            let most = if heard.new_epoch { 0 } else { before } + grant.count as usize;
                            assert!(self.process.lease.len() <= if old { before } else { most });
                            assert_eq!(self.process.mode, Mode::Shared);
                            self.check(heard);
                        }
                        None => drop(self.process.failed(&turn, now)),
                    }
                }
                "n" => {
                    if let Some(grant) = said(rest.trim_start()) {
                        Self::believed(&grant);
                        let before = self.process.lease.len();
                        let heard = self.process.heard(&grant, now, now);
                        assert!(self.process.lease.len() <= if heard.new_epoch { 0 } else { before });
                        self.check(heard);
                    }
                }
                "t" => self.now += Duration::from_millis(rest.trim().parse::<u16>().unwrap_or(1).into()),
                "c" => {
                    let leaves = self.process.ask(now, now, CALL);
                    assert!(leaves <= now + CENTURIES);
                    if leaves <= now {
                        self.process.depart(now, CALL);
                    }
                }
                "e" => {
                    let turn = self.process.speak(1, false, now);
                    self.process.failed(&turn, now);
                    assert_eq!((self.process.mode, self.process.lease.len()), (Mode::Alone, 0));
                }
                "o" => self.process.open(now),
                "s" => self.process.subscribed = true,
                "u" => self.process.subscribed = false,
                _ => {}
            }
            let _ = self.process.due(1, self.now);
            assert!(self.process.sketch().departure(self.now) <= self.now + CENTURIES);
            assert!(self.process.view.known.pace.is_finite());
        }
    }

    fn play_with(text: &str, most: f64) {
        let now = Instant::now();
        let rules = Rules { budget: 0.01, first_pace: 4.0, seeded: false, most };
        let process = Process::new(1, rules, PATIENCE, now);
        let mut game = Game { process, now, epoch: 0.0 };
        for line in text.split('\n').take(64) {
            game.event(line);
        }
    }

    /// Without a bound on calls in flight, and with one.
    pub(crate) fn play(text: &str) {
        play_with(text, 0.0);
        play_with(text, 3.0);
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| fleet::play(text));
