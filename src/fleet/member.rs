//! The task that talks to Redis for a gate, while there is something to talk about.

use super::{
    FleetError,
    hook::{Front, Hook},
    process::Heard,
    snapshot::Mode,
    store::{Link, News, channel},
    turn::Turn,
};
use crate::policy::Closing;
use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

struct Member {
    hook: Arc<Hook>,
    front: Weak<dyn Front>,
    news: mpsc::Receiver<News>,
}

/// Nothing is said for longer than this: the task looks whether it is needed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Begins the task. Without a runtime there is none, and the process stays alone; with one that ends, the next call
/// begins it again.
pub(super) fn spawn(hook: Arc<Hook>, front: Weak<dyn Front>) {
    let running = Running { hook: Arc::clone(&hook), over: false };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        hook.process().leave_alone(Instant::now());
        return;
    };
    let (sender, news) = channel();
    let link = hook.fleet.store.link(sender);
    let member = Member { hook, front, news };
    runtime.spawn(member.run(link, running));
}

/// However the task ends, another one can begin.
struct Running {
    hook: Arc<Hook>,
    over: bool,
}

impl Running {
    /// Ends it, unless somebody waits who came while the task was still there.
    fn end(&mut self) -> bool {
        self.hook.running.store(false, SeqCst);
        let needed = self.hook.waiting.load(SeqCst) > 0;
        self.over = !needed || self.hook.running.swap(true, SeqCst);
        self.over
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.hook.running.store(false, SeqCst);
        }
    }
}

impl Member {
    async fn run(mut self, mut link: Link, mut running: Running) {
        self.hook.process().join(Instant::now());
        let mut subscribed = false;
        loop {
            let now = Instant::now();
            let waiting = self.hook.waiting.load(Relaxed);
            let (due, idle) = {
                let process = self.hook.process();
                (process.due(waiting, now).unwrap_or(now), process.is_idle(waiting, now))
            };
            if idle || self.front.strong_count() == 0 {
                self.say(&mut link, true).await;
                self.hook.process().mode = Mode::Joining;
                if running.end() || self.front.strong_count() == 0 {
                    return;
                }
            } else if due <= now {
                let answered = self.say(&mut link, false).await;
                if answered && !subscribed {
                    subscribed = true;
                    self.subscribe(&mut link).await;
                }
            } else {
                tokio::select! {
                    () = sleep_until(due.min(now + LONGEST_SLEEP)) => {}
                    () = self.hook.wake.notified() => {}
                    Some(news) = self.news.recv() => self.hear(news),
                }
            }
        }
    }

    async fn subscribe(&mut self, link: &mut Link) {
        self.hook.commands.fetch_add(1, Relaxed);
        if let Err(error) = link.subscribe().await {
            tracing::debug!(
                fleet = self.hook.fleet.name(),
                %error,
                "no news of the fleet: each departure is confirmed instead"
            );
        }
    }

    /// One turn. Whether it was answered in time.
    async fn say(&mut self, link: &mut Link, leaves: bool) -> bool {
        let hook = Arc::clone(&self.hook);
        let sent = Instant::now();
        let turn = hook.process().speak(hook.waiting.load(Relaxed), leaves, sent);
        hook.commands.fetch_add(1, Relaxed);
        let answer = {
            let mut answer = pin!(link.turn(&turn, &hook.fleet.rules));
            let mut late = false;
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answer => break answer,
                    Some(news) = self.news.recv() => self.hear(news),
                    () = sleep_until(sent + hook.fleet.patience), if !late => {
                        late = true;
                        self.alone(None, &turn);
                    }
                }
            }
        };
        let now = Instant::now();
        match answer {
            Ok(grant) => {
                let heard = hook.process().granted(&grant, sent, now);
                self.renew(heard);
                hook.process().mode == Mode::Shared
            }
            Err(error) => {
                self.alone(Some(&error), &turn);
                false
            }
        }
    }

    fn hear(&mut self, news: News) {
        let now = Instant::now();
        let heard = {
            let mut process = self.hook.process();
            match news {
                News::Subscribed(subscribed) => {
                    process.subscribed = subscribed;
                    if !subscribed {
                        process.look_again();
                    }
                    return;
                }
                News::Said(said) => {
                    let view = process.view;
                    process.called(&said);
                    let said = super::turn::Grant { accepted: view.accepted, refused: view.refused, ..said };
                    process.heard(&said, now, now)
                }
            }
        };
        self.renew(heard);
    }

    /// Redis does not answer in time, or with an error.
    fn alone(&self, error: Option<&FleetError>, turn: &Turn) {
        let now = Instant::now();
        let new = {
            let mut process = self.hook.process();
            match error {
                Some(_) => process.failed(turn, now),
                None => process.leave_alone(now),
            };
            // A call that left without Redis may have been the first to know.
            !std::mem::replace(&mut process.announced, true)
        };
        if new {
            let fleet = self.hook.fleet.name();
            match error {
                Some(error) => tracing::warn!(fleet, %error, "the fleet cannot be reached: going on alone"),
                None => tracing::warn!(fleet, "the fleet does not answer in time: going on alone"),
            }
            if let Some(front) = self.front.upgrade() {
                front.renew(Closing::told(Duration::ZERO), false);
            }
        }
    }

    fn renew(&self, heard: Heard) {
        if heard.back {
            tracing::info!(fleet = self.hook.fleet.name(), "the fleet is back");
        }
        if let Some(front) = self.front.upgrade() {
            front.renew(Closing::told(heard.closed_for), heard.new_epoch);
        }
    }
}
