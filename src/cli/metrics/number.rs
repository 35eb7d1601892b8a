//! Numbers in a readable form. `--json` prints exact numbers.

/// Cell without a value.
pub(in crate::cli) const NONE: &str = "-";

/// A count: `812`, `1.2k`, `3.45M`.
pub(in crate::cli) fn count(n: u64) -> String {
    match n {
        0..1000 => n.to_string(),
        _ => scaled(n as f64),
    }
}

/// A rate per second: `1.2k/s`, `0.25/s`.
pub(in crate::cli) fn rate(per_second: f64) -> String {
    format!("{}/s", plain(per_second))
}

/// A number without a unit: three digits are enough for a table.
pub(in crate::cli) fn plain(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    match () {
        () if size < 5e-7 => "0".to_owned(),
        () if size < 0.001 => format!("{value:.1e}"),
        () if size < 999.5 => digits(value),
        () => scaled(value),
    }
}

/// A time given in µs: `850 µs`, `3.4 ms`, `1.2 s`, `2.5 min`.
pub(in crate::cli) fn micros(micros: f64) -> String {
    let (value, unit) = match micros.abs() {
        size if size < 999.5 => (micros, "µs"),
        size if size < 999_500.0 => (micros / 1e3, "ms"),
        size if size < 120e6 => (micros / 1e6, "s"),
        _ => (micros / 60e6, "min"),
    };
    format!("{} {unit}", plain(value))
}

/// A number of bytes: `312 B`, `1.5 KiB`, `212 MiB`.
pub(in crate::cli) fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1023.5 {
            return format!("{} {unit}", if unit == "B" { format!("{value:.0}") } else { plain(value) });
        }
        value /= 1024.0;
    }
    format!("{} TiB", plain(value))
}

/// A ratio from 0 to 1 as a percentage: `12 %`.
pub(in crate::cli) fn share(ratio: f64) -> String {
    percent(ratio * 100.0)
}

/// A value that is a percentage already.
pub(in crate::cli) fn percent(percent: f64) -> String {
    format!("{} %", plain(percent))
}

/// A value in the unit of its metric.
pub(in crate::cli) fn in_unit(value: f64, unit: Option<&str>) -> String {
    match unit {
        Some("µs") => micros(value),
        Some("bytes") => bytes(value),
        Some("bytes/s") => format!("{}/s", bytes(value)),
        Some("0 to 1") => share(value),
        Some(unit) if unit.starts_with('%') => percent(value),
        Some(_) | None => plain(value),
    }
}

/// A value of at least a thousand.
fn scaled(value: f64) -> String {
    const UNITS: [&str; 4] = ["k", "M", "G", "T"];
    let mut scaled = value / 1e3;
    for unit in UNITS {
        if scaled.abs() < 999.5 {
            return format!("{}{unit}", digits(scaled));
        }
        scaled /= 1e3;
    }
    format!("{value:.2e}")
}

/// Three significant digits, without trailing zeros.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size < 0.0995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => return format!("{value:.0}"),
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_fitting_unit() {
        let check = |text: String, expected: &str| assert_eq!(text, expected);
        check(count(0), "0");
        check(count(999), "999");
        check(count(1_000), "1k");
        check(count(1_234_567), "1.23M");
        check(count(999_999), "1M");
        check(count(u64::MAX), "1.84e19");
        check(rate(0.0), "0/s");
        check(rate(0.25), "0.25/s");
        check(rate(1234.0), "1.23k/s");
        check(plain(0.0004), "4.0e-4");
        check(plain(-12.34), "-12.3");
        check(plain(f64::NAN), "-");
        check(micros(850.0), "850 µs");
        check(micros(3_412.0), "3.41 ms");
        check(micros(999_600.0), "1 s");
        check(micros(150e6), "2.5 min");
        check(bytes(312.0), "312 B");
        check(bytes(1536.0), "1.5 KiB");
        check(bytes(222_298_112.0), "212 MiB");
        check(bytes(5e15), "4.55k TiB");
        check(in_unit(0.125, Some("0 to 1")), "12.5 %");
        check(in_unit(62.0, Some("% of a core")), "62 %");
        check(in_unit(2048.0, Some("bytes/s")), "2 KiB/s");
        check(in_unit(7.0, None), "7");
    }
}
