//! The `stormkeeper` binary.

fn main() {}
