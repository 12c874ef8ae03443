//! What every source of models has to do, whatever it is.

mod bare;
mod cutter;
mod faults;
mod faulty;
mod fixtures;
mod sharing;
#[path = "../../../tests/it/support/stores.rs"]
mod stores;

use std::fs;

use crate::model::{ModelName, ModelSource, SourceError, Version, VersionId, VersionPolicy};
use fixtures::{Fixture, Local, Memory, Overlaid, Real};
use stores::StoreServer;

fn id(model: &str, version: u64) -> VersionId {
    let model = ModelName::new(model).unwrap();
    VersionId { model, version: Version::new(version).unwrap() }
}

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn each(check: fn(&dyn Fixture)) {
    let over = |fixture: &dyn Fixture| {
        println!("over {}", fixture.name());
        check(fixture);
    };
    over(&Local::new());
    over(&Overlaid::new());
    over(&Memory::new());
    for protocol in StoreServer::installed() {
        over(&Real::new(protocol));
    }
}

fn digest(fixture: &dyn Fixture, id: &VersionId) -> String {
    digest_of(fixture.source(), id)
}

fn digest_of(source: &dyn ModelSource, id: &VersionId) -> String {
    source.digest(&source.fetch(id).unwrap()).unwrap()
}

#[test]
fn a_graph_in_the_wrong_place_is_named() {
    each(|fixture| {
        fixture.put("beside/net.onnx", b"abc");
        fixture.put("below/1/net.onnx", b"abc");
        let beside = fixture.source().model(&id("beside", 1).model).unwrap_err().to_string();
        assert!(
            beside.ends_with("'net.onnx' lies beside the versions, move it to beside/1/model.onnx")
        );
        let below = fixture.source().fetch(&id("below", 1)).unwrap_err().to_string();
        assert!(below.ends_with("but 'net.onnx': rename it to model.onnx"), "{below}");
    });
}

#[test]
fn models_and_versions_are_listed_in_order() {
    each(|fixture| {
        for path in ["b/10", "b/9", "b/01", "b/notes", "a/1", ".git/1"] {
            fixture.put(&format!("{path}/model.onnx"), b"abc");
        }
        fixture.put("README.md", b"hello");
        fixture.put("settings/model.yaml", b"");
        let listed: Vec<(String, Vec<u64>)> = fixture
            .source()
            .list()
            .unwrap()
            .into_iter()
            .map(|model| {
                (
                    model.name.to_string(),
                    model.versions.iter().map(|version| version.number()).collect(),
                )
            })
            .collect();
        let expected = [("a", vec![1]), ("b", vec![9, 10]), ("settings", vec![])];
        assert_eq!(listed, expected.map(|(name, versions)| (name.to_owned(), versions)));
    });
}

#[test]
fn what_is_not_there_is_named() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        fixture.put("b/1/weights.bin", b"abc");
        let source = fixture.source();
        let nope = ModelName::new("nope").unwrap();
        assert!(matches!(source.model(&nope), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.settings(&nope), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.fetch(&id("nope", 1)), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.fetch(&id("a", 2)), Err(SourceError::UnknownVersion(_))));
        let error = source.fetch(&id("b", 1)).unwrap_err().to_string();
        assert!(error.contains("model.onnx"), "{error}");
    });
}

#[test]
fn settings_are_read_and_follow_what_is_there() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        let settings = || fixture.source().settings(&ModelName::new("a").unwrap());
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::default());
        fixture.put("a/model.yaml", b"version_policy: all\n");
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::All);
        fixture.put("a/model.yaml", b"\nversion_policy: some\n");
        let error = settings().unwrap_err().to_string();
        assert!(error.contains("model.yaml") && error.contains('2'), "{error}");
        fixture.remove("a/model.yaml");
        fixture.put("a/config.pbtxt", b"version_policy { all {} }");
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::All);
    });
}

#[test]
fn an_ensemble_has_no_graph() {
    each(|fixture| {
        let source = || fixture.source();
        fixture.put("whole/model.yaml", b"ensemble: {steps: [{model: a}]}\n");
        let whole = id("whole", 1);
        assert_eq!(source().model(&whole.model).unwrap().versions, [Version::FIRST]);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(fixture, &whole), empty);
        assert_eq!(source().size(&source().fetch(&whole).unwrap()).unwrap(), 0);
        assert!(matches!(source().fetch(&id("whole", 2)), Err(SourceError::UnknownVersion(_))));
        assert!(source().glance(&whole.model).unwrap().unsettled.is_empty());
        fixture.put("two/config.pbtxt", b"ensemble_scheduling { step { model_name: \"a\" } }");
        fixture.put("two/1/notes", b"abc");
        fixture.put("two/2/notes", b"");
        assert_eq!(digest(fixture, &id("two", 1)), ABC);
        assert_eq!(digest(fixture, &id("two", 2)), empty);
        assert_eq!(source().model(&id("two", 1).model).unwrap().versions.len(), 2);
    });
}

#[test]
fn content_has_the_same_digest_wherever_it_is() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
        assert_eq!(digest(fixture, &id("a", 1)), ABC, "again");
        fixture.put("a/1/data/weights.bin", b"w");
        let files = fixture.source().fetch(&id("a", 1)).unwrap();
        let beside = files.graph.parent().unwrap().join("data/weights.bin");
        assert_eq!(fs::read(beside).unwrap(), b"w");
        let two = fixture.source().digest(&files).unwrap();
        assert_eq!(fixture.source().size(&files).unwrap(), 4);
        assert_ne!(two, ABC);
        fixture.put("a/1/data/weights.bin", b"x");
        assert_ne!(digest(fixture, &id("a", 1)), two);
        fixture.remove("a/1/data/weights.bin");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
    });
}

#[test]
fn a_manifest_tells_what_is_complete() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"ab");
        let manifest =
            format!(r#"{{"files": [{{"path": "model.onnx", "size": 3, "sha256": "{ABC}"}}]}}"#);
        fixture.put("a/1/manifest.json", manifest.as_bytes());
        let error = fixture.source().fetch(&id("a", 1)).unwrap_err().to_string();
        assert!(error.contains("has 2 bytes, 3 by manifest.json"), "{error}");
        fixture.put("a/1/model.onnx", b"abc");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
    });
}

#[test]
fn samples_come_with_the_model() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        let tensor = r#"{"name": "y", "shape": [1], "datatype": "FP32", "data": [1]}"#;
        let sample = format!(r#"{{"inputs": [], "outputs": [{tensor}]}}"#);
        fixture.put("a/golden/all.json", sample.as_bytes());
        fixture.put("a/golden/1/one.json", sample.as_bytes());
        // Nothing else was asked for before.
        let samples = fixture.source().samples(&id("a", 1)).unwrap();
        let names: Vec<_> = samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["one.json", "all.json"]);
        // They follow what is there, whoever asks.
        fixture.remove("a/golden/1/one.json");
        fixture.put("a/golden/2/two.json", sample.as_bytes());
        let names = |version| {
            let samples = fixture.source().samples(&id("a", version)).unwrap();
            samples.into_iter().map(|sample| sample.name).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(1), names(2)),
            (vec!["all.json".to_owned()], vec!["two.json".to_owned(), "all.json".to_owned()])
        );
        fixture.put("a/golden/broken.json", b"{");
        let error = fixture.source().samples(&id("a", 1)).unwrap_err().to_string();
        assert!(error.contains("golden/broken.json"), "{error}");
        fixture.put("b/1/model.onnx", b"abc");
        assert!(fixture.source().samples(&id("b", 1)).unwrap().is_empty());
        let unknown = fixture.source().samples(&id("nope", 1));
        assert!(matches!(unknown, Err(SourceError::UnknownModel(_))));
    });
}

#[test]
fn names_may_have_any_characters_and_files_no_bytes() {
    each(|fixture| {
        let odd = "w\u{f6}rd [#1] %41+~";
        fixture.put(&format!("{odd}/1/model.onnx"), b"abc");
        fixture.put(&format!("{odd}/1/da ta/{odd}?&*'.bin"), b"w");
        fixture.put(&format!("{odd}/1/empty"), b"");
        fixture.put(&format!("{odd}/model.yaml"), b"version_policy: all\n");
        let source = fixture.source();
        let names: Vec<_> = source.list().unwrap().into_iter().map(|model| model.name).collect();
        assert_eq!(names, [ModelName::new(odd).unwrap()]);
        assert_eq!(source.settings(&names[0]).unwrap().version_policy, VersionPolicy::All);
        let files = source.fetch(&id(odd, 1)).unwrap();
        let folder = files.graph.parent().unwrap();
        assert_eq!(fs::read(folder.join(format!("da ta/{odd}?&*'.bin"))).unwrap(), b"w");
        assert_eq!(fs::read(folder.join("empty")).unwrap(), b"");
        let expected = "52c1b75615aae4bcc6d96c9289e8d5e7ebd05426032a72391cf87c87a2a0546b";
        assert_eq!(source.digest(&files).unwrap(), expected);
    });
}

#[test]
fn what_is_beside_the_versions_is_told_of() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        fixture.put("a/old/model.onnx", b"abc");
        fixture.put("a/golden/notes.txt", b"");
        let warnings = fixture.source().settings(&ModelName::new("a").unwrap()).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("'old'"), "{warnings:?}");
    });
}
