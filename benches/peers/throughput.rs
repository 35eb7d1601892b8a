//! The job of docs/benchmarks.md: a spout of fresh numbers and texts of 20 bytes, a bolt that emits each
//! anew, and a bolt that sums the numbers. Each end prints how much it has seen, for the sum to be checked.
//!
//! Settings: `bench.seconds`, the time for which the spout emits, and `bench.tracked`, whether with ids.

use std::{io::Write as _, process::ExitCode, time::Instant};

use stormkeeper_topology::{
    Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, TopologyContext, Tuple,
};

/// Emits between two looks at the clock.
const BURST: u64 = 64;

struct Numbers {
    seconds: f64,
    is_tracked: bool,
    began: Option<Instant>,
    next: u64,
    n_acked: u64,
    is_over: bool,
}

impl Spout for Numbers {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.seconds = context.setting("bench.seconds").and_then(|value| value.as_f64()).unwrap_or(10.0);
        self.is_tracked = context.setting("bench.tracked").and_then(|value| value.as_bool()).unwrap_or(false);
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        if self.next.is_multiple_of(BURST) {
            let began = *self.began.get_or_insert_with(now);
            self.is_over |= now().duration_since(began).as_secs_f64() > self.seconds;
        }
        if self.is_over {
            return Ok(());
        }
        match self.is_tracked {
            true => out.emit_with_id(self.next, (self.next, "twenty bytes of text"))?,
            false => out.emit((self.next, "twenty bytes of text"))?,
        }
        self.next += 1;
        Ok(())
    }

    fn ack(&mut self, _: u64) {
        self.n_acked += 1;
    }

    fn close(&mut self) {
        let sum = u128::from(self.next) * u128::from(self.next.saturating_sub(1)) / 2;
        say(&format!(
            "emitted {} sum {sum} acked {} rate {:.0}/s",
            self.next,
            self.n_acked,
            self.next as f64 / self.seconds
        ));
    }
}

/// Emits what it receives, as new values.
struct Id;

impl Bolt for Id {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        out.emit((tuple.u64(0)?, tuple.str(1)?))?;
        Ok(())
    }
}

/// Sums the numbers.
#[derive(Default)]
struct Sum {
    n: u64,
    sum: u128,
}

impl Bolt for Sum {
    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.n += 1;
        self.sum += u128::from(tuple.u64(0)?);
        Ok(())
    }

    fn cleanup(&mut self) {
        say(&format!("received {} sum {}", self.n, self.sum));
    }
}

#[expect(clippy::disallowed_methods, reason = "a component has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

fn say(text: &str) {
    // Nobody reads it if that fails.
    let _unread = writeln!(std::io::stderr().lock(), "{text}");
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new("throughput");
    let spout =
        || Numbers { seconds: 0.0, is_tracked: false, began: None, next: 0, n_acked: 0, is_over: false };
    topology.spout("numbers", spout).output(["number", "text"]);
    topology.bolt("id", || Id).shuffle("numbers").output(["number", "text"]);
    topology.bolt("sum", Sum::default).shuffle("id");
    stormkeeper_topology::run(topology)
}
