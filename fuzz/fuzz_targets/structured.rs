//! Any text as a structured field: read as `sfv`, written by others, reads it, and nothing of a malformed one.
//!
//! The crate's own file, as it stands. Inner lists, which the crate has no use for, count as malformed.

#![no_main]

#[path = "../../src/signal/structured.rs"]
mod structured;

use libfuzzer_sys::fuzz_target;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parameters, Parser};
use std::collections::BTreeMap;
use structured::{Bare, Params, dictionary, list};

#[derive(Debug, PartialEq)]
enum Value {
    Integer(i64),
    Text(String),
    /// How many.
    Bytes(usize),
    Other,
}

type Named = BTreeMap<String, Value>;

fn ours(bare: Bare<'_>) -> Value {
    match bare {
        Bare::Integer(number) => Value::Integer(number),
        Bare::Text(text) => {
            let mut letters = text.chars();
            let mut plain = String::new();
            while let Some(letter) = letters.next() {
                // Tokens have no backslash.
                plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
            }
            Value::Text(plain)
        }
        Bare::Bytes(text) => Value::Bytes(text.trim_end_matches('=').len() * 6 / 8),
        Bare::Other => Value::Other,
    }
}

fn our_params(params: Params<'_>) -> Named {
    let mut named = Named::new();
    params.each(|name, bare| drop(named.insert(name.to_owned(), ours(bare))));
    named
}

fn theirs(item: &BareItem) -> Value {
    match item {
        BareItem::Integer(number) => Value::Integer((*number).into()),
        BareItem::String(text) => Value::Text(text.as_str().to_owned()),
        BareItem::Token(text) => Value::Text(text.as_str().to_owned()),
        BareItem::ByteSequence(bytes) => Value::Bytes(bytes.len()),
        _ => Value::Other,
    }
}

fn their_params(params: &Parameters) -> Named {
    params.iter().map(|(name, item)| (name.as_str().to_owned(), theirs(item))).collect()
}

fn item(entry: &ListEntry) -> Option<&Item> {
    if let ListEntry::Item(item) = entry { Some(item) } else { None }
}

fuzz_target!(|text: &str| {
    let mut read = Vec::new();
    let read = list(text, |bare, params| read.push((ours(bare), our_params(params)))).map(|()| read);
    let expected = Parser::new(text).parse::<List>().ok().and_then(|list| {
        let members = list
            .iter()
            .map(|entry| item(entry).map(|item| (theirs(&item.bare_item), their_params(&item.params))));
        members.collect::<Option<Vec<_>>>()
    });
    assert_eq!(read, expected, "as a list: {text:?}");

    let mut read = BTreeMap::new();
    let read = dictionary(text, |name, bare, params| {
        read.insert(name.to_owned(), (ours(bare), our_params(params)));
    })
    .map(|()| read);
    let inner = |entry: &ListEntry| item(entry).is_none();
    let expected = Parser::new(text).parse::<Dictionary>().ok().filter(|read| !read.values().any(inner));
    match expected {
        None => {
            // An inner list that a later member of the same name replaces is gone before we see it.
            let replaced = text.contains('(') && Parser::new(text).parse::<Dictionary>().is_ok();
            assert!(read.is_none() || replaced, "as a dictionary: {text:?}");
        }
        Some(expected) => {
            let expected: BTreeMap<_, _> = expected
                .iter()
                .filter_map(|(name, entry)| {
                    let item = item(entry)?;
                    Some((name.as_str().to_owned(), (theirs(&item.bare_item), their_params(&item.params))))
                })
                .collect();
            assert!(read.is_some() || text.contains('('), "as a dictionary: {text:?}");
            assert!(read.is_none_or(|read| read == expected), "as a dictionary: {text:?}");
        }
    }
});
