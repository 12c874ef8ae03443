//! The plain loop: what ONNX Runtime does on this machine with nothing around it, called as its Rust
//! bindings are, without a line of the server.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor};

use super::input::{Data, Input};
use super::load::{Latencies, Sample};

/// Runs that each thread makes before the clock starts, if that takes no more than this share of the time.
const WARM_UP_RUNS: u64 = 256;
const WARM_UP_SHARE: u32 = 4;

/// What `make onnxruntime` fetches.
const LIBRARY: &str =
    if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// ONNX Runtime, started. One per process.
pub(crate) struct Engine {
    environment: Environment,
    library: PathBuf,
}

impl Engine {
    pub(crate) fn start() -> Result<Self> {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join(".onnxruntime").join(LIBRARY);
        let environment = ort::init_from(&library)?.with_telemetry(false).build()?;
        Ok(Self { environment, library })
    }

    /// What `make onnxruntime` noted of the library.
    pub(crate) fn version(&self) -> String {
        let noted = std::fs::read_to_string(self.library.with_file_name("VERSION"));
        noted.unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
    }

    /// A session each of whose runs may use so many threads.
    fn session(&self, graph: &Path, threads: usize) -> ort::Result<Session> {
        Session::builder(&self.environment)?.with_intra_threads(threads)?.commit_from_file(graph)
    }
}

/// One session a caller, all alike.
pub(crate) struct Direct {
    sessions: Vec<Session>,
}

/// What one caller saw.
struct Loop {
    started: Instant,
    ended: Instant,
    warm_up: u64,
    nanos: Vec<u64>,
}

impl Direct {
    /// For so many callers, each run of which may use so many threads.
    pub(crate) fn open(
        engine: &Engine,
        graph: &Path,
        (callers, threads): (usize, usize),
    ) -> Result<Self> {
        let sessions = (0..callers).map(|_| engine.session(graph, threads));
        Ok(Self { sessions: sessions.collect::<ort::Result<_>>()? })
    }

    /// The first output, FP32.
    pub(crate) fn answer(&mut self, inputs: &[Input]) -> Result<Vec<f32>> {
        let session = self.sessions.first_mut().context("there is a session")?;
        let outputs = session.run(lent(&values(inputs)?))?;
        Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
    }

    /// Runs in `callers` threads at once for `duration`.
    pub(crate) fn measure(
        &mut self,
        inputs: &[Input],
        callers: usize,
        duration: Duration,
    ) -> Result<Sample> {
        ensure!(callers <= self.sessions.len(), "there is a session for each caller");
        let start = &Barrier::new(callers);
        let results: Vec<Result<Loop>> = thread::scope(|scope| {
            let spawn = |session| scope.spawn(move || repeat(session, inputs, (start, duration)));
            let running: Vec<_> = self.sessions[..callers].iter_mut().map(spawn).collect();
            running.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect()
        });
        Loop::sum(results.into_iter().collect::<Result<_>>()?)
    }
}

impl Loop {
    fn sum(loops: Vec<Self>) -> Result<Sample> {
        let started = loops.iter().map(|one| one.started).min();
        let ended = loops.iter().map(|one| one.ended).max();
        let elapsed = started.zip(ended).map(|(started, ended)| ended - started);
        let elapsed = elapsed.context("there is a thread")?;
        let warm_up = loops.iter().map(|one| one.warm_up).sum();
        let nanos: Vec<u64> = loops.into_iter().flat_map(|one| one.nanos).collect();
        let requests = u64::try_from(nanos.len())?;
        Ok(Sample { requests, elapsed, failures: 0, latencies: Latencies::new(nanos), warm_up })
    }
}

/// Runs one session for `duration` after all callers are warm.
fn repeat(
    session: &mut Session,
    inputs: &[Input],
    (start, duration): (&Barrier, Duration),
) -> Result<Loop> {
    let values = values(inputs);
    let warm_up = values.as_ref().map(|values| warm_up(session, values, duration / WARM_UP_SHARE));
    let mut nanos = Vec::with_capacity(1 << 20);
    // Before an error is returned, or the other callers would wait for ever.
    start.wait();
    let warm_up = warm_up.ok().transpose()?.unwrap_or(0);
    let (values, started) = (values?, Instant::now());
    loop {
        let began = Instant::now();
        if began >= started + duration {
            return Ok(Loop { started, ended: began, warm_up, nanos });
        }
        session.run(lent(&values))?;
        nanos.push(u64::try_from(began.elapsed().as_nanos())?);
    }
}

/// How many runs there were, at least one.
fn warm_up(session: &mut Session, values: &Values, at_most: Duration) -> Result<u64> {
    let began = Instant::now();
    for made in 1..=WARM_UP_RUNS {
        session.run(lent(values))?;
        if began.elapsed() > at_most {
            return Ok(made);
        }
    }
    Ok(WARM_UP_RUNS)
}

type Values = Vec<(&'static str, DynValue)>;

fn values(inputs: &[Input]) -> Result<Values> {
    let value = |input: &Input| {
        let shape = input.shape.clone();
        let value = match &input.data {
            Data::Floats(floats) => Tensor::from_array((shape, floats.clone()))?.into_dyn(),
            Data::Integers(numbers) => Tensor::from_array((shape, numbers.clone()))?.into_dyn(),
        };
        Ok((input.name, value))
    };
    inputs.iter().map(value).collect()
}

/// As a run takes them.
fn lent(values: &Values) -> Vec<(&'static str, SessionInputValue<'_>)> {
    values.iter().map(|(name, value)| (*name, value.into())).collect()
}
