//! Running a session.

use std::sync::Arc;

use ort::error::ErrorCode;
use ort::session::RunOptions;
use tracing::debug;

use super::session::OnnxSession;
use super::told;
use crate::inference::{
    Instance, PreparedRequest, RunControl, RunError, Tensor, Terminate, Terminator,
};

/// Runs a session that it has alone, or with the other instances of its version.
pub(super) struct OnnxInstance {
    session: Arc<OnnxSession>,
    /// Those of the run before, where that was neither terminated, which sticks to them, nor an unusual one.
    options: Option<Arc<Terms>>,
}

impl OnnxInstance {
    pub(super) fn new(session: Arc<OnnxSession>) -> Self {
        Self { session, options: None }
    }

    /// For a usual run.
    fn options(&mut self) -> ort::Result<Arc<Terms>> {
        let new = || RunOptions::new().map(|options| Arc::new(Terms(options)));
        self.options.take().map_or_else(new, Ok)
    }
}

/// For a run that gives memory back at its end.
fn giving_back() -> ort::Result<Arc<Terms>> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(Arc::new(Terms(options)))
}

/// How a session is run.
struct Terms(RunOptions);

impl Terminate for Terms {
    fn terminate(&self) {
        // It can only fail on a null pointer; the run would then go on to its end.
        self.0.terminate().ok();
    }
}

impl Instance for OnnxInstance {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        let gives_back = self.session.gives_back(request);
        let options = if gives_back { giving_back() } else { self.options() }.map_err(engine)?;
        let inputs = self.session.inputs(request).map_err(engine)?;
        let armed = control.arm(Arc::clone(&options) as Terminator);
        control.computing();
        let outputs = self.session.run(&inputs, request.outputs(), &options.0);
        control.computed();
        // Whoever cancels from now on terminates nothing.
        drop(armed);
        let cancelled = control.is_cancelled();
        self.options = (!cancelled && !gives_back).then_some(options);
        let outputs = outputs
            .map_err(|error| if cancelled { RunError::Cancelled } else { failed(&error) })?;
        self.session.tensors(outputs, request)
    }
}

/// Tells an operator that cannot compute this input from an engine that has failed.
///
/// The model has answered its warm-up, so where an operator fails, it is for what this input has
/// made of its operands: shapes that do not fit each other, an index out of range. Operators report
/// that as an invalid argument or as an exception, and have no code of their own for it.
fn failed(error: &ort::Error) -> RunError {
    // Its message may have an element of a tensor.
    debug!(code = ?error.code(), "the engine has failed or refused a request");
    let message = told::cause(error.message());
    let of_operator = matches!(
        error.code(),
        ErrorCode::InvalidArgument | ErrorCode::RuntimeException | ErrorCode::GenericFailure
    );
    let out_of_memory = ["bad_alloc", "bad allocation", "allocate memory"];
    if of_operator && !out_of_memory.iter().any(|sign| message.contains(sign)) {
        RunError::Rejected(message)
    } else {
        RunError::Engine(message)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn engine(error: ort::Error) -> RunError {
    RunError::Engine(error.to_string())
}
