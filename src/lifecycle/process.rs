//! What the system tells of this process.

use std::fs;
use std::time::Duration;

/// What this process has taken of the machine, read at one moment. `None` where the system does not tell:
/// most of it elsewhere than on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessReport {
    /// Time of the processor, of all threads together.
    pub cpu: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// Files that are open, sockets included.
    pub open_files: Option<u64>,
    /// How many may be.
    pub max_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessReport {
    /// What there is to tell now. Reads files that the system makes up, which takes some 0.1 ms.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name| number(&status, name).and_then(|kilobytes| kilobytes.checked_mul(1024));
        // The folder is one of the files that are open, for as long as it is read.
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
        Self {
            cpu: cpu(),
            resident: bytes("VmRSS:"),
            virtual_memory: bytes("VmSize:"),
            open_files: files.and_then(|count| u64::try_from(count).ok()),
            max_files: max_files(),
            threads: number(&status, "Threads:"),
        }
    }
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(unix)]
fn cpu() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(unix)]
fn max_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn cpu() -> Option<Duration> {
    None
}

#[cfg(not(unix))]
fn max_files() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_name() {
        let status = "VmSize:\t     20 kB\nVmRSS:\t     12 kB\nThreads:\t7\n";
        assert_eq!((number(status, "VmRSS:"), number(status, "Threads:")), (Some(12), Some(7)));
        assert_eq!(number(status, "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_everything() {
        let ProcessReport { cpu, resident, virtual_memory, open_files, max_files, threads } =
            ProcessReport::now();
        assert!(cpu.unwrap() > Duration::ZERO && threads.unwrap() >= 1);
        assert!((1 << 20..virtual_memory.unwrap()).contains(&resident.unwrap()));
        assert!((3..max_files.unwrap()).contains(&open_files.unwrap()));
    }
}
