//! How tensors go through an ensemble: made from its definition and the signatures of its steps.

use std::collections::BTreeMap;

use super::{EnsembleDefinition, StepDefinition};
use crate::inference::{Dim, Signature, TensorSpec};

/// The most steps, those of ensembles in it included.
pub(super) const MOST_STEPS: usize = 1024;

/// Why steps do not make an ensemble.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnsembleError {
    /// A step's model has no such input or output.
    #[error("{step} has no {direction} '{name}', its {direction}s are {known}")]
    UnknownTensor {
        /// The step.
        step: String,
        /// `input` or `output`.
        direction: &'static str,
        /// The name in the definition.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Nobody could tell which of the two is meant.
    #[error("tensor '{tensor}' is given by {one} and by {other}")]
    GivenTwice {
        /// The tensor.
        tensor: String,
        /// Who gives it.
        one: String,
        /// Who gives it too.
        other: String,
    },
    /// A step takes what nobody gives.
    #[error(
        "tensor '{tensor}', which is input '{input}' of {step}, is given by no step and is no input \
         of the ensemble"
    )]
    NotGiven {
        /// The tensor.
        tensor: String,
        /// The step's input.
        input: String,
        /// The step.
        step: String,
    },
    /// The ensemble answers what no step gives.
    #[error("output '{0}' of the ensemble is given by no step")]
    OutputNotGiven(String),
    /// The ensemble takes what no step needs.
    #[error("input '{0}' of the ensemble is taken by no step")]
    InputNotTaken(String),
    /// A name is there twice.
    #[error("'{name}' is more than once among the {direction}s of the ensemble")]
    NamedTwice {
        /// The name.
        name: String,
        /// `input` or `output`.
        direction: &'static str,
    },
    /// Steps wait for each other.
    #[error("tensors go round in a circle: {0}")]
    Circle(String),
    /// What one step gives, or the request, is not what another takes.
    #[error("tensor '{tensor}' is {one}, and cannot be {other}")]
    Unlike {
        /// The tensor.
        tensor: String,
        /// What it is, and for whom.
        one: String,
        /// What it had to be besides, and for whom.
        other: String,
    },
    /// A request would take too long, and so would the load.
    #[error("it has {0} steps with those of the ensembles in it, more than {MOST_STEPS}")]
    TooManySteps(usize),
    /// Nothing would be answered.
    #[error("it has no outputs: every tensor that a step gives is taken by another")]
    NoOutputs,
}

/// The way of tensors through an ensemble. Tensors are known by their place among all of them.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What the ensemble takes and gives.
    pub(super) signature: Signature,
    /// The names of all tensors.
    pub(super) names: Vec<String>,
    /// The step that gives each of them; `None` where the request does.
    givers: Vec<Option<usize>>,
    /// The tensor of each input of the signature.
    pub(super) inputs: Vec<usize>,
    /// The tensor of each output of the signature.
    pub(super) outputs: Vec<usize>,
    /// In the order of the definition.
    pub(super) steps: Vec<PlannedStep>,
}

/// What a step takes and gives: by the names that its model knows, and tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedStep {
    pub(super) inputs: Vec<(String, usize)>,
    pub(super) outputs: Vec<(String, usize)>,
}

/// An end of a tensor at a step: the number of the step, and the input or output.
#[derive(Debug, Clone)]
struct End<'a> {
    step: usize,
    spec: &'a TensorSpec,
}

/// A tensor, as the definition is read.
#[derive(Debug, Default)]
struct Tensor<'a> {
    name: String,
    given_by: Option<End<'a>>,
    taken_by: Vec<End<'a>>,
}

/// The definition beside the signatures of its steps, as far as it was read.
struct Reading<'a> {
    definition: &'a EnsembleDefinition,
    signatures: &'a [Signature],
    places: BTreeMap<String, usize>,
    tensors: Vec<Tensor<'a>>,
    steps: Vec<PlannedStep>,
}

impl Plan {
    /// The plan of an ensemble whose steps have these signatures, in the same order.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn new(
        definition: &EnsembleDefinition,
        signatures: &[Signature],
    ) -> Result<Self, EnsembleError> {
        let (places, tensors, steps) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut reading = Reading { definition, signatures, places, tensors, steps };
        for (number, step) in definition.steps.iter().enumerate() {
            reading.step(number, step)?;
        }
        let (inputs, outputs) = (reading.inputs()?, reading.outputs()?);
        reading.is_no_circle()?;
        reading.fits()?;
        let tensor = |place: &usize| &reading.tensors[*place];
        let signature = Signature {
            inputs: inputs.iter().map(tensor).map(Tensor::as_input).collect(),
            outputs: outputs.iter().map(tensor).map(Tensor::as_output).collect(),
        };
        let giver = |tensor: &Tensor<'_>| tensor.given_by.as_ref().map(|end| end.step);
        let givers = reading.tensors.iter().map(giver).collect();
        let names = reading.tensors.into_iter().map(|tensor| tensor.name).collect();
        Ok(Self { signature, names, givers, inputs, outputs, steps: reading.steps })
    }

    /// Whether an input of a step comes from the request, and not from another step.
    pub(super) fn is_asked_for(&self, step: usize, input: Option<&str>) -> bool {
        let mut inputs = self.steps[step].inputs.iter();
        let place =
            inputs.find_map(|(name, place)| (Some(name.as_str()) == input).then_some(*place));
        place.is_some_and(|place| self.givers[place].is_none())
    }

    /// The steps without which these tensors cannot be had, in the order of the definition.
    pub(super) fn needed(&self, wanted: &[usize]) -> Vec<usize> {
        let mut needed = vec![false; self.steps.len()];
        let mut open = wanted.to_vec();
        while let Some(place) = open.pop() {
            let Some(step) = self.givers[place].filter(|step| !needed[*step]) else { continue };
            needed[step] = true;
            open.extend(self.steps[step].inputs.iter().map(|(_, place)| *place));
        }
        (0..needed.len()).filter(|step| needed[*step]).collect()
    }
}

/// A step as errors call it.
pub(super) fn label(number: usize, model: impl std::fmt::Display) -> String {
    format!("step {} ('{model}')", number + 1)
}

impl<'a> Reading<'a> {
    fn label(&self, number: usize) -> String {
        label(number, &self.definition.steps[number].model)
    }

    /// The place of a tensor, which is there from now on.
    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.tensors.len();
        self.places.insert(name.to_owned(), place);
        self.tensors.push(Tensor { name: name.to_owned(), ..Tensor::default() });
        place
    }

    fn step(&mut self, number: usize, step: &StepDefinition) -> Result<(), EnsembleError> {
        let signature = &self.signatures[number];
        self.knows(number, &step.inputs, "input")?;
        self.knows(number, step.outputs.as_ref().unwrap_or(&BTreeMap::new()), "output")?;
        let mut planned = PlannedStep { inputs: Vec::new(), outputs: Vec::new() };
        for spec in &signature.inputs {
            let own = (!spec.optional).then_some(&spec.name);
            let Some(tensor) = step.inputs.get(&spec.name).or(own) else { continue };
            let place = self.place(tensor);
            self.tensors[place].taken_by.push(End { step: number, spec });
            planned.inputs.push((spec.name.clone(), place));
        }
        for spec in &signature.outputs {
            let tensor = match &step.outputs {
                Some(named) => named.get(&spec.name),
                None => Some(&spec.name),
            };
            let Some(tensor) = tensor else { continue };
            let place = self.place(tensor);
            self.give(place, End { step: number, spec })?;
            planned.outputs.push((spec.name.clone(), place));
        }
        self.steps.push(planned);
        Ok(())
    }

    fn give(&mut self, place: usize, giver: End<'a>) -> Result<(), EnsembleError> {
        let other = self.label(giver.step);
        let Some(one) = self.tensors[place].given_by.replace(giver) else { return Ok(()) };
        let (tensor, one) = (self.tensors[place].name.clone(), self.label(one.step));
        Err(EnsembleError::GivenTwice { tensor, one, other })
    }

    /// Whether the model of a step has everything that is named of it.
    fn knows(
        &self,
        number: usize,
        named: &BTreeMap<String, String>,
        direction: &'static str,
    ) -> Result<(), EnsembleError> {
        let specs = of(&self.signatures[number], direction);
        let strange = named.keys().find(|name| specs.iter().all(|spec| spec.name != **name));
        strange.map_or(Ok(()), |name| {
            let (step, name) = (self.label(number), name.clone());
            Err(EnsembleError::UnknownTensor { step, direction, name, known: names_of(specs) })
        })
    }

    /// The tensors that a request gives.
    fn inputs(&self) -> Result<Vec<usize>, EnsembleError> {
        let Some(names) = &self.definition.inputs else {
            let tensors = self.tensors.iter().enumerate();
            return Ok(tensors.filter(|(_, it)| it.given_by.is_none()).map(|it| it.0).collect());
        };
        is_once(names, "input")?;
        let place = |name: &String| {
            let place = self.places.get(name).copied();
            let tensor = place.map(|place| &self.tensors[place]);
            if let Some(giver) = tensor.and_then(|tensor| tensor.given_by.as_ref()) {
                let (one, other) =
                    ("the request, as its input,".to_owned(), self.label(giver.step));
                return Err(EnsembleError::GivenTwice { tensor: name.clone(), one, other });
            }
            place.ok_or_else(|| EnsembleError::InputNotTaken(name.clone()))
        };
        let inputs = names.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let is_missing = |(place, tensor): &(usize, &Tensor<'_>)| {
            tensor.given_by.is_none() && !inputs.contains(place)
        };
        let missing = self.tensors.iter().enumerate().find(is_missing);
        let Some((_, Tensor { name, taken_by, .. })) = missing else { return Ok(inputs) };
        let taker = taken_by.first().expect("a tensor is there because a step takes or gives it");
        let (input, step) = (taker.spec.name.clone(), self.label(taker.step));
        Err(EnsembleError::NotGiven { tensor: name.clone(), input, step })
    }

    /// The tensors that are answered.
    fn outputs(&self) -> Result<Vec<usize>, EnsembleError> {
        let is_given = |place: &usize| self.tensors[*place].given_by.is_some();
        let outputs = if let Some(names) = &self.definition.outputs {
            is_once(names, "output")?;
            let place = |name: &String| {
                let place = self.places.get(name).copied().filter(is_given);
                place.ok_or_else(|| EnsembleError::OutputNotGiven(name.clone()))
            };
            names.iter().map(place).collect::<Result<Vec<_>, _>>()?
        } else {
            let is_end = |place: &usize| self.tensors[*place].taken_by.is_empty();
            (0..self.tensors.len()).filter(is_end).collect()
        };
        // Where the tensors go round, that is to be told.
        if outputs.is_empty() {
            self.is_no_circle()?;
            return Err(EnsembleError::NoOutputs);
        }
        Ok(outputs)
    }

    /// Steps are taken away that wait for nothing, until none is left, or those that are wait for each other.
    fn is_no_circle(&self) -> Result<(), EnsembleError> {
        let mut left: Vec<usize> = (0..self.steps.len()).collect();
        loop {
            let waits = |step: &usize| self.awaited(*step, &left).is_some();
            let waiting: Vec<usize> = left.iter().copied().filter(waits).collect();
            if waiting.len() == left.len() {
                break;
            }
            left = waiting;
        }
        let Some(mut step) = left.first().copied() else { return Ok(()) };
        // Going back from giver to giver, one is met again, and from there on it is a circle.
        let mut path: Vec<(usize, &str)> = Vec::new();
        let begin = loop {
            if let Some(begin) = path.iter().position(|(passed, _)| *passed == step) {
                break begin;
            }
            let (giver, tensor) = self.awaited(step, &left).expect("all that are left wait");
            path.push((step, tensor));
            step = giver;
        };
        let mut told = self.label(path[begin].0);
        for (number, (step, tensor)) in path[begin..].iter().rev().enumerate() {
            told.push_str(if number == 0 { " gives '" } else { ", which gives '" });
            told.extend([tensor, "' to ", &self.label(*step)]);
        }
        Err(EnsembleError::Circle(told))
    }

    /// One of these that a step waits for, and the tensor.
    fn awaited(&self, step: usize, among: &[usize]) -> Option<(usize, &str)> {
        self.steps[step].inputs.iter().find_map(|(_, place)| {
            let tensor = &self.tensors[*place];
            let giver = tensor.given_by.as_ref()?.step;
            among.contains(&giver).then_some((giver, tensor.name.as_str()))
        })
    }

    /// Whether everybody who has to do with a tensor takes it for the same.
    fn fits(&self) -> Result<(), EnsembleError> {
        for tensor in &self.tensors {
            let takers = tensor.taken_by.iter().map(|end| (end, "input"));
            let given = tensor.given_by.iter().map(|end| (end, "output"));
            let ends: Vec<_> = given.chain(takers).collect();
            for (place, other) in ends.iter().enumerate() {
                // Two that take the same part from a giver that leaves it open do not fit each other either.
                let unlike = ends[..place].iter().find(|one| !is_like(one.0.spec, other.0.spec));
                if let Some(one) = unlike {
                    let told = |(end, direction): &(&End<'_>, &str)| {
                        let TensorSpec { name, datatype, .. } = end.spec;
                        let (shape, step) = (end.spec.shape_text(), self.label(end.step));
                        format!("{datatype} {shape} as {direction} '{name}' of {step}")
                    };
                    let (one, other) = (told(one), told(other));
                    return Err(EnsembleError::Unlike { tensor: tensor.name.clone(), one, other });
                }
            }
        }
        Ok(())
    }
}

impl Tensor<'_> {
    /// As an input of the ensemble: as narrow as all who take it want it.
    fn as_input(&self) -> TensorSpec {
        let mut takers = self.taken_by.iter().map(|end| end.spec);
        let first = takers.next().expect("a tensor that no step gives is taken by one");
        let spec = takers.fold(first.clone(), narrowed);
        TensorSpec { name: self.name.clone(), ..spec }
    }

    /// As an output of the ensemble.
    fn as_output(&self) -> TensorSpec {
        let giver = self.given_by.as_ref().expect("an output is given by a step");
        TensorSpec { name: self.name.clone(), optional: false, ..giver.spec.clone() }
    }
}

fn of<'a>(signature: &'a Signature, direction: &str) -> &'a [TensorSpec] {
    if direction == "input" { &signature.inputs } else { &signature.outputs }
}

fn names_of(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    names.join(", ")
}

fn is_once(names: &[String], direction: &'static str) -> Result<(), EnsembleError> {
    let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
    twice.map_or(Ok(()), |(_, name)| {
        Err(EnsembleError::NamedTwice { name: name.clone(), direction })
    })
}

/// Whether one tensor can be both.
fn is_like(one: &TensorSpec, other: &TensorSpec) -> bool {
    let (Some(dims), Some(others)) = (&one.shape, &other.shape) else {
        return one.datatype == other.datatype;
    };
    let fits = |(dim, other): (&Dim, &Dim)| match (dim, other) {
        (Dim::Fixed(size), Dim::Fixed(other)) => size == other,
        _ => true,
    };
    one.datatype == other.datatype
        && dims.len() == others.len()
        && dims.iter().zip(others).all(fits)
}

/// What both of them take.
fn narrowed(one: TensorSpec, other: &TensorSpec) -> TensorSpec {
    let shape = match (one.shape, &other.shape) {
        (Some(dims), Some(others)) => {
            let narrow = |(dim, other): (Dim, &Dim)| match dim {
                Dim::Dynamic(_) if matches!(other, Dim::Fixed(_)) => other.clone(),
                dim => dim,
            };
            Some(dims.into_iter().zip(others).map(narrow).collect())
        }
        (shape, others) => shape.or_else(|| others.clone()),
    };
    TensorSpec { shape, optional: one.optional && other.optional, ..one }
}

#[cfg(test)]
mod tests;
