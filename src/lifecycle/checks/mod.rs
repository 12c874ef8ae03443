//! Checks that every server wants, ready to be registered.

mod control_group;
mod disk;
mod memory;
mod progress;
mod runtime;

pub use disk::disk_space;
pub use memory::memory_pressure;
pub use runtime::RuntimeWatch;

/// A number of bytes for humans, rounded down.
fn in_mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
