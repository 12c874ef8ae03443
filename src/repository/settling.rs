//! Whether somebody is still copying into a model's folder.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::manifest;
use crate::model::{Glance, Version};

/// Looks at every file of a model. It has settled when each of its versions has: by a manifest, by having
/// been left alone for `stable`, or by having been renamed into place as a whole.
pub(super) fn glance(folder: &Path, stable: Duration) -> io::Result<Glance> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut glance = Glance { settled: true, stamp: String::new() };
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if !path.is_dir() {
            note(&mut glance.stamp, &path, &fs::metadata(&path)?);
            continue;
        }
        let newest = walk(&path, &mut glance.stamp)?;
        let is_version = name.to_str().is_some_and(|name| name.parse::<Version>().is_ok());
        let named = changed(&fs::metadata(&path)?);
        let alone = now.saturating_sub(newest.max(named)) >= stable;
        if is_version && !alone && newest >= named && !path.join(manifest::NAME).exists() {
            glance.settled = false;
        }
    }
    Ok(glance)
}

/// Notes everything below a folder; when the last of it was changed.
fn walk(folder: &Path, stamp: &mut String) -> io::Result<Duration> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    // An empty folder is one that is about to be filled.
    let mut newest = if entries.is_empty() { Duration::MAX } else { Duration::ZERO };
    for entry in entries {
        let path = entry.path();
        let metadata = fs::metadata(&path)?;
        newest = newest.max(changed(&metadata));
        if metadata.is_dir() {
            newest = newest.max(walk(&path, stamp)?);
        } else {
            note(stamp, &path, &metadata);
        }
    }
    Ok(newest)
}

fn note(stamp: &mut String, path: &Path, metadata: &Metadata) {
    let (size, changed) = (metadata.len(), changed(metadata));
    writeln!(stamp, "{} {size} {changed:?} {}", path.display(), metadata.ino())
        .expect("a string takes every text");
}

/// When an entry was written, renamed or linked last.
fn changed(metadata: &Metadata) -> Duration {
    let seconds = Duration::from_secs(metadata.ctime().try_into().unwrap_or_default());
    seconds + Duration::from_nanos(metadata.ctime_nsec().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn settled(folder: &Path) -> bool {
        glance(folder, HOUR).unwrap().settled
    }

    #[test]
    fn what_is_being_copied_has_not_settled() {
        let model = tempfile::tempdir().unwrap();
        fs::create_dir(model.path().join("1")).unwrap();
        assert!(!settled(model.path()), "nothing is there yet");
        fs::write(model.path().join("1/model.onnx"), "abc").unwrap();
        assert!(!settled(model.path()), "it may go on");
        assert!(
            glance(model.path(), Duration::ZERO).unwrap().settled,
            "left alone for long enough"
        );
        fs::write(model.path().join("1/manifest.json"), "{}").unwrap();
        assert!(settled(model.path()), "the manifest is held against it by the load");
    }

    #[test]
    fn what_is_renamed_into_place_has_settled_at_once() {
        let model = tempfile::tempdir().unwrap();
        fs::create_dir(model.path().join(".1")).unwrap();
        fs::write(model.path().join(".1/model.onnx"), "abc").unwrap();
        // The clock of file systems may stand still for some milliseconds.
        let written = changed(&fs::metadata(model.path().join(".1/model.onnx")).unwrap());
        loop {
            fs::rename(model.path().join(".1"), model.path().join("1")).unwrap();
            if changed(&fs::metadata(model.path().join("1")).unwrap()) > written {
                break;
            }
            fs::rename(model.path().join("1"), model.path().join(".1")).unwrap();
        }
        assert!(settled(model.path()));
        let before = glance(model.path(), HOUR).unwrap().stamp;
        fs::write(model.path().join("1/model.onnx"), "abcd").unwrap();
        let after = glance(model.path(), HOUR).unwrap();
        assert!(!after.settled && after.stamp != before, "written into after it was named");
    }
}
