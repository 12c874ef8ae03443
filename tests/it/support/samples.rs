//! The models that come with the project.

use std::fs;

use super::{Repository, project, text};

/// A copy of the sample repository, so that tests never change the original.
pub(crate) fn samples() -> Repository {
    let repository = Repository::empty();
    for version in [1, 2] {
        let graph = fs::read(project(&format!("models/digits/{version}/model.onnx"))).unwrap();
        repository.put("digits", version, &graph);
    }
    repository.with_settings("digits", &text("models/digits/model.yaml"))
}
