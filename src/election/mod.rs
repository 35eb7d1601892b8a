//! Who leads, and the only way to write what the leader owns.
