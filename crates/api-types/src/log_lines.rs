//! Selection of lines of a worker's log, as the agent of a supervisor and the command line make it.
//!
//! An event of the log begins with a line that starts with a date, and has its fields (`component=…`)
//! at the end of its last line.

use stormkeeper_model::{ComponentId, InvalidId};

/// Maximum number of lines of the response to a search.
pub const LINES_MAX: usize = 10_000;

/// Maximum bytes of a text to search for.
const TEXT_BYTES_MAX: usize = 1000;

/// Maximum number of lines of one event; the lines beyond it are an event of their own.
const EVENT_LINES_MAX: usize = 500;

/// Maximum bytes of one event; a worker cuts texts of components far below it.
const EVENT_BYTES_MAX: usize = 256 << 10;

/// Condition on lines; without any, all lines are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineFilter {
    /// Text that a line contains, literally.
    pub text: Option<String>,
    /// Component that the event of a line names in its fields.
    pub component: Option<ComponentId>,
}

/// Parameter of a search with a value that no search takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSearch {
    /// Name of the parameter.
    pub parameter: &'static str,
    /// Its value.
    pub value: String,
    /// Description: what is wrong with the value.
    pub reason: String,
}

impl LineFilter {
    /// Reads the parameters of a search.
    ///
    /// # Errors
    /// [`InvalidSearch`] for a text that no line can contain, is empty or long, and for a component
    /// that is none.
    pub fn parse(text: Option<String>, component: Option<&str>) -> Result<Self, InvalidSearch> {
        let defect = text.as_deref().and_then(|text| match text {
            "" => Some("the text to search for is empty".to_owned()),
            _ if text.len() > TEXT_BYTES_MAX => {
                Some(format!("the text to search for is longer than {TEXT_BYTES_MAX} bytes"))
            }
            _ if text.contains('\n') => {
                Some("the text to search for has several lines, and is compared with single lines".to_owned())
            }
            _ => None,
        });
        if let Some((value, reason)) = text.clone().zip(defect) {
            return Err(InvalidSearch { parameter: "text", value, reason });
        }
        let invalid = |value: &str, error: InvalidId| InvalidSearch {
            parameter: "component",
            value: value.to_owned(),
            reason: error.to_string(),
        };
        let parsed = component.map(|id| id.parse().map_err(|error| invalid(id, error)));
        Ok(Self { text, component: parsed.transpose()? })
    }
}

/// Reads the number of last lines of each launch.
///
/// # Errors
/// [`InvalidSearch`] for more than [`LINES_MAX`].
pub fn number_of_lines(given: Option<usize>, default: usize) -> Result<usize, InvalidSearch> {
    match given {
        Some(n) if n > LINES_MAX => {
            let reason = format!("at most {LINES_MAX} lines of each launch are returned");
            Err(InvalidSearch { parameter: "last", value: n.to_string(), reason })
        }
        given => Ok(given.unwrap_or(default)),
    }
}

/// Selects lines of one log, which are given in their order, each with a value of the caller.
#[derive(Debug)]
pub struct LineSelector<T> {
    filter: LineFilter,
    /// Lines of the event that may go on; empty without a component.
    event: Vec<(T, String)>,
    n_bytes: usize,
}

impl<T> LineSelector<T> {
    /// Selects the lines that satisfy `filter`.
    pub fn new(filter: LineFilter) -> Self {
        Self { filter, event: Vec::new(), n_bytes: 0 }
    }

    /// Adds a line. Returns the lines that are selected now: the line, or those of the event before it.
    pub fn push(&mut self, value: T, line: String) -> Vec<(T, String)> {
        if self.filter.component.is_none() {
            let is_selected = self.filter.text.as_ref().is_none_or(|text| line.contains(text));
            return Vec::from_iter(is_selected.then_some((value, line)));
        }
        let is_full = self.event.len() >= EVENT_LINES_MAX || self.n_bytes + line.len() > EVENT_BYTES_MAX;
        let before = if is_full || begins_event(&line) { self.finish() } else { Vec::new() };
        self.n_bytes += line.len();
        self.event.push((value, line));
        before
    }

    /// Returns the selected lines of the last event.
    pub fn finish(&mut self) -> Vec<(T, String)> {
        self.n_bytes = 0;
        let mut event = std::mem::take(&mut self.event);
        let named = event.last().and_then(|(_, line)| component_of(line));
        if named.is_none() || named != self.filter.component.as_ref().map(ComponentId::as_str) {
            return Vec::new();
        }
        if let Some(text) = &self.filter.text {
            event.retain(|(_, line)| line.contains(text));
        }
        event
    }
}

/// Returns whether a line begins an event: with a date and `T`.
pub fn begins_event(line: &str) -> bool {
    let form = b"0000-00-00T";
    let bytes = line.as_bytes();
    bytes.len() >= form.len()
        && form
            .iter()
            .zip(bytes)
            .all(|(form, byte)| if *form == b'0' { byte.is_ascii_digit() } else { form == byte })
}

/// Returns the component in the fields of the last line of an event. The text of an event is before its
/// fields, so the last mention counts.
fn component_of(line: &str) -> Option<&str> {
    line.rsplit_once(" component=")?.1.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[&str] = &[
        "the end of an event",
        "2026-01-01T00:00:00.000000Z  INFO w: stderr: one component=split task=3",
        "2026-01-01T00:00:01.000000Z  INFO w: two",
        "2026-01-01T00:00:02.000000Z  INFO w: several",
        "  lines one component=split task=4",
        "2026-01-01T00:00:03.000000Z  INFO w: stderr: component=split one component=count task=5",
        "2026-01-01T00:00:04.000000Z  INFO w: one component=split-2 task=6",
        "2026-01-01T00:00:05.000000Z  INFO w: last component=split",
    ];

    fn selected(text: Option<&str>, component: Option<&str>) -> Vec<usize> {
        let component = component.map(|id| id.parse().expect("valid"));
        let mut lines = LineSelector::new(LineFilter { text: text.map(str::to_owned), component });
        let mut all = Vec::new();
        for (n, line) in LOG.iter().enumerate() {
            all.extend(lines.push(n, (*line).to_owned()));
        }
        all.extend(lines.finish());
        all.into_iter().map(|(n, _)| n).collect()
    }

    #[test]
    fn lines_of_a_component_are_those_of_the_events_whose_fields_name_it() {
        assert_eq!(selected(None, Some("split")), [1, 3, 4, 7]);
        assert_eq!(selected(None, Some("count")), [5]);
        assert_eq!(selected(Some(" one "), Some("split")), [1, 4]);
        assert_eq!(selected(None, Some("none")), [0; 0]);
    }

    #[test]
    fn text_selects_lines_and_no_filter_selects_all() {
        assert_eq!(selected(Some(" one "), None), [1, 4, 5, 6]);
        assert_eq!(selected(Some(" [one] "), None), [0; 0], "it is no pattern");
        assert_eq!(selected(None, None), (0..LOG.len()).collect::<Vec<_>>());
    }

    #[test]
    fn event_without_an_end_is_bounded() {
        let filter = LineFilter { component: Some("split".parse().expect("valid")), text: None };
        let mut lines = LineSelector::new(filter);
        let long = "x".repeat(1000) + " component=split";
        let n_selected: usize = (0..2000).map(|n| lines.push(n, long.clone()).len()).sum();
        assert!((1700..2000).contains(&n_selected), "{n_selected}");
        assert!(lines.finish().len() <= EVENT_LINES_MAX);
    }
}
