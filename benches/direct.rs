//! The plain loop: what ONNX Runtime does on this machine with nothing around it.

use std::path::{Path, PathBuf};
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
}

impl Direct {
    pub(crate) fn open(graph: &Path, input: &[f32], threads: usize) -> Result<Self> {
        let search = LibrarySearch {
            working_directory: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
            ..LibrarySearch::default()
        };
        let backend = OnnxBackend::new(OnnxRuntime::load(&search)?);
        let options = OpenOptions { intra_op_threads: std::num::NonZeroUsize::MIN };
        let mut model = backend.open(&ModelFiles { graph: graph.to_owned() }, options)?;
        let tensor = Tensor::from_vec(vec![1, input.len()], input.to_vec())?;
        let inputs = vec![NamedTensor { name: "x".to_owned(), tensor }];
        let request = InferenceRequest { inputs, outputs: Vec::new() };
        let request = PreparedRequest::new(model.signature(), request)?;
        let instances = (0..threads).map(|_| model.instantiate()).collect::<Result<_, _>>()?;
        Ok(Self { instances, request })
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
        let started = Instant::now();
        let results: Vec<Result<Vec<u64>>> = thread::scope(|scope| {
            let spawn = |instance| scope.spawn(move || repeat(instance, request, duration));
            let running: Vec<_> = self.instances[..threads].iter_mut().map(spawn).collect();
            running.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect()
        });
        let elapsed = started.elapsed();
        let nanos = results.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let requests = u64::try_from(nanos.len())?;
        Ok(Sample { requests, elapsed, failures: 0, latencies: Latencies::new(nanos) })
    }
}

/// How long each run took, in nanoseconds.
fn repeat(
    instance: &mut Box<dyn Instance>,
    request: &PreparedRequest,
    duration: Duration,
) -> Result<Vec<u64>> {
    for _ in 0..WARM_UP_RUNS {
        instance.run(request, &RunControl::default())?;
    }
    let mut nanos = Vec::with_capacity(1 << 20);
    let end = Instant::now() + duration;
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(nanos);
        }
        instance.run(request, &RunControl::default())?;
        nanos.push(u64::try_from(began.elapsed().as_nanos())?);
    }
}
