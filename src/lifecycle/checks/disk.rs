//! The space that is left on a disk.

use std::path::PathBuf;

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::in_mebibytes;
use crate::lifecycle::health::{Check, CheckKind};

/// A readiness check `disk_space`, not critical, that fails while the file system of `path` has fewer
/// than `min_free` bytes or no file left for those who are not root. One that is mounted read-only
/// passes: nobody writes there.
///
/// ```
/// use onward::lifecycle::checks::disk_space;
///
/// let check = disk_space("/srv/models", 1 << 30);
/// ```
pub fn disk_space(path: impl Into<PathBuf>, min_free: u64) -> Check {
    let path = path.into();
    let probe = move || match statvfs(&path) {
        Ok(told) => Space::from(told)
            .judge(min_free)
            .map_err(|problem| format!("the file system of {} has {problem}", path.display())),
        Err(error) => Err(format!("the file system of {} tells nothing: {error}", path.display())),
    };
    // A file system in the network may not answer.
    Check::blocking("disk_space", CheckKind::Readiness, probe).not_critical()
}

/// What a file system tells.
#[derive(Debug, Clone, Copy)]
struct Space {
    read_only: bool,
    /// Bytes for those who are not root.
    free: u64,
    /// How many more files it can hold; `None` where it has no such number.
    files: Option<u64>,
}

impl From<StatVfs> for Space {
    fn from(told: StatVfs) -> Self {
        Self {
            read_only: told.f_flag.contains(StatVfsMountFlags::RDONLY),
            free: told.f_bavail.saturating_mul(told.f_frsize),
            files: (told.f_files > 0).then_some(told.f_favail),
        }
    }
}

impl Space {
    fn judge(self, min_free: u64) -> Result<(), String> {
        if self.read_only {
            return Ok(());
        }
        if self.free < min_free {
            let (free, wanted) = (in_mebibytes(self.free), in_mebibytes(min_free));
            return Err(format!("{free} left, which is less than {wanted}"));
        }
        match self.files {
            Some(0) => Err("space left, but no room for another file".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_compared_with_what_should_be() {
        let mebibyte = 1 << 20;
        let space = Space { read_only: false, free: mebibyte, files: Some(9) };
        assert_eq!(space.judge(mebibyte), Ok(()));
        let less = Space { free: mebibyte - 1, ..space };
        assert_eq!(less.judge(mebibyte), Err("0 MiB left, which is less than 1 MiB".to_owned()));
        assert_eq!(Space { free: 0, ..space }.judge(0), Ok(()));
        let full = Space { read_only: true, free: 0, files: Some(0) };
        assert_eq!(full.judge(mebibyte), Ok(()));
        assert_eq!(Space { files: None, ..space }.judge(mebibyte), Ok(()));
        let error = Space { files: Some(0), ..space }.judge(mebibyte).unwrap_err();
        assert!(error.contains("no room for another file"), "{error}");
    }

    #[tokio::test]
    async fn a_real_file_system_tells() {
        use crate::lifecycle::{CheckStatus, EventBus, HealthRegistry};
        let minute = std::time::Duration::from_mins(1);
        let health = HealthRegistry::new(minute, minute, EventBus::new(8));
        let folder = tempfile::TempDir::new().unwrap();
        for (path, min_free, expected) in [
            (folder.path().to_owned(), 0, CheckStatus::Passing),
            (folder.path().to_owned(), u64::MAX, CheckStatus::Failing),
            (folder.path().join("nowhere"), 0, CheckStatus::Failing),
        ] {
            health.register(disk_space(&path, min_free));
            let report = health.run(CheckKind::Readiness, "disk_space").await.unwrap().report;
            assert_eq!(report.status, expected, "{report:?}");
            if let Some(error) = report.last_error {
                assert!(error.contains(&path.display().to_string()), "{error}");
            }
            assert!(health.verdict(CheckKind::Readiness).passing, "it is not critical");
        }
    }
}
