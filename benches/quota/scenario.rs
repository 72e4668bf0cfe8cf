//! The upstreams of the race.

use std::time::Duration;
use tower_cooldown::{
    Cost, InvalidSetting,
    policy::Quota,
    testing::{HintStyle, Limit, Neighbour},
};

/// An upstream, and what is known about it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) limits: Vec<Limit>,
    pub(crate) neighbours: Vec<Neighbour>,
    /// How long the race takes, on its clock. A quarter of it is a whole number of windows, so that no part of a window
    /// counts whose quota was used up before.
    pub(crate) length: Duration,
    /// When callers come.
    pub(crate) demand: Demand,
    /// What someone would declare who knows the quota (as it is at the beginning), times a factor.
    pub(crate) declared: Declared,
    /// The most calls at a time, where that is the limit.
    pub(crate) concurrency: Option<usize>,
    /// How it tells when to come again, and how it tells everything.
    pub(crate) retry_after: HintStyle,
    pub(crate) headers: HintStyle,
}

impl Scenario {
    /// From when on how many calls a second are sustained.
    pub(crate) fn rates(&self) -> Vec<(Duration, f64)> {
        let limiter = crate::race::fresh_limiter(self);
        let mut rates: Vec<(Duration, f64)> = Vec::new();
        for second in 0..self.length.as_secs() {
            let at = Duration::from_secs(second);
            let rate = limiter.sustained_rate(at, Cost::one());
            if rates.last().is_none_or(|(_, last)| *last != rate) {
                rates.push((at, rate));
            }
        }
        rates
    }

    /// When the quota changes, and the time in which the new one can be seen: its window, or 20 s of a bucket.
    pub(crate) fn change(&self) -> Option<(Duration, Duration)> {
        let (at, _) = self.rates().into_iter().nth(1)?;
        let window = if self.declared.burst.is_some() { SECOND * 20 } else { self.declared.per };
        (self.neighbours.is_empty()).then_some((at, window))
    }

    /// How long a call occupies the upstream; it matters only where calls at a time are limited.
    pub(crate) fn work(&self) -> Duration {
        if self.concurrency.is_some() { Duration::from_millis(750) } else { Duration::ZERO }
    }
}

/// Calls a time, and how many of them at once.
#[derive(Clone, Copy)]
pub(crate) struct Declared {
    calls: f64,
    per: Duration,
    burst: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Demand {
    /// Each caller has the next call ready as soon as the last one is answered.
    Always,
    /// So for that long, then nobody calls for that long, and so on.
    OnOff(Duration, Duration),
}

impl Declared {
    const fn window(calls: u32, per: Duration) -> Self {
        Self { calls: calls as f64, per, burst: None }
    }

    const fn bucket(calls: u32, per: Duration, burst: u32) -> Self {
        Self { calls: calls as f64, per, burst: Some(burst) }
    }

    /// As a setting: `factor` times the truth.
    pub(crate) fn quota(self, factor: f64) -> Quota {
        // The window carries the factor, so that small numbers of calls can be scaled exactly.
        let quota = Quota::new(self.calls as u32, self.per.div_f64(factor));
        self.burst.map_or(quota.clone(), |burst| quota.and_then(|quota| quota.burst(burst))).expect("a quota")
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A caller seldom starts together with a window.
const PHASE: Duration = Duration::from_millis(17_300);

pub(crate) fn all() -> Result<Vec<Scenario>, InvalidSetting> {
    let new = |name, limit: Limit, minutes: u32, declared| Scenario {
        name,
        limits: vec![limit],
        neighbours: Vec::new(),
        length: MINUTE * minutes,
        demand: Demand::Always,
        declared,
        concurrency: None,
        retry_after: HintStyle::RetryAfterSeconds,
        headers: HintStyle::RateLimit,
    };
    let (window, bucket) = (Declared::window, Declared::bucket);
    let fixed_300 = || Ok(Limit::fixed_window(300, MINUTE)?.phase(PHASE));
    let mut all = vec![
        new("gemini-15-fixed", Limit::fixed_window(15, MINUTE)?.phase(PHASE), 60, window(15, MINUTE)),
        new("gemini-15-sliding", Limit::sliding_log(15, MINUTE)?, 60, window(15, MINUTE)),
        new("gemini-13-fixed", Limit::fixed_window(13, MINUTE / 2)?.phase(PHASE), 60, window(13, MINUTE / 2)),
        new("gemini-13-sliding", Limit::sliding_log(13, MINUTE / 2)?, 60, window(13, MINUTE / 2)),
        new("openai-500", Limit::token_bucket(500, MINUTE, 60)?, 30, bucket(500, MINUTE, 60)),
        new("anthropic-50", Limit::token_bucket(50, MINUTE, 50)?, 60, bucket(50, MINUTE, 50)),
        new("aws-20", Limit::token_bucket(20, SECOND, 100)?, 20, bucket(20, SECOND, 100)),
        new("shopify-2", Limit::token_bucket(2, SECOND, 40)?, 40, bucket(2, SECOND, 40)),
        new("discord-50", Limit::fixed_window(50, SECOND)?.phase(PHASE), 10, window(50, SECOND)),
        new("github-5000", Limit::fixed_window(5000, HOUR)?.phase(PHASE), 480, window(5000, HOUR)),
        new(
            "sliding-counter-300",
            Limit::sliding_counter(300, MINUTE)?.phase(PHASE),
            40,
            window(300, MINUTE),
        ),
        new("sliding-log-300", Limit::sliding_log(300, MINUTE)?, 40, window(300, MINUTE)),
        new(
            "drop-300-to-120",
            fixed_300()?.then(MINUTE * 20, Limit::fixed_window(120, MINUTE)?.phase(PHASE)),
            40,
            window(300, MINUTE),
        ),
        new(
            "drop-10-to-4",
            Limit::token_bucket(10, SECOND, 20)?.then(MINUTE * 10, Limit::token_bucket(4, SECOND, 20)?),
            20,
            bucket(10, SECOND, 20),
        ),
        new(
            "rise-5-to-15",
            Limit::token_bucket(5, SECOND, 20)?.then(MINUTE * 10, Limit::token_bucket(15, SECOND, 20)?),
            20,
            bucket(5, SECOND, 20),
        ),
        new("neighbour-steady", fixed_300()?, 40, window(180, MINUTE)),
        new("neighbour-on-off", fixed_300()?, 40, window(180, MINUTE)),
        new(
            "penalty-300",
            Limit::fixed_window(1200, MINUTE * 5)?.phase(PHASE).penalty(MINUTE * 5),
            120,
            window(1200, MINUTE * 5),
        ),
        new("concurrency-10", Limit::concurrency(10), 10, bucket(12, SECOND, 10)),
        new("on-off-demand", Limit::token_bucket(5, SECOND, 50)?, 40, bucket(5, SECOND, 50)),
    ];
    for scenario in &mut all {
        scenario.headers = match scenario.name.split('-').next() {
            Some("openai" | "aws" | "rise" | "on") => HintStyle::OpenAi,
            Some("anthropic") => HintStyle::Anthropic,
            Some("github") => HintStyle::GitHub,
            Some("discord") => HintStyle::Discord,
            Some("shopify") => HintStyle::Shopify,
            _ => HintStyle::RateLimit,
        };
        match scenario.name {
            "drop-10-to-4" => scenario.headers = HintStyle::OpenAi,
            // These tell it to the millisecond.
            "gemini-15-fixed" | "gemini-15-sliding" | "gemini-13-fixed" | "gemini-13-sliding"
            | "discord-50" => {
                scenario.retry_after = HintStyle::RetryAfter;
            }
            "concurrency-10" => scenario.concurrency = Some(10),
            "neighbour-steady" => scenario.neighbours.push(Neighbour::new(2, SECOND)?),
            "neighbour-on-off" => {
                scenario.neighbours.push(Neighbour::new(3, SECOND)?.on_off(MINUTE * 2, MINUTE * 3))
            }
            "on-off-demand" => scenario.demand = Demand::OnOff(MINUTE, MINUTE / 2),
            _ => {}
        }
    }
    Ok(all)
}
