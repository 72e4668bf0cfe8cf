//! `RateLimit` and `RateLimit-Policy`, [draft-ietf-httpapi-ratelimit-headers][draft], from the third draft on.
//!
//! | drafts | |
//! |---|---|
//! | 08 and later | `RateLimit: "default";r=50;t=30`, `RateLimit-Policy: "burst";q=100;w=60,"daily";q=1000;w=86400` |
//! | 07 | `RateLimit: limit=100, remaining=50, reset=5` |
//! | 04 to 06 | `RateLimit-Limit: 100`, `RateLimit-Policy: 100;w=10`; read by `counters.rs`, with the policies from here |
//! | 03 | `RateLimit-Limit: 10, 10;w=1, 50;w=60`; the same |
//!
//! [draft]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/

use super::{
    Reading, Unit,
    collect::Collect,
    number::{LONGEST, window},
    policy_key::{Subject, key},
    structured::{Bare, Params, dictionary, list},
};
use std::time::Duration;

/// The two fields, not read yet. Each may come in several lines.
#[derive(Debug, Default)]
pub(super) struct Ietf<'a> {
    limits: Lines<'a>,
    policies: Lines<'a>,
}

#[derive(Debug, Default)]
struct Lines<'a>([&'a str; 4]);

impl<'a> Lines<'a> {
    fn push(&mut self, line: &'a str) {
        if let Some(free) = self.0.iter_mut().find(|line| line.is_empty()) {
            *free = line;
        }
    }
}

impl<'a> Lines<'a> {
    fn first(&self) -> Option<&'a str> {
        self.0.first().copied().filter(|line| !line.is_empty())
    }
}

impl<'a> Ietf<'a> {
    pub(super) fn take_limit(&mut self, line: &'a str) {
        self.limits.push(line);
    }

    pub(super) fn take_policy(&mut self, line: &'a str) {
        self.policies.push(line);
    }

    /// `None` where there are none, or one of the lines is malformed.
    pub(super) fn policies(&self) -> Option<Policies<'a>> {
        self.policies.first()?;
        let mut policies = Policies::default();
        for line in self.policies.0 {
            list(line, |name, params| policies.push(Policy::of(name, params)))?;
        }
        Some(policies)
    }

    pub(super) fn read(&self, policies: Option<&Policies<'a>>, collect: &mut Collect) {
        let Some(first) = self.limits.first() else { return };
        let mut told = [Limit::default(); MAX];
        let mut len = 0;
        let listed = self.limits.0.iter().try_for_each(|line| {
            list(line, |name, params| {
                if let (Some(limit), Some(free)) = (Limit::of(name, params), told.get_mut(len)) {
                    *free = limit;
                    len += 1;
                }
            })
        });
        if listed.is_none() {
            len = 0;
            read_dictionary(first, policies, collect);
        }

        for limit in &told[..len] {
            limit.read(policies.and_then(|policies| policies.find(limit)), collect);
        }
    }
}

/// An item of `RateLimit`: what is left of one policy.
#[derive(Clone, Copy, Debug, Default)]
struct Limit<'a> {
    name: &'a str,
    partition: &'a str,
    remaining: u64,
    reset: Option<u64>,
}

impl<'a> Limit<'a> {
    /// `None` where the name or what is left is missing or of a wrong type.
    fn of(name: Bare<'a>, params: Params<'a>) -> Option<Self> {
        let (mut remaining, mut reset, mut partition) = (None, None, "");
        params.each(|key, value| match key {
            "r" => remaining = value.count(),
            "t" => reset = value.count(),
            "pk" => partition = value.bytes().unwrap_or_default(),
            _ => {}
        });
        Some(Self { name: name.text()?, partition, remaining: remaining?, reset })
    }

    fn is_of(&self, policy: &Policy<'_>) -> bool {
        policy.name == Bare::Text(self.name)
            && (policy.partition == self.partition
                || policy.partition.is_empty()
                || self.partition.is_empty())
    }

    fn read(&self, policy: Option<&Policy<'a>>, collect: &mut Collect) {
        let mut reading = policy.map_or(Reading::new(Unit::Requests), |policy| policy.reading());
        reading.policy = key(&[self.name, self.partition]);
        reading.remaining = Some(self.remaining);
        reading.reset = self.reset.map(seconds);
        collect.concurrency |=
            reading.is_exhausted() && policy.is_some_and(|policy| policy.unit == "concurrent-requests");
        collect.push(reading);
    }
}

/// Draft 07. It has one counter, without a name.
fn read_dictionary<'a>(text: &'a str, policies: Option<&Policies<'a>>, collect: &mut Collect) {
    let mut reading = Reading::new(Unit::Requests);
    let read = dictionary(text, |key, value, _| match key {
        "limit" => reading.limit = value.count(),
        "remaining" => reading.remaining = value.count(),
        "reset" => reading.reset = value.count().map(seconds),
        _ => {}
    });
    if read.is_some() && reading.remaining.is_some() {
        reading.window = policies.and_then(|policies| policies.window_of(reading.limit));
        collect.push(reading);
    }
}

/// An item of `RateLimit-Policy`.
#[derive(Clone, Copy, Debug)]
struct Policy<'a> {
    /// A string or a token; up to draft 06 the quota itself.
    name: Bare<'a>,
    partition: &'a str,
    quota: Option<u64>,
    window: Option<u64>,
    unit: &'a str,
}

impl<'a> Policy<'a> {
    const NONE: Self = Self { name: Bare::Other, partition: "", quota: None, window: None, unit: "" };

    fn of(name: Bare<'a>, params: Params<'a>) -> Self {
        let mut policy = Self { name, quota: name.count(), ..Self::NONE };
        params.each(|key, value| match key {
            "q" => policy.quota = value.count(),
            "w" => policy.window = value.count(),
            "qu" => policy.unit = value.text().unwrap_or_default(),
            "pk" => policy.partition = value.bytes().unwrap_or_default(),
            _ => {}
        });
        policy
    }

    /// What the policy alone says: no more than this in so much time.
    fn reading(&self) -> Reading {
        let mut reading = Reading::new(match self.unit {
            "" | "requests" => Unit::Requests,
            "concurrent-requests" => Unit::Other,
            unit => Subject::of(unit).unit,
        });
        reading.limit = self.quota;
        reading.window = self.window.map(seconds).and_then(window);
        reading
    }
}

/// More policies than any service tells of at once.
const MAX: usize = 8;

/// The policies of one response, up to [`MAX`].
#[derive(Debug)]
pub(super) struct Policies<'a> {
    policies: [Policy<'a>; MAX],
    len: usize,
}

impl Default for Policies<'_> {
    fn default() -> Self {
        Self { policies: [Policy::NONE; MAX], len: 0 }
    }
}

impl<'a> Policies<'a> {
    fn push(&mut self, policy: Policy<'a>) {
        if let Some(free) = self.policies.get_mut(self.len) {
            *free = policy;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[Policy<'a>] {
        &self.policies[..self.len]
    }

    fn find(&self, limit: &Limit<'_>) -> Option<&Policy<'a>> {
        self.as_slice().iter().find(|policy| limit.is_of(policy))
    }

    /// Draft 03: the limit that is nearest, and then perhaps all of them as policies.
    pub(super) fn behind_limit(text: &'a str) -> Option<(u64, Self)> {
        let (mut limit, mut policies) = (None, Self::default());
        list(text, |name, params| {
            limit = limit.or(name.count());
            policies.push(Policy::of(name, params));
        })?;
        Some((limit?, policies))
    }

    /// The window of the policy with this quota and no name, as up to draft 06.
    pub(super) fn window_of(&self, limit: Option<u64>) -> Option<Duration> {
        let is_it = |policy: &&Policy<'_>| policy.name.count() == limit && policy.window.is_some();
        self.as_slice().iter().find(is_it)?.reading().window
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST)
}
