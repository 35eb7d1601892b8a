//! Text of a child that is not strict JSON, as Storm's reader takes it.
//!
//! Components write what their languages call JSON: `\udce9` for a file name that is not UTF-8
//! (Python), bytes of Latin-1 (C, PHP), raw control characters, `NaN` (Python), and integers that
//! no wire format holds. A strict parser rejects the first three as a whole, and silently rounds the
//! last.

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

/// Returns the first integer in valid JSON that does not fit into 64 bits, and would be rounded.
pub(super) fn oversized_integer(json: &[u8]) -> Option<&str> {
    // Almost no message has so many digits in a row, and looking for them costs little.
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    if !json.split(|byte| !is_digit(byte)).any(|digits| digits.len() >= LONG_DIGITS) {
        return None;
    }
    let (mut at, mut is_in_text) = (0, false);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => is_in_text = !is_in_text,
            b'\\' if is_in_text => at += 1,
            b'-' | b'0'..=b'9' if !is_in_text => {
                let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = json[at..].iter().take_while(is_part).count();
                let number = std::str::from_utf8(&json[at..at + length]).unwrap_or_default();
                let is_whole = number.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
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
        check(br#"{"a":"caf\udce9"}"#, r#"{"a":"caf\ufffd"}"#, true, false);
        check(br#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#, true, false);
        check(br#"{"a":"\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffd\ud83d\ude00"}"#, true, false);
        check(br#"{"a":"\ud83d\ude00 \\udce9 \" x"}"#, r#"{"a":"\ud83d\ude00 \\udce9 \" x"}"#, false, false);
        check(b"{\"a\":\"caf\xe9\"}", "{\"a\":\"caf\u{fffd}\"}", true, false);
        check(b"{\"a\":\"x\ty\x01\"}\t", "{\"a\":\"x\\ufffdy\\ufffd\"}\t", true, false);
        check(br#"[NaN,-Infinity,Infinity,-1,"NaN"]"#, r#"[null,null,null,-1,"NaN"]"#, false, true);
        check(br#"["\"#, r#"["\"#, false, false);
        check(br#"["\u12"#, r#"["\u12"#, false, false);
    }

    #[test]
    fn integers_that_would_be_rounded_are_found() {
        let check = |json: &str, expected| assert_eq!(oversized_integer(json.as_bytes()), expected, "{json}");
        check("[18446744073709551615,-9223372036854775808,9223372036854775807]", None);
        check("[1,18446744073709551616]", Some("18446744073709551616"));
        check(r#"{"a":-9223372036854775809}"#, Some("-9223372036854775809"));
        check(r#"["18446744073709551616","\"18446744073709551616"]"#, None);
        check("[12345678901234567890123.5,12345678901234567890e3,1e400]", None);
        check(&format!("[1{}]", "0".repeat(400)), Some(&format!("1{}", "0".repeat(400))));
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
            prop_assert_eq!(oversized_integer(json.as_bytes()), None);
        }

        #[test]
        fn any_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let repaired = repair(&bytes);
            // What is repaired once needs no second repair.
            prop_assert_eq!(repair(repaired.text.as_bytes()).text, repaired.text);
            oversized_integer(&bytes);
        }
    }
}
