//! The fixed hash of values: fields grouping must send equal values to the same task from
//! every worker, on every machine, in every version.
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
//! So `1` and `1.0` go the same way, as do `0.0` and `-0.0`: a component may write one and
//! read the other. The vectors in the tests never change; another algorithm needs another
//! name and a topology that asks for it.

use crate::tuple::Value;

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

/// FNV-1a under way.
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

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(0),
            Value::Bool(value) => self.bytes(&[1, u8::from(*value)]),
            Value::Int(value) => self.int(*value),
            Value::UInt(value) => self.uint(*value),
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
