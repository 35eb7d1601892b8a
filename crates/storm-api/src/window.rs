//! Windows: the time over which a page counts.

use std::{fmt, time::Duration};

use crate::text;
use stormkeeper_metrics as metrics;
use stormkeeper_metrics::Minute;
use stormkeeper_model::Timestamp;

/// Window of a request: the last seconds, or the whole life of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// The last seconds, at least one.
    Secs(u64),
    /// Since the submit of the topology, over all restarts of its workers.
    AllTime,
}

/// A text that names no window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidWindow(String);

impl fmt::Display for InvalidWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(f, "window={text}: expected a number of seconds from 1, or :all-time")
    }
}

impl Window {
    /// Windows of every list of windows, in Storm's order.
    pub const STANDARD: [Self; 4] = [Self::Secs(600), Self::Secs(10_800), Self::Secs(86_400), Self::AllTime];

    /// Window of capacities, as in Storm, unless a shorter one is asked for.
    pub(crate) const CAPACITY: Self = Self::Secs(600);

    /// Reads the parameter `window`; `:all-time` if it is absent.
    ///
    /// # Errors
    /// [`InvalidWindow`] if the text is neither a positive number nor `:all-time`.
    pub fn parse(given: Option<&str>) -> Result<Self, InvalidWindow> {
        match given {
            None | Some(":all-time") => Ok(Self::AllTime),
            Some(text) => match text.parse() {
                Ok(secs @ 1..) => Ok(Self::Secs(secs)),
                Ok(_) | Err(_) => Err(InvalidWindow(text.chars().take(40).collect())),
            },
        }
    }

    /// Returns the window of capacities beside numbers of this window.
    pub(crate) fn of_capacity(self) -> Self {
        self.min(Self::CAPACITY)
    }

    /// Returns the windows of a page that is asked for this one: seconds that are asked for are the
    /// first row, which clients read, and all time is the last one.
    pub(crate) fn and_standard(self) -> Vec<Self> {
        let first = (self != Self::AllTime).then_some(self);
        first.into_iter().chain(Self::STANDARD.into_iter().filter(|other| Some(*other) != first)).collect()
    }

    /// Returns the begin of the window that ends at `end`, which is now or a little before, for a
    /// topology that was submitted at `launched`. A window that is longer than its life begins with the
    /// day of the submit: nothing of this topology can have been counted before the submit, and whole
    /// days are the coarsest points.
    pub fn begin(self, (end, now): (Timestamp, Timestamp), launched: Timestamp) -> Timestamp {
        let life = now.since(launched);
        match self {
            Self::Secs(secs) if Duration::from_secs(secs) < life => {
                Timestamp::from_millis(end.as_millis().saturating_sub(secs * 1000))
            }
            Self::Secs(_) | Self::AllTime => metrics::Window::D1.bucket(Minute::of(launched)).start(),
        }
    }

    /// Returns the window's name in requests and answers: `600`, `:all-time`.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Secs(secs) => secs.to_string(),
            Self::AllTime => ":all-time".to_owned(),
        }
    }

    /// Returns the window's name for people: `10m 0s`, `All time`.
    pub(crate) fn pretty(self) -> String {
        match self {
            Self::Secs(secs) => text::uptime(secs),
            Self::AllTime => "All time".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    #[test]
    fn windows_are_seconds_or_all_time() {
        assert_eq!(Window::parse(None), Ok(Window::AllTime));
        assert_eq!(Window::parse(Some(":all-time")), Ok(Window::AllTime));
        assert_eq!(Window::parse(Some("60")), Ok(Window::Secs(60)));
        for bad in ["", "0", "-1", "1h", "all-time", "99999999999999999999"] {
            let error = Window::parse(Some(bad)).expect_err("no window").to_string();
            assert_eq!(error, format!("window={bad}: expected a number of seconds from 1, or :all-time"));
        }
    }

    #[test]
    fn window_longer_than_the_life_of_a_topology_is_its_life() {
        let (now, launched, day) = (at(100 * 86_400 + 7000), at(100 * 86_400 + 1000), at(100 * 86_400));
        assert_eq!(Window::Secs(600).begin((now, now), launched), at(100 * 86_400 + 6400));
        assert_eq!(
            Window::Secs(600).begin((at(100 * 86_400 + 6960), now), launched),
            at(100 * 86_400 + 6360)
        );
        assert_eq!(Window::Secs(5999).begin((now, now), launched), at(100 * 86_400 + 1001));
        assert_eq!(Window::Secs(6000).begin((now, now), launched), day);
        assert_eq!(Window::Secs(u64::MAX).begin((now, now), launched), day);
        assert_eq!(Window::AllTime.begin((now, now), launched), day);
        assert_eq!(Window::Secs(600).begin((at(5), at(5)), at(9)), at(0), "a clock that was set back");
    }

    #[test]
    fn asked_window_is_the_first_row_and_the_others_keep_their_order() {
        let labels = |window: Window| -> Vec<String> {
            window.and_standard().into_iter().map(Window::label).collect()
        };
        assert_eq!(labels(Window::AllTime), ["600", "10800", "86400", ":all-time"]);
        assert_eq!(labels(Window::Secs(86_400)), ["86400", "600", "10800", ":all-time"]);
        assert_eq!(labels(Window::Secs(60)), ["60", "600", "10800", "86400", ":all-time"]);
        assert_eq!(Window::Secs(60).of_capacity(), Window::Secs(60));
        assert_eq!(Window::AllTime.of_capacity(), Window::Secs(600));
    }
}
