//! Running a session.

use std::borrow::Cow;
use std::sync::Arc;

use ort::error::ErrorCode;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue, SessionOutputs};
use tracing::debug;

use super::{told, values};
use crate::inference::{Instance, PreparedRequest, RunControl, RunError, Signature, Tensor};

/// One session. ONNX Runtime does not promise that a session may run twice at a time, so each
/// instance has one of its own.
pub(super) struct OnnxInstance {
    session: Session,
    signature: Signature,
}

impl OnnxInstance {
    pub(super) fn new(session: Session, signature: Signature) -> Self {
        Self { session, signature }
    }
}

impl Instance for OnnxInstance {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        let inputs = inputs(&self.signature, request)?;
        // Termination sticks to the options, so each run has its own.
        let options: RunOptions<NoSelectedOutputs> = RunOptions::new().map_err(engine)?;
        let options = Arc::new(options);
        let terminated = Arc::clone(&options);
        let _armed = control.arm(Box::new(move || {
            // It can only fail on a null pointer; the run would then go on to its end.
            terminated.terminate().ok();
        }));
        control.computing();
        let outputs = self.session.run_with_options(inputs, options.as_ref());
        control.computed();
        let outputs = outputs.map_err(|error| {
            if control.is_cancelled() { RunError::Cancelled } else { failed(&error) }
        })?;
        collect(&self.signature, &outputs, request.outputs())
    }
}

type NamedInputs<'a> = Vec<(Cow<'a, str>, SessionInputValue<'a>)>;

fn inputs<'a>(
    signature: &'a Signature,
    request: &'a PreparedRequest,
) -> Result<NamedInputs<'a>, RunError> {
    let given = signature.inputs.iter().zip(request.inputs());
    given
        .filter_map(|(spec, tensor)| tensor.as_ref().map(|tensor| (spec, tensor)))
        .map(|(spec, tensor)| {
            let value = values::to_ort(tensor).map_err(engine)?;
            Ok((Cow::Borrowed(spec.name.as_str()), value))
        })
        .collect()
}

fn collect(
    signature: &Signature,
    outputs: &SessionOutputs<'_>,
    wanted: &[usize],
) -> Result<Vec<Tensor>, RunError> {
    wanted
        .iter()
        .map(|position| {
            let spec = &signature.outputs[*position];
            let absent = || RunError::Engine(format!("it gave no output '{}'", spec.name));
            values::from_ort(outputs.get(&spec.name).ok_or_else(absent)?)
        })
        .collect()
}

/// Tells an operator that cannot compute this input from an engine that has failed.
///
/// The model has answered its warm-up, so where an operator fails, it is for what this input has
/// made of its operands: shapes that do not fit each other, an index out of range. Operators report
/// that as an invalid argument or as an exception, and have no code of their own for it.
fn failed(error: &ort::Error) -> RunError {
    debug!(cause = error.message(), "the engine has failed or refused a request");
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
