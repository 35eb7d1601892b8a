//! Size of the values of a tuple in the encoding between workers.

use std::io;

use stormkeeper_stream::Value;

/// Returns the length of `values` if it is above `limit`. Almost always a bound decides that, which is
/// cheap; only values near the limit are encoded.
pub(crate) fn excess(values: &[Value], limit: usize) -> Option<usize> {
    if bound(values) <= limit {
        return None;
    }
    let mut length = Counter(0);
    rmp_serde::encode::write(&mut length, values).ok()?;
    (length.0 > limit).then_some(length.0)
}

/// The longest marker of a value: one byte, and a length of four.
const MARKER: usize = 5;

/// Returns an upper bound of the length.
fn bound(values: &[Value]) -> usize {
    MARKER + values.iter().map(bound_of).sum::<usize>()
}

fn bound_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 9,
        Value::BigInt(digits) => MARKER + digits.len(),
        Value::Text(text) => MARKER + text.len(),
        Value::List(values) => bound(values),
        Value::Map(values) => {
            let entry = |(key, value): (&String, &Value)| MARKER + key.len() + bound_of(value);
            MARKER + values.iter().map(entry).sum::<usize>()
        }
    }
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use stormkeeper_stream::test_support::any_value;

    proptest! {
        #[test]
        fn excess_is_the_encoded_length_and_never_missed(
            values in prop::collection::vec(any_value(), 0..6),
            limit in 0usize..200,
        ) {
            let length = rmp_serde::to_vec(&values).expect("encoded").len();
            prop_assert!(bound(&values) >= length);
            prop_assert_eq!(excess(&values, limit), (length > limit).then_some(length));
        }
    }
}
