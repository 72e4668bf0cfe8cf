//! Settings that change while calls wait.

use super::State;
use crate::{policy::Policy, wakers::Wakers};
use std::time::Duration;
use tokio::time::Instant;

impl State {
    /// Another policy, which knows of no call. Answers to those that are in flight are late ones to it.
    pub(in crate::cooldown) fn replace_policy(
        &mut self,
        policy: Box<dyn Policy>,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        self.tell();
        self.policy.replace(policy);
        self.epoch += 1;
        self.reconsider(now, wakers);
    }

    /// The same policy with other settings, if `change` has some.
    pub(in crate::cooldown) fn change_policy<E>(
        &mut self,
        change: impl FnOnce(&dyn Policy) -> Result<Box<dyn Policy>, E>,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Result<(), E> {
        self.tell();
        let policy = change(self.policy.policy())?;
        self.policy.replace(policy);
        self.reconsider(now, wakers);
        Ok(())
    }

    /// Those who wait, and come to `poll_ready`, put up with another wait. Calls that would wait for longer are refused.
    pub(in crate::cooldown) fn bound(
        &mut self,
        max_wait: Option<Duration>,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        if let Some(crowd) = &mut self.crowd {
            crowd.max_wait = max_wait;
        }
        self.wake_handles(wakers);
        self.reconsider(now, wakers);
    }

    /// Books everyone anew, and has them set their timers.
    fn reconsider(&mut self, now: Instant, wakers: &mut Wakers) {
        self.rebook(now, wakers);
        self.release(now, None, wakers);
        if let Some(crowd) = &mut self.crowd {
            crowd.wake_all(wakers);
        }
    }
}
