//! The worker processes, as the one that started them sees them.

use crate::args::Args;
use std::{
    env,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::BoxError;

pub(crate) struct Workers {
    children: Vec<Child>,
    readers: JoinSet<std::io::Result<()>>,
    said: Arc<Mutex<Said>>,
}

/// What they said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    modes: Vec<String>,
    pub(crate) failed: u64,
    pub(crate) commands: u64,
    ended: usize,
    stuck: bool,
}

impl Workers {
    pub(crate) fn start(args: &Args, server: &str, redis: Option<&str>) -> Result<Self, BoxError> {
        let said =
            Arc::new(Mutex::new(Said { modes: vec![String::new(); args.processes], ..Said::default() }));
        let mut workers = Self { children: Vec::new(), readers: JoinSet::new(), said };
        for number in 0..args.processes {
            let mut command = Command::new(env::current_exe()?);
            command.args(["--worker", &format!("{number}@{server}"), "--callers", &args.callers.to_string()]);
            if let Some(url) = redis {
                command.args(["--redis", url]);
            }
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
            let mut child = child?;
            let output = child.stdout.take().ok_or("a worker has no standard output")?;
            let said = Arc::clone(&workers.said);
            workers.readers.spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Some(line) = lines.next_line().await? {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    match line.split_once(' ') {
                        Some(("mode", mode)) => said.modes[number] = mode.to_owned(),
                        Some(("failed", failed)) => {
                            said.failed += failed.parse().unwrap_or(u64::MAX / 1024);
                            said.ended += 1;
                        }
                        Some(("commands", commands)) => said.commands += commands.parse().unwrap_or(0),
                        _ => said.stuck = true,
                    }
                }
                Ok(())
            });
            workers.children.push(child);
        }
        Ok(workers)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it takes until all are in this mode.
    pub(crate) async fn all(&self, mode: &str, most: Duration) -> Result<Duration, BoxError> {
        let start = Instant::now();
        while self.said().modes.iter().any(|now| now != mode) {
            if start.elapsed() > most {
                return Err(format!("not all are {mode} after {most:?}: {:?}", self.said().modes).into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(start.elapsed())
    }

    pub(crate) async fn end(mut self) -> Result<Said, BoxError> {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            child.wait().await?;
        }
        while let Some(read) = self.readers.join_next().await {
            read??;
        }
        let said = self.said().clone();
        if said.ended < self.children.len() || said.stuck {
            return Err(format!("not all workers ended well: {said:?}").into());
        }
        Ok(said)
    }
}
