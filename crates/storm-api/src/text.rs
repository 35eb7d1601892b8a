//! Texts as Storm writes them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that an encoded id keeps.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// Maximum characters of the last error of a component in a list.
const ERROR_CHARS_MAX: usize = 200;

/// Returns a duration as `1d 5h 30m 10s`, without leading zeros.
pub(crate) fn uptime(secs: u64) -> String {
    let (days, hours, minutes, rest) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    match secs {
        0..60 => format!("{rest}s"),
        60..3600 => format!("{minutes}m {rest}s"),
        3600..86_400 => format!("{hours}h {minutes}m {rest}s"),
        _ => format!("{days}d {hours}h {minutes}m {rest}s"),
    }
}

/// Returns a number with three decimals.
pub(crate) fn decimal(number: f64) -> String {
    format!("{:.3}", if number.is_finite() { number } else { 0.0 })
}

/// Returns an id as a part of a URL.
pub(crate) fn encoded(id: &str) -> String {
    utf8_percent_encode(id, KEPT).to_string()
}

/// Returns the begin of an error message.
pub(crate) fn shortened(error: &str) -> String {
    error.chars().take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_no_leading_zeros_and_all_units_below() {
        let expected = [
            (0, "0s"),
            (59, "59s"),
            (600, "10m 0s"),
            (10_800, "3h 0m 0s"),
            (86_400, "1d 0h 0m 0s"),
            (106_210, "1d 5h 30m 10s"),
        ];
        for (secs, text) in expected {
            assert_eq!(uptime(secs), text);
        }
    }

    #[test]
    fn numbers_have_three_decimals_and_ids_are_encoded() {
        assert_eq!((decimal(0.0), decimal(1.23456)), ("0.000".to_owned(), "1.235".to_owned()));
        assert_eq!(decimal(f64::NAN), "0.000");
        assert_eq!(encoded("wc-1-17"), "wc-1-17");
        assert_eq!(encoded("[8-8]"), "%5B8-8%5D");
        assert_eq!(encoded("a b/ä"), "a%20b%2F%C3%A4");
    }
}
