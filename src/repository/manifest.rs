//! `manifest.json` in a version's folder: the files it consists of, so that a half-copied one is noticed.

use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use super::digest;

/// The largest manifest.
const LARGEST: u64 = 16 << 20;

/// The file's name.
pub(super) const NAME: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    size: u64,
    sha256: String,
}

/// Whether a version's folder has a manifest and every file that it lists, each of the size that it says.
/// What is in them is held against it by [`check`].
pub(super) fn is_met(folder: &Path) -> bool {
    let file = folder.join(NAME);
    let is_readable =
        |file: &Path| fs::metadata(file).is_ok_and(|it| it.is_file() && it.len() <= LARGEST);
    let text = is_readable(&file).then(|| fs::read(&file).ok()).flatten();
    let manifest = text.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
    manifest.is_some_and(|manifest| {
        let is_there = |Entry { path, size, .. }: &Entry| {
            fs::metadata(folder.join(path)).is_ok_and(|it| it.len() == *size)
        };
        !manifest.files.is_empty() && manifest.files.iter().all(is_there)
    })
}

/// Holds a version's folder against its manifest, if it has one.
///
/// # Errors
/// The first file that is not as it says, in words.
pub(super) fn check(folder: &Path, root: &Path) -> Result<(), String> {
    let file = folder.join(NAME);
    if fs::symlink_metadata(&file).is_err() {
        return Ok(());
    }
    let size = regular(&file, root).map_err(|problem| format!("{NAME}: {problem}"))?;
    if size > LARGEST {
        return Err(format!("{NAME}: it has {size} bytes, {LARGEST} at most are read"));
    }
    let text = fs::read(&file).map_err(|error| format!("{NAME}: {error}"))?;
    hold(folder, &text, root)
}

/// Holds a version's folder against the text of its manifest.
fn hold(folder: &Path, text: &[u8], root: &Path) -> Result<(), String> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| format!("{NAME}: {error}"))?;
    if !manifest.files.iter().any(|entry| entry.path == "model.onnx") {
        return Err(format!("{NAME}: it does not list model.onnx"));
    }
    manifest.files.iter().try_for_each(|entry| entry.check(folder, root))
}

/// The size of a file that is one, or a link to one below `root`: nothing else ends, or is anybody's
/// business.
fn regular(file: &Path, root: &Path) -> Result<u64, String> {
    let real = file.canonicalize().map_err(|error| error.to_string())?;
    if !real.starts_with(root) {
        return Err("it is a link that leads out of the repository".to_owned());
    }
    let metadata = fs::metadata(&real).map_err(|error| error.to_string())?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err("it is not a file".to_owned()) }
}

impl Entry {
    fn check(&self, folder: &Path, root: &Path) -> Result<(), String> {
        let Self { path, size, sha256 } = self;
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(format!("{NAME}: '{path}' is not inside the version's folder"));
        }
        let file = folder.join(path);
        if fs::symlink_metadata(&file).is_err() {
            return Err(format!("'{path}' is not there yet, {NAME} lists it"));
        }
        let is = regular(&file, root).map_err(|problem| format!("'{path}': {problem}"))?;
        if is != *size {
            return Err(format!("'{path}' has {is} bytes, {size} by {NAME}: it is not complete"));
        }
        let found = digest::of_file(&file).map_err(|error| format!("'{path}': {error}"))?;
        if found != sha256.to_ascii_lowercase() {
            return Err(format!("'{path}' has the SHA-256 {found}, {sha256} by {NAME}"));
        }
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing {
    //! Manifests, fuzzed.

    use super::{Path, hold};

    /// A manifest: nothing outside the folder that it is in is looked at, and so nothing is found.
    pub fn manifest(text: &[u8]) {
        assert!(hold(Path::new("/nowhere"), text, Path::new("/")).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[track_caller]
    fn checked(manifest: &str, told: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), "abc").unwrap();
        fs::write(folder.path().join(NAME), manifest.replace("ABC", ABC)).unwrap();
        match (check(folder.path(), &folder.path().canonicalize().unwrap()), told) {
            (Ok(()), None) => {}
            (Err(error), Some(told)) => assert!(error.contains(told), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn files_are_as_the_manifest_says_or_the_version_is_not_loaded() {
        let of = |path: &str, size: u64, sha256: &str| {
            format!(r#"{{"files": [{{"path": "{path}", "size": {size}, "sha256": "{sha256}"}}]}}"#)
        };
        checked(&of("model.onnx", 3, "ABC"), None);
        checked(&of("model.onnx", 4, "ABC"), Some("has 3 bytes, 4 by"));
        checked(&of("model.onnx", 3, "00"), Some("has the SHA-256"));
        checked(&of("weights.bin", 3, "ABC"), Some("does not list model.onnx"));
        checked("{", Some("manifest.json"));
        let two = r#"{"files": [{"path": "model.onnx", "size": 3, "sha256": "ABC"},
            {"path": "PATH", "size": 1, "sha256": "00"}]}"#;
        checked(&two.replace("PATH", "weights.bin"), Some("'weights.bin' is not there yet"));
        checked(&two.replace("PATH", "../secret"), Some("not inside"));
        assert_eq!(check(Path::new("/nowhere"), Path::new("/")), Ok(()));
    }
}
