//! One request on its way through the steps of an ensemble.

use std::mem;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::super::handle::Answer;
use super::super::observer::Protocol;
use super::super::runner::Manner;
use super::pinned::Ensemble;
use super::plan::{Plan, label};
use crate::inference::{
    Completion, InferError, InferenceRequest, NamedTensor, PreparedRequest, RunError, RunTerms,
    Tensor, Timings,
};

/// A tensor on its way.
#[derive(Debug, Clone)]
enum Slot {
    /// A step is to give it.
    Coming,
    /// It is there, or was left out by a request that may.
    There(Option<Tensor>),
}

/// A request with the tensors that it has so far.
struct Course<'a> {
    plan: &'a Plan,
    slots: Vec<Slot>,
    /// How many are still to take each tensor.
    uses: Vec<usize>,
    /// Which steps have to run and were not begun.
    waiting: Vec<usize>,
}

/// A step that runs: its number, the tensors that it gives, and what has come of it.
type Running<'a> = BoxFuture<'a, (usize, Vec<usize>, Result<Answer, InferError>)>;

impl Ensemble {
    /// Runs a request through the steps that its outputs need, each as soon as there is what it takes. The
    /// first that fails ends the others.
    ///
    /// Cancel safe: dropping the future cancels what runs.
    ///
    /// # Errors
    /// [`InferError::Step`].
    pub(in super::super) async fn run(
        &self,
        request: PreparedRequest,
        how: (RunTerms, Manner),
    ) -> Result<Completion, InferError> {
        let admitted = Instant::now();
        let entries = request.entries(self.is_batched) as u64;
        let wanted = request.outputs().iter().map(|output| self.plan.outputs[*output]);
        let wanted: Vec<usize> = wanted.collect();
        let mut course = Course::new(&self.plan, request, &wanted);
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(step) = course.next() {
                running.push(self.step(step, course.begin(step), how));
            }
            let Some((step, gives, answer)) = running.next().await else { break };
            let answer = answer.map_err(|error| self.failed(step, error))?;
            let outputs = answer.outputs.into_iter().map(|(_, tensor)| tensor);
            gives.into_iter().zip(outputs).for_each(|(place, tensor)| course.put(place, tensor));
        }
        let outputs = wanted.iter().filter_map(|place| course.take(*place)).collect();
        let compute = admitted.elapsed();
        let timings = Timings { admitted: Some(admitted), compute, ..Timings::default() };
        if how.1 != Manner::Aside {
            self.runs.add(entries, &timings);
        }
        Ok(Completion { outputs, timings })
    }

    /// Asks a step. Its type is named, as a step may be an ensemble too.
    fn step(
        &self,
        step: usize,
        (request, gives): (InferenceRequest, Vec<usize>),
        (terms, manner): (RunTerms, Manner),
    ) -> Running<'_> {
        let serving = self.steps[step].serving();
        Box::pin(async move {
            let answer = match manner {
                Manner::Aside => serving.answer(request, (terms, manner)).await,
                Manner::Usual | Manner::Patient | Manner::Anew => {
                    serving.infer(request, (terms, manner), Protocol::Internal).await
                }
            };
            (step, gives, answer)
        })
    }

    fn failed(&self, step: usize, error: InferError) -> InferError {
        let error = match error {
            InferError::Input(error) if !self.plan.is_asked_for(step, error.input()) => {
                // The caller can do nothing about it.
                let error = format!("what it is given by another step does not fit: {error}");
                InferError::Run(RunError::Engine(error))
            }
            error => error,
        };
        let step = label(step, &self.steps[step].serving().id);
        InferError::Step { step, error: Box::new(error) }
    }
}

impl<'a> Course<'a> {
    fn new(plan: &'a Plan, request: PreparedRequest, wanted: &[usize]) -> Self {
        let mut slots = vec![Slot::Coming; plan.names.len()];
        for (place, tensor) in plan.inputs.iter().zip(request.into_inputs()) {
            slots[*place] = Slot::There(tensor);
        }
        let waiting = plan.needed(wanted);
        let mut uses = vec![0; plan.names.len()];
        let taken = waiting.iter().flat_map(|step| &plan.steps[*step].inputs);
        for place in taken.map(|(_, place)| place).chain(wanted) {
            uses[*place] += 1;
        }
        Self { plan, slots, uses, waiting }
    }

    /// A step for which everything is there.
    fn next(&self) -> Option<usize> {
        let is_there = |place: &usize| matches!(self.slots[*place], Slot::There(_));
        let is_ready =
            |step: &&usize| self.plan.steps[**step].inputs.iter().all(|(_, place)| is_there(place));
        self.waiting.iter().find(is_ready).copied()
    }

    /// What a step that is begun is asked, and the tensors that it gives.
    fn begin(&mut self, step: usize) -> (InferenceRequest, Vec<usize>) {
        self.waiting.retain(|waiting| *waiting != step);
        let planned = &self.plan.steps[step];
        let mut inputs = Vec::with_capacity(planned.inputs.len());
        for (name, place) in &planned.inputs {
            let tensor = self.take(*place);
            inputs.extend(tensor.map(|tensor| NamedTensor { name: name.clone(), tensor }));
        }
        let needed = planned.outputs.iter().filter(|(_, place)| self.uses[*place] > 0);
        let (outputs, gives) = needed.map(|(name, place)| (name.clone(), *place)).unzip();
        (InferenceRequest { inputs, outputs }, gives)
    }

    fn put(&mut self, place: usize, tensor: Tensor) {
        self.slots[place] = Slot::There(Some(tensor));
    }

    /// A tensor for one who takes it. The last gets it whole, so that nothing outlives its use.
    fn take(&mut self, place: usize) -> Option<Tensor> {
        self.uses[place] -= 1;
        match &mut self.slots[place] {
            Slot::Coming => None,
            Slot::There(tensor) if self.uses[place] == 0 => mem::take(tensor),
            Slot::There(tensor) => tensor.clone(),
        }
    }
}
