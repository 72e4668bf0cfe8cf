//! Reads the fields of a protobuf message, as far as gRPC's error details need it. Nothing is copied. Where the bytes
//! make no sense the message ends.

/// The fields that hold bytes (texts and messages in them), with their numbers.
pub(super) fn messages(message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    fields(message).filter_map(|(number, value)| match value {
        Value::Bytes(bytes) => Some((number, bytes)),
        Value::Integer(_) => None,
    })
}

/// The fields that hold integers, with their numbers.
pub(super) fn integers(message: &[u8]) -> impl Iterator<Item = (u64, i64)> + '_ {
    fields(message).filter_map(|(number, value)| match value {
        Value::Integer(value) => Some((number, value)),
        Value::Bytes(_) => None,
    })
}

enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
}

fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Integer(varint(&mut rest)? as i64),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let len = varint(&mut rest)?;
                Value::Bytes(take(&mut rest, len)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(len.try_into().ok()?)?;
    *rest = tail;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_kind_are_passed_or_read() {
        // 1: 300, 2: "hi", 3: eight bytes, 4: four bytes, 5: -1
        let message =
            [
                &[
                    0x08, 0xac, 0x02, 0x12, 2, b'h', b'i', 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0,
                    0x28,
                ][..],
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ]
            .concat();
        assert_eq!(integers(&message).collect::<Vec<_>>(), [(1, 300), (5, -1)]);
        assert_eq!(messages(&message).map(|(number, _)| number).collect::<Vec<_>>(), [2, 3, 4]);
        for end in 0..message.len() {
            assert!(fields(&message[..end]).count() <= 4);
        }
    }

    #[test]
    fn a_message_ends_where_it_makes_no_sense() {
        assert_eq!(fields(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1]).count(), 0);
        assert_eq!(fields(&[0x0b, 1]).count(), 0);
        assert_eq!(fields(&[0xff; 11]).count(), 0);
    }
}
