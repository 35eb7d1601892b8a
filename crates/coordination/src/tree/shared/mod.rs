//! A memory tree for other processes of the same host, over a Unix socket: local mode runs worker programs.
//!
//! Each connection has a session of its own at the [memory tree](super::memory), which ends with it. One
//! message is a length and JSON; requests are answered in their order, so the guarantees are those of the
//! memory tree. Both ends are of one build: the messages have no version.

mod client;
mod messages;
mod server;
#[cfg(test)]
mod tests;

pub use client::SharedTree;
pub use server::serve;
