//! Values of parameters. Each type reads its text and has the schema of the texts that it reads, so that the
//! OpenAPI document says what is accepted.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::cursor::Cursor;
use stormkeeper_metrics::{MetaType, MetricId, MetricName, Window, name::MAX_PART_BYTES};
use stormkeeper_model::Timestamp;

/// Default number of entries of a page.
const LIMIT: usize = 500;

/// Maximum number of entries of a page: a page of histograms stays below some megabytes.
const LIMIT_MAX: usize = 5000;

/// Windows, by all their names.
const WINDOWS: [(&str, Window); 8] = [
    ("60", Window::M1),
    ("1m", Window::M1),
    ("600", Window::M10),
    ("10m", Window::M10),
    ("7200", Window::H2),
    ("2h", Window::H2),
    ("86400", Window::D1),
    ("1d", Window::D1),
];

/// Defines a parameter by its schema and by the function that reads it. The function returns the reason if it
/// refuses a text.
macro_rules! parameter {
    ($(#[$doc:meta])* $name:ident($value:ty), $read:path, $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(try_from = "String")]
        pub(super) struct $name(pub(super) $value);

        impl TryFrom<String> for $name {
            type Error = Cow<'static, str>;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                $read(&text).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

parameter!(
    /// Number of entries of a page.
    Limit(usize),
    limit,
    json_schema!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX })
);

parameter!(
    /// Cursor of the page before.
    After(Cursor),
    after,
    json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{1,16}(-[0-9]{1,9})?$" })
);

parameter!(
    /// Window of values.
    WindowName(Window),
    window,
    json_schema!({ "type": "string", "enum": WINDOWS.map(|(name, _)| name) })
);

parameter!(
    /// Level of metrics.
    Level(MetaType),
    level,
    json_schema!({ "type": "string", "enum": MetaType::ALL.map(MetaType::word) })
);

parameter!(
    /// Pattern for the last part of names.
    Pattern(String),
    pattern,
    json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_PART_BYTES, "pattern": "^[^@ ]+$" })
);

parameter!(
    /// Id of a metric.
    Id(MetricId),
    id,
    json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{1,16}$" })
);

parameter!(
    /// Full name of a metric.
    FullName(MetricName),
    full_name,
    json_schema!({ "type": "string", "minLength": 1 })
);

parameter!(
    /// Time, absolute or before now.
    Time(Moment),
    moment,
    json_schema!({ "type": "string", "pattern": "^(now|[0-9]{1,15}|-[0-9]{1,9}[smhd])$" })
);

type Read<T> = Result<T, Cow<'static, str>>;

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl Default for WindowName {
    fn default() -> Self {
        Self(Window::M1)
    }
}

/// Point in time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Milliseconds since 1970.
    At(Timestamp),
    /// Milliseconds before now.
    Ago(u64),
}

impl Moment {
    /// Returns the time. A span that is longer than the time since 1970 leads to its begin.
    pub(super) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(millis) => Timestamp::from_millis(now.as_millis().saturating_sub(millis)),
        }
    }
}

/// Returns the number in a text of digits alone: the standard library also takes a sign.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn limit(text: &str) -> Read<usize> {
    let limit = digits(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("expected a whole number from 1 to {LIMIT_MAX}; default {LIMIT}").into())
}

fn after(text: &str) -> Read<Cursor> {
    let reason = "not a next of any page: pass the next of the page before unchanged; without after=, the \
                  first page is returned";
    text.parse().map_err(|_| reason.into())
}

fn window(text: &str) -> Read<Window> {
    let reason = "unknown window: the windows are 60, 600, 7200 and 86400 seconds, or 1m, 10m, 2h and 1d";
    let found = WINDOWS.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, window)| window).ok_or_else(|| reason.into())
}

fn level(text: &str) -> Read<MetaType> {
    let found = MetaType::ALL.into_iter().find(|level| level.word() == text);
    found.ok_or_else(|| {
        format!("unknown level: the levels are {}", MetaType::ALL.map(MetaType::word).join(", ")).into()
    })
}

/// Checks a name pattern. Names contain no `@`: a full name selects one metric with `name=`.
fn pattern(text: &str) -> Read<String> {
    let wrong = match () {
        () if text.is_empty() => "it is empty",
        () if text.len() > MAX_PART_BYTES => "it is longer than 200 bytes",
        () if text.contains(['@', ' ']) => "the last part of a name contains no @ and no white space",
        () => return Ok(text.to_owned()),
    };
    Err(format!("{wrong}; a pattern is such as Emit*: * is any text, ? any character").into())
}

fn id(text: &str) -> Read<MetricId> {
    let is_id = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reason = "not a metric id: expected at most sixteen hexadecimal digits, as in the list of metas";
    is_id.then(|| text.parse().ok()).flatten().ok_or_else(|| reason.into())
}

fn full_name(text: &str) -> Read<MetricName> {
    text.parse().map_err(|error| {
        format!(
            "{error}; expected a full name, as in the list of metas; for a part of a name, use topology= \
             and pattern="
        )
        .into()
    })
}

fn moment(text: &str) -> Read<Moment> {
    let reason = "not a valid time: expected milliseconds since 1970, or relative to now: now, -90s, -15m, \
                  -6h, -2d";
    let read = match text.strip_prefix('-') {
        _ if text == "now" => Some(Moment::Ago(0)),
        None => digits(text).map(|millis| Moment::At(Timestamp::from_millis(millis))),
        Some(ago) => ago_millis(ago).map(Moment::Ago),
    };
    read.ok_or_else(|| reason.into())
}

/// Returns the milliseconds of a span such as `90s`.
fn ago_millis(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (n, unit) = text.split_at(unit_at);
    let millis: u64 = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    n.parse::<u64>().ok()?.checked_mul(millis)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    #[test]
    fn time_is_milliseconds_or_relative_to_now() {
        let check = |text: &str, millis| {
            let read = moment(text).ok().map(|moment| moment.before(NOW).as_millis());
            assert_eq!(read, millis, "{text}");
        };
        check("now", Some(1_000_000_000_000));
        check("17", Some(17));
        check("-90s", Some(999_999_910_000));
        check("-1h", Some(999_996_400_000));
        check("-2d", Some(999_827_200_000));
        check("-99999999d", Some(0));
        for bad in ["", "-", "-h", "-1", "-1w", "1h", "+1", "yesterday", "--1h", "-99999999999999999999s"] {
            check(bad, None);
        }
    }

    /// Compares the words and numbers of a schema with the texts that are read.
    fn check<T: TryFrom<String> + JsonSchema>(texts: &[&str], expected: &[&str])
    where
        T::Error: Debug,
    {
        let read = |text: &&&str| T::try_from((**text).to_owned()).is_ok();
        let read: Vec<&str> = texts.iter().filter(read).copied().collect();
        assert_eq!(read, expected, "{}", T::schema_name());
    }

    #[test]
    fn every_text_that_a_schema_names_is_read_and_no_other() {
        let mut generator = SchemaGenerator::default();
        let words = |schema: Schema| {
            let words = schema.get("enum").and_then(|words| words.as_array().cloned()).expect("words");
            words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect::<Vec<String>>()
        };
        for word in words(WindowName::json_schema(&mut generator)) {
            WindowName::try_from(word).expect("a window of the schema");
        }
        for word in words(Level::json_schema(&mut generator)) {
            Level::try_from(word).expect("a level of the schema");
        }
        check::<WindowName>(&["60", "61", "1m", "", "60s"], &["60", "1m"]);
        check::<Level>(&["task", "Task", "planet", ""], &["task"]);
        check::<Limit>(&["0", "1", "5000", "5001", "+5", "", "x"], &["1", "5000"]);
        check::<Id>(
            &["1", "00ff00ff00ff00ff", "00ff00ff00ff00ff0", "", "+1", "x"],
            &["1", "00ff00ff00ff00ff"],
        );
        check::<Pattern>(&["*", "Emit?", "", "a b", "a@b"], &["*", "Emit?"]);
        check::<After>(
            &["00000000000000ff", "00000000000000ff-7", "", "x", "-7"],
            &["00000000000000ff", "00000000000000ff-7"],
        );
        check::<FullName>(&["5@1@gone-1-1@@0@sys@Nothing", "Nothing", ""], &["5@1@gone-1-1@@0@sys@Nothing"]);
    }
}
