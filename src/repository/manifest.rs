//! `manifest.json` in a version's folder: the files it consists of, so that a half-copied one is noticed.

use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use super::digest;

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

/// Holds a version's folder against its manifest, if it has one.
///
/// # Errors
/// The first file that is not as it says, in words.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    let text = match fs::read(folder.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{NAME}: {error}")),
    };
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("{NAME}: {error}"))?;
    if !manifest.files.iter().any(|entry| entry.path == "model.onnx") {
        return Err(format!("{NAME}: it does not list model.onnx"));
    }
    manifest.files.iter().try_for_each(|entry| entry.check(folder))
}

impl Entry {
    fn check(&self, folder: &Path) -> Result<(), String> {
        let Self { path, size, sha256 } = self;
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(format!("{NAME}: '{path}' is not inside the version's folder"));
        }
        let file = folder.join(path);
        let is = fs::metadata(&file).map(|metadata| metadata.len());
        let is = is.map_err(|_| format!("'{path}' is not there yet, {NAME} lists it"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[track_caller]
    fn checked(manifest: &str, told: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), "abc").unwrap();
        fs::write(folder.path().join(NAME), manifest.replace("ABC", ABC)).unwrap();
        match (check(folder.path()), told) {
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
        assert_eq!(check(Path::new("/nowhere")), Ok(()));
    }
}
