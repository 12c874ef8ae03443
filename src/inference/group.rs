//! Tasks that share a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::backend::{Instance, RunError};
use super::batch::{Batch, Indivisible};
use super::control::{RunControl, Terminator};
use super::padding::Padding;
use super::task::{Completion, Task, compute};
use super::watch::RunWatch;

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

/// What tasks that share a run need besides each other.
pub(super) struct Group<'a> {
    pub(super) padding: &'a Padding,
    pub(super) watch: &'a RunWatch,
    /// How long their run may take. One that takes longer does so for what one of them contains, so that each
    /// should have a run for itself.
    pub(super) most: Duration,
}

impl Group<'_> {
    /// Runs tasks as one, and blocks until they are answered. The run is cancelled once all of them are.
    pub(super) fn run(
        &self,
        tasks: &[&Task],
        instance: &mut dyn Instance,
    ) -> Result<Vec<Completion>, Apart> {
        let started = Instant::now();
        let requests: Vec<_> = tasks.iter().map(|task| &task.request).collect();
        let batch = Batch::of(&requests, self.padding).ok_or(Apart::Unfit)?;
        let control = Arc::new(RunControl::default());
        let left = Arc::new(AtomicUsize::new(tasks.len()));
        let armed: Vec<_> =
            tasks.iter().map(|task| task.control.arm(one_less(&left, &control))).collect();
        let _watched = self.watch.begin_aside(self.most, &control);
        let outputs = compute(instance, batch.request(), &control)?;
        drop(armed);
        let parts = batch.divide(&outputs)?;
        let ended = Instant::now();
        let completion = |(task, outputs): (&&Task, _)| {
            let timings = task.timings(&control, started, ended);
            Completion { outputs, timings }
        };
        Ok(tasks.iter().zip(parts).map(completion).collect())
    }
}

fn one_less(left: &Arc<AtomicUsize>, control: &Arc<RunControl>) -> Terminator {
    let (left, control) = (Arc::clone(left), Arc::clone(control));
    Arc::new(move || {
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            control.cancel();
        }
    })
}
