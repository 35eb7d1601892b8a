//! Cursor of a list: the `next` of a page, and the `after` of the following page.

use std::{fmt, str::FromStr};

use stormkeeper_metrics::{MetricId, Minute};

/// Continues a list after a metric. The minute is common to all pages of a list, or the minute at
/// which an incomplete metric continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) id: MetricId,
    pub(super) minute: Option<Minute>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        self.minute.map_or(Ok(()), |minute| write!(f, "-{}", minute.0))
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, minute) = match text.split_once('-') {
            Some((id, minute)) => (id, Some(Minute(minute.parse()?))),
            None => (text, None),
        };
        Ok(Self { id: id.parse()?, minute })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_through_text() {
        for cursor in [
            Cursor { id: MetricId(1), minute: None },
            Cursor { id: MetricId(u64::MAX), minute: Some(Minute(29_000_000)) },
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "x", "-5", "00ff-", "00ff-x", "00ff-99999999999"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
