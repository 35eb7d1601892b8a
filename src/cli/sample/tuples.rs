//! Tuples in the files of samples. Pure.

use serde::Deserialize;

use crate::cli::{error::Failure, output};
use stormkeeper_api_types::message::logs::{LogChunk, LogPosition};
use stormkeeper_model::{ComponentId, StreamId, TaskId, Timestamp};

/// Maximum number of parts of a file that are read at once.
pub(super) const CHUNKS_MAX: usize = 16;

/// Maximum bytes of a line that has no end yet. A longer one is none of a sample.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Sample whose tuples are wanted: a file may have those of others.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) component: ComponentId,
    pub(super) until: Timestamp,
}

/// Reader of one file.
#[derive(Debug)]
pub(super) struct Reader {
    wanted: Wanted,
    position: LogPosition,
    unfinished: String,
}

impl Reader {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, position: LogPosition::default(), unfinished: String::new() }
    }

    /// Position of what is read next.
    pub(super) fn position(&self) -> &LogPosition {
        &self.position
    }

    /// Takes a part of the file, and returns the tuples that are wanted.
    pub(super) fn take(&mut self, chunk: LogChunk) -> Vec<Tuple> {
        if chunk.lost {
            self.unfinished.clear();
        }
        self.position = chunk.next;
        self.unfinished.push_str(&chunk.text);
        let text = std::mem::take(&mut self.unfinished);
        let (whole, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        if rest.len() <= LINE_BYTES_MAX {
            rest.clone_into(&mut self.unfinished);
        }
        let Wanted { component, until } = &self.wanted;
        let tuples = whole.lines().filter_map(|line| {
            let shown: Shown = serde_json::from_str(line).ok()?;
            let is_wanted = shown.component == *component && shown.until_ms == *until;
            is_wanted.then(|| Tuple { line: line.to_owned(), shown })
        });
        tuples.collect()
    }
}

/// A tuple of the sample.
#[derive(Debug)]
pub(super) struct Tuple {
    line: String,
    shown: Shown,
}

/// What is printed of a line; the worker writes more.
#[derive(Debug, Deserialize)]
struct Shown {
    time: String,
    until_ms: Timestamp,
    component: ComponentId,
    task: TaskId,
    from: Option<Source>,
    stream: StreamId,
    values: Option<serde_json::Value>,
    values_cut: Option<String>,
    #[serde(default)]
    to: Vec<TaskId>,
    #[serde(default)]
    more_receivers: usize,
}

#[derive(Debug, Deserialize)]
struct Source {
    component: ComponentId,
    task: TaskId,
}

impl Tuple {
    /// Time at which the tuple passed, by the clock of its worker.
    pub(super) fn time(&self) -> &str {
        &self.shown.time
    }

    /// The line of the worker.
    pub(super) fn json(&self) -> Result<String, Failure> {
        let value: serde_json::Value =
            serde_json::from_str(&self.line).map_err(|error| Failure::internal(error.into()))?;
        output::json_line(&value)
    }

    /// A line for people.
    pub(super) fn text(&self) -> String {
        let Shown { time, component, task, from, stream, values, values_cut, to, more_receivers, .. } =
            &self.shown;
        let other = match from {
            Some(Source { component, task }) => format!("<- {component}[{task}]"),
            None if to.is_empty() => "-> nobody".to_owned(),
            None => {
                let to: Vec<String> = to.iter().map(ToString::to_string).collect();
                let more =
                    if *more_receivers > 0 { format!(" and {more_receivers} more") } else { String::new() };
                format!("-> {}{more}", to.join(","))
            }
        };
        let values = match (values, values_cut) {
            (Some(values), _) => values.to_string(),
            (None, Some(cut)) => format!("{cut}…"),
            (None, None) => "[]".to_owned(),
        };
        let text = format!("{time} {component}[{task}] {other} {stream} {values}");
        output::one_line(&text).into_owned() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str, offset: u64) -> LogChunk {
        serde_json::from_value(serde_json::json!({
            "worker": "w", "running": true, "file": "worker.samples", "offset": 0, "size": 0,
            "next": { "identity": "x", "offset": offset }, "lost": false, "end": true, "text": text
        }))
        .expect("valid")
    }

    fn line(component: &str, until: u64, rest: &str) -> String {
        format!(
            r#"{{"time":"2026-01-01T00:00:00.000Z","until_ms":{until},"component":"{component}","task":3,"stream":"default",{rest}}}"#
        ) + "\n"
    }

    #[test]
    fn whole_lines_of_the_wanted_sample_are_read_in_parts_and_others_are_not() {
        let wanted = Wanted { component: "split".parse().expect("valid"), until: Timestamp::from_millis(9) };
        let mut reader = Reader::new(wanted);
        let received = line("split", 9, r#""from":{"component":"lines","task":1},"values":["a b\u001b[2J"]"#);
        let emitted = line("split", 9, r#""to":[5,6],"more_receivers":2,"values_cut":"[\"long""#);
        let nowhere = line("split", 9, r#""to":[],"values":[1,null]"#);
        let others =
            line("split", 8, r#""to":[],"values":[1]"#) + &line("count", 9, r#""to":[],"values":[1]"#);
        let text = received + "no JSON\n" + &others + &emitted + &nowhere;
        let (first, second) = text.split_at(40);
        assert!(reader.take(chunk(first, 40)).is_empty());
        assert_eq!(reader.position().offset, 40);
        let tuples = reader.take(chunk(second, 100));
        let texts: Vec<String> = tuples.iter().map(Tuple::text).collect();
        let time = "2026-01-01T00:00:00.000Z split[3]";
        assert_eq!(
            texts,
            [
                format!("{time} <- lines[1] default [\"a b\\u001b[2J\"]\n"),
                format!("{time} -> 5,6 and 2 more default [\"long…\n"),
                format!("{time} -> nobody default [1,null]\n"),
            ]
        );
        let json = tuples[1].json().expect("JSON");
        assert!(json.contains(r#""more_receivers":2"#) && json.ends_with('\n'), "{json}");
    }

    #[test]
    fn line_without_an_end_is_kept_up_to_a_limit() {
        let wanted = Wanted { component: "split".parse().expect("valid"), until: Timestamp::from_millis(9) };
        let mut reader = Reader::new(wanted);
        for _ in 0..100 {
            assert!(reader.take(chunk(&"x".repeat(10_000), 1)).is_empty());
            assert!(reader.unfinished.len() <= LINE_BYTES_MAX);
        }
        let good = line("split", 9, r#""to":[],"values":[]"#);
        assert_eq!(reader.take(chunk(&("\n".to_owned() + &good), 2)).len(), 1);
    }
}
