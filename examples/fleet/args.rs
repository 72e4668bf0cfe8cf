//! The command line.

pub(crate) const HELP: &str = "\
Many processes, one quota: shared through Redis, and not.

Usage: cargo run --release --features redis --example fleet -- [FLAGS]

  --processes N   worker processes (default 8)
  --callers N     callers in each (default 16)
  --quota N       calls a second that the server allows, for all together (default 200)
  --seconds N     how long to measure, after as much to warm up (default 12, both ways at the same time; with
                  --outage or --json 30, one after the other)
  --redis URL     a Redis or Valkey to use; default: a redis-server of its own, on a free port
  --outage        kills its own Redis with SIGKILL for 10 s in the middle
  --json          one JSON document on stdout, and nothing else there
  --help          this
";

#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) processes: usize,
    pub(crate) callers: usize,
    pub(crate) quota: u32,
    pub(crate) seconds: u32,
    pub(crate) redis: Option<String>,
    pub(crate) outage: bool,
    pub(crate) json: bool,
    pub(crate) help: bool,
    /// What a worker is told: its number and the server.
    pub(crate) worker: Option<(usize, String)>,
}

impl Args {
    /// The error names the flag that is wrong.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            processes: 8,
            callers: 16,
            quota: 200,
            seconds: 0,
            redis: None,
            outage: false,
            json: false,
            help: false,
            worker: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (flag, mut value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut text = |what: &str| {
                value.take().or_else(|| words.next()).ok_or_else(|| format!("{flag} needs {what}"))
            };
            let mut number = |max: u32| {
                let value = text("a number")?;
                match value.parse::<u32>() {
                    Ok(number) if (1..=max).contains(&number) => Ok(number),
                    _ => Err(format!("{flag} must be a whole number from 1 to {max}, is {value:?}")),
                }
            };
            match flag.as_str() {
                "--processes" => args.processes = number(256)? as usize,
                "--callers" => args.callers = number(1000)? as usize,
                "--quota" => args.quota = number(100_000)?,
                "--seconds" => args.seconds = number(3600)?,
                "--redis" => args.redis = Some(text("a URL")?),
                "--worker" => {
                    let worker = text("a number and an address")?;
                    let worker =
                        worker.split_once('@').and_then(|(n, at)| Some((n.parse().ok()?, at.to_owned())));
                    args.worker = Some(worker.ok_or("--worker is for the example itself")?);
                }
                "--outage" => args.outage = true,
                "--json" => args.json = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("unknown flag {flag}; --help lists them all")),
            }
            if value.is_some() {
                return Err(format!("{flag} takes no value"));
            }
        }
        if args.outage && args.redis.is_some() && args.worker.is_none() {
            return Err("--outage kills a Redis of its own, not the one at --redis".to_owned());
        }
        if args.seconds == 0 {
            args.seconds = if args.at_once() { 12 } else { 30 };
        }
        Ok(args)
    }

    /// To see what it is about, without waiting for long. What is to be measured well runs alone.
    pub(crate) const fn at_once(&self) -> bool {
        !self.outage && !self.json
    }
}
