//! The command line.

use crate::scale::Scale;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Tags pages over a rate-limited HTTP API in three ways, and compares them.

Usage: cargo run --release --example bulk_tagging -- [FLAGS]

  --pages N          pages to tag (default 50)
  --concurrency N    pages at once (default 5)
  --quota N          requests that the primary allows per window (default 15)
  --window SECONDS   the window's length, at the real pace (default 30)
  --real-time        at the real pace, not ten times faster
  --json             one JSON document on stdout, and nothing else there
  --dry-run          say what would be done, and call nothing
  --help             this
";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) pages: usize,
    pub(crate) concurrency: usize,
    pub(crate) quota: u32,
    pub(crate) window: Duration,
    pub(crate) scale: Scale,
    pub(crate) json: bool,
    pub(crate) dry_run: bool,
    pub(crate) help: bool,
}

impl Args {
    /// The error names the flag that is wrong.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            pages: 50,
            concurrency: 5,
            quota: 15,
            window: Duration::from_secs(30),
            scale: Scale::FAST,
            json: false,
            dry_run: false,
            help: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            // Both `--pages 50` and `--pages=50`.
            let (flag, mut value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut number = |max: u32| {
                let value = value.take().or_else(|| words.next());
                let value = value.ok_or_else(|| format!("{flag} needs a number"))?;
                match value.parse::<u32>() {
                    Ok(number) if (1..=max).contains(&number) => Ok(number),
                    _ => Err(format!("{flag} must be a whole number from 1 to {max}, is {value:?}")),
                }
            };
            match flag.as_str() {
                "--pages" => args.pages = number(100_000)? as usize,
                "--concurrency" => args.concurrency = number(1000)? as usize,
                "--quota" => args.quota = number(1_000_000)?,
                "--window" => args.window = Duration::from_secs(number(86_400)?.into()),
                "--real-time" => args.scale = Scale::REAL,
                "--json" => args.json = true,
                "--dry-run" => args.dry_run = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("unknown flag {flag}; --help lists them all")),
            }
            if value.is_some() {
                return Err(format!("{flag} takes no value"));
            }
        }
        Ok(args)
    }
}
