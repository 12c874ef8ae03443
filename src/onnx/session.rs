//! A session with what its runs need, so that none makes it anew.

use std::ffi::CString;

use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session};

use super::raw::{self, Inputs, Value};
use super::{signature, values};
use crate::inference::{BackendError, PreparedRequest, RunError, Signature, Tensor, TensorSpec};

/// A session, its signature, and the names in that as C has them.
pub(super) struct OnnxSession {
    session: Session,
    signature: Signature,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    /// Tells that what is lent to the session is the machine's own memory.
    memory: MemoryInfo<'static>,
}

impl OnnxSession {
    pub(super) fn new(session: Session) -> Result<Self, BackendError> {
        let signature = signature::of(&session)?;
        let (inputs, outputs) = (names(&signature.inputs), names(&signature.outputs));
        Ok(Self { session, signature, inputs, outputs, memory: MemoryInfo::default() })
    }

    pub(super) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// A request's tensors, lent to ONNX Runtime.
    pub(super) fn inputs<'a>(&'a self, request: &'a PreparedRequest) -> ort::Result<Inputs<'a>> {
        let mut inputs = Inputs::default();
        for (name, tensor) in self.inputs.iter().zip(request.inputs()) {
            if let Some(tensor) = tensor {
                inputs.push(name, values::to_ort(tensor, &self.memory)?);
            }
        }
        Ok(inputs)
    }

    /// Runs it for the outputs at these positions, in this order.
    pub(super) fn run(
        &self,
        inputs: &Inputs<'_>,
        wanted: &[usize],
        options: &RunOptions,
    ) -> ort::Result<Vec<Option<Value<'static>>>> {
        let outputs = wanted.iter().map(|position| self.outputs[*position].as_c_str());
        raw::run(&self.session, options, inputs, &outputs.collect())
    }

    /// The tensors of a run for the outputs at these positions.
    pub(super) fn tensors(
        &self,
        outputs: Vec<Option<Value<'static>>>,
        wanted: &[usize],
    ) -> Result<Vec<Tensor>, RunError> {
        let specs = wanted.iter().map(|position| &self.signature.outputs[*position]);
        let read = |(spec, value): (&TensorSpec, Option<Value<'static>>)| {
            let absent = || RunError::Engine(format!("it gave no output '{}'", spec.name));
            values::from_ort(&value.ok_or_else(absent)?, spec.datatype)
        };
        specs.zip(outputs).map(read).collect()
    }
}

fn names(specs: &[TensorSpec]) -> Vec<CString> {
    let name = |spec: &TensorSpec| CString::new(spec.name.as_str());
    let names: Result<_, _> = specs.iter().map(name).collect();
    names.expect("they come from C, where names end at a NUL byte")
}
