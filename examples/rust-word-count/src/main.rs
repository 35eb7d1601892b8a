//! Words of a file, each written at least once to a file outside of the cluster, whatever is killed.
//!
//! Settings: `words.file`, the file to read, and `words.dir`, a directory for the results.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use stormkeeper_topology::{
    Bolt, BoltOutput, Counter, Error, Spout, SpoutOutput, TopologyBuilder, TopologyContext, Tuple,
};

/// Emits each line with its number as the id, and the lines that fail again.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    next: u64,
    /// Lines to emit again.
    failed: BTreeSet<u64>,
    /// Lines that were emitted and neither acked nor failed.
    pending: BTreeSet<u64>,
    /// File with the number of the first line that may not be processed.
    position: PathBuf,
    stored: u64,
}

impl Lines {
    /// Stores from where to go on after a restart, if that has changed.
    fn store(&mut self) -> io::Result<()> {
        let first = [self.pending.first(), self.failed.first(), Some(&self.next)];
        let first = first.into_iter().flatten().min().copied().unwrap_or(self.next);
        if first > self.stored {
            let new = self.position.with_extension("new");
            fs::write(&new, first.to_string())?;
            fs::rename(&new, &self.position)?;
            self.stored = first;
        }
        Ok(())
    }
}

impl Spout for Lines {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let file = File::open(text_setting(context, "words.file")?)?;
        self.lines = BufReader::new(file).lines().collect::<Result<_, _>>()?;
        self.position = results(context)?.join("position");
        match fs::read_to_string(&self.position) {
            Ok(text) => self.next = text.trim().parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        self.stored = self.next;
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        let number = match self.failed.pop_first() {
            Some(number) => number,
            None if self.next < self.lines.len() as u64 => {
                self.next += 1;
                self.next - 1
            }
            // All acks that have arrived are stored, at the latest now.
            None => return Ok(self.store()?),
        };
        let line = self.lines.get(number as usize).map(String::as_str).unwrap_or_default();
        // A line that cannot be emitted is reported, and left out: nothing will be said about its id.
        out.emit_with_id(number, (number, line))?;
        self.pending.insert(number);
        if number % 64 == 0 {
            self.store()?;
        }
        Ok(())
    }

    fn ack(&mut self, id: u64) {
        self.pending.remove(&id);
    }

    fn fail(&mut self, id: u64) {
        self.pending.remove(&id);
        self.failed.insert(id);
    }
}

/// Emits the words of each line.
struct Split;

impl Bolt for Split {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        let number = tuple.u64("number")?;
        for word in tuple.str("line")?.split_whitespace() {
            out.emit((number, word))?;
        }
        Ok(())
    }
}

/// Writes each word with the number of its line. What is written is acked afterwards, so nothing that was
/// acked is missing; after a failure a word may be written again.
#[derive(Default)]
struct Write {
    file: Option<File>,
    written: Option<Counter>,
}

impl Bolt for Write {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let path = results(context)?.join(format!("words-{}.tsv", context.task_index()));
        self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        self.written = Some(context.counter("written")?);
        Ok(())
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let row = format!("{}\t{}\n", tuple.u64("number")?, tuple.str("word")?);
        if let (Some(file), Some(written)) = (&mut self.file, &self.written) {
            file.write_all(row.as_bytes())?;
            written.increment();
        }
        Ok(())
    }
}

fn text_setting<'a>(context: &'a TopologyContext<'_>, key: &str) -> Result<&'a str, Error> {
    let value = context.setting(key).and_then(|value| value.as_str());
    value.ok_or_else(|| format!("set {key}: stormkeeper submit PROGRAM -c {key}=…").into())
}

fn results(context: &TopologyContext<'_>) -> Result<PathBuf, Error> {
    let dir = Path::new(text_setting(context, "words.dir")?).to_owned();
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new("rust-word-count");
    topology
        .setting("topology.workers", 2)
        .setting("topology.max.spout.pending", 500)
        .setting("topology.message.timeout.secs", 30);
    topology.spout("lines", Lines::default).output(["number", "line"]);
    topology.bolt("split", || Split).parallelism(2).shuffle("lines").output(["number", "word"]);
    topology.bolt("write", Write::default).parallelism(2).fields("split", ["word"]);
    stormkeeper_topology::run(topology)
}
