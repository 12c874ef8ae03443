//! Finding the ONNX Runtime library and starting it, once per process.

use std::fmt;
use std::path::{Path, PathBuf};

use ort::environment::Environment;

/// What the system's loader calls the library.
const FILE_NAME: &str =
    if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// The folder that `make onnxruntime` fills.
const FETCHED: &str = ".onnxruntime";

/// Where to look for the library. The first file found is used; if it does not work, that is an
/// error and nothing else is tried.
#[derive(Debug, Clone, Default)]
pub struct LibrarySearch {
    /// The file to use, and nothing else: the setting `onnxruntime.library`.
    pub explicit: Option<PathBuf>,
    /// The running program's own file.
    pub executable: Option<PathBuf>,
    /// The folder the program was started in.
    pub working_directory: Option<PathBuf>,
}

/// Why ONNX Runtime cannot be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The file that was named is not there.
    #[error("there is no ONNX Runtime library at {}, which onnxruntime.library names; {ADVICE}", .0.display())]
    Missing(PathBuf),
    /// No file was named and none was found.
    #[error("no ONNX Runtime library found (looked for {}); {ADVICE}", Searched(.0))]
    NotFound(Vec<PathBuf>),
    /// The file is no ONNX Runtime library, or is too old.
    #[error("the ONNX Runtime library {} cannot be used: {reason}; {ADVICE}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
}

const ADVICE: &str = "run 'make onnxruntime' to fetch the right one, or set onnxruntime.library \
                      (ONWARD_ONNXRUNTIME_LIBRARY) to one of version 1.24 or newer";

struct Searched<'a>(&'a [PathBuf]);

impl fmt::Display for Searched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.0.iter().map(|path| path.display().to_string()).collect();
        f.write_str(&paths.join(", "))
    }
}

impl LibrarySearch {
    /// The files to try, in order: beside the program, in `lib/` beside it, in `lib/onward/` and
    /// `lib/` next to its folder, in `.onnxruntime/` of the working directory, in `.onnxruntime/` of
    /// a folder above the program. If none exists, the system's loader is asked.
    fn candidates(&self) -> Vec<PathBuf> {
        let home = self.executable.as_deref().and_then(Path::parent);
        let near = |home: &Path| {
            let beside = ["", "lib", "../lib/onward", "../lib"].map(|folder| home.join(folder));
            beside.map(|folder| folder.join(FILE_NAME))
        };
        let fetched = |folder: &Path| folder.join(FETCHED).join(FILE_NAME);
        let mut candidates: Vec<PathBuf> = home.into_iter().flat_map(near).collect();
        candidates.extend(self.working_directory.as_deref().map(fetched));
        candidates.extend(home.into_iter().flat_map(Path::ancestors).map(fetched));
        candidates
    }

    /// The file to load.
    fn resolve(&self) -> Result<PathBuf, LibraryError> {
        if let Some(explicit) = &self.explicit {
            let found = explicit.is_file().then(|| explicit.clone());
            return found.ok_or_else(|| LibraryError::Missing(explicit.clone()));
        }
        let found = self.candidates().into_iter().find(|candidate| candidate.is_file());
        Ok(found.unwrap_or_else(|| PathBuf::from(FILE_NAME)))
    }
}

/// ONNX Runtime, loaded and started. One per process; clones share it.
#[derive(Debug, Clone)]
pub struct OnnxRuntime {
    pub(super) environment: Environment,
    path: PathBuf,
}

impl OnnxRuntime {
    /// Loads the library and starts it.
    ///
    /// The library starts a telemetry thread of its own unless the environment variable
    /// `ORT_DISABLE_TELEMETRY` is `1` before this call; `main` sees to that.
    ///
    /// # Errors
    /// [`LibraryError`], which says what to do.
    pub fn load(search: &LibrarySearch) -> Result<Self, LibraryError> {
        let path = search.resolve()?;
        let unusable = |reason: String| {
            if path == Path::new(FILE_NAME) {
                LibraryError::NotFound(search.candidates())
            } else {
                LibraryError::Unusable { path: path.clone(), reason }
            }
        };
        let builder = ort::init_from(&path).map_err(|error| unusable(error.to_string()))?;
        let environment = builder
            .with_name("onward")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { environment, path })
    }

    /// Which build of the library it is, in words.
    #[expect(clippy::unused_self, reason = "who has one has loaded the library")]
    pub(super) fn build(&self) -> &'static str {
        ort::info()
    }

    /// Its version, by the name of its file or by what lies beside it; else the commit that it was built from.
    pub fn version(&self) -> String {
        let file = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let beside = file.with_file_name("VERSION");
        let of_name = name.as_deref().and_then(numbered);
        let told = || numbered(std::fs::read_to_string(&beside).ok()?.lines().next()?);
        let commit =
            || self.build().split("git-commit-id=").nth(1)?.split(',').next().map(str::to_owned);
        of_name.or_else(told).or_else(commit).unwrap_or_default()
    }

    /// The file that was loaded; a bare file name when the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The three numbers of a version that a text ends with, or has before the ending of a file.
fn numbered(text: &str) -> Option<String> {
    let text = text.strip_suffix(".dylib").unwrap_or(text);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let version = text.rsplit(|c| !is_part(c)).next()?.trim_matches('.');
    let parts = version.split('.').filter(|part| !part.is_empty()).count();
    (parts == 3).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_a_name_ends_with() {
        for name in
            ["libonnxruntime.so.1.24.2", "libonnxruntime.1.24.2.dylib", "onnxruntime 1.24.2"]
        {
            assert_eq!(numbered(name).as_deref(), Some("1.24.2"), "{name}");
        }
        assert_eq!((numbered("libonnxruntime.so"), numbered("libonnxruntime.so.1")), (None, None));
    }

    #[test]
    fn the_search_goes_from_near_to_far() {
        let search = LibrarySearch {
            explicit: None,
            executable: Some(PathBuf::from("/srv/repo/bin/onward")),
            working_directory: Some(PathBuf::from("/home/me")),
        };
        let candidates: Vec<String> =
            search.candidates().iter().map(|path| path.display().to_string()).collect();
        let expected = [
            "/srv/repo/bin/",
            "/srv/repo/bin/lib/",
            "/srv/repo/bin/../lib/onward/",
            "/srv/repo/bin/../lib/",
            "/home/me/.onnxruntime/",
            "/srv/repo/bin/.onnxruntime/",
            "/srv/repo/.onnxruntime/",
            "/srv/.onnxruntime/",
            "/.onnxruntime/",
        ];
        assert_eq!(candidates, expected.map(|folder| format!("{folder}{FILE_NAME}")));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_that_tells_what_to_do() {
        let explicit = Some(PathBuf::from("/nowhere/libonnxruntime.so"));
        let search = LibrarySearch { explicit, ..LibrarySearch::default() };
        let message = OnnxRuntime::load(&search).unwrap_err().to_string();
        assert!(message.contains("/nowhere/libonnxruntime.so"), "{message}");
        assert!(message.contains("make onnxruntime"), "{message}");
    }
}
