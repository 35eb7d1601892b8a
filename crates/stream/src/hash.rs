//! The fixed hash of values: fields grouping must send equal values to the same task from
//! every worker, on every host, in every version.
//!
//! It is FNV-1a with 64 bits (offset `cbf29ce484222325`, prime `100000001b3`) over the bytes
//! below, followed by the finalizer of MurmurHash3 (`fmix64`), which spreads the last bytes
//! over all bits. A value's bytes:
//!
//! | value | bytes |
//! | --- | --- |
//! | null | `00` |
//! | false, true | `01 00`, `01 01` |
//! | a whole number that fits an `i64`, also when it is a float | `02`, 8 bytes little-endian |
//! | a larger one that fits a `u64`, also when it is a float | `03`, 8 bytes little-endian |
//! | any other float | `04`, its 8 IEEE 754 bytes little-endian; every NaN as `7ff8000000000000` |
//! | text | `05`, its UTF-8, `ff` |
//! | list | `06`, its values, `fe` |
//! | map | `07`, every key as text and its value in the order of the keys, `fe` |
//!
//! So `1` and `1.0` go to the same task, as do `0.0` and `-0.0`: a component may write the first
//! and read the second. The vectors in the tests never change; another algorithm needs another
//! name and a topology that requests it.

use crate::{Encoded, Value, ValueRef};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// 2^63 and 2^64, the first floats beyond `i64` and `u64`.
const BEYOND_I64: f64 = 9_223_372_036_854_775_808.0;
const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;

/// The hash of `values` in their order.
pub fn of_values<'a>(values: impl IntoIterator<Item = &'a Value>) -> u64 {
    let mut state = State(OFFSET);
    for value in values {
        state.value(value);
    }
    finish(state.0)
}

/// The hash of the encoded values at `positions`, in that order; of a position without a value, of the
/// others.
pub fn of_encoded(values: Encoded<'_>, positions: &[usize]) -> u64 {
    let mut state = State(OFFSET);
    for value in positions.iter().filter_map(|position| values.get(*position)) {
        state.encoded(value);
    }
    finish(state.0)
}

/// A second hash of what has the hash `first`, for the second task of partial-key grouping: FNV-1a over
/// the bytes of `first`, little-endian, and the finalizer.
pub fn again(first: u64) -> u64 {
    let mut state = State(OFFSET);
    state.bytes(&first.to_le_bytes());
    finish(state.0)
}

/// State of an FNV-1a computation.
struct State(u64);

impl State {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
    }

    fn int(&mut self, value: i64) {
        self.byte(2);
        self.bytes(&value.to_le_bytes());
    }

    fn uint(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.int(value),
            Err(_) => {
                self.byte(3);
                self.bytes(&value.to_le_bytes());
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ranges are checked")]
    fn float(&mut self, value: f64) {
        let whole = value.fract() == 0.0;
        if whole && (-BEYOND_I64..BEYOND_I64).contains(&value) {
            self.int(value as i64);
        } else if whole && (BEYOND_I64..BEYOND_U64).contains(&value) {
            self.uint(value as u64);
        } else {
            self.byte(4);
            let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() };
            self.bytes(&bits.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.byte(5);
        self.bytes(text.as_bytes());
        self.byte(0xff);
    }

    fn digits(&mut self, digits: &str) {
        self.byte(8);
        self.bytes(digits.as_bytes());
        self.byte(0xff);
    }

    fn encoded(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.byte(0),
            ValueRef::Bool(value) => self.bytes(&[1, u8::from(value)]),
            ValueRef::Int(value) => self.int(value),
            ValueRef::UInt(value) => self.uint(value),
            ValueRef::BigInt(digits) => self.digits(digits),
            ValueRef::Float(value) => self.float(value),
            ValueRef::Text(text) => self.text(text),
            // The keys of an encoded map are in any order.
            ValueRef::List(_) | ValueRef::Map(_) => self.value(&value.to_value()),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(0),
            Value::Bool(value) => self.bytes(&[1, u8::from(*value)]),
            Value::Int(value) => self.int(*value),
            Value::UInt(value) => self.uint(*value),
            Value::BigInt(digits) => self.digits(digits),
            Value::Float(value) => self.float(*value),
            Value::Text(text) => self.text(text),
            Value::List(values) => {
                self.byte(6);
                values.iter().for_each(|value| self.value(value));
                self.byte(0xfe);
            }
            Value::Map(values) => {
                self.byte(7);
                for (key, value) in values {
                    self.text(key);
                    self.value(value);
                }
                self.byte(0xfe);
            }
        }
    }
}

fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::any_value;

    fn check(json: &str, expected: u64) {
        let values: Vec<Value> = serde_json::from_str(json).expect("valid JSON");
        assert_eq!(of_values(&values), expected, "{json}: {:#018x}", of_values(&values));
    }

    // Computed by a second implementation from the module documentation alone. Never change them:
    // workers of two versions would send equal values to different tasks.
    #[test]
    fn the_hash_is_fixed() {
        check("[]", 0xefd0_1f60_ba99_2926);
        check("[null]", 0xb903_4ad3_7056_f5fb);
        check("[false]", 0x15bf_9278_ef24_affe);
        check("[true]", 0xa346_aada_d078_8d4e);
        check("[0]", 0x909b_22dd_58ba_8db2);
        check("[1]", 0x8f96_f0d6_b617_55b0);
        check("[-1]", 0x10a3_47ea_d0a7_0972);
        check("[9223372036854775807]", 0xa289_1468_9dc7_e364);
        check("[-9223372036854775808]", 0x43ab_db69_dcb9_a590);
        check("[9223372036854775808]", 0xdf52_cdc1_7869_7ddc);
        check("[18446744073709551615]", 0x226f_86eb_67ac_f662);
        check("[0.5]", 0x3ab5_9f5f_fbd4_9464);
        check("[1e300]", 0x01eb_2a34_d395_d2db);
        check(r#"[""]"#, 0x6cdf_33fd_8ced_c9d5);
        check(r#"["word"]"#, 0x027c_aa59_b837_d59d);
        check(r#"["naïve 数据 🌩"]"#, 0xd5fe_8fc9_5b5e_620e);
        check("[[]]", 0x41de_0b23_eb69_8255);
        check(r#"[[1, "a"]]"#, 0xab6d_a0a3_4864_bc51);
        check("[{}]", 0xf3bc_3cd9_dfbc_0245);
        check(r#"[{"b": 1, "a": [null]}]"#, 0x4491_42a1_23d1_4bc9);
        check(r#"["a", "b"]"#, 0x0f90_188b_1a1f_7aab);
        check(r#"["ab", ""]"#, 0xd15e_0f03_7d67_cef2);
        assert_eq!(of_values(&[Value::Float(f64::NAN)]), 0xeffb_170f_4000_85a1);
        assert_eq!(again(0), 0x7bd3_144f_29c0_cc9e);
        assert_eq!(again(0x027c_aa59_b837_d59d), 0xcc62_e11d_2640_c70a);
        assert_eq!(of_values(&[Value::Float(-f64::NAN)]), 0xeffb_170f_4000_85a1);
        assert_eq!(of_values(&[Value::Float(f64::INFINITY)]), 0xdf2c_4702_401b_1fe9);
    }

    #[test]
    fn a_whole_float_hashes_like_the_integer() {
        check("[1.0]", 0x8f96_f0d6_b617_55b0);
        check("[-0.0]", 0x909b_22dd_58ba_8db2);
        check("[9223372036854775808.0]", 0xdf52_cdc1_7869_7ddc);
        check("[-9223372036854775808.0]", 0x43ab_db69_dcb9_a590);
        // A small number is equal however it was built.
        assert_eq!(of_values(&[Value::UInt(1)]), of_values(&[Value::Int(1)]));
    }

    proptest! {
        #[test]
        fn values_that_travelled_hash_the_same(values in prop::collection::vec(any_value(), 0..4)) {
            let json = serde_json::to_string(&values).expect("written");
            let Ok(Value::List(from_json)) = Value::from_json(&json) else { panic!("not a list: {json}") };
            let bytes = rmp_serde::to_vec(&values).expect("written");
            let from_bytes: Vec<Value> = rmp_serde::from_slice(&bytes).expect("read");
            let writer = crate::ValueWriter::of(&values);
            let positions: Vec<usize> = (0..values.len()).collect();
            prop_assert_eq!(of_encoded(writer.encoded(), &positions), of_values(&values));
            prop_assert_eq!(of_values(&from_json), of_values(&values));
            prop_assert_eq!(of_values(&from_bytes), of_values(&values));
        }

        #[test]
        fn every_i64_that_is_a_float_hashes_like_it(value in any::<i32>().prop_map(i64::from)) {
            #[expect(clippy::cast_precision_loss, reason = "a float holds every i32")]
            let float = Value::Float(value as f64);
            prop_assert_eq!(of_values(&[float]), of_values(&[Value::Int(value)]));
        }
    }

    #[test]
    fn words_spread_evenly() {
        let mut n_per_task = [0u32; 7];
        for n in 0..70_000 {
            let hash = of_values(&[Value::Text(format!("word-{n}"))]);
            n_per_task[usize::try_from(hash % 7).expect("below 7")] += 1;
        }
        assert!(n_per_task.iter().all(|n| (9_600..10_400).contains(n)), "{n_per_task:?}");
    }
}
