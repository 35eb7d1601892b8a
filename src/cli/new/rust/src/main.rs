//! Counts the words of lines.txt: lines -> split -> count. README.md says how to run it.

use std::{collections::HashMap, io::Write as _, process::ExitCode, time::Duration};

use stormkeeper_topology::{Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, Tuple};

const LINES: &str = include_str!("../lines.txt");

/// Emits each line until it is processed. Read your own source here.
#[derive(Default)]
struct Lines {
    next: u64,
    /// Lines to emit again.
    failed: Vec<u64>,
}

impl Spout for Lines {
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        let number = self.failed.pop().unwrap_or(self.next);
        // Without an emit, the task waits a moment.
        if let Some(line) = LINES.lines().nth(number as usize) {
            out.emit_with_id(number, (line,))?;
            self.next = self.next.max(number + 1);
        }
        Ok(())
    }

    fn fail(&mut self, id: u64) {
        self.failed.push(id);
    }
}

/// Emits the words of each line.
struct Split;

impl Bolt for Split {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        for word in tuple.str("line")?.split_whitespace() {
            out.emit((word,))?;
        }
        Ok(())
    }
}

/// Counts words, and prints the most frequent ones after a change.
#[derive(Default)]
struct Count {
    counts: HashMap<String, u64>,
    changed: bool,
}

impl Bolt for Count {
    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        *self.counts.entry(tuple.str("word")?.to_owned()).or_default() += 1;
        self.changed = true;
        Ok(())
    }

    fn tick(&mut self, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        if std::mem::take(&mut self.changed) {
            let mut counts: Vec<_> = self.counts.iter().map(|(word, n)| (n, word)).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let n_words: u64 = self.counts.values().sum();
            let words: Vec<_> = counts.iter().take(3).map(|(n, word)| format!("{word} {n}")).collect();
            writeln!(std::io::stderr(), "{n_words} words; most frequent: {}", words.join(", "))?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new(env!("CARGO_PKG_NAME"));
    topology.setting("topology.workers", 2).setting("topology.message.timeout.secs", 30);
    topology.spout("lines", Lines::default).output(["line"]);
    topology.bolt("split", || Split).parallelism(2).shuffle("lines").output(["word"]);
    topology
        .bolt("count", Count::default)
        .parallelism(2)
        // Every occurrence of a word goes to the same task.
        .fields("split", ["word"])
        .tick_every(Duration::from_secs(1));
    stormkeeper_topology::run(topology)
}
