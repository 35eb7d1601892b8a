//! The `stormkeeper` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    stormkeeper::cli::run(std::env::args_os())
}
