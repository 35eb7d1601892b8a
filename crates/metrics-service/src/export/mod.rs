//! Export of metrics to external stores: [`close_minutes`] releases complete minutes to the export
//! queue, and [`runner`] feeds one exporter from it.

pub(crate) mod close_minutes;
pub mod exporters;
pub(crate) mod runner;
