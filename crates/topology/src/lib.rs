//! Stream topologies in Rust: spouts, bolts, and the program that is their worker.
//!
//! A topology is a graph of *spouts*, which bring tuples in, and *bolts*, which receive tuples and may emit
//! further ones. Each runs as a number of *tasks*, spread over worker processes on the hosts of a cluster. A
//! program that calls [`run`] has the code of all of them, and is the worker process.
//!
//! ```no_run
//! use std::{collections::HashMap, process::ExitCode};
//! use stormkeeper_topology::{Bolt, BoltOutput, Error, Spout, SpoutOutput, TopologyBuilder, Tuple};
//!
//! /// Emits lines, each once.
//! struct Lines {
//!     next: usize,
//! }
//!
//! const LINES: [&str; 2] = ["to be or not to be", "that is the question"];
//!
//! impl Spout for Lines {
//!     fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
//!         if let Some(line) = LINES.get(self.next) {
//!             // With an id, `ack` or `fail` tells what became of it.
//!             out.emit_with_id(self.next as u64, (*line,))?;
//!             self.next += 1;
//!         }
//!         Ok(())
//!     }
//!
//!     fn fail(&mut self, id: u64) {
//!         self.next = self.next.min(id as usize);
//!     }
//! }
//!
//! struct Split;
//!
//! impl Bolt for Split {
//!     fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
//!         for word in tuple.str("line")?.split(' ') {
//!             out.emit((word,))?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Count {
//!     counts: HashMap<String, u64>,
//! }
//!
//! impl Bolt for Count {
//!     fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
//!         *self.counts.entry(tuple.str("word")?.to_owned()).or_default() += 1;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     let mut topology = TopologyBuilder::new("words");
//!     topology.setting("topology.workers", 2);
//!     topology.spout("lines", || Lines { next: 0 }).output(["line"]);
//!     topology.bolt("split", || Split).parallelism(2).shuffle("lines").output(["word"]);
//!     topology.bolt("count", Count::default).parallelism(2).fields("split", ["word"]);
//!     stormkeeper_topology::run(topology)
//! }
//! ```
//!
//! # To build, to try and to submit
//!
//! In `Cargo.toml`, name this crate by the path of a checkout; its own dependencies come from the registry:
//!
//! ```toml
//! [dependencies]
//! stormkeeper-topology = { path = "../stormkeeper/crates/topology" }
//! ```
//!
//! ```text
//! cargo build --release
//! stormkeeper submit target/release/words --wait
//! stormkeeper show words
//! ```
//!
//! The hosts need nothing but a supervisor. The submit refuses a program for another processor, for a newer
//! C library than a host has, or of an incompatible version.
//!
//! # Guarantees
//!
//! - The tuples that a spout emits with an id are tracked: it is told once whether each of them, and all
//!   that bolts derived from it, was processed. A spout that emits failed tuples again, and that after a
//!   restart goes on from its oldest tuple that was not acked, is processed at least once.
//! - What a bolt emits while it executes a tuple is derived from that tuple; the tuple is acked when
//!   [`Bolt::execute`] returns `Ok`, and fails when it returns an error. [`BoltOutput::hold`] keeps it, for
//!   batches.
//! - Tuples from one task to another arrive in the order in which they were emitted, as long as both
//!   tasks stay where they are.
//! - A component may block and may take long. While a receiver has no room, its emitters wait.
//! - Events of the crate `tracing` are in the log of the worker (`stormkeeper logs`). What a component prints
//!   is in another file, and a print panics if the disk of the logs is full.
//! - A panic ends one instance, and is a task error: its tuples fail, and a new instance is made after a
//!   delay.
//!
//! # Windows
//!
//! A [`WindowBolt`] processes tuples together that are neighbours by count or by a time in them:
//! [`Windows::by_count`] and [`Windows::by_time`].
//!
//! # Values
//!
//! A tuple has one value for each declared field: null, booleans, whole numbers, floats, text, lists and maps
//! ([`Value`]). A component in Python can receive what one in Rust emits, and the reverse:
//! [`TopologyBuilder::shell_bolt`].

mod builder;
mod program;
mod windows;

#[cfg(test)]
mod tests;

pub use builder::{Declaration, Defects, Source, TopologyBuilder};
pub use program::run;
pub use windows::{Window, WindowBolt, WindowOutput, Windowed, Windows};

pub use stormkeeper_metrics::instrument::{Counter, Gauge, Histogram, Meter, Timer};
pub use stormkeeper_model::{ComponentId, StreamId, TaskId, TopologyId};
pub use stormkeeper_stream::Value;
pub use stormkeeper_worker::component::{
    Bolt, BoltEmission, BoltOutput, EmitError, EmitValue, EmitValues, Error, Field, FieldError, Held,
    OwnedTuple, Spout, SpoutEmission, SpoutOutput, TopologyContext, Tuple, Values,
};
