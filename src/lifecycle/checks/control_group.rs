//! The control groups that this process is in, and what they say of memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Memory of which a part is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Bytes that could not be taken back at once.
    pub(super) used: u64,
    /// Bytes in all.
    pub(super) limit: u64,
}

impl Memory {
    pub(super) fn is_over(self, percent: u8) -> bool {
        u128::from(self.used) * 100 > u128::from(self.limit) * u128::from(percent)
    }
}

/// The memory of every control group with a limit that this process is in, from the inside out.
/// Nothing where there are no control groups.
///
/// # Errors
/// A group's file is there and cannot be read.
pub(super) fn around_this_process(root: &Path) -> io::Result<Vec<(String, Memory)>> {
    let groups = read(&root.join("proc/self/cgroup"))?.unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo"))?.unwrap_or_default();
    let Some((version, group)) = own_group(&groups) else {
        return Ok(Vec::new());
    };
    let Some(mount) = mounts.lines().filter_map(Mount::parse).find(|mount| mount.is_of(version))
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for folder in mount.folders(group) {
        if let Some(memory) = version.memory(&below(root, &folder))? {
            found.push((format!("the control group {}", folder.display()), memory));
        }
    }
    Ok(found)
}

/// The version by which memory is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// What the group in `folder` says; `None` where it has no limit or is not there.
    fn memory(self, folder: &Path) -> io::Result<Option<Memory>> {
        let (limit, usage, reclaimable) = match self {
            Self::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
            Self::Two => ("memory.max", "memory.current", "inactive_file "),
        };
        let number = |file: &str| {
            let text = read(&folder.join(file))?;
            Ok(text.and_then(|text| text.trim().parse::<u64>().ok())) as io::Result<Option<u64>>
        };
        // Without a limit it reads `max`, or in version 1 a number that no machine has.
        let (Some(limit), Some(usage)) = (number(limit)?, number(usage)?) else {
            return Ok(None);
        };
        let details = read(&folder.join("memory.stat"))?.unwrap_or_default();
        let reclaimable = details.lines().find_map(|line| line.strip_prefix(reclaimable));
        let reclaimable = reclaimable.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(Some(Memory { used: usage.saturating_sub(reclaimable), limit }))
    }
}

/// The group that controls this process' memory, out of the lines of `/proc/self/cgroup`, which are
/// `number:controllers:path`. Version 2 has no controllers there.
fn own_group(lines: &str) -> Option<(Version, &str)> {
    let entries = || {
        lines.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers, path))
        })
    };
    let one = entries().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
    let two = || entries().find(|(controllers, _)| controllers.is_empty());
    one.map(|(_, path)| (Version::One, path))
        .or_else(|| two().map(|(_, path)| (Version::Two, path)))
}

/// A file system of control groups, out of a line of `/proc/self/mountinfo`.
#[derive(Debug)]
struct Mount<'a> {
    /// Which group is mounted.
    group: &'a str,
    /// Where.
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// A line such as `35 30 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw`.
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let (mut front, mut back) = (front.split(' '), back.split(' '));
        let (group, at) = (front.nth(3)?, front.next()?);
        let (kind, options) = (back.next()?, back.nth(1)?);
        Some(Self { group, at, kind, options })
    }

    fn is_of(&self, version: Version) -> bool {
        match version {
            Version::One => {
                self.kind == "cgroup" && self.options.split(',').any(|option| option == "memory")
            }
            Version::Two => self.kind == "cgroup2",
        }
    }

    /// The folders of a group and of those around it, as far as they are mounted. A group that is not
    /// below what is mounted, as in a container, is what is mounted.
    fn folders(&self, group: &str) -> Vec<PathBuf> {
        let mounted = Path::new(self.at);
        let inside = Path::new(group).strip_prefix(self.group).ok();
        let inside = inside.filter(|path| !path.starts_with("..")).unwrap_or(Path::new(""));
        // Component by component, for joining nothing would leave a slash at the end.
        let folder: PathBuf = mounted.components().chain(inside.components()).collect();
        let around = folder.ancestors().take_while(|path| path.starts_with(mounted));
        around.map(Path::to_owned).collect()
    }
}

/// A path of the system, below `root` instead.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The file's text; `None` if it is not there.
fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
    }
}
