//! The plain loop: what ONNX Runtime does on this machine with nothing around it.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use onward::inference::{
    Backend, InferenceRequest, Instance, ModelFiles, NamedTensor, OpenOptions, PreparedRequest,
    RunControl, Tensor,
};
use onward::onnx::{LibrarySearch, OnnxBackend, OnnxRuntime};

use super::load::{Latencies, Sample};

/// Runs that each thread makes before the clock starts.
const WARM_UP_RUNS: usize = 256;

/// One instance a thread, as the server has them.
pub(crate) struct Direct {
    instances: Vec<Box<dyn Instance>>,
    request: PreparedRequest,
    library: PathBuf,
}

/// What one thread saw.
struct Loop {
    started: Instant,
    ended: Instant,
    nanos: Vec<u64>,
}

impl Direct {
    pub(crate) fn open(graph: &Path, input: &[f32], threads: usize) -> Result<Self> {
        let search = LibrarySearch {
            working_directory: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
            ..LibrarySearch::default()
        };
        let runtime = OnnxRuntime::load(&search)?;
        let library = runtime.path().to_owned();
        let backend = OnnxBackend::new(runtime);
        let options = OpenOptions { intra_op_threads: std::num::NonZeroUsize::MIN };
        let mut model = backend.open(&ModelFiles::at(graph.to_owned()), options)?;
        let tensor = Tensor::from_vec(vec![1, input.len()], input.to_vec())?;
        let inputs = vec![NamedTensor { name: "x".to_owned(), tensor }];
        let request = InferenceRequest { inputs, outputs: Vec::new() };
        let request = PreparedRequest::new(model.signature(), request)?;
        let instances = (0..threads).map(|_| model.instantiate()).collect::<Result<_, _>>()?;
        Ok(Self { instances, request, library })
    }

    /// The library that was loaded.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// The model's answer.
    pub(crate) fn answer(&mut self) -> Result<Vec<f32>> {
        let outputs = self.instances[0].run(&self.request, &RunControl::default())?;
        Ok(outputs[0].as_slice::<f32>().context("the output is FP32")?.to_vec())
    }

    /// Runs in `threads` threads at once for `duration`.
    pub(crate) fn measure(&mut self, threads: usize, duration: Duration) -> Result<Sample> {
        ensure!(threads <= self.instances.len(), "there is an instance for each thread");
        let request = &self.request;
        let start = &Barrier::new(threads);
        let results: Vec<Result<Loop>> = thread::scope(|scope| {
            let spawn =
                |instance| scope.spawn(move || repeat(instance, request, (start, duration)));
            let running: Vec<_> = self.instances[..threads].iter_mut().map(spawn).collect();
            running.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect()
        });
        let loops = results.into_iter().collect::<Result<Vec<_>>>()?;
        let started = loops.iter().map(|one| one.started).min();
        let ended = loops.iter().map(|one| one.ended).max();
        let elapsed = started.zip(ended).map(|(started, ended)| ended - started);
        let elapsed = elapsed.context("there is a thread")?;
        let nanos: Vec<u64> = loops.into_iter().flat_map(|one| one.nanos).collect();
        let requests = u64::try_from(nanos.len())?;
        Ok(Sample { requests, elapsed, failures: 0, latencies: Latencies::new(nanos) })
    }
}

/// Runs one instance for `duration` after all threads are warm.
fn repeat(
    instance: &mut Box<dyn Instance>,
    request: &PreparedRequest,
    (start, duration): (&Barrier, Duration),
) -> Result<Loop> {
    let warm_up =
        (0..WARM_UP_RUNS).try_for_each(|_| instance.run(request, &RunControl::default()).map(drop));
    let mut nanos = Vec::with_capacity(1 << 20);
    // Before the error is returned, or the other threads would wait for ever.
    start.wait();
    warm_up?;
    let started = Instant::now();
    loop {
        let began = Instant::now();
        if began >= started + duration {
            return Ok(Loop { started, ended: began, nanos });
        }
        instance.run(request, &RunControl::default())?;
        nanos.push(u64::try_from(began.elapsed().as_nanos())?);
    }
}
