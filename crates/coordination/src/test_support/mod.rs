//! Real ZooKeeper servers for tests.

pub mod zookeeper;
