//! A topology with components in Rust and one in Python, for `integration/rust_topology.rs`.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use stormkeeper_topology::{
    Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, TopologyContext, Tuple, Value,
};

const WORDS: u64 = 1000;

/// Emits numbered words, again those that fail, and then its name once.
#[derive(Default)]
struct Words {
    next: u64,
    failed: Vec<u64>,
}

impl Spout for Words {
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        let number = match self.failed.pop() {
            Some(number) => number,
            None if self.next < WORDS => {
                self.next += 1;
                self.next - 1
            }
            None => return Ok(()),
        };
        out.emit_with_id(number, (number, format!("word {number}")))?;
        Ok(())
    }

    fn fail(&mut self, id: u64) {
        self.failed.push(id);
    }
}

/// Writes what it receives to the file of the setting `mixed.out`.
#[derive(Default)]
struct Write {
    path: PathBuf,
}

impl Bolt for Write {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let path = context.setting("mixed.out").and_then(|value| value.as_str()).ok_or("set mixed.out")?;
        self.path = Path::new(path).to_owned();
        Ok(())
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let (number, word) = (tuple.u64("number")?, tuple.str("word")?);
        let Value::Map(about) = tuple.value("about")? else { return Err("about is no map".into()) };
        if about.get("length") != Some(&Value::Int(word.len() as i64)) {
            return Err(format!("{about:?} of {word}").into());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{number}\t{word}")?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new("mixed");
    topology
        .setting("topology.workers", 2)
        .resources(concat!(env!("CARGO_MANIFEST_DIR"), "/../../integration/programs/resources"));
    topology.spout("words", Words::default).output(["number", "word"]);
    topology
        .shell_bolt("upper", ["python3", "upper.py"])
        .parallelism(2)
        .shuffle("words")
        .output(["number", "word", "about"]);
    topology.bolt("write", Write::default).global("upper");
    stormkeeper_topology::run(topology)
}
