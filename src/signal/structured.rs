//! The part of Structured Field Values (RFC 9651) that rate limits are written in: lists and dictionaries of items,
//! with parameters. Nothing is copied, nothing is allocated.
//!
//! As the RFC asks, a field that is malformed anywhere is malformed as a whole: nothing that was read from it before
//! the fault may be used.

/// A value without its parameters. The other types of the RFC are checked, and passed over as [`Bare::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare<'a> {
    Integer(i64),
    /// A string, with the escapes `\"` and `\\` still in it, or a token.
    Text(&'a str),
    /// What stands between the colons of a byte sequence, which is compared and not decoded.
    Bytes(&'a str),
    Other,
}

impl<'a> Bare<'a> {
    pub(super) fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn bytes(self) -> Option<&'a str> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Never negative: a number below zero says nothing.
    pub(super) fn count(self) -> Option<u64> {
        if let Self::Integer(count) = self { count.try_into().ok() } else { None }
    }
}

/// The parameters of an item, checked already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'a>(&'a str);

impl<'a> Params<'a> {
    /// Each parameter in turn. Where a name comes twice, the last one counts.
    pub(super) fn each(self, mut see: impl FnMut(&'a str, Bare<'a>)) {
        let _ = Parser { rest: self.0 }.params(&mut see);
    }
}

/// Reads a list of items: calls `see` with each. `None` where the text is malformed, and where a member is an inner
/// list, which nothing that this crate reads has.
pub(super) fn list<'a>(text: &'a str, mut see: impl FnMut(Bare<'a>, Params<'a>)) -> Option<()> {
    Parser { rest: text }.members(|parser| {
        let bare = parser.bare()?;
        see(bare, parser.skip_params()?);
        Some(())
    })
}

/// Reads a dictionary of items: calls `see` with each. A member that is only a name is true, which is
/// [`Bare::Other`].
pub(super) fn dictionary<'a>(
    text: &'a str,
    mut see: impl FnMut(&'a str, Bare<'a>, Params<'a>),
) -> Option<()> {
    Parser { rest: text }.members(|parser| {
        let key = parser.key()?;
        let bare = if parser.take('=') { parser.bare()? } else { Bare::Other };
        see(key, bare, parser.skip_params()?);
        Some(())
    })
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn members(mut self, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.rest = self.rest.trim_matches(' ');
        if self.rest.is_empty() {
            return Some(());
        }
        loop {
            member(&mut self)?;
            self.skip_blank();
            if self.rest.is_empty() {
                return Some(());
            }
            if !self.take(',') {
                return None;
            }
            self.skip_blank();
            if self.rest.is_empty() {
                return None;
            }
        }
    }

    fn skip_params(&mut self) -> Option<Params<'a>> {
        let before = self.rest;
        self.params(&mut |_, _| ())?;
        Some(Params(&before[..before.len() - self.rest.len()]))
    }

    fn params(&mut self, see: &mut impl FnMut(&'a str, Bare<'a>)) -> Option<()> {
        while self.take(';') {
            self.rest = self.rest.trim_start_matches(' ');
            let key = self.key()?;
            let bare = if self.take('=') { self.bare()? } else { Bare::Other };
            see(key, bare);
        }
        Some(())
    }

    fn key(&mut self) -> Option<&'a str> {
        let starts = self.rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
        let key = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
        };
        starts.then(|| self.take_while(key))
    }

    fn bare(&mut self) -> Option<Bare<'a>> {
        match self.rest.bytes().next()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Bare::Text),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => Some(Bare::Text(self.take_while(is_token))),
            b':' => self.bytes().map(Bare::Bytes),
            b'?' => self.boolean(),
            b'@' => {
                self.take('@');
                self.number().filter(|number| matches!(number, Bare::Integer(_))).map(|_| Bare::Other)
            }
            b'%' => self.display_string(),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare<'a>> {
        let sign = if self.take('-') { -1 } else { 1 };
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if self.take('.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Bare::Other);
        }
        let number: i64 = whole.parse().ok()?;
        (whole.len() <= 15).then_some(Bare::Integer(sign * number))
    }

    fn string(&mut self) -> Option<&'a str> {
        let text = self.rest.strip_prefix('"')?;
        let mut bytes = text.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = &text[at + 1..];
                    return Some(&text[..at]);
                }
                b'\\' => {
                    bytes.next().filter(|(_, escaped)| matches!(escaped, b'"' | b'\\'))?;
                }
                b' '..=b'~' => {}
                _ => return None,
            }
        }
        None
    }

    /// With or without its padding, as the RFC asks of parsers.
    fn bytes(&mut self) -> Option<&'a str> {
        self.take(':');
        let bytes =
            self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        let digits = bytes.trim_end_matches('=');
        let missing = digits.len().next_multiple_of(4) - digits.len();
        let fits = missing < 3 && bytes.len() - digits.len() <= missing && !digits.contains('=');
        (self.take(':') && fits).then_some(bytes)
    }

    fn boolean(&mut self) -> Option<Bare<'a>> {
        self.take('?');
        (self.take('0') || self.take('1')).then_some(Bare::Other)
    }

    fn display_string(&mut self) -> Option<Bare<'a>> {
        let text = self.rest.strip_prefix("%\"")?;
        let (text, rest) = text.split_once('"')?;
        let mut decoded = DisplayString::default();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
                b' '..=b'~' => byte,
                _ => return None,
            })?;
        }
        self.rest = rest;
        decoded.is_complete().then_some(Bare::Other)
    }

    fn take(&mut self, expected: char) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }
}

/// Whether the bytes of a display string are UTF-8, a character at a time.
#[derive(Default)]
struct DisplayString {
    character: [u8; 4],
    len: usize,
}

impl DisplayString {
    fn push(&mut self, byte: u8) -> Option<()> {
        *self.character.get_mut(self.len)? = byte;
        self.len += 1;
        match std::str::from_utf8(&self.character[..self.len]) {
            Ok(_) => self.len = 0,
            Err(error) if error.error_len().is_none() => {}
            Err(_) => return None,
        }
        Some(())
    }

    fn is_complete(&self) -> bool {
        self.len == 0
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// Display strings are written with small letters only.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<String>> {
        let mut items = Vec::new();
        list(text, |bare, params| {
            let mut item = format!("{bare:?}");
            params.each(|name, value| item.push_str(&format!(" {name}={value:?}")));
            items.push(item);
        })?;
        Some(items)
    }

    #[test]
    fn a_list_is_read_item_by_item() {
        assert_eq!(items("").unwrap(), Vec::<String>::new());
        assert_eq!(
            items(r#""burst";q=100;w=60,"daily";q=1000;w=86400"#).unwrap(),
            [
                r#"Text("burst") q=Integer(100) w=Integer(60)"#,
                r#"Text("daily") q=Integer(1000) w=Integer(86400)"#
            ]
        );
        assert_eq!(
            items(r#" quota;  q=-1;pk=:aGVsbG8=: 	, "a\"b";x;y=?0;z=1.5 "#).unwrap(),
            [
                r#"Text("quota") q=Integer(-1) pk=Bytes("aGVsbG8=")"#,
                r#"Text("a\\\"b") x=Other y=Other z=Other"#
            ]
        );
        assert_eq!(items(r#"a;d=@12;s=%"f%c3%bc""#).unwrap(), [r#"Text("a") d=Other s=Other"#]);
    }

    #[test]
    fn a_fault_anywhere_spoils_the_list() {
        for text in [
            "a,",
            "a,,b",
            ",a",
            "a b",
            "\"a",
            "\"\\a\"",
            "\"é\"",
            "a;",
            "a;Q=1",
            "a;q=",
            "a; q =1",
            "a ;q=1",
            "(a b)",
            "a;q=1.",
            "a;q=.1",
            "a;q=1.2345",
            "1234567890123456",
            "a;x=?2",
            "a;x=:b",
            "a;x=@1.5",
            "a;x=%\"%C3\"",
            "a;x=%\"%c3\"",
            "a;x=%\"%ff\"",
            "-",
            "limit=100",
        ] {
            assert_eq!(items(text), None, "{text}");
        }
    }

    #[test]
    fn a_dictionary_has_names() {
        let mut read = Vec::new();
        dictionary("limit=100, remaining=50;x=1, reset=5, on", |key, value, _| read.push((key, value)))
            .unwrap();
        assert_eq!(
            read,
            [
                ("limit", Bare::Integer(100)),
                ("remaining", Bare::Integer(50)),
                ("reset", Bare::Integer(5)),
                ("on", Bare::Other)
            ]
        );
        assert_eq!(dictionary("Limit=1", |_, _, _| ()), None);
    }
}
