//! A session with what its runs need, so that none makes it anew.

use std::ffi::CString;
use std::sync::Arc;

use bytes::Bytes;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session, SharedSessionInner};

use super::arena::Sizes;
use super::raw::{self, Inputs, Value};
use super::{lent, signature, values};
use crate::inference::{BackendError, PreparedRequest, RunError, Signature, Tensor, TensorSpec};

/// A session, its signature, and the names in that as C has them.
pub(super) struct OnnxSession {
    /// Without what `ort` has noted of its inputs and outputs: a signature tells that, in less.
    session: Arc<SharedSessionInner>,
    signature: Signature,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    /// Tells that what is lent to the session is the machine's own memory.
    memory: MemoryInfo<'static>,
    sizes: Sizes,
    outputs_are: Outputs,
}

/// What becomes of large outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    /// They leave as they are.
    Lent,
    /// They are copied as small ones are: for providers whose memory only the thread may free that runs them.
    Copied,
}

impl OnnxSession {
    #[expect(clippy::needless_pass_by_value, reason = "only what is kept of it is left")]
    pub(super) fn new(session: Session, outputs_are: Outputs) -> Result<Self, BackendError> {
        let (signature, session) = (signature::of(&session)?, session.inner());
        let (inputs, outputs) = (names(&signature.inputs), names(&signature.outputs));
        let (memory, sizes) = (MemoryInfo::default(), Sizes::default());
        Ok(Self { session, signature, inputs, outputs, memory, sizes, outputs_are })
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

    /// Whether the run of this request is to give back memory at its end.
    pub(super) fn gives_back(&self, request: &PreparedRequest) -> bool {
        self.sizes.gives_back(request.size())
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

    /// The tensors of a run that this request has made.
    pub(super) fn tensors(
        self: &Arc<Self>,
        outputs: Vec<Option<Value<'static>>>,
        request: &PreparedRequest,
    ) -> Result<Vec<Tensor>, RunError> {
        let specs = request.outputs().iter().map(|position| &self.signature.outputs[*position]);
        let read = |(spec, value): (&TensorSpec, Option<Value<'static>>)| {
            let absent = || RunError::Engine(format!("it gave no output '{}'", spec.name));
            values::from_ort(value.ok_or_else(absent)?, spec.datatype, |value| {
                self.content(value, request)
            })
        };
        specs.zip(outputs).map(read).collect()
    }

    /// The bytes of an output: copied out of ONNX Runtime's memory, which would otherwise be kept from
    /// being used again, unless they are many.
    fn content(
        self: &Arc<Self>,
        output: Value<'static>,
        request: &PreparedRequest,
    ) -> ort::Result<Bytes> {
        let bytes = output.bytes()?;
        let inputs = request.inputs().iter().flatten().filter_map(Tensor::as_bytes);
        if self.outputs_are == Outputs::Lent && lent::is_lendable(bytes, inputs.map(AsRef::as_ref))
        {
            return Ok(lent::lend(output, self));
        }
        Ok(Bytes::copy_from_slice(bytes))
    }
}

fn names(specs: &[TensorSpec]) -> Vec<CString> {
    let name = |spec: &TensorSpec| CString::new(spec.name.as_str());
    let names: Result<_, _> = specs.iter().map(name).collect();
    names.expect("they come from C, where names end at a NUL byte")
}
