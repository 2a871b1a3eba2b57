//! Arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

/// Small requests spend a tenth of their time in the allocator; mimalloc halves that, and does not give 64 KiB buffers back at every turn.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vanne::cli::main()
}
