//! `onward check`: what a server would make of models, told without one.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::onnx::add_constant;
use crate::support::process::{onward, run};
use crate::support::{Repository, project};

/// What is told of a path, with the exit code.
fn check(path: &Path, more: &[&str]) -> (i32, String, String) {
    run(onward().arg("check").arg(path).args(more))
}

#[test]
fn each_model_is_told_with_what_it_takes_and_what_is_wrong() {
    let repository = Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .and("bad", 1, b"broken");
    let (code, told, error) = check(repository.path(), &[]);
    assert_eq!(code, 1, "{told}{error}");
    for part in [
        "add: it would serve",
        "  version 2: READY in ",
        "    takes x FP32 [-1,4]",
        "    gives y FP32 [-1,4]",
        "  not selected by its version policy: 1",
        "  advice: version 2 has no golden samples",
        "bad: it would NOT serve: failed to load 'bad/1'",
        "1 of 2 models would serve",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}{error}");
    }
    let (code, told, _) = check(&repository.path().join("add"), &["--json"]);
    assert_eq!(code, 0, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["models"].as_array().map(Vec::len), Some(1));
    let model = &told["models"][0];
    assert_eq!((&model["name"], &model["not_selected"]), (&json!("add"), &json!(["1"])));
    assert_eq!(model["versions"][0]["inputs"][0]["shape"], json!([-1, 4]));
}

#[test]
fn the_sample_models_serve_and_answer_their_golden_samples() {
    let (code, told, error) = check(&project("models"), &[]);
    assert_eq!(code, 0, "{told}{error}");
    assert!(told.contains("2 golden samples answered"), "{told}");
    assert!(told.contains("3 of 3 models would serve"), "{told}");
    let (code, told, _) = check(&project("models/wine"), &[]);
    assert_eq!(code, 0);
    assert!(told.starts_with("wine: it would serve\n"), "{told}");
}

#[test]
fn a_bare_file_is_a_model() {
    let repository = Repository::empty();
    repository.write("tiny.onnx", &add_constant(1.0));
    let (code, told, error) = check(&repository.path().join("tiny.onnx"), &[]);
    assert_eq!(code, 0, "{told}{error}");
    assert!(told.starts_with("tiny: it would serve\n"), "{told}");
}

#[test]
fn a_path_inside_a_model_means_the_model() {
    let repository = Repository::of("add", &add_constant(1.0)).and("7", 1, &add_constant(1.0));
    let root = repository.path();
    for inside in ["add", "add/1", "add/1/model.onnx", "add/../add/"] {
        let (code, told, error) = check(&root.join(inside), &[]);
        assert_eq!(code, 0, "{inside}: {told}{error}");
        assert!(told.starts_with("add: it would serve\n"), "{inside}: {told}");
    }
    let (code, told, _) = check(&root.join("7"), &[]);
    assert_eq!(code, 0);
    assert!(told.starts_with("7: it would serve\n"), "{told}");
    assert_eq!(check(root, &[]).0, 0, "a model may have a number for its name");
    repository.write("flat/model.onnx", &add_constant(1.0));
    let (code, told, _) = check(&root.join("flat"), &[]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("flat: it would NOT serve"), "{told}");
    std::fs::create_dir(root.join("nothing")).unwrap();
    assert_eq!(check(&root.join("nothing"), &[]).0, 1);
    repository.write("notes.txt", b"");
    let (code, _, error) = check(&root.join("notes.txt"), &[]);
    assert_eq!(code, 2);
    assert!(error.contains("it is no ONNX file"), "{error}");
}

#[test]
fn what_cannot_be_checked_is_told() {
    let (code, _, error) = check(Path::new("/nowhere"), &[]);
    assert_eq!(code, 1);
    assert!(error.contains("/nowhere"), "{error}");
    let repository = Repository::empty();
    let (code, told, _) = check(repository.path(), &[]);
    assert_eq!((code, told.as_str()), (1, "no models\n"));
    repository.write("a b.onnx", b"");
    let (code, _, error) = check(&repository.path().join("a b.onnx"), &[]);
    assert_ne!(code, 0, "{error}");
    let (code, _, error) = check(repository.path(), &["--models.load_threads", "0"]);
    assert_eq!(code, 78, "{error}");
}
