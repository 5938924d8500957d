//! The `dupfind` program: all of it is in the library's [`cli`](dupfind::cli).

use std::process::ExitCode;

fn main() -> ExitCode {
    dupfind::cli::run()
}
