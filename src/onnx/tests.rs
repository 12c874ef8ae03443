//! Sessions of the real library, and how instances share them.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;

use tempfile::TempDir;

use super::backend::{OnnxBackend, SHARED_FROM};
use super::library::{LibrarySearch, OnnxRuntime};
use crate::external_data::onnx;
use crate::inference::{
    Backend, InferenceRequest, Instance, ModelFiles, NamedTensor, OpenOptions, OpenedModel,
    PreparedRequest, RunControl, RunError, Signature, Tensor,
};

/// One for all tests, as a process has it.
pub(super) fn backend() -> OnnxBackend {
    static RUNTIME: OnceLock<OnnxRuntime> = OnceLock::new();
    let root = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let search = LibrarySearch { working_directory: root, ..LibrarySearch::default() };
    let runtime = RUNTIME.get_or_init(|| OnnxRuntime::load(&search).unwrap());
    OnnxBackend::new(runtime.clone())
}

/// The files of this graph, said to be so many bytes.
fn files(graph: &[u8], size: u64) -> (TempDir, ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, graph).unwrap();
    (folder, ModelFiles::at(path).of_size(size))
}

/// So many instances of this graph that run one session.
fn sharing(graph: &[u8], count: usize) -> (Signature, Vec<Box<dyn Instance>>) {
    let (_folder, files) = files(graph, SHARED_FROM);
    let mut model = backend().open(&files, OpenOptions::default()).unwrap();
    let instances = (0..count).map(|_| model.instantiate().unwrap()).collect();
    (model.signature().clone(), instances)
}

fn request(signature: &Signature, inputs: &[(&str, Tensor)], outputs: &[&str]) -> PreparedRequest {
    let named = |(name, tensor): &(&str, Tensor)| NamedTensor {
        name: (*name).to_owned(),
        tensor: tensor.clone(),
    };
    let inputs = inputs.iter().map(named).collect();
    let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
    PreparedRequest::new(signature, InferenceRequest { inputs, outputs }).unwrap()
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_vec(vec![1, values.len()], values.to_vec()).unwrap()
}

fn run(instance: &mut dyn Instance, request: &PreparedRequest) -> Result<Vec<Tensor>, RunError> {
    instance.run(request, &RunControl::default())
}

#[test]
fn instances_run_one_session_unless_the_model_is_tiny() {
    let count = NonZeroUsize::new(4).unwrap();
    for (size, sessions) in [(SHARED_FROM - 1, 4), (SHARED_FROM, 1)] {
        let (_folder, files) = files(&onnx::mlp(4, 8, 2), size);
        let backend = backend();
        assert_eq!(
            backend.copies(&files, &OpenOptions::default(), count).get(),
            sessions,
            "{size}"
        );
        let mut model = backend.load(&files, OpenOptions::default()).unwrap();
        let mut made: Vec<_> = (0..4).map(|_| model.session().unwrap()).collect();
        made.dedup_by(|one, other| Arc::ptr_eq(one, other));
        assert_eq!(made.len(), sessions, "{size}");
    }
}

#[test]
fn runs_of_one_session_at_once_get_the_answers_of_their_own_requests() {
    let (signature, mut instances) = sharing(&onnx::mlp(64, 64, 10), 4);
    let requests: Vec<_> = (0_u16..16)
        .map(|seed| {
            let values: Vec<f32> = (0..64).map(|place| f32::from(seed * place % 23)).collect();
            request(&signature, &[("x", floats(&values))], &[])
        })
        .collect();
    let expected: Vec<_> =
        requests.iter().map(|request| run(&mut *instances[0], request).unwrap()).collect();
    thread::scope(|scope| {
        for mut instance in instances {
            let pairs = requests.iter().zip(&expected).cycle().take(3000);
            scope.spawn(move || {
                for (request, expected) in pairs {
                    assert_eq!(run(&mut *instance, request).unwrap(), *expected);
                }
            });
        }
    });
}

#[test]
fn a_termination_ends_one_run_of_a_shared_session_and_no_other() {
    let (signature, mut instances) = sharing(&onnx::slow_by_input(), 2);
    let one = |rounds: i64| {
        let x = Tensor::from_vec(vec![1], vec![0_f32]).unwrap();
        let rounds = Tensor::from_vec(vec![1], vec![rounds]).unwrap();
        request(&signature, &[("x", x), ("iterations", rounds)], &[])
    };
    let (endless, short) = (one(i64::MAX), one(3));
    let control = RunControl::default();
    let (begun, has_begun) = channel();
    let [other, first] = [instances.pop().unwrap(), instances.pop().unwrap()];
    let mut first = thread::scope(|scope| {
        let (control, mut first, mut other) = (&control, first, other);
        let running = scope.spawn(move || {
            begun.send(()).unwrap();
            assert_eq!(first.run(&endless, control), Err(RunError::Cancelled));
            first
        });
        has_begun.recv().unwrap();
        let answer = run(&mut *other, &short).unwrap();
        assert_eq!(answer[0].as_slice::<f32>(), Some(&[3.0][..]));
        control.cancel();
        assert!(run(&mut *other, &short).is_ok());
        running.join().unwrap()
    });
    assert!(run(&mut *first, &short).is_ok(), "it is not terminated for ever");
}

#[test]
fn outputs_come_as_they_were_asked_for() {
    let (signature, mut instances) = sharing(&onnx::two_inputs_two_outputs(), 1);
    let b = Tensor::from_vec(vec![1], vec![7_i64]).unwrap();
    let inputs = [("a", floats(&[1.0, 2.0])), ("b", b.clone())];
    for (wanted, expected) in [
        (&["b_out"][..], vec![b.clone()]),
        (&["b_out", "sum"], vec![b.clone(), floats(&[2.0, 4.0])]),
        (&[], vec![floats(&[2.0, 4.0]), b.clone()]),
    ] {
        let answer = run(&mut *instances[0], &request(&signature, &inputs, wanted)).unwrap();
        assert_eq!(answer, expected, "{wanted:?}");
    }
}

#[test]
fn every_datatype_goes_through_and_comes_back() {
    use crate::inference::DataType;
    use onnx::{Dim, Elem};
    for elem in Elem::ALL {
        let (signature, mut instances) = sharing(&onnx::identity(elem, &[Dim::Symbolic("n")]), 1);
        let datatype: DataType = signature.inputs[0].datatype;
        for length in [0, 1, 3] {
            let x = Tensor::ones(datatype, vec![length]).unwrap();
            let request = request(&signature, &[("x", x.clone())], &[]);
            assert_eq!(run(&mut *instances[0], &request).unwrap(), [x], "{datatype} {length}");
        }
    }
}

/// A graph that passes its input on, and gives a constant.
fn passing_on(length: usize) -> onnx::Graph {
    use onnx::{Dim, Elem, Tensor};
    let dims = [Dim::Fixed(length.try_into().unwrap())];
    onnx::Graph::new("passing_on")
        .input("x", Elem::Float, &dims)
        .output("x", Elem::Float, &dims)
        .output("constant", Elem::Float, &dims)
        .initializer("constant", &Tensor::floats(&[length], &vec![2.0; length]))
}

#[test]
fn large_outputs_keep_their_session_and_small_ones_do_not() {
    for (length, keeps) in [(1 << 18, true), (16, false)] {
        let dims = [onnx::Dim::Symbolic("n")];
        let (_folder, files) = files(&onnx::identity(onnx::Elem::Float, &dims), SHARED_FROM);
        let mut model = backend().load(&files, OpenOptions::default()).unwrap();
        let session = Arc::downgrade(&model.session().unwrap());
        let x = Tensor::from_vec(vec![length], vec![1.5_f32; length]).unwrap();
        let request = request(model.signature(), &[("x", x.clone())], &[]);
        let answer = run(&mut *model.instantiate().unwrap(), &request).unwrap();
        drop((request, model));
        assert_eq!(answer, [x], "{length}");
        assert_eq!(session.upgrade().is_some(), keeps, "{length}");
        drop(answer);
        assert!(session.upgrade().is_none(), "{length}");
    }
}

#[test]
fn what_is_only_passed_on_outlives_the_request() {
    let length = 1 << 18;
    let (signature, mut instances) = sharing(&passing_on(length).into_model(), 1);
    let x = Tensor::from_vec(vec![length], vec![1.5_f32; length]).unwrap();
    let lent = x.as_bytes().unwrap().as_ptr_range();
    let request = request(&signature, &[("x", x)], &[]);
    let answer = run(&mut *instances[0], &request).unwrap();
    drop((request, instances));
    for (tensor, value) in answer.iter().zip([1.5, 2.0]) {
        assert!(!lent.contains(&tensor.as_bytes().unwrap().as_ptr()));
        assert_eq!(tensor.as_slice::<f32>(), Some(&vec![value; length][..]));
    }
}

/// `y` = -|-`x`|, with twice as much memory as `x` has.
fn in_steps() -> onnx::Graph {
    use onnx::{Dim, Elem, Node};
    let dims = [Dim::Symbolic("n")];
    onnx::Graph::new("in_steps")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .node(&Node::new("Neg", &["x"], &["between"]))
        .node(&Node::new("Abs", &["between"], &["positive"]))
        .node(&Node::new("Neg", &["positive"], &["y"]))
}

/// Resident memory of this process, in MiB.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 256
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_far_larger_run_took_is_given_back() {
    let (signature, mut instances) = sharing(&in_steps().into_model(), 1);
    let of = |length: usize| {
        let x = Tensor::from_vec(vec![length], vec![1_f32; length]).unwrap();
        request(&signature, &[("x", x)], &[])
    };
    let (small, large) = (of(1000), of(32 << 20));
    for _ in 0..3 {
        run(&mut *instances[0], &small).unwrap();
    }
    let before = resident();
    drop(run(&mut *instances[0], &large).unwrap());
    for _ in 0..100 {
        run(&mut *instances[0], &small).unwrap();
    }
    let kept = resident().saturating_sub(before);
    assert!(kept < 64, "{kept} MiB of the 128 or more that the run took are kept");
}
