//! What models take of the machine's memory.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Resident memory of this process, before something and after it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryChange {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

impl MemoryChange {
    /// By how many bytes it has grown; below zero where it has shrunk.
    pub fn grown(self) -> i64 {
        let apart = i64::try_from(self.after.abs_diff(self.before)).unwrap_or(i64::MAX);
        if self.after < self.before { -apart } else { apart }
    }
}

/// Measures what one piece of work does to the resident memory, where no other does meanwhile.
#[derive(Debug, Default)]
pub(super) struct MemoryMeter {
    begun: AtomicU64,
    under_way: AtomicU64,
}

impl MemoryMeter {
    /// Runs the work; the change it has made, `None` where other work was under way too or the system
    /// does not tell. What requests take meanwhile counts as the work's.
    pub(super) fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Option<MemoryChange>) {
        let alone = self.under_way.fetch_add(1, Ordering::SeqCst) == 0;
        let mine = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let before = resident();
        let result = work();
        let after = resident();
        let alone = alone && self.begun.load(Ordering::SeqCst) == mine;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let change = before.zip(after).map(|(before, after)| MemoryChange { before, after });
        (result, change.filter(|_| alone))
    }
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

    #[cfg(target_os = "linux")]
    #[test]
    fn what_grows_is_measured_unless_others_grow_too() {
        const SIZE: usize = 64 << 20;
        let meter = MemoryMeter::default();
        let (_kept, change) = meter.measure(|| vec![1_u8; SIZE]);
        // Other tests take memory at the same time.
        assert!(change.unwrap().grown() > i64::try_from(SIZE / 2).unwrap(), "{change:?}");
        let (((), inner), outer) = meter.measure(|| meter.measure(|| ()));
        assert_eq!((inner, outer), (None, None));
    }
}
