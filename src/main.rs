//! The program `tenancy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenancy::cli::run()
}
