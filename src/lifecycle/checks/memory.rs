//! The memory that is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::control_group::{self, Memory};
use super::in_mebibytes;
use crate::lifecycle::health::{Check, CheckKind};

/// A readiness check `memory_pressure`, not critical, that fails while more than `max_percent` of the
/// memory is used that this process may use: of its control group, of any group around it that has a
/// limit, or of the machine. What the kernel can take back at once, such as files that it keeps in
/// memory, does not count as used.
///
/// Control groups of version 2 and version 1 are read, also inside a container. `None` where the
/// system does not tell: elsewhere than on Linux.
///
/// ```
/// use onward::lifecycle::checks::memory_pressure;
///
/// # #[cfg(target_os = "linux")]
/// assert!(memory_pressure(90).is_some());
/// ```
pub fn memory_pressure(max_percent: u8) -> Option<Check> {
    let root = PathBuf::from("/");
    of_machine(&root).is_ok().then(|| {
        let probe = move || judge(&root, max_percent);
        Check::blocking("memory_pressure", CheckKind::Readiness, probe).not_critical()
    })
}

/// Judges the system whose files are below `root`.
fn judge(root: &Path, max_percent: u8) -> Result<(), String> {
    let told = |error: io::Error| format!("the system does not tell of its memory: {error}");
    let machine = of_machine(root).map_err(told)?;
    let mut all = vec![("the machine".to_owned(), machine)];
    all.extend(control_group::around_this_process(root).map_err(told)?);
    let pressed: Vec<String> = all
        .iter()
        .filter(|(_, memory)| memory.is_over(max_percent))
        .map(|(what, memory)| {
            let (used, limit) = (in_mebibytes(memory.used), in_mebibytes(memory.limit));
            format!("{used} of {limit} of {what} are used, more than {max_percent}%")
        })
        .collect();
    if pressed.is_empty() { Ok(()) } else { Err(pressed.join("; ")) }
}

fn of_machine(root: &Path) -> io::Result<Memory> {
    let text = fs::read_to_string(root.join("proc/meminfo"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.map(|count| count.saturating_mul(1024)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in /proc/meminfo"))
        })
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    Ok(Memory { used: total.saturating_sub(available), limit: total })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    /// A system's files: 1000 MiB of memory, of which 200 are used.
    fn system(files: &[(&str, &str)]) -> TempDir {
        let meminfo = "MemTotal:  1024000 kB\nMemFree:  1 kB\nMemAvailable:  819200 kB\n";
        let root = TempDir::new().unwrap();
        for (path, content) in [("proc/meminfo", meminfo)].iter().chain(files) {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        root
    }

    /// The percentage from which on the system does not fail any more.
    fn percent(root: &TempDir) -> u8 {
        (0..=100).find(|percent| judge(root.path(), *percent).is_ok()).unwrap()
    }

    fn bytes(mebibytes: u64) -> String {
        format!("{}\n", mebibytes * MEBIBYTE)
    }

    #[test]
    fn without_control_groups_the_machine_decides() {
        assert_eq!(percent(&system(&[])), 20);
        let error = judge(system(&[]).path(), 19).unwrap_err();
        assert_eq!(error, "200 MiB of 1000 MiB of the machine are used, more than 19%");
        assert!(judge(TempDir::new().unwrap().path(), 100).unwrap_err().contains("does not tell"));
    }

    const MOUNT_V2: &str = "\
        30 23 0:26 / /sys rw - sysfs sysfs rw\n\
        35 30 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// A container has its own group at the root of what it sees.
    #[test]
    fn a_container_with_control_groups_of_version_2() {
        let root = system(&[
            ("proc/self/mountinfo", MOUNT_V2),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", &bytes(100)),
            ("sys/fs/cgroup/memory.current", &bytes(90)),
            (
                "sys/fs/cgroup/memory.stat",
                &format!("anon 1\ninactive_file {}\nfile 9\n", 40 * MEBIBYTE),
            ),
        ]);
        assert_eq!(percent(&root), 50);
        let error = judge(root.path(), 49).unwrap_err();
        assert_eq!(
            error,
            "50 MiB of 100 MiB of the control group /sys/fs/cgroup are used, more than 49%"
        );
    }

    /// The limit may be that of a group further up; the group itself has none.
    #[test]
    fn a_service_whose_slice_has_the_limit() {
        let slice = "sys/fs/cgroup/models.slice";
        let service = format!("{slice}/onward.service");
        let root = system(&[
            ("proc/self/mountinfo", MOUNT_V2),
            ("proc/self/cgroup", "0::/models.slice/onward.service\n"),
            (&format!("{service}/memory.max"), "max\n"),
            (&format!("{service}/memory.current"), &bytes(10)),
            (&format!("{slice}/memory.max"), &bytes(100)),
            (&format!("{slice}/memory.current"), &bytes(70)),
            (&format!("{slice}/memory.stat"), "inactive_file 0\n"),
        ]);
        assert_eq!(percent(&root), 70);
    }

    /// Version 1, as Docker mounts it: the group's path is that of the machine, and what is mounted is
    /// that group.
    #[test]
    fn a_container_with_control_groups_of_version_1() {
        let root = system(&[
            (
                "proc/self/mountinfo",
                "40 30 0:31 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                 41 30 0:32 /docker/abc /sys/fs/cgroup/memory ro master:2 - cgroup cgroup rw,memory\n",
            ),
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", &bytes(100)),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", &bytes(95)),
            (
                "sys/fs/cgroup/memory/memory.stat",
                &format!("cache 1\ninactive_file 1\ntotal_inactive_file {}\n", 35 * MEBIBYTE),
            ),
        ]);
        assert_eq!(percent(&root), 60);
    }

    /// Both versions are mounted, as systemd does it, and memory is a matter of version 1.
    #[test]
    fn both_versions_at_once() {
        let root = system(&[
            (
                "proc/self/mountinfo",
                "32 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("proc/self/cgroup", "4:memory:/jobs/7\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", &bytes(900)),
            ("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", &bytes(100)),
            ("sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", &bytes(44)),
        ]);
        assert_eq!(percent(&root), 44);
    }

    #[test]
    fn groups_without_a_limit_or_out_of_sight_do_not_count() {
        for (mounts, group) in [
            (MOUNT_V2, "0::/\n"),
            (MOUNT_V2, "0::/../../elsewhere\n"),
            (MOUNT_V2, "0::/gone\n"),
            ("", "0::/a\n"),
            (MOUNT_V2, ""),
            ("nonsense\n - \n1 2 3 - cgroup2\n", "nonsense\n1:2\n"),
        ] {
            let root = system(&[("proc/self/mountinfo", mounts), ("proc/self/cgroup", group)]);
            assert_eq!(percent(&root), 20, "{mounts:?} {group:?}");
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn this_system_tells() {
        use crate::lifecycle::{CheckStatus, EventBus, HealthRegistry};
        let minute = std::time::Duration::from_mins(1);
        let health = HealthRegistry::new(minute, minute, EventBus::new(8));
        for (max_percent, expected) in [(0, CheckStatus::Failing), (100, CheckStatus::Passing)] {
            health.register(memory_pressure(max_percent).unwrap());
            let detail = health.run(CheckKind::Readiness, "memory_pressure").await.unwrap();
            assert_eq!(detail.report.status, expected, "{detail:?}");
            assert!(health.verdict(CheckKind::Readiness).passing, "it is not critical");
        }
    }
}
