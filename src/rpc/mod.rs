//! What daemons and clients say to each other by HTTP: the bodies of requests and answers,
//! and the client that asks a nimbus.

pub mod client;
pub mod message;
