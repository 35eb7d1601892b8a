//! Storm's multilang protocol: components in any language, over their stdin and stdout.
//!
//! ```text
//!  task loop ─ ToChild ─ frame ─▶ stdin ┐
//!                                       child process ─ stderr ─▶ log, and its last lines
//!  task loop ◀ FromChild ─ frame ─ stdout ┘
//! ```
//!
//! [`frame`] splits bytes into messages, [`message`] defines their types, [`handshake`] builds the
//! first message, and [`child`] owns the process. [`codec`] selects JSON or MessagePack, and [`batch`]
//! is the dialect of many tuples in one message. `fields` and `repair` take messages as Storm's own
//! serializer takes them, and `salvage` finds what the answer to a refused emit needs. `worker::task`
//! decides what a message means to a spout or a bolt.

pub mod batch;
pub mod child;
pub mod codec;
mod fields;
pub mod frame;
pub mod handshake;
pub mod message;
mod messagepack;
mod repair;
mod salvage;

/// Python adapter, written to the directory of each worker as `python/stormkeeper.py`.
pub const PYTHON_ADAPTER: &str = include_str!("../../../../python/stormkeeper.py");
