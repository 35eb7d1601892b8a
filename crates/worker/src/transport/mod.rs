//! Transport of tuples: by queue between the tasks of one worker, by TCP between workers.
//!
//! ```text
//!  emitting task ─ Outbox ─┬─ inbox of a task in this worker
//!                          └─ queue of a component at a peer ─ sender ══ TCP ══ Listener ─ inbox there
//! ```
//!
//! - [`Inboxes`] are the queues of this worker's tasks, [`Peers`] the connections to the
//!   other workers of the assignment, [`Outbox`] an emitting task's access to both, and
//!   [`Listener`] receives the tuples that other workers send.
//! - Every queue is bounded, and has a lane for each emitter ([`INBOX_TUPLES`], [`PEER_QUEUE_TUPLES`], one
//!   frame and the kernel's buffers per connection). The sender to a full queue waits, so that a slow bolt
//!   slows its spouts. A receiver that waits for one full inbox reads nothing else of that
//!   connection, so each component has a queue and a connection of its own in every other
//!   worker that runs tasks of it.
//! - Waits therefore follow the topology: a waiting task waits for tasks of a component
//!   that it emits to, directly or behind tuples for the same component. Without a cycle, each
//!   chain of waits ends at components that emit nothing and wait for no task, so all queues
//!   drain, provided that all workers live and are reachable.
//! - In a cycle of bolts, each bolt waits for the next when all queues around it are full. No queue grows to
//!   prevent that: the emitter gives up after a time (`task/cycle.rs`).
//! - Tuples between two tasks keep their order, also over TCP, while the connection lives. After
//!   a reconnect, tuples that the receiver had buffered from the old connection may arrive after
//!   tuples from the new connection.
//! - Delivery is at most once. Lost are: frames handed to the kernel that the receiver had
//!   not read when the connection broke; tuples queued for a peer that leaves the
//!   assignment; tuples sent to a worker that does not run their task. A frame whose last byte
//!   was not handed to the kernel is sent again on the next connection: the receiver uses no
//!   part of an incomplete frame, so no tuple arrives twice; a frame that does arrive twice is
//!   rejected by its number. All losses but those in the kernel are counted in [`Counters`].
//! - A frame that is wrong or forged costs the connection on which it comes, and no other one. The
//!   receiver says why it closes a connection; the sender connects again under a new number, after
//!   pauses that grow to two seconds while connections break soon.
//! - Connections are accepted from workers of the assignment only (`Membership`), which, where the
//!   cluster is locked, prove that they have the key of the topology (`greeting`), over TLS if it is required
//!   (`stream`). Unfinished frames
//!   hold a bounded number of bytes for a bounded time (`FrameBudget`), and idle connections end: by
//!   the sender first, so that no frame is lost.

#[cfg(feature = "test-support")]
pub mod bench_support;
mod connection;
mod counters;
mod frame_budget;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod greeting;
mod intake;
mod listener;
mod membership;
mod metrics;
mod outbox;
mod peer;
mod peers;
mod replay;
mod stream;
mod trouble;
pub(crate) mod wire;

pub use counters::{Counters, Counts};
pub(crate) use frame_budget::FrameBudget;
pub(crate) use greeting::{PeerKeys, greet};
pub(crate) use intake::Intake;
pub use listener::Listener;
pub(crate) use membership::Membership;
pub(crate) use metrics::{ConnectionMetricSet, TransportMetrics};
pub use outbox::{Outbox, Sent};
pub(crate) use peers::OwnHost;
pub use peers::{Inboxes, Peers};
pub(crate) use stream::PeerStream;

use crate::queue::Capacity;
use stormkeeper_model::{Slot, TopologyId};

/// Capacity in tuples of a lane of a task's inbox: what a connection or a task of this worker has sent and
/// the task has not begun with. A bolt that processes 10,000 tuples a second has 0.1 s of work in it.
pub const INBOX_TUPLES: usize = 1024;

/// Capacity in tuples of a lane of the queue for one component at one peer. A worker has one such queue for
/// each component of each other worker that its tasks emit to, with a lane for each of these tasks.
pub const PEER_QUEUE_TUPLES: usize = crate::limits::BATCH_TUPLES_MAX;

/// Capacity in bytes of a lane; a tuple that is larger is taken alone. Full batches of small tuples fit.
const LANE_BYTES: usize = 128 << 10;

const INBOX: Capacity = Capacity { tuples: INBOX_TUPLES, bytes: LANE_BYTES };
const PEER_QUEUE: Capacity = Capacity { tuples: PEER_QUEUE_TUPLES, bytes: LANE_BYTES };

/// Identity of a worker in a handshake. A connection names the worker that it is meant for, and
/// every other worker refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Topology that the worker runs tasks of.
    pub topology: TopologyId,
    /// Slot that the worker occupies.
    pub slot: Slot,
}

#[cfg(test)]
mod tests;
