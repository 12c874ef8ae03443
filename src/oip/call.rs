//! A call of a model, from the moment that its request was read until its answer is to be written.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::classification::classify;
use super::parameters::{Parameters, RequestOptions};
use super::raw;
use super::refusal::Refusal;
use super::trace::Trace;
use crate::inference::{DataType, Dim, InferenceRequest, NamedTensor, RunTerms, Signature, Tensor};
use crate::model::{
    CacheLookup, ModelLifecycleManager, ModelName, Protocol, Traced, Traces, VersionHandle,
    VersionRef, Wanted,
};
use crate::trail::{self, Trail};

/// What a model is to be asked.
#[derive(Debug)]
pub(crate) struct Call {
    /// What it came over.
    pub(crate) protocol: Protocol,
    /// By which it is found in the log where it is traced.
    pub(crate) id: Option<Bytes>,
    /// What it leaves behind, if it does.
    pub(crate) trail: Option<Trail>,
    pub(crate) model: ModelName,
    pub(crate) version: Option<VersionRef>,
    pub(crate) options: RequestOptions,
    pub(crate) inputs: Inputs,
    /// Empty for all of them, in the graph's order.
    pub(crate) outputs: Vec<WantedOutput>,
}

/// What it is asked with.
#[derive(Debug)]
pub(crate) enum Inputs {
    Tensors(Vec<NamedTensor>),
    /// The bytes of the only input of the model, which tells its datatype and shape.
    Raw(Bytes),
}

/// An output that is asked for.
#[derive(Debug)]
pub(crate) struct WantedOutput {
    pub(crate) name: String,
    /// How many classes it is to be made of, where it is.
    pub(crate) classes: Option<NonZeroUsize>,
}

/// What a model has answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) version: VersionHandle,
    /// In the order asked for.
    pub(crate) outputs: Vec<NamedTensor>,
    /// Whether it had been kept; `None` where answers are not.
    pub(crate) cache: Option<CacheLookup>,
}

impl WantedOutput {
    /// An output with what its parameters say.
    ///
    /// # Errors
    /// What makes no sense, or is not done.
    pub(crate) fn new(name: String, parameters: &Parameters) -> Result<Self, Refusal> {
        parameters.is_not_shared(|| format!("output '{name}'"))?;
        let classes = parameters.count("classification", "a number of classes");
        let classes = classes.map_err(|refusal| refusal.of_output(&name))?;
        // None at all is no classification, as in Triton.
        let classes = classes.and_then(|count| usize::try_from(count).ok());
        Ok(Self { name, classes: classes.and_then(NonZeroUsize::new) })
    }
}

impl Call {
    /// Asks the model. The version is chosen as late as this, so that a slow upload holds none.
    ///
    /// `received` is when the request came; it has `most` from then on, or what it asks for if that is
    /// less. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn run(
        self,
        (models, traces): (&ModelLifecycleManager, &Traces),
        bounds: (Instant, Duration),
    ) -> Result<Reply, Refusal> {
        let version = self.acquire(models, bounds).await?;
        self.ask(version, traces, bounds).await
    }

    /// The version that is to answer, for those who need it to read the request. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn acquire(
        &self,
        models: &ModelLifecycleManager,
        bounds: (Instant, Duration),
    ) -> Result<VersionHandle, Refusal> {
        if let Some(trail) = &self.trail {
            trail.for_model(Bytes::copy_from_slice(self.model.as_str().as_bytes()));
        }
        let wanted = Wanted::new(self.version.as_ref(), self.options.routing_key.as_deref());
        let deadline = self.options.deadline(bounds);
        let version = models.acquire_waiting(self.model.as_str(), wanted, deadline).await?;
        Ok(version.over(self.protocol))
    }

    /// Asks that version. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn ask(
        self,
        version: VersionHandle,
        traces: &Traces,
        bounds: (Instant, Duration),
    ) -> Result<Reply, Refusal> {
        let Self { id, trail, model, options, inputs, outputs, .. } = self;
        if let Some(trail) = &trail {
            let Traced { model, version, digest } = version.traced().clone();
            trail.asks(trail::Version { model, version, digest });
        }
        let deadline = options.deadline(bounds);
        let (received, _) = bounds;
        let inputs = fitting(&model, &version, inputs).inspect_err(|_| version.refused())?;
        let names = outputs.iter().map(|output| output.name.clone()).collect();
        let request = InferenceRequest { inputs, outputs: names };
        let ids = trail.as_ref().map(Trail::ids).unwrap_or_default();
        let trace = traces.sample(&model).map(|number| Trace { number, id, ids, received });
        let terms = RunTerms { deadline, priority: options.priority };
        let answer = version.infer(request, terms).await;
        if let Some(trace) = trace {
            trace.write(version.id(), answer.as_ref());
        }
        let answer = answer?;
        if let Some(trail) = &trail {
            trail.ran(answer.timings, answer.cache.map(CacheLookup::name));
        }
        let mut tensors = Vec::with_capacity(answer.outputs.len());
        for (place, (position, tensor)) in answer.outputs.into_iter().enumerate() {
            let name = version.signature().outputs[position].name.clone();
            let classes = outputs.get(place).and_then(|output| output.classes);
            let tensor = match classes {
                None => tensor,
                Some(count) => classified(&version, &name, (&tensor, count))?,
            };
            tensors.push(NamedTensor { name, tensor });
        }
        Ok(Reply { version, outputs: tensors, cache: answer.cache })
    }
}

/// The tensors, once what the protocol asks of them beside the signature is looked at.
fn fitting(
    model: &ModelName,
    version: &VersionHandle,
    inputs: Inputs,
) -> Result<Vec<NamedTensor>, Refusal> {
    let inputs = match inputs {
        Inputs::Tensors(tensors) => tensors,
        Inputs::Raw(raw) => vec![only_input(model, version.signature(), raw)?],
    };
    inputs.iter().try_for_each(|input| fits(model, version, input))?;
    Ok(inputs)
}

/// Whether an input's batch is as large as it may be.
fn fits(model: &ModelName, version: &VersionHandle, input: &NamedTensor) -> Result<(), Refusal> {
    let most = version.settings().max_batch_size.filter(|most| *most > 0);
    let batch = input.tensor.shape().first().copied();
    match most.zip(batch) {
        // The beginning is Triton's.
        Some((most, batch)) if batch as u64 > u64::from(most) => Err(Refusal::invalid(format!(
            "inference request batch-size must be <= {most} for '{model}': input '{}' has a batch \
             of {batch}",
            input.name
        ))),
        _ => Ok(()),
    }
}

fn classified(
    version: &VersionHandle,
    name: &str,
    (tensor, count): (&Tensor, NonZeroUsize),
) -> Result<Tensor, Refusal> {
    let classified = classify(tensor, (version.is_batched(), count), version.labels(name));
    classified.map_err(|refusal| Refusal::invalid(format!("output '{name}': {refusal}")))
}

/// The only input of a model, of which only the bytes were given. At most one dimension is free: its size
/// follows from how many bytes there are. Without such a one, it is a batch of one where the model takes
/// batches.
pub(crate) fn only_input(
    model: &ModelName,
    signature: &Signature,
    raw: Bytes,
) -> Result<NamedTensor, Refusal> {
    let refuse = |why: &str| {
        Refusal::invalid(format!(
            "raw binary data cannot be taken by model '{model}': {why}; send a JSON header that \
             tells the inputs"
        ))
    };
    let [spec] = signature.inputs.as_slice() else {
        return Err(refuse("it has not exactly one input"));
    };
    let Some(dims) = &spec.shape else { return Err(refuse("its input has no declared rank")) };
    let is_text = spec.datatype == DataType::Bytes;
    let free: Vec<usize> = places(dims);
    // The batch is one where something else is free too.
    let batch = (free.len() == 2 && free[0] == 0 && !is_text).then_some(0);
    let mut left = free.iter().copied().filter(|place| Some(*place) != batch);
    let (open, more) = (left.next(), left.next());
    if more.is_some() {
        return Err(refuse("several dimensions of its input are free"));
    }
    let known = dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 });
    let mut shape: Vec<usize> = known.collect();
    // As in Triton, raw bytes are one text.
    let raw = if is_text { length_prefixed(&raw) } else { raw };
    if let (Some(open), Some(size)) = (open, spec.datatype.size()) {
        let row = shape.iter().try_fold(size, |row, dim| row.checked_mul(*dim)).unwrap_or(0);
        let rows = raw.len().checked_div(row).unwrap_or(0);
        if rows == 0 || rows * row != raw.len() {
            let (shape, given) = (spec.shape_text(), raw.len());
            let problem = format!(
                "{} of shape {shape} needs a multiple of {row} bytes, got {given}",
                spec.datatype
            );
            return Err(unexpected_size(&spec.name, &problem));
        }
        shape[open] = rows;
    }
    let tensor = raw::read(spec.datatype, shape, raw);
    let tensor = tensor.map_err(|error| unexpected_size(&spec.name, &error.to_string()))?;
    Ok(NamedTensor { name: spec.name.clone(), tensor })
}

fn places(dims: &[Dim]) -> Vec<usize> {
    let free = dims.iter().enumerate().filter(|(_, dim)| matches!(dim, Dim::Dynamic(_)));
    free.map(|(place, _)| place).collect()
}

fn length_prefixed(text: &Bytes) -> Bytes {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    Bytes::from([&length[..], text].concat())
}

pub(crate) fn unexpected_size(input: &str, problem: &str) -> Refusal {
    Refusal::invalid(format!("input '{input}': {problem}"))
}
