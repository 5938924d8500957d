//! The `dupfind` program: all of it is in the library's [`cli`](dupfind::cli).

use std::process::ExitCode;

/// See `Cargo.toml`.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dupfind::cli::run()
}
