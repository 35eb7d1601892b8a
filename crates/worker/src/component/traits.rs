//! Traits that an author implements.

use super::{BoltOutput, SpoutOutput, TopologyContext, Tuple};

/// Error of a component, of any type. It becomes a task error with its whole chain of causes.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A source of tuples. Each task has an instance of its own, which is used by one thread.
///
/// Tuples that are emitted with an id are tracked: [`ack`](Self::ack) or [`fail`](Self::fail) is called
/// once for each of them, by the instance that emitted it. A spout that must not lose anything emits a failed
/// tuple again, and remembers outside of the worker from where to go on after a restart.
pub trait Spout: Send {
    /// Prepares the instance, before all other calls.
    ///
    /// # Errors
    /// The task then counts as failed, and a new instance is made after a delay.
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let _unused = context;
        Ok(())
    }

    /// Emits the next tuples, if there are any. Called again and again while the topology is active and
    /// fewer than `topology.max.spout.pending` tuples are pending; after a call that emits nothing there is a
    /// short pause. It may block, but no `ack` or `fail` is called meanwhile.
    ///
    /// # Errors
    /// Reported as a task error; the next call follows after a pause.
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error>;

    /// The tuple with this id, and all that bolts derived from it, is processed.
    fn ack(&mut self, id: u64) {
        let _unused = id;
    }

    /// The tuple with this id was failed by a bolt or was not processed in time.
    fn fail(&mut self, id: u64) {
        let _unused = id;
    }

    /// The topology has become active: calls of [`next`](Self::next) follow.
    fn activate(&mut self) {}

    /// The topology has been deactivated: no call of [`next`](Self::next) follows until it is active again.
    fn deactivate(&mut self) {}

    /// Releases what the instance holds, before its worker stops. Not called if the worker is killed.
    fn close(&mut self) {}
}

/// A receiver of tuples. Each task has an instance of its own, which is used by one thread.
pub trait Bolt: Send {
    /// Prepares the instance, before all other calls.
    ///
    /// # Errors
    /// The task then counts as failed, and a new instance is made after a delay.
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let _unused = context;
        Ok(())
    }

    /// Processes a tuple. What it emits is derived from the tuple. The tuple is acked when the call returns
    /// `Ok`, unless it is [held](BoltOutput::hold). It may block.
    ///
    /// # Errors
    /// The tuple fails, unless it is held, and the error is reported as a task error.
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error>;

    /// Called every `topology.tick.tuple.freq.secs`, if that is set, between two tuples. A late bolt gets one
    /// tick, not all missed ones.
    ///
    /// # Errors
    /// Reported as a task error.
    fn tick(&mut self, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        let _unused = out;
        Ok(())
    }

    /// Called three times in each message timeout while tuples are [held](BoltOutput::hold), between two
    /// tuples. A bolt that holds tuples for as long as it takes [resets](BoltOutput::reset_timeout) their
    /// timeouts here; others fail when they have been held for the timeout, and their spout may emit them
    /// again.
    fn renew(&mut self, out: &mut BoltOutput<'_>) {
        let _unused = out;
    }

    /// Releases what the instance holds, before its worker stops. Not called if the worker is killed.
    fn cleanup(&mut self) {}
}
