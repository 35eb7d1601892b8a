use proptest::prelude::*;

use super::*;
use crate::test_support::any_value;

proptest! {
    #[test]
    fn values_read_back_and_are_encoded_as_by_serde(values in prop::collection::vec(any_value(), 0..6)) {
        let writer = ValueWriter::of(&values);
        let encoded = writer.encoded();
        prop_assert_eq!(encoded.to_values(), values.clone());
        for (position, value) in values.iter().enumerate() {
            prop_assert_eq!(encoded.get(position).map(ValueRef::to_value), Some(value.clone()));
        }
        prop_assert!(encoded.get(values.len()).is_none());
        let mut with_head = Vec::new();
        write_list_head(&mut with_head, encoded.len());
        with_head.extend_from_slice(encoded.bytes());
        prop_assert_eq!(with_head, rmp_serde::to_vec(&values).expect("written"));
    }

    #[test]
    fn checked_values_are_what_serde_accepts(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        check_as_serde(&bytes)?;
    }

    #[test]
    fn damaged_values_are_what_serde_accepts(
        values in prop::collection::vec(any_value(), 1..4),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = rmp_serde::to_vec(&values).expect("written");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_as_serde(&bytes)?;
    }

    #[test]
    fn checked_values_stop_at_their_end(values in prop::collection::vec(any_value(), 0..4)) {
        let writer = ValueWriter::of(&values);
        let mut bytes = writer.encoded().bytes().to_vec();
        bytes.push(0xc1);
        let mut rest = &bytes[..];
        let split = Encoded::split_checked(&mut rest, values.len(), 125).expect("well-formed");
        prop_assert_eq!((split.to_values(), rest), (values, &[0xc1][..]));
    }
}

/// Compares the check of one value with the reader of serde.
fn check_as_serde(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut rest = bytes;
    let checked = Encoded::split_checked(&mut rest, 1, 125);
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    let read: Result<Value, _> = serde::Deserialize::deserialize(&mut reader);
    match (checked, read) {
        (Ok(checked), Ok(read)) => {
            prop_assert_eq!(format!("{:?}", checked.to_values()), format!("{:?}", [read]))
        }
        (Err(_), Err(_)) => {}
        (checked, read) => prop_assert!(false, "{checked:?} {read:?}"),
    }
    Ok(())
}

#[test]
fn nesting_beyond_the_depth_is_refused() {
    let nested = |depth| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
    let check = |depth, limit| {
        let writer = ValueWriter::of(&[nested(depth)]);
        let mut bytes = writer.encoded().bytes();
        Encoded::split_checked(&mut bytes, 1, limit).map(drop)
    };
    assert_eq!(check(3, 3), Ok(()));
    assert_eq!(check(4, 3), Err(Malformed::TooDeep));
}

#[test]
fn a_forged_length_is_refused_at_the_end_of_the_bytes() {
    for bytes in
        [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0xdb, 0, 0, 1, 0, b'a']]
    {
        let mut rest = bytes;
        assert_eq!(Encoded::split_checked(&mut rest, 1, 9).map(drop), Err(Malformed::Short), "{bytes:?}");
    }
}
