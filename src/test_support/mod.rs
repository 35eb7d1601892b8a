//! Test support: waiting, ZooKeeper servers, topologies, injected bugs and the simulation.

mod generated;
pub mod sabotage;
pub mod sim;
pub mod topologies;
mod wait;
pub mod zookeeper;

pub use generated::assert_generated;
pub use wait::wait_until;
