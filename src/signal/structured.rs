//! As much of [structured fields](https://www.rfc-editor.org/rfc/rfc9651) as rate limits use: lists of names with
//! parameters. What is malformed is ignored as a whole, as the standard demands.

/// An item of a list, and its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Item<'a> {
    /// The item: a string without its quotes, a token, or a number.
    pub(super) name: &'a str,
    /// `q` and `w` of a policy, `r` and `t` of a limit.
    pub(super) q: Option<u64>,
    pub(super) w: Option<u64>,
    pub(super) r: Option<u64>,
    pub(super) t: Option<u64>,
    /// The unit of a policy.
    pub(super) qu: Option<&'a str>,
    /// The partition key, as it stands.
    pub(super) pk: Option<&'a str>,
}

/// The most items that are looked at.
pub(super) const MAX_ITEMS: usize = 8;

/// A list of items, or nothing if it is malformed.
pub(super) fn list(text: &str) -> Option<([Item<'_>; MAX_ITEMS], usize)> {
    let mut items = [Item::default(); MAX_ITEMS];
    let mut len = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (item, after) = item(rest)?;
        if len < MAX_ITEMS {
            items[len] = item;
            len += 1;
        }
        rest = after.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return None; // a comma at the end
        }
    }
    Some((items, len))
}

fn item(text: &str) -> Option<(Item<'_>, &str)> {
    let (name, mut rest) = bare(text)?;
    let mut item = Item { name, ..Item::default() };
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start_matches(' ');
        let (key, after) = key(after)?;
        let value;
        (value, rest) = match after.strip_prefix('=') {
            Some(after) => {
                let (value, after) = bare(after)?;
                (Some(value), after)
            }
            None => (None, after),
        };
        let number = value.and_then(integer);
        match key {
            "q" => item.q = Some(number?),
            "w" => item.w = Some(number?),
            "r" => item.r = Some(number?),
            "t" => item.t = Some(number?),
            "qu" => item.qu = value,
            "pk" => item.pk = value,
            _ => {}
        }
    }
    Some((item, rest))
}

/// An integer of the standard has up to 15 digits; a negative one makes no sense here.
fn integer(text: &str) -> Option<u64> {
    if text.len() > 15 { None } else { super::time::digits(text) }
}

fn key(text: &str) -> Option<(&str, &str)> {
    let first = text.bytes().next()?;
    if !first.is_ascii_lowercase() && first != b'*' {
        return None;
    }
    let end = text
        .bytes()
        .position(|byte| !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)));
    Some(text.split_at(end.unwrap_or(text.len())))
}

/// A string, token, number, byte sequence or boolean, and what follows it.
fn bare(text: &str) -> Option<(&str, &str)> {
    let end = match text.bytes().next()? {
        b'"' => return string(&text[1..]),
        b':' => {
            let end = text[1..].find(':')? + 1;
            let bytes = &text[1..end];
            let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
            return bytes.bytes().all(base64).then_some((bytes, &text[end + 1..]));
        }
        b'?' => {
            let is_boolean = matches!(text.as_bytes().get(1), Some(b'0' | b'1'));
            return is_boolean.then(|| text.split_at(2));
        }
        b'-' | b'0'..=b'9' => {
            let sign = usize::from(text.starts_with('-'));
            let end = text[sign..].find(|c: char| !c.is_ascii_digit() && c != '.').map(|end| end + sign);
            let end = end.unwrap_or(text.len());
            number(&text[sign..end])?;
            end
        }
        first if first.is_ascii_alphabetic() || first == b'*' => {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
            text.bytes().position(|byte| !token(byte)).unwrap_or(text.len())
        }
        _ => return None,
    };
    Some(text.split_at(end))
}

/// The body of a string, after its first quote. One with escapes is taken as it stands.
fn string(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'\\' if escaped => escaped = false,
            _ if escaped => return None,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            b' '..=b'~' => {}
            _ => return None,
        }
    }
    None
}

/// Up to 15 digits, or up to 12 and a fraction of up to 3.
fn number(text: &str) -> Option<()> {
    let ok = match text.split_once('.') {
        None => text.len() <= 15,
        Some((whole, fraction)) => whole.len() <= 12 && (1..=3).contains(&fraction.len()),
    };
    let digits = text.split('.').all(|part| super::time::digits(part).is_some());
    (ok && digits).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<Item<'_>>> {
        list(text).map(|(items, len)| items[..len].to_vec())
    }

    #[test]
    fn policies_and_limits() {
        let policies = items(r#""burst";q=100;w=60,"daily";q=1000;w=86400"#).unwrap();
        assert_eq!((policies[0].name, policies[0].q, policies[0].w), ("burst", Some(100), Some(60)));
        assert_eq!((policies[1].name, policies[1].q, policies[1].w), ("daily", Some(1000), Some(86_400)));
        let limits = items(r#"default;r=50;t=30;pk=:dHsFR=:;x=?1"#).unwrap();
        assert_eq!((limits[0].name, limits[0].r, limits[0].t), ("default", Some(50), Some(30)));
        assert_eq!(limits[0].pk, Some("dHsFR="));
        let units = items(r#""a b";q=10;qu="concurrent-requests" , 10;w=1"#).unwrap();
        assert_eq!((units[0].name, units[0].qu), ("a b", Some("concurrent-requests")));
        assert_eq!((units[1].name, units[1].w), ("10", Some(1)));
        assert_eq!(items(""), Some(vec![]));
    }

    #[test]
    fn malformed_lists_are_ignored_as_a_whole() {
        for text in [
            r#""a";r=50,"#,
            r#""a";r=x"#,
            r#""a";r=-1"#,
            r#""a"; r"#,
            r#""a";;r=1"#,
            r#""a" "b""#,
            r#""unfinished"#,
            r#""bad \escape""#,
            r#"a;R=1"#,
            r#"a;r=1234567890123456"#,
            r#"a;pk=:not base64:"#,
            "ä",
            "a;r=1.2.3",
        ] {
            assert_eq!(items(text), None, "{text}");
        }
    }
}
