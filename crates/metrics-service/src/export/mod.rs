//! Export of metrics to external stores: `close_minutes` releases complete minutes to the export
//! queue, and `runner` feeds one exporter from it. [`Export`] has the state of all exporters.

mod close_minutes;
pub mod exporters;
mod runner;
mod state;

pub(crate) use state::{EventFanout, Export};
