//! Tasks that share a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::backend::{Instance, RunError};
use super::batch::{Batch, Indivisible};
use super::control::{RunControl, Terminate, Terminator};
use super::padding::Padding;
use super::task::{Completion, Task, compute};

/// Why tasks that shared a run have got no answers from it. Each may get one alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Apart {
    /// They do not fit each other.
    #[error("they do not fit each other")]
    Unfit,
    /// The run has failed, for what one of them contains, or all of them together.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model does not answer each entry of a batch.
    #[error(transparent)]
    Indivisible(#[from] Indivisible),
}

/// Runs tasks as one, and blocks until they are answered. The run is cancelled once all of them are, or by its
/// own `control`.
pub(super) fn run(
    (tasks, padding): (&[&Task], &Padding),
    instance: &mut dyn Instance,
    control: &Arc<RunControl>,
) -> Result<Vec<Completion>, Apart> {
    let started = Instant::now();
    let requests: Vec<_> = tasks.iter().map(|task| &task.request).collect();
    let batch = Batch::of(&requests, padding).ok_or(Apart::Unfit)?;
    let last = Arc::new(Last { left: AtomicUsize::new(tasks.len()), run: Arc::clone(control) });
    let terminator = || Arc::clone(&last) as Terminator;
    let armed: Vec<_> = tasks.iter().map(|task| task.control.arm(terminator())).collect();
    let outputs = compute(instance, batch.request(), control)?;
    drop(armed);
    let parts = batch.divide(&outputs)?;
    let ended = Instant::now();
    let completion = |(task, outputs): (&&Task, _)| {
        let timings = task.timings(control, started, ended);
        Completion { outputs, timings }
    };
    Ok(tasks.iter().zip(parts).map(completion).collect())
}

/// Cancels a run once nobody wants it any more.
struct Last {
    /// How many do.
    left: AtomicUsize,
    run: Arc<RunControl>,
}

impl Terminate for Last {
    fn terminate(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.run.cancel();
        }
    }
}
