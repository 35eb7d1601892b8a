//! Files and directories of daemons. All functions block.

pub mod atomic_file;
pub mod layout_file;

pub use layout_file::LayoutFile;
