//! Text of a child that is not strict JSON, as Storm's reader takes it.
//!
//! Components write what their languages call JSON: `\udce9` for a file name that is not UTF-8
//! (Python), bytes of Latin-1 (C, PHP), raw control characters, `NaN` (Python), and integers of any
//! size. A strict parser rejects the message for the first four, and rounds the last.

/// JSON text made from bytes that are not JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repaired {
    /// The text. Each lone surrogate, raw control character and byte that is not UTF-8 is U+FFFD, and
    /// each NaN and infinity is null.
    pub(super) text: String,
    /// True if a text was changed: texts that differed may now be equal.
    pub(super) has_changed_text: bool,
    /// True if there was a NaN or an infinity.
    pub(super) has_not_finite: bool,
}

/// Replacement for a part of a text.
const REPLACEMENT: &str = "\\ufffd";

/// Shortest number of digits of an integer that may not fit into 64 bits.
const LONG_DIGITS: usize = 19;

/// Replaces what is not JSON. Whatever else is wrong stays as it is.
pub(super) fn repair(bytes: &[u8]) -> Repaired {
    let text = String::from_utf8_lossy(bytes);
    let mut has_changed_text = matches!(text, std::borrow::Cow::Owned(_));
    let (mut fixed, mut rest) = (String::with_capacity(text.len()), &*text);
    let (mut is_in_text, mut has_not_finite) = (false, false);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                is_in_text = !is_in_text;
                1
            }
            '\\' if is_in_text => {
                let length = escape(rest);
                if is_lone_surrogate(&rest[..length]) {
                    has_changed_text = true;
                    fixed.push_str(REPLACEMENT);
                    rest = &rest[length..];
                    continue;
                }
                length
            }
            '\0'..'\x20' if is_in_text => {
                has_changed_text = true;
                fixed.push_str(REPLACEMENT);
                rest = &rest[1..];
                continue;
            }
            'N' | 'I' | '-' if !is_in_text => {
                let found = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
                if let Some(word) = found {
                    has_not_finite = true;
                    fixed.push_str("null");
                    rest = &rest[word.len()..];
                    continue;
                }
                1
            }
            other => other.len_utf8(),
        };
        fixed.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Repaired { text: fixed, has_changed_text, has_not_finite }
}

/// Length of the escape at the start of `rest`: of both parts of a pair of surrogates.
fn escape(rest: &str) -> usize {
    match code_unit(rest) {
        Some(0xd800..=0xdbff) if matches!(code_unit(&rest[6..]), Some(0xdc00..=0xdfff)) => 12,
        Some(_) => 6,
        None => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
    }
}

fn is_lone_surrogate(escape: &str) -> bool {
    escape.len() == 6 && matches!(code_unit(escape), Some(0xd800..=0xdfff))
}

/// Reads an escape `\uXXXX`.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Returns whether JSON may have an integer that serde would read as a float: one that does not fit into
/// 64 bits, or `-0`. Almost no message has so many digits in a row or `-0`, and looking for them costs
/// little.
pub(super) fn may_have_odd_integer(json: &[u8]) -> bool {
    json.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() >= LONG_DIGITS)
        || json.split(|byte| *byte == b'-').skip(1).any(|after| match after {
            [b'0', next, ..] => !matches!(next, b'0'..=b'9' | b'.' | b'e' | b'E'),
            _ => after == b"0",
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_taken_as_storm_takes_it() {
        let check = |bytes: &[u8], text: &str, has_changed_text, has_not_finite| {
            let expected = Repaired { text: text.to_owned(), has_changed_text, has_not_finite };
            assert_eq!(repair(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        };
        check(br#"{"a":"kl\udce9"}"#, r#"{"a":"kl\ufffd"}"#, true, false);
        check(br#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#, true, false);
        check(br#"{"a":"\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffd\ud83d\ude00"}"#, true, false);
        check(br#"{"a":"\ud83d\ude00 \\udce9 \" x"}"#, r#"{"a":"\ud83d\ude00 \\udce9 \" x"}"#, false, false);
        check(b"{\"a\":\"kl\xe9\"}", "{\"a\":\"kl\u{fffd}\"}", true, false);
        check(b"{\"a\":\"x\ty\x01\"}\t", "{\"a\":\"x\\ufffdy\\ufffd\"}\t", true, false);
        check(br#"[NaN,-Infinity,Infinity,-1,"NaN"]"#, r#"[null,null,null,-1,"NaN"]"#, false, true);
        check(br#"["\"#, r#"["\"#, false, false);
        check(br#"["\u12"#, r#"["\u12"#, false, false);
    }

    #[test]
    fn integers_that_serde_reads_as_floats_are_found() {
        let check =
            |json: &str, expected| assert_eq!(may_have_odd_integer(json.as_bytes()), expected, "{json}");
        check(r#"[-0.5,-0e3,-1,0,"2026-01-05","-00"]"#, false);
        check("[-0]", true);
        check("-0", true);
        check("[1,999999999999999999,1234567890.1234567890]", false);
        check("[9223372036854775808]", true);
        check("[-9223372036854775809]", true);
    }

    proptest! {
        #[test]
        fn json_is_not_changed(text in any::<String>(), number in any::<i64>(), ascii in any::<bool>()) {
            let json = serde_json::json!({ "a": [text, number], "b": null }).to_string();
            let json = match ascii {
                true => json.chars().map(|c| match c {
                    '\0'..='\x7f' => c.to_string(),
                    other => {
                        let mut units = [0; 2];
                        other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                    }
                }).collect(),
                false => json,
            };
            prop_assert_eq!(
                repair(json.as_bytes()),
                Repaired { text: json.clone(), has_changed_text: false, has_not_finite: false }
            );
        }

        #[test]
        fn any_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let repaired = repair(&bytes);
            // What is repaired once needs no second repair.
            prop_assert_eq!(repair(repaired.text.as_bytes()).text, repaired.text);
        }
    }
}
