//! Counters told by one field per number: `X-RateLimit-*` in all its spellings, OpenAI's and Anthropic's, HubSpot's,
//! X's, and the IETF's first drafts.

use super::{
    Reading,
    clock::Clock,
    collect::Collect,
    ietf::Policies,
    number::{Decimal, count, window},
    policy_key::{Subject, key},
};
use std::time::Duration;

/// Who counts: fields with different beginnings tell different counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scope {
    /// `RateLimit-*`. With the others it comes first where two tell the same.
    Ietf,
    /// `X-RateLimit-*`, `X-Rate-Limit-*`, `Anthropic-RateLimit-*`, `X-HubSpot-RateLimit-*`.
    #[default]
    Main,
    /// `X-App-Limit-*`.
    App,
    /// `X-User-Limit-*`.
    User,
}

/// More counters than any service tells of at once.
const MAX: usize = 8;

/// The fields of up to [`MAX`] counters, by name, not read yet.
#[derive(Debug, Default)]
pub(super) struct Counters<'a> {
    slots: [Slot<'a>; MAX],
    len: usize,
    /// Discord's bucket, GitHub's resource, GitLab's name: what names the counter without a subject.
    names: [&'a str; 2],
    /// How long the counter without a subject takes to fill, and how much of it comes back in that time.
    interval: Option<Duration>,
    fill_rate: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot<'a> {
    scope: Scope,
    /// `requests`, `tokens`, `daily`, or nothing.
    subject: &'a str,
    limit: Option<&'a str>,
    remaining: Option<&'a str>,
    used: Option<&'a str>,
    reset: Option<&'a str>,
    /// Discord sends both, and this one needs no clock.
    reset_after: Option<&'a str>,
}

impl<'a> Counters<'a> {
    /// Takes the field whose name, after its beginning, is `name`.
    pub(super) fn take(&mut self, scope: Scope, name: &'a str, value: &'a str) {
        match name {
            "bucket" | "name" => self.names[0] = value,
            "resource" => self.names[1] = value,
            "interval-seconds" => {
                self.interval = Decimal::parse(value).map(Decimal::seconds).and_then(window)
            }
            "interval-milliseconds" => {
                self.interval = Decimal::parse(value).map(Decimal::millis).and_then(window)
            }
            "fillrate" => self.fill_rate = count(value),
            _ => self.take_number(scope, name, value),
        }
    }

    fn take_number(&mut self, scope: Scope, name: &'a str, value: &'a str) {
        let Some((subject, what)) = split(name) else { return };
        let Some(slot) = self.slot(scope, subject) else { return };
        let field = match what {
            What::Limit => &mut slot.limit,
            What::Remaining => &mut slot.remaining,
            What::Used => &mut slot.used,
            What::Reset => &mut slot.reset,
            What::ResetAfter => &mut slot.reset_after,
        };
        field.get_or_insert(value);
    }

    fn slot(&mut self, scope: Scope, subject: &'a str) -> Option<&mut Slot<'a>> {
        let known =
            self.slots[..self.len].iter().position(|slot| slot.scope == scope && slot.subject == subject);
        let index = known.unwrap_or(self.len);
        let slot = self.slots.get_mut(index)?;
        if known.is_none() {
            *slot = Slot { scope, subject, ..Slot::default() };
            self.len += 1;
        }
        Some(slot)
    }

    pub(super) fn read(&self, policies: Option<&Policies<'a>>, clock: &Clock<'_>, collect: &mut Collect) {
        let told = &self.slots[..self.len];
        let ietf_first = told.iter().filter(|slot| slot.scope == Scope::Ietf);
        for slot in ietf_first.chain(told.iter().filter(|slot| slot.scope != Scope::Ietf)) {
            self.read_slot(slot, policies, clock, collect);
        }
    }

    fn read_slot(
        &self,
        slot: &Slot<'a>,
        policies: Option<&Policies<'a>>,
        clock: &Clock<'_>,
        collect: &mut Collect,
    ) {
        let subject = Subject::of(slot.subject);
        let mut reading = Reading::new(subject.unit);
        reading.policy = self.key(slot, subject);
        reading.window = subject.window;
        reading.remaining = slot.remaining.and_then(count);

        let mut listed = None;
        if let Some(limit) = slot.limit {
            reading.limit = count(limit).or_else(|| {
                let (limit, policies) = Policies::behind_limit(limit)?;
                listed = Some(policies);
                Some(limit)
            });
        }
        let used = slot.used.and_then(count);
        if let (Some(limit), Some(used)) = (reading.limit, used) {
            reading.remaining =
                reading.remaining.or(slot.remaining.is_none().then(|| limit.saturating_sub(used)));
        } else if let (None, Some(remaining), Some(used)) = (slot.limit, reading.remaining, used) {
            reading.limit = remaining.checked_add(used);
        }
        if slot.subject.is_empty() {
            let policies = listed.as_ref().or(policies);
            let told = policies.and_then(|policies| policies.window_of(reading.limit));
            reading.window = told.or_else(|| self.window(reading.limit));
        }
        let reset = slot.reset_after.and_then(|text| clock.wait(text));
        reading.reset = reset.or_else(|| clock.wait(slot.reset?));
        collect.push(reading);
    }

    fn key(&self, slot: &Slot<'_>, subject: Subject) -> u64 {
        match (slot.scope, slot.subject, self.names) {
            (Scope::App, subject, _) => key(&["app", subject]),
            (Scope::User, subject, _) => key(&["user", subject]),
            (_, "", ["", ""]) => 0,
            (_, "", [bucket, resource]) => key(&[bucket, resource]),
            (_, _, _) if subject.plain => 0,
            (_, subject, _) => key(&[subject]),
        }
    }

    /// An interval is the window, unless only a part of the limit comes back in it.
    fn window(&self, limit: Option<u64>) -> Option<Duration> {
        let Some(fill_rate) = self.fill_rate else { return self.interval };
        let intervals = limit?.checked_div(fill_rate)?;
        window(self.interval?.checked_mul(intervals.try_into().ok()?)?)
    }
}

#[derive(Clone, Copy)]
enum What {
    Limit,
    Remaining,
    Used,
    Reset,
    ResetAfter,
}

/// `limit-requests`, `requests-limit` and `limit` alike: what is counted, and which number this is. HubSpot calls
/// its limits by the period alone, and one of them `max`.
fn split(name: &str) -> Option<(&str, What)> {
    let what = |word| {
        Some(match word {
            "limit" | "max" => What::Limit,
            "remaining" => What::Remaining,
            "used" => What::Used,
            "reset" | "resettime" | "next" => What::Reset,
            _ => return None,
        })
    };
    if name == "reset-after" {
        return Some(("", What::ResetAfter));
    }
    if let Some(what) = what(name) {
        return Some(("", what));
    }
    if let Some((first, subject)) = name.split_once('-') {
        if let Some(what) = what(first) {
            return Some((subject, what));
        }
    }
    if let Some((subject, last)) = name.rsplit_once('-') {
        if let Some(what) = what(last) {
            return Some((subject, what));
        }
    }
    matches!(name, "daily" | "secondly").then_some((name, What::Limit))
}
