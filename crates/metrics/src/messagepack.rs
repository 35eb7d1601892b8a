//! Decoding of MessagePack that another process or an earlier launch wrote.

use rmp_serde::Deserializer;
use serde::Deserialize;

pub use rmp_serde::decode::Error;

/// Limit of nesting. Unknown fields are skipped by recursion, so the limit bounds the stack; no
/// message or record is nearly as deep.
const MAX_DEPTH: usize = 64;

/// Decodes a message or a record.
///
/// # Errors
/// If `bytes` are not MessagePack, not of this type, or nested too deep.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MetaQuery, RegisterRequest};

    #[test]
    fn deep_unknown_field_does_not_exhaust_the_stack() {
        // A map with one unknown field, in which lists are nested 1010 deep.
        let bytes = [&[0x81, 0xa1, b'x'][..], &[0x91; 1010], &[0xc0]].concat();
        let error = decode::<RegisterRequest>(&bytes).expect_err("too deep").to_string();
        assert!(error.contains("depth"), "{error}");
        assert!(decode::<MetaQuery>(&bytes).is_err());
    }
}
