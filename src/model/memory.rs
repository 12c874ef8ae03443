//! What models take of the machine's memory.

use std::fs;

/// Resident memory of this process, before something and after it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryChange {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

/// The resident memory of this process in bytes; `None` where the system does not tell: elsewhere
/// than on Linux.
pub(super) fn resident() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_in_bytes() {
        assert_eq!(parse("VmHWM:\t     20 kB\nVmRSS:\t     12 kB\n"), Some(12 << 10));
        assert_eq!(parse("VmHWM:\t     20 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(resident().unwrap() > 1 << 20);
    }
}
