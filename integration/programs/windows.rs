//! A topology with windows, for `integration/windows.rs`.

use std::{fs::OpenOptions, io::Write as _, process::ExitCode, time::Duration};

use stormkeeper_topology::{
    Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, TopologyContext, Tuple, Window, WindowBolt,
    WindowOutput, Windows,
};

/// Number of orders, one in each tenth of a second.
const ORDERS: u64 = 1000;

/// Emits orders, each tenth one half a second late and each hundredth ten seconds late, again those that
/// fail.
#[derive(Default)]
struct Orders {
    next: u64,
    failed: Vec<u64>,
    outcomes: Out,
}

impl Spout for Orders {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.outcomes.open(context, "outcomes")
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        let number = match self.failed.pop() {
            Some(number) => number,
            None if self.next < ORDERS => {
                self.next += 1;
                self.next - 1
            }
            None => return Ok(()),
        };
        let late = match number {
            n if n % 100 == 99 => 10_000,
            n if n % 10 == 5 => 500,
            _ => 0,
        };
        out.emit_with_id(number, (100 * number as i64 - late, number))?;
        Ok(())
    }

    fn ack(&mut self, id: u64) {
        self.outcomes.write(&format!("acked {id}"));
    }

    fn fail(&mut self, id: u64) {
        self.outcomes.write(&format!("failed {id}"));
        self.failed.push(id);
    }
}

/// Emits what is in each window; fails the first time for the window of the fifth second.
#[derive(Default)]
struct Sum {
    has_failed: bool,
}

impl WindowBolt for Sum {
    fn process(&mut self, window: &Window<'_>, out: &mut WindowOutput<'_, '_>) -> Result<(), Error> {
        let (start, _) = window.span().ok_or("a window by time")?;
        if start == 5000 && !std::mem::replace(&mut self.has_failed, true) {
            return Err("this window fails".into());
        }
        let mut sum = 0;
        for order in window.tuples() {
            sum += order.u64("number")?;
        }
        out.emit((start, window.len() as u64, sum))?;
        Ok(())
    }
}

/// Writes what it receives.
#[derive(Default)]
struct Write(Out);

impl Bolt for Write {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.0.open(context, "windows")
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let line = format!("{} {} {}", tuple.i64("start")?, tuple.u64("n")?, tuple.u64("sum")?);
        self.0.write(&line);
        Ok(())
    }
}

/// Writes the numbers of late orders.
#[derive(Default)]
struct Late(Out);

impl Bolt for Late {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.0.open(context, "late")
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.0.write(&tuple.u64("number")?.to_string());
        Ok(())
    }
}

/// A file in the directory of the setting `windows.out`.
#[derive(Default)]
struct Out(Option<std::fs::File>);

impl Out {
    fn open(&mut self, context: &mut TopologyContext<'_>, name: &str) -> Result<(), Error> {
        let dir = context.setting("windows.out").and_then(|value| value.as_str()).ok_or("set windows.out")?;
        let path = std::path::Path::new(dir).join(name);
        self.0 = Some(OpenOptions::new().create(true).append(true).open(path)?);
        Ok(())
    }

    fn write(&mut self, line: &str) {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{line}").expect("written");
        }
    }
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new("windows");
    topology.spout("orders", Orders::default).output(["at", "number"]);
    let seconds = Windows::by_time("at", Duration::from_secs(1)).lag(Duration::from_secs(1)).late_to("late");
    topology
        .bolt("sums", move || seconds.of(Sum::default()))
        .global("orders")
        .output(["start", "n", "sum"])
        .stream("late", ["at", "number"]);
    topology.bolt("write", Write::default).global("sums");
    topology.bolt("late", Late::default).global(("sums", "late"));
    stormkeeper_topology::run(topology)
}
