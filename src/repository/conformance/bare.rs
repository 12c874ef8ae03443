//! Models that are a file at the root, in every source.

use std::fs;

use super::{ABC, digest, each, id};
use crate::external_data::onnx::add_external;
use crate::model::{AvailableModel, ModelName, SourceError, Version};

fn name(model: &str) -> ModelName {
    ModelName::new(model).unwrap()
}

/// A model with its versions, as a text.
fn versions(model: AvailableModel) -> String {
    let numbers: Vec<u64> = model.versions.into_iter().map(Version::number).collect();
    format!("{}: {numbers:?}", model.name)
}

#[test]
fn a_file_at_the_root_is_a_model_with_one_version() {
    each(|fixture| {
        fixture.put("a.onnx", b"abc");
        fixture.put("b/2/model.onnx", b"abc");
        for other in ["a.onnx.data", "a.model.yaml", ".hidden.onnx", ".onnx", "README.md"] {
            fixture.put(other, b"");
        }
        let source = fixture.source();
        let listed: Vec<_> = source.list().unwrap().into_iter().map(versions).collect();
        assert_eq!(listed, ["a: [1]", "b: [2]"]);
        assert_eq!(versions(source.model(&name("a")).unwrap()), "a: [1]");
        assert_eq!(digest(fixture, &id("a", 1)), ABC, "as sha256sum shows it");
        let files = source.fetch(&id("a", 1)).unwrap();
        assert_eq!(source.size(&files).unwrap(), 3);
        assert!(source.samples(&id("a", 1)).unwrap().is_empty());
        assert!(matches!(source.fetch(&id("a", 2)), Err(SourceError::UnknownVersion(_))));
        assert!(matches!(source.fetch(&id("a.onnx", 1)), Err(SourceError::UnknownModel(_))));
        fixture.put("a.onnx", b"abd");
        assert_ne!(digest(fixture, &id("a", 1)), ABC);
        fixture.remove("a.onnx");
        assert!(matches!(source.model(&name("a")), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.fetch(&id("a", 1)), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.glance(&name("a")), Err(SourceError::UnknownModel(_))));
    });
}

#[test]
fn a_file_has_its_settings_beside_it() {
    each(|fixture| {
        fixture.put("a.onnx", b"abc");
        let settings = || fixture.source().settings(&name("a"));
        assert!(!settings().unwrap().lazy);
        fixture.put("a.model.yaml", b"lazy: true\n");
        assert!(settings().unwrap().lazy);
        fixture.put("a.model.yaml", b"\nlasy: true\n");
        let error = settings().unwrap_err().to_string();
        assert!(error.contains("model.yaml") && error.contains("lasy"), "{error}");
        fixture.remove("a.model.yaml");
        assert!(!settings().unwrap().lazy);
    });
}

#[test]
fn what_a_file_refers_to_is_a_part_of_it() {
    each(|fixture| {
        let graph = add_external("./data/weights.bin");
        fixture.put("a.onnx", &graph);
        let error = fixture.source().fetch(&id("a", 1)).unwrap_err().to_string();
        assert!(error.contains("'data/weights.bin'"), "{error}");
        for (path, content) in [("data/weights.bin", "w"), ("data/others.bin", "o"), ("x", "y")] {
            fixture.put(path, content.as_bytes());
        }
        let files = fixture.source().fetch(&id("a", 1)).unwrap();
        let beside = files.graph.parent().unwrap().join("data/weights.bin");
        assert_eq!(fs::read(beside).unwrap(), b"w");
        let size = u64::try_from(graph.len()).unwrap() + 1;
        assert_eq!(fixture.source().size(&files).unwrap(), size);
        let bare = fixture.source().digest(&files).unwrap();
        fixture.put("b/1/model.onnx", &graph);
        fixture.put("b/1/data/weights.bin", b"w");
        assert_eq!(digest(fixture, &id("b", 1)), bare, "the same content in a folder");
        fixture.put("data/weights.bin", b"x");
        assert_ne!(digest(fixture, &id("a", 1)), bare);
        fixture.put("a.onnx", &add_external("../weights.bin"));
        let error = fixture.source().fetch(&id("a", 1)).unwrap_err().to_string();
        assert!(error.contains("'../weights.bin'"), "{error}");
    });
}

#[test]
fn a_model_that_is_there_twice_is_refused_and_hurts_no_other() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        fixture.put("a.onnx", b"abc");
        fixture.put("b.onnx", b"abc");
        let source = fixture.source();
        let listed: Vec<_> = source.list().unwrap().into_iter().map(versions).collect();
        assert_eq!(listed, ["a: []", "b: [1]"]);
        let error = source.model(&name("a")).unwrap_err().to_string();
        assert!(error.contains("a: there is also") && error.contains("a.onnx"), "{error}");
        assert_eq!(digest(fixture, &id("b", 1)), ABC);
        fixture.remove("a.onnx");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
    });
}

#[test]
fn glances_tell_what_has_changed() {
    each(|fixture| {
        fixture.put("data/weights.bin", b"w");
        let files = [
            ("a.onnx", true),
            ("a.model.yaml", false),
            ("b/1/model.onnx", true),
            ("b/1/weights.bin", true),
            ("b/model.yaml", false),
        ];
        for (path, is_of_version) in files {
            let model = name(&path[..1]);
            let glance = || fixture.source().glance(&model);
            for content in [&b"one"[..], b"another"] {
                let before = glance().map(|glance| glance.stamp).ok();
                fixture.put(path, content);
                let after = glance().unwrap();
                if is_of_version {
                    assert_eq!(after.unsettled, [Version::FIRST], "{path} is being written");
                } else {
                    assert_ne!(Some(&after.stamp), before.as_ref(), "{path} was written");
                }
                assert_eq!(glance().unwrap(), after, "nothing has changed");
            }
        }
        let gone = fixture.source().glance(&name("nope"));
        assert!(matches!(gone, Err(SourceError::UnknownModel(_))));
    });
}
