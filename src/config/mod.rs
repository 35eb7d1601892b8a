//! `storm.yaml`, the command line and the environment over defaults.
//!
//! [`Config::load`] reads the layers and checks all of them before anything opens; every
//! value knows where it came from. Keys are Storm's where Storm has the key ([`key::KEYS`]
//! is the table; `topology.*` keys are in [`stormkeeper_model::settings`]). A key that is
//! unknown, or that means something to Storm only, is a warning: one file may serve both.
//! A value that a known key does not take is an error.
//!
//! Each daemon declares what it wants to be told in its own `Options`; `options.rs` here
//! fills them in.

pub mod key;
mod load;
mod options;
pub mod reference;
pub mod value;

pub use load::{Config, Environment, Error, Fault, Provenance, Shown, Warning};
pub use options::WorkerTiming;

#[cfg(test)]
mod tests;
