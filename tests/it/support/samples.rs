//! The models that come with the project.

use std::fs;
use std::path::Path;

use super::{Repository, project};

/// A copy of the sample repository, so that tests never change the original.
pub(crate) fn samples() -> Repository {
    let repository = Repository::empty();
    copy(&project("models"), repository.path());
    repository
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
