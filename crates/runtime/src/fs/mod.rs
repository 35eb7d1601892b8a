//! Files and directories of daemons. All functions block.

pub mod layout_file;

pub use layout_file::LayoutFile;
