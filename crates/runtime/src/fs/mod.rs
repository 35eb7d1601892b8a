//! Files and directories of daemons. All functions block.

pub mod atomic_file;
pub mod failed_writes;
pub mod file_lock;
pub mod former_dir;
pub mod layout_file;
pub mod locked_dir;
pub mod modes;
mod place;
pub mod regular_file;
pub mod rotating_file;

pub use failed_writes::FailedWrites;
pub use file_lock::FileLock;
pub use former_dir::FormerDir;
pub use layout_file::LayoutFile;
pub use locked_dir::LockedDir;
