//! Storm's multilang protocol: components in any language over their stdin and stdout.
//!
//! ```text
//!  task loop ─ ToChild ─ frame ─▶ stdin ┐
//!                                       child process ─ stderr ─▶ log, and its last lines
//!  task loop ◀ FromChild ─ frame ─ stdout ┘
//! ```
//!
//! [`frame`] cuts bytes into messages, [`message`] gives them types, [`handshake`] makes the
//! first one, and [`child`] owns the process. What a message means to a spout or a bolt is
//! decided in `worker::task`.

pub mod child;
pub mod frame;
pub mod handshake;
pub mod message;

/// The Python adapter, written to every worker's directory as `python/stormkeeper.py`.
pub const PYTHON_ADAPTER: &str = include_str!("stormkeeper.py");
