//! Snapshots as tables for people.

use super::{Attempts, Snapshot, Times, Wait, snapshot::millis};
use crate::WaitReason;
use std::{fmt, time::Duration};

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{:.1} %", rate * 100.0));
        let recent = |rate: Option<f64>| {
            rate.map_or_else(String::new, |rate| format!(", {} in the last minute", percent(Some(rate))))
        };
        let (success, fallback) = (self.last_minute.success_rate(), self.last_minute.fallback_rate());
        writeln!(f, "success rate     {}{}", percent(self.success_rate()), recent(success))?;
        if self.calls.total() > 0 {
            writeln!(f, "fallback rate    {}{}", percent(self.fallback_rate()), recent(fallback))?;
            self.fmt_calls(f)?;
        }
        if self.batched.count > 0 {
            writeln!(f, "in groups        {}", self.batched.count)?;
            fmt_times(f, "response", &self.batched)?;
        }
        if self.coalesced.batches > 0 {
            self.coalesced.fmt_rows(f)?;
            fmt_times(f, "first waited", &self.coalesced.waits)?;
            fmt_times(f, "calls", &self.coalesced.succeeded)?;
            fmt_times(f, "failed calls", &self.coalesced.failed)?;
        }
        fmt_attempts(f, "attempts", &self.attempts)?;
        if self.control.total() > 0 {
            fmt_attempts(f, "outside rollout", &self.control)?;
        }
        writeln!(
            f,
            "429s in a row    {} now, {} at most",
            self.consecutive_429s, self.peak_consecutive_429s
        )?;
        if self.tokens.reports > 0 {
            writeln!(f, "tokens           {} in, {} out", self.tokens.input, self.tokens.output)?;
        }
        if self.keys_evicted > 0 {
            writeln!(f, "keys             {} forgotten for want of room", self.keys_evicted)?;
        }
        if let Some(overwritten) = self.records_overwritten.filter(|records| *records > 0) {
            writeln!(f, "records          {overwritten} overwritten before they were read")?;
        }
        writeln!(f, "waits            {:>9} {:>10} {:>10} {:>10}", "count", "mean", "p95", "max")?;
        for Wait { reason, times } in &self.waits {
            write!(f, "  {:<14} {:>9}", reason.as_str(), times.count)?;
            match times.mean() {
                Some(mean) if *reason != WaitReason::Normal => {
                    writeln!(f, " {:>10} {:>10} {:>10}", ms(mean), ms(times.p95), ms(times.max))?;
                }
                _ => writeln!(f, " {:>10} {:>10} {:>10}", "-", "-", "-")?,
            }
        }
        fmt_times(f, "then late by", &self.slips)
    }
}

impl Snapshot {
    fn fmt_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = &self.calls;
        writeln!(
            f,
            "calls            {}: {} primary, {} fallback, {} refused, {} cancelled",
            calls.total(),
            calls.primary,
            calls.tried_fallback(),
            calls.refused,
            calls.cancelled
        )?;
        for counts in calls.fallbacks.iter().filter(|c| c.tried() + c.not_tried > 0) {
            writeln!(
                f,
                "  {:<14} {} served by the fallback, {} failed there too, {} not sent to it",
                counts.reason.as_str(),
                counts.served,
                counts.fallback_failed,
                counts.not_tried
            )?;
        }
        fmt_times(f, "response", &calls.response)
    }
}

fn fmt_attempts(f: &mut fmt::Formatter<'_>, name: &str, attempts: &Attempts) -> fmt::Result {
    write!(f, "{name:<16} {}", attempts.total())?;
    let counts = [
        ("accepted", attempts.accepted),
        ("throttled", attempts.throttled),
        ("overloaded", attempts.overloaded),
        ("failed", attempts.failed),
        ("refused", attempts.refused),
        ("exhausted", attempts.exhausted),
        ("rejected", attempts.rejected),
        ("cancelled", attempts.cancelled),
    ];
    let mut separator = ":";
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        write!(f, "{separator} {count} {name}")?;
        separator = ",";
    }
    writeln!(f)?;
    fmt_times(f, "with waiting", &attempts.response)?;
    fmt_times(f, "service alone", &attempts.service)
}

fn fmt_times(f: &mut fmt::Formatter<'_>, name: &str, times: &Times) -> fmt::Result {
    let Some(mean) = times.mean() else { return Ok(()) };
    writeln!(
        f,
        "  {name:<14} mean {}, p50 {}, p95 {}, p99 {}, max {}",
        ms(mean),
        ms(times.p50),
        ms(times.p95),
        ms(times.p99),
        ms(times.max)
    )
}

pub(super) fn ms(time: Duration) -> String {
    format!("{:.1} ms", millis(time))
}
