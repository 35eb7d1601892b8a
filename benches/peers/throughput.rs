//! The job of docs/benchmarks.md: a spout of fresh numbers and texts of 20 bytes, a bolt that emits each
//! anew, and a bolt that sums the numbers. `storm/Throughput.java` is the same job for Storm.
//!
//! Settings: `bench.seconds`, the time for which the spout emits; `bench.rate`, tuples per second, 0 for as
//! many as it can: with a rate the numbers are times; `bench.tracked`, whether with ids; `bench.dir`, the
//! directory of what the ends say: `emitted` has the count and the sum, `received` a line for each second
//! with the time, count, sum, and with a rate the median and the 99th percentile of that second in
//! microseconds. Without a directory, they say it on stderr at their end.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use stormkeeper_topology::{
    Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, TopologyContext, Tuple,
};

/// Emits between two looks at the clock.
const BURST: u64 = 64;

/// Longest time that is told from longer ones, in microseconds.
const MICROS_MAX: usize = 1_000_000;

/// Where an end says what it has seen.
#[derive(Default)]
struct Report(Option<PathBuf>);

impl Report {
    fn open(context: &TopologyContext<'_>, name: &str) -> Self {
        let dir = context.setting("bench.dir").and_then(|value| value.as_str().map(PathBuf::from));
        Self(dir.map(|dir| dir.join(name)))
    }

    fn say(&self, line: &str) -> Result<(), Error> {
        match &self.0 {
            Some(path) => writeln!(OpenOptions::new().create(true).append(true).open(path)?, "{line}")?,
            None => writeln!(std::io::stderr().lock(), "{line}")?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Numbers {
    seconds: f64,
    // 0 for as many as it can.
    rate: f64,
    is_tracked: bool,
    report: Report,
    began: Option<Instant>,
    next: u64,
    is_over: bool,
}

impl Numbers {
    fn emit(&mut self, number: u64, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        match self.is_tracked {
            true => out.emit_with_id(self.next, (number, "twenty bytes of text"))?,
            false => out.emit((number, "twenty bytes of text"))?,
        }
        self.next += 1;
        Ok(())
    }

    /// Returns the time since the first call, unless it is over.
    fn elapsed(&mut self) -> Result<Option<f64>, Error> {
        let began = *self.began.get_or_insert_with(now);
        let elapsed = now().duration_since(began).as_secs_f64();
        if elapsed <= self.seconds {
            return Ok(Some(elapsed));
        }
        self.is_over = true;
        let sum = match self.rate > 0.0 {
            true => 0,
            false => u128::from(self.next) * u128::from(self.next.saturating_sub(1)) / 2,
        };
        self.report.say(&format!("{} {sum}", self.next))?;
        Ok(None)
    }
}

impl Spout for Numbers {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.seconds = number(context, "bench.seconds").unwrap_or(10.0);
        self.rate = number(context, "bench.rate").unwrap_or(0.0);
        self.is_tracked = context.setting("bench.tracked").and_then(|value| value.as_bool()).unwrap_or(false);
        self.report = Report::open(context, "emitted");
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        if self.rate > 0.0 {
            match self.elapsed()? {
                Some(elapsed) if (self.next as f64) < elapsed * self.rate => self.emit(nanos(), out),
                _ => Ok(()),
            }
        } else if self.next.is_multiple_of(BURST) && self.elapsed()?.is_none() {
            Ok(())
        } else {
            self.emit(self.next, out)
        }
    }
}

/// Emits what it receives, as new values.
struct Pass;

impl Bolt for Pass {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        out.emit((tuple.u64(0)?, tuple.str(1)?))?;
        Ok(())
    }
}

/// Sums the numbers, or counts the time that tuples took; each tick says it.
#[derive(Default)]
struct Sum {
    report: Report,
    n: u64,
    sum: u128,
    // Tuples of the last second by the microseconds that they took; empty without a rate.
    micros: Vec<u32>,
}

impl Sum {
    /// Returns a quantile of the times since the last tick, in microseconds.
    fn quantile(&self, share: f64) -> usize {
        let count: u64 = self.micros.iter().copied().map(u64::from).sum();
        let mut left = (count as f64 * share).ceil() as i64;
        let found = self.micros.iter().position(|n| {
            left -= i64::from(*n);
            left <= 0
        });
        found.unwrap_or(MICROS_MAX)
    }

    fn say(&self) -> Result<(), Error> {
        let mut line = format!("{} {} {}", nanos(), self.n, self.sum);
        if !self.micros.is_empty() {
            line += &format!(" {} {}", self.quantile(0.5), self.quantile(0.99));
        }
        self.report.say(&line)
    }
}

impl Bolt for Sum {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.report = Report::open(context, "received");
        if number(context, "bench.rate").unwrap_or(0.0) > 0.0 {
            self.micros = vec![0; MICROS_MAX];
        }
        Ok(())
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.n += 1;
        let number = tuple.u64(0)?;
        if self.micros.is_empty() {
            self.sum += u128::from(number);
        } else {
            let micros = nanos().saturating_sub(number) / 1_000;
            self.micros[usize::try_from(micros).unwrap_or(MICROS_MAX).min(MICROS_MAX - 1)] += 1;
        }
        Ok(())
    }

    fn tick(&mut self, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.say()?;
        self.micros.fill(0);
        Ok(())
    }

    fn cleanup(&mut self) {
        // Nobody reads it if that fails.
        let _unread = self.say();
    }
}

fn number(context: &TopologyContext<'_>, key: &str) -> Option<f64> {
    context.setting(key).and_then(|value| value.as_f64())
}

#[expect(clippy::disallowed_methods, reason = "a component has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

/// Returns the time in nanoseconds, the same in all processes of this machine.
#[expect(clippy::disallowed_methods, reason = "a component has a clock of its own")]
fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn main() -> ExitCode {
    let mut topology = TopologyBuilder::new("throughput");
    topology.spout("numbers", Numbers::default).output(["number", "text"]);
    topology.bolt("pass", || Pass).shuffle("numbers").output(["number", "text"]);
    topology.bolt("sum", Sum::default).shuffle("pass").tick_every(Duration::from_secs(1));
    stormkeeper_topology::run(topology)
}
