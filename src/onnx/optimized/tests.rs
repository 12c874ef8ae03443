//! What is kept of graphs, by the real library.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ort::session::Session;
use tempfile::TempDir;

use super::super::backend::SHARED_FROM;
use super::super::tests::backend;
use super::*;
use crate::external_data::onnx;
use crate::inference::{
    Backend, Dim, InferenceRequest, ModelFiles, NamedTensor, OpenOptions, PreparedRequest,
    RunControl, Shape, Tensor, TensorSpec,
};

/// A graph in a folder, beside a file of weights.
fn written(graph: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weights.bin"), 7_f32.to_le_bytes()).unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, graph).unwrap();
    (folder, path)
}

/// What the model answers to ones.
fn answer(backend: &impl Backend, path: &Path) -> Vec<Tensor> {
    answer_of(backend, &ModelFiles::at(path.to_owned()))
}

/// What it answers by a session that has optimised its graph, as that of a larger one does.
fn usual_answer(path: &Path) -> Vec<Tensor> {
    answer_of(&backend(), &ModelFiles::at(path.to_owned()).of_size(SHARED_FROM))
}

fn answer_of(backend: &impl Backend, files: &ModelFiles) -> Vec<Tensor> {
    let mut model = backend.open(files, OpenOptions::default()).unwrap();
    let named = |spec: &TensorSpec| {
        let shape = spec.shape.as_deref().unwrap_or_default().iter().map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => 2,
        });
        let tensor = Tensor::ones(spec.datatype, shape.collect::<Shape>()).unwrap();
        NamedTensor { name: spec.name.clone(), tensor }
    };
    let required = model.signature().inputs.iter().filter(|spec| !spec.optional);
    let request = InferenceRequest { inputs: required.map(named).collect(), outputs: Vec::new() };
    let request = PreparedRequest::new(model.signature(), request).unwrap();
    model.instantiate().unwrap().run(&request, &RunControl::default()).unwrap()
}

fn entries(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn graphs_answer_the_same_by_what_was_kept_of_them() {
    let strings = onnx::identity(onnx::Elem::String, &[onnx::Dim::Symbolic("n")]);
    for graph in [
        onnx::mlp(64, 64, 10),
        onnx::two_inputs_two_outputs(),
        onnx::optional_default(),
        onnx::slow_by_input(),
        onnx::scalar_input(),
        onnx::add_external("weights.bin"),
        strings,
    ] {
        let (_folder, path) = written(&graph);
        let kept = tempfile::tempdir().unwrap();
        let with_cache = backend().with_cache(kept.path().to_owned(), 1 << 20);
        let expected = usual_answer(&path);
        assert_eq!(answer(&backend(), &path), expected);
        assert_eq!(answer(&with_cache, &path), expected);
        let [entry] = entries(&kept).try_into().unwrap();
        let content = fs::read(&entry).unwrap();
        let builder = Session::builder(&with_cache.runtime().environment).unwrap();
        let known = OptimizedGraph::kept(content[32..].to_vec());
        assert!(known.open(builder).is_some());
        assert_eq!(answer(&with_cache, &path), expected);
        assert_eq!(fs::read(&entry).unwrap(), content, "it was not made anew");
    }
}

#[test]
fn entries_are_of_the_graph_and_its_data_and_the_place() {
    let (folder, path) = written(&onnx::add_external("weights.bin"));
    let kept = tempfile::tempdir().unwrap();
    let graphs =
        OptimizedGraphs::new(backend().runtime(), kept.path().to_owned(), 1 << 20).unwrap();
    let key = |graphs: &OptimizedGraphs| {
        let graph = Graph::read(&path).unwrap();
        graphs.key(&graph::content(&graph, LARGEST).unwrap(), &graph)
    };
    let first = key(&graphs);
    assert_eq!(key(&graphs), first);
    fs::write(folder.path().join("weights.bin"), 8_f32.to_le_bytes()).unwrap();
    let other_data = key(&graphs);
    assert_ne!(other_data, first);
    let elsewhere = OptimizedGraphs { place: String::new(), ..graphs };
    assert_ne!(key(&elsewhere), other_data);
}

#[test]
fn what_takes_or_gives_something_else_is_not_used() {
    let (_folder, path) = written(&onnx::mlp(4, 8, 2));
    let kept = tempfile::tempdir().unwrap();
    let with_cache = backend().with_cache(kept.path().to_owned(), 1 << 20);
    let expected = answer(&with_cache, &path);
    let [entry] = entries(&kept).try_into().unwrap();
    let mut content = fs::read(&entry).unwrap()[32..].to_vec();
    content[0] ^= 1;
    fs::write(&entry, [&Sha256::digest(&content)[..], &content].concat()).unwrap();
    assert_eq!(answer(&with_cache, &path), expected);
    assert_ne!(fs::read(&entry).unwrap()[32..], content, "it was made anew");
}

#[test]
fn what_cannot_be_opened_is_told_as_ever_and_not_kept() {
    for graph in [&b"no model"[..], &onnx::unknown_operator()] {
        let (_folder, path) = written(graph);
        let kept = tempfile::tempdir().unwrap();
        let with_cache = backend().with_cache(kept.path().to_owned(), 1 << 20);
        let told = |backend: &dyn Backend| {
            let opened = backend.open(&ModelFiles::at(path.clone()), OpenOptions::default());
            opened.err().expect("it cannot be opened").to_string()
        };
        assert_eq!(told(&with_cache), told(&backend()));
        assert!(entries(&kept).is_empty());
    }
}

#[test]
fn many_may_open_the_same_graph_at_once() {
    let (_folder, path) = written(&onnx::mlp(4, 8, 2));
    let kept = tempfile::tempdir().unwrap();
    let with_cache = Arc::new(backend().with_cache(kept.path().to_owned(), 1 << 20));
    let expected = answer(&backend(), &path);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(answer(&*with_cache, &path), expected));
        }
    });
    assert_eq!(entries(&kept).len(), 1);
}

/// A graph from a file to a session, and what others can be made of.
fn opened(graph: &[u8]) -> Option<Opened> {
    let (_folder, path) = written(graph);
    let graph = Graph::read(&path).unwrap();
    let backend = backend();
    open(&graph, || Session::builder(&backend.runtime().environment))
}

#[test]
fn what_the_optimiser_left_of_a_small_graph_is_kept_nowhere() {
    let (session, optimized) = opened(&onnx::mlp(4, 8, 2)).unwrap();
    let builder = Session::builder(&backend().runtime().environment).unwrap();
    let another = optimized.unwrap().open(builder).unwrap();
    assert_eq!(another.signature(), session.signature());
}

#[test]
fn what_cannot_be_opened_or_is_large_is_left_to_the_usual_way() {
    for graph in [b"no model".to_vec(), onnx::unknown_operator(), onnx::mlp(1024, 512, 2)] {
        assert!(opened(&graph).is_none());
    }
}

#[test]
fn all_instances_of_a_small_graph_answer_the_same() {
    let (_folder, path) = written(&onnx::mlp(64, 64, 10));
    let files = ModelFiles::at(path);
    let answers = |files: &ModelFiles| -> Vec<Vec<Tensor>> {
        let mut model = backend().open(files, OpenOptions::default()).unwrap();
        let x = Tensor::from_vec(vec![1, 64], (0_u8..64).map(f32::from).collect()).unwrap();
        let inputs = vec![NamedTensor { name: "x".to_owned(), tensor: x }];
        let request = InferenceRequest { inputs, outputs: Vec::new() };
        let request = PreparedRequest::new(model.signature(), request).unwrap();
        let mut answer = || model.instantiate().unwrap().run(&request, &RunControl::default());
        (0..3).map(|_| answer().unwrap()).collect()
    };
    assert_eq!(answers(&files), answers(&files.clone().of_size(SHARED_FROM)));
}
