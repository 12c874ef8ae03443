//! An ensemble as what is warmed up and verified: it answers on the thread that asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::runner::Manner;
use super::pinned::Ensemble;
use crate::inference::{
    BackendError, InferError, Instance, OpenedModel, PreparedRequest, RunControl, RunError,
    RunTerms, Signature, Tensor,
};

/// Whoever asks gives up before.
const LONG: Duration = Duration::from_hours(24);

/// An ensemble whose steps are there.
pub(in super::super) struct OpenedEnsemble {
    pub(in super::super) ensemble: Arc<Ensemble>,
    pub(in super::super) runtime: Handle,
}

impl OpenedModel for OpenedEnsemble {
    fn signature(&self) -> &Signature {
        self.ensemble.signature()
    }

    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError> {
        let (ensemble, runtime) = (Arc::clone(&self.ensemble), self.runtime.clone());
        Ok(Box::new(Self { ensemble, runtime }))
    }
}

impl Instance for OpenedEnsemble {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        let cancelled = Arc::new(Notify::new());
        let cancel = Arc::clone(&cancelled);
        let _armed = control.arm(Arc::new(move || cancel.notify_one()));
        let terms = RunTerms::from(Instant::now() + LONG);
        let run = self.ensemble.run(request.clone(), (terms, Manner::Aside));
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancelled.notified() => Err(RunError::Cancelled),
                outcome = run => outcome.map_err(as_run_error),
            }
        });
        outcome.map(|completion| completion.outputs)
    }
}

fn as_run_error(error: InferError) -> RunError {
    match error {
        InferError::Run(error) => error,
        other => RunError::Rejected(other.to_string()),
    }
}
