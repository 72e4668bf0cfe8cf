//! What a gate and the task that talks for it have in common.

use super::{
    member,
    policy::FleetPolicy,
    process::Process,
    settings::Fleet,
    snapshot::{FleetSnapshot, Mode},
};
use crate::policy::{Closing, Policy};
use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// One gate of a fleet: its process, and the task that talks for it while there is something to do.
pub(crate) struct Hook {
    pub(super) fleet: Fleet,
    process: Mutex<Process>,
    pub(super) wake: Notify,
    pub(super) waiting: AtomicUsize,
    pub(super) running: AtomicBool,
    pub(super) commands: AtomicU64,
}

/// The gate, as the task sees it.
pub(crate) trait Front: Send + Sync {
    /// Something changed: the gate is closed for at least so long, or in a new epoch for just so long; and those who wait
    /// look again.
    fn renew(&self, closing: Closing, new_epoch: bool);
}

impl Hook {
    pub(crate) fn new(fleet: Fleet) -> Arc<Self> {
        // Numbers in scripts have 53 bits.
        let id = (RandomState::new().hash_one(std::process::id()) >> 12).max(1);
        Arc::new(Self {
            process: Mutex::new(Process::new(id, fleet.rules, fleet.patience, Instant::now())),
            fleet,
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            commands: AtomicU64::new(0),
        })
    }

    /// One of the same fleet, for another gate.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Self::new(self.fleet.clone())
    }

    pub(crate) fn policy(self: &Arc<Self>) -> Box<dyn Policy> {
        Box::new(FleetPolicy::Live(Arc::clone(self)))
    }

    pub(super) fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many calls wait at the gate now.
    pub(crate) fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, SeqCst);
    }

    /// Something happened at the gate: if there is something to say, the task says it. It is begun if it is not there.
    pub(crate) fn attend(self: &Arc<Self>, front: impl FnOnce() -> Weak<dyn Front>) {
        if !self.running.swap(true, SeqCst) {
            member::spawn(Arc::clone(self), front());
        } else {
            let (now, waiting) = (Instant::now(), self.waiting.load(Relaxed));
            let mut process = self.process();
            if waiting == 0 {
                process.rest();
            }
            if process.due(waiting, now).is_some_and(|due| due <= now) {
                self.wake.notify_one();
            }
        }
    }

    /// Somebody closes the gate by hand: for the whole fleet.
    pub(crate) fn cool_for(&self, wait: Duration) {
        self.process().cool(wait, Instant::now());
    }

    pub(crate) fn snapshot(&self) -> FleetSnapshot {
        let process = self.process();
        FleetSnapshot {
            mode: process.mode,
            pace: (process.view.known.pace > 0.0).then_some(process.view.known.pace),
            members: process.view.members as u64,
            epoch: if process.mode == Mode::Alone { process.alone.epoch } else { process.epoch } as u64,
            accepted: process.view.accepted as u64,
            refused: process.view.refused as u64,
            commands: self.commands.load(Relaxed),
            outages: process.outages,
            subscribed: process.subscribed,
            round_trip: process.round_trip,
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("fleet", &self.fleet)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}
