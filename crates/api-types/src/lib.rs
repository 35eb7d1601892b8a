//! The HTTP API of a nimbus as its callers see it.
//!
//! - [`authorized`]: the client that proves who sends its requests.
//! - [`message`]: JSON bodies of requests and responses.
//! - [`agent_client`]: asks the agents of supervisors for logs.
//! - [`client`]: the client of the command line, supervisors and workers.
//! - [`forward`]: passes a write from a follower to the leader.
//! - [`blobs`]: streams blobs between nimbuses and to supervisors.
//! - [`http`]: the client and the bounded responses that all of them use.
//! - [`leader_clock`]: compares the clock of this host with the leader's.
//! - [`log_lines`]: selects lines of a worker's log.
//! - [`routes`]: prefix of all routes, and requests to nimbuses of builds before it.
//! - [`seen`]: changes that a client has written or seen.
//! - [`replica_client`]: fetches the metric log and checkpoints from another nimbus.

pub mod agent_client;
pub mod authorized;
pub mod blobs;
pub mod client;
pub mod forward;
pub mod http;
pub mod leader_clock;
pub mod log_lines;
pub mod message;
pub mod proof_check;
pub mod replica_client;
pub mod routes;
mod scheme;
pub mod seen;
