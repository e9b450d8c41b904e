//! The program `retouch`; everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    retouch_worker::cli::main()
}
