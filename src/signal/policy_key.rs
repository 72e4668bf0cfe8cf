//! What tells one of the server's counters from another.

use super::Unit;
use std::time::Duration;

/// A hash (FNV-1a, 64 bits) of what names a counter: the policy, the partition, the bucket or the resource. 0 is
/// left for counters without a name. The same in every process, so that processes can share what they learned.
pub(super) fn key(parts: &[&str]) -> u64 {
    // 0xff is in no text, so that ("ab", "c") and ("a", "bc") differ.
    fnv(parts.iter().flat_map(|part| part.bytes().chain([0xff])))
}

/// The key of a policy that has nothing but a name, wherever it is named: in a field or in a body.
#[cfg(feature = "body")]
pub(crate) fn policy_id(name: &str) -> u64 {
    key(&[name, ""])
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

/// What the name of a counter says, such as `requests`, `input-tokens` or `tokens-minute`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) unit: Unit,
    pub(super) window: Option<Duration>,
    /// Whether the unit says it all, so that the counter needs no name besides it.
    pub(super) plain: bool,
}

impl Subject {
    pub(super) fn of(name: &str) -> Self {
        let unit = match name {
            "" | "requests" => Some(Unit::Requests),
            "tokens" => Some(Unit::Tokens),
            "input-tokens" => Some(Unit::InputTokens),
            "output-tokens" => Some(Unit::OutputTokens),
            _ => None,
        };
        if let Some(unit) = unit {
            return Self { unit, window: None, plain: true };
        }

        let (mut unit, mut window, mut input, mut output) = (None, None, false, false);
        for word in name.split(['-', '_']) {
            match word {
                "requests" => unit = unit.or(Some(Unit::Requests)),
                "tokens" => unit = unit.or(Some(Unit::Tokens)),
                "input" => input = true,
                "output" => output = true,
                _ => window = window.or(period(word)),
            }
        }
        let unit = match unit {
            Some(Unit::Tokens) if input => Unit::InputTokens,
            Some(Unit::Tokens) if output => Unit::OutputTokens,
            Some(unit) => unit,
            None if window.is_some() => Unit::Requests,
            None => Unit::Other,
        };
        Self { unit, window, plain: false }
    }

    /// The window that Google writes into the name of a quota: `GenerateRequestsPerMinutePerProjectPerModel`.
    pub(super) fn in_quota_id(id: &str) -> Option<Duration> {
        let names = [("PerSecond", SECOND), ("PerMinute", SECOND * 60), ("PerHour", HOUR), ("PerDay", DAY)];
        names.into_iter().find(|(name, _)| id.contains(name)).map(|(_, window)| window)
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn period(word: &str) -> Option<Duration> {
    Some(match word {
        "second" | "secondly" => SECOND,
        "minute" | "minutely" => SECOND * 60,
        "hour" | "hourly" => HOUR,
        "day" | "daily" | "24hour" => DAY,
        "month" | "monthly" => DAY * 30,
        "year" | "yearly" => DAY * 365,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_part_and_on_where_parts_end() {
        let keys = [key(&[]), key(&[""]), key(&["a"]), key(&["ab", "c"]), key(&["a", "bc"]), key(&["abc"])];
        for (i, key) in keys.iter().enumerate() {
            assert_ne!(*key, 0);
            assert!(!keys[..i].contains(key), "{i}");
        }
    }

    #[test]
    fn a_name_tells_the_unit_and_the_window() {
        let read = |name| {
            let Subject { unit, window, plain } = Subject::of(name);
            (unit, window.map(|window| window.as_secs()), plain)
        };
        assert_eq!(read(""), (Unit::Requests, None, true));
        assert_eq!(read("input-tokens"), (Unit::InputTokens, None, true));
        assert_eq!(read("project-tokens"), (Unit::Tokens, None, false));
        assert_eq!(read("tokens-minute"), (Unit::Tokens, Some(60), false));
        assert_eq!(read("tokens-usage-based"), (Unit::Tokens, None, false));
        assert_eq!(read("priority-input-tokens"), (Unit::InputTokens, None, false));
        assert_eq!(read("24hour"), (Unit::Requests, Some(86_400), false));
        assert_eq!(read("complexity"), (Unit::Other, None, false));
    }
}
