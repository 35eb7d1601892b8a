//! Configuration: `storm.yaml`, the command line and the environment on top of defaults.
//!
//! [`Config::load`] reads the layers and checks all of them before anything opens; every
//! value knows where it came from. Keys are Storm's where Storm has the key ([`key::all`]
//! is the table; `topology.*` keys are in [`stormkeeper_model::settings`]). A key that is
//! unknown, or that means something to Storm only, is a warning: one file may serve both.
//! A value that a known key does not take is an error.
//!
//! Each daemon declares its own `Options`; `options.rs` here creates them from the configuration.

mod exposure;
pub mod key;
mod load;
mod mask;
mod options;
pub mod reference;
pub mod value;

pub use load::{Config, EffectiveValue, Environment, Error, InvalidValue, Provenance, Warning};
pub use options::WorkerTiming;

#[cfg(test)]
mod tests;
