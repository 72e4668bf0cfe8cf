//! Each reader against a known one, over texts made from a grammar and then damaged. The readers are not public, so they
//! are reached through the fields that they read.

use super::{answer, secs};
use std::time::Duration;

struct Random(fastrand::Rng);

impl Random {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.usize(..of.len())]
    }

    /// A text of these pieces; every third one with a character changed, taken or put in.
    fn text(&mut self, make: impl Fn(&mut Self) -> String) -> String {
        let mut text = make(self);
        if self.0.u8(..3) == 0 && !text.is_empty() {
            let mut bytes: Vec<u8> = text.into_bytes();
            let at = self.0.usize(..bytes.len());
            match self.0.u8(..3) {
                0 => bytes[at] = self.0.u8(b' '..=b'~'),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, self.0.u8(b' '..=b'~')),
            }
            text = String::from_utf8(bytes).expect("ASCII");
        }
        text
    }
}

/// The same for each of many seeds; a failure names the seed.
fn each(seeds: u64, mut check: impl FnMut(u64, &mut Random)) {
    for seed in 0..seeds {
        check(seed, &mut Random(fastrand::Rng::with_seed(seed)));
    }
}

// Structured fields, against `sfv`.

fn bare_item(random: &mut Random) -> String {
    match random.0.u8(..12) {
        0..3 => random.pick(&["0", "50", "-1", "999999999999999", "1000000000000000", "007", "-0"]).into(),
        3 => random.pick(&["1.5", "0.125", "1.", "-1.0", "123456789012.123", "1234567890123.1"]).into(),
        4..7 => {
            random.pick(&[r#""a""#, r#""""#, r#""a\"b""#, r#""a\\""#, r#""\n""#, r#""two words""#]).into()
        }
        7 | 8 => random.pick(&["token", "*a", "A/b:c", "a!#$%&'*+-.^_`|~", "t=1"]).into(),
        9 => random.pick(&[":aGk=:", "::", ":aGk:", ":a b:", ":aGVsbG8=:"]).into(),
        10 => random.pick(&["?0", "?1", "?2", "@1700000000", "@-5", "@1.5"]).into(),
        _ => random.pick(&[r#"%"a""#, r#"%"f%c3%bc""#, r#"%"%C3""#, r#"%"%ff""#, r#"%"%"#]).into(),
    }
}

fn field(random: &mut Random) -> String {
    let mut text = String::new();
    for member in 0..random.0.u8(..4) {
        if member > 0 {
            text += if random.0.u8(..20) == 0 { " " } else { random.pick(&[",", ", ", " ,", "\t, "]) };
        }
        text += &if random.0.u8(..8) > 0 { r#""a""#.into() } else { bare_item(random) };
        for _ in 0..random.0.u8(..4) {
            text += if random.0.u8(..40) == 0 { " ;" } else { random.pick(&[";", "; "]) };
            text +=
                if random.0.u8(..40) == 0 { "R" } else { random.pick(&["r", "r", "t", "pk", "*x", "a.b"]) };
            if random.0.u8(..8) > 0 {
                text += "=";
                text += &if random.0.u8(..4) > 0 { "7".into() } else { bare_item(random) };
            }
        }
    }
    text
}

/// What `sfv` has to say on it: what is left by name, or nothing where it is malformed. Inner lists, which the drafts
/// have no use for, count as malformed.
fn by_sfv(text: &str) -> Option<Vec<(u64, Option<u64>)>> {
    use sfv::{BareItem, Item, List, ListEntry, Parser};

    let list: List = Parser::new(text).parse().ok()?;
    let items: Option<Vec<Item>> = list
        .into_iter()
        .map(|entry| if let ListEntry::Item(item) = entry { Some(item) } else { None })
        .collect();
    let number = |item: &Item, name: &str| {
        let value = item.params.get(name)?;
        if let BareItem::Integer(value) = value { u64::try_from(i64::from(*value)).ok() } else { None }
    };
    let is_name = |item: &Item| matches!(item.bare_item, BareItem::String(_) | BareItem::Token(_));
    let limits = items?;
    let limits = limits.iter().filter(|item| is_name(item));
    Some(limits.filter_map(|item| Some((number(item, "r")?, number(item, "t")))).collect())
}

#[test]
fn structured_fields_are_read_as_sfv_reads_them() {
    let (mut read, mut ignored) = (0, 0);
    each(100_000, |seed, random| {
        let text = random.text(field);
        let signal = answer(200, &format!("ratelimit: {text}"));
        let ours: Vec<_> = signal
            .hints
            .readings
            .into_iter()
            .map(|reading| (reading.remaining.unwrap(), reading.reset.map(|reset| reset.as_secs())))
            .collect();
        // Of several with one name the first counts, and times have an end.
        match by_sfv(&text) {
            Some(theirs) if !theirs.is_empty() => {
                read += 1;
                let theirs = theirs.iter().map(|(r, t)| (*r, t.map(|t| t.min(366 * 86_400))));
                let theirs: Vec<_> = theirs.collect();
                assert!(!ours.is_empty(), "seed {seed}: {text} says {theirs:?}");
                assert_eq!(ours[0], theirs[0], "seed {seed}: {text}");
                assert!(ours.iter().all(|limit| theirs.contains(limit)), "seed {seed}: {text}");
            }
            _ => {
                ignored += 1;
                assert_eq!(ours, [], "seed {seed}: {text}");
            }
        }
    });
    assert!(read > 10_000 && ignored > 10_000, "{read} read, {ignored} ignored");
}

// Points in time, against `jiff` and `httpdate`; durations, against `humantime`.

/// When `text` says that it is reset, in nanoseconds since 1970, as far as that lies in the year after `now`.
fn reset_at(text: &str, now: u64) -> Option<Option<u128>> {
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + secs(now));
    let signal = answer(200, &format!("date: {date}\nx-ratelimit-remaining: 1\nx-ratelimit-reset: {text}"));
    let reset = signal.hints.readings.as_slice()[0].reset;
    reset.map(|reset| (reset > secs(0)).then(|| (secs(now) + reset).as_nanos()))
}

/// 2026-02-25T20:02:31Z
const NOW: u64 = 1_772_049_751;

#[test]
fn rfc_3339_is_read_as_jiff_reads_it() {
    let (mut read, mut ignored) = (0, 0);
    each(100_000, |seed, random| {
        let text = random.text(|random| {
            let mut text = format!("{}-{:02}-{:02}", 2026, random.0.u8(1..13), random.0.u8(1..31));
            text += &format!("T{:02}:{:02}:{:02}", random.0.u8(..24), random.0.u8(..60), random.0.u8(..60));
            text += random.pick(&["", "", ".5", ".123456789", ".000000001"]);
            text += random.pick(&["Z", "Z", "z", "+00:00", "+02:00", "-05:30", "+23:59"]);
            text
        });
        // It reads more forms than RFC 3339 has (offsets of hours alone, years with a sign, commas, …), so it is asked
        // only about those.
        let is_rfc_3339 = is_in_the_form_of_rfc_3339(&text);
        let theirs = text.parse::<jiff::Timestamp>().ok().filter(|_| is_rfc_3339);
        let ours = reset_at(&text, NOW);
        match theirs {
            Some(theirs) => {
                read += 1;
                let at = theirs.as_nanosecond();
                let later = at.saturating_sub(secs(NOW).as_nanos() as i128);
                let expected = (later > 0).then(|| {
                    let later = Duration::from_nanos(u64::try_from(later).unwrap_or(u64::MAX));
                    (secs(NOW) + later.min(secs(366 * 86_400))).as_nanos()
                });
                assert_eq!(ours, Some(expected), "seed {seed}: {text}");
            }
            None if is_rfc_3339 => {
                ignored += 1;
                assert_eq!(ours, None, "seed {seed}: {text}");
            }
            None => {}
        }
    });
    assert!(read > 10_000 && ignored > 100, "{read} read, {ignored} ignored");
}

/// The right characters in the right places, whatever numbers they make; and the zones that theirs reads, too.
fn is_in_the_form_of_rfc_3339(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    // Theirs reads a leap second as the one before it, ours as the one after it.
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00").filter(|_| text.get(17..19) != Some("60"))
    else {
        return false;
    };
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches('0');
            if zone.len() == fraction.len() || fraction.len() - zone.len() > 9 {
                return false;
            }
            zone
        }
        None => rest,
    };
    matches!(rest, "Z" | "z" | "+00:00" | "-00:00")
}

#[test]
fn dates_of_http_are_read_as_httpdate_reads_them() {
    let mut read = 0;
    each(50_000, |seed, random| {
        let text = random.text(|random| {
            let at = std::time::UNIX_EPOCH + secs(NOW + random.0.u64(..31_000_000));
            let date = httpdate::fmt_http_date(at);
            match random.0.u8(..2) {
                0 => date,
                _ => {
                    let day = random.pick(&["Sunday", "Monday", "Friday"]);
                    format!("{day}, {:02}-Mar-26 10:00:{:02} GMT", random.0.u8(1..30), random.0.u8(..60))
                }
            }
        });
        let theirs = httpdate::parse_http_date(&text).ok();
        let theirs = theirs.map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default());
        read += u32::from(theirs.is_some());
        let waits = theirs.map(|at| at.saturating_sub(secs(NOW)));
        let expected = waits
            .map(|wait| (!wait.is_zero()).then(|| (secs(NOW) + wait.min(secs(366 * 86_400))).as_nanos()));
        if expected.is_some() {
            assert_eq!(reset_at(&text, NOW), expected, "seed {seed}: {text}");
        }
    });
    assert!(read > 10_000, "{read} read");
}

#[test]
fn go_durations_are_read_as_humantime_reads_them() {
    let mut read = 0;
    each(50_000, |seed, random| {
        let text = random.text(|random| {
            (0..random.0.u8(1..4))
                .map(|_| {
                    // Fractions they read only of so many digits, so there are none of hours and minutes.
                    let whole = random.pick(&["0", "1", "6", "17", "999"]);
                    if random.0.bool() {
                        return format!("{whole}{}", random.pick(&["h", "m"]));
                    }
                    format!("{whole}{}{}", random.pick(&["", ".5", ".951"]), random.pick(&["s", "ms", "us"]))
                })
                .collect()
        });
        let signal = answer(200, &format!("x-ratelimit-remaining: 1\nx-ratelimit-reset: {text}"));
        let ours = signal.hints.readings.as_slice()[0].reset;
        // They read words and months, too, so they are asked only about what we read.
        if let (Some(ours), Ok(theirs)) = (ours, humantime::parse_duration(&text)) {
            read += 1;
            // Neither keeps more than a nanosecond per part.
            let difference = ours.abs_diff(theirs.min(secs(366 * 86_400)));
            assert!(difference <= Duration::from_nanos(4), "seed {seed}: {text}: {ours:?}, {theirs:?}");
        }
    });
    assert!(read > 10_000, "{read} read");
}
