//! Whether a model answers the entries of a batch as it answers each alone.
//!
//! That its first dimensions are free does not say so: they may be something else, a model may normalise
//! over the whole batch, or mix its entries. So it is asked.

use std::time::Duration;

use tokio::time::Instant;

use super::numbers::Numbers;
use super::warm_up::{LARGEST, Plain, bytes, required, shape};
use crate::causes;
use crate::inference::{
    Batch, DataType, InferenceRequest, Instance, NamedTensor, Padding, PreparedRequest, RunControl,
    Signature, Tensor, TensorError, TensorSpec, Tolerance, compare,
};

/// How many entries each of the requests has that are joined.
const ROWS: [usize; 3] = [1, 2, 1];

/// Free dimensions other than the first are of this size where the model takes that, so that there is
/// something to mix; of that of the warm-up otherwise.
const INNER: usize = 5;

/// By how much the lengths of requests differ that are filled up: by about as much as those that are joined
/// may, or else by as little as can be.
const LONGER: [[usize; 3]; 2] = [[0, 11, 4], [0, 1, 2]];

/// A load must not wait for a model that takes longer than this for one entry.
const LONGEST: Duration = Duration::from_secs(2);

/// Why a model cannot be taken to answer batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It was seen to answer them otherwise.
    Differs(String),
    /// Nothing was seen.
    Unseen(String),
}

/// What is asked, and under whose control.
pub(super) struct Check<'a> {
    pub(super) signature: &'a Signature,
    pub(super) padding: &'a Padding,
    pub(super) control: &'a RunControl,
}

/// Requests, and what each was answered alone.
type Asked = Vec<(PreparedRequest, Vec<Tensor>)>;

impl Check<'_> {
    /// Blocks while `instance` answers a few requests, each alone and all together. `plain` is what its
    /// warm-up was.
    ///
    /// # Errors
    /// What differs, or why that cannot be found out.
    pub(super) fn run(&self, instance: &mut dyn Instance, plain: Plain) -> Result<(), Doubt> {
        let (inner, asked) = self.sized(instance, plain)?;
        self.together(instance, &asked)?;
        if tells_nothing(&asked) {
            return Err(Doubt::Unseen("generated inputs are all answered alike".to_owned()));
        }
        if self.padding.is_empty() {
            return Ok(());
        }
        let mut unanswered = None;
        for longer in LONGER {
            let shapes = [0, 1, 2].map(|place| (ROWS[place], inner + longer[place]));
            match self.alone(instance, (shapes, plain)) {
                Ok(asked) => return self.together(instance, &asked),
                Err(failure) => unanswered = Some(failure),
            }
        }
        Err(Doubt::Unseen(unanswered.unwrap_or_default()))
    }

    /// Requests of the usual size, or of that of the warm-up.
    fn sized(&self, instance: &mut dyn Instance, plain: Plain) -> Result<(usize, Asked), Doubt> {
        let mut failures = Vec::new();
        for inner in [INNER, plain.size] {
            match self.alone(instance, (ROWS.map(|rows| (rows, inner)), plain)) {
                Ok(asked) => return Ok((inner, asked)),
                Err(failure) => failures.push(failure),
            }
        }
        let failure = failures.pop().unwrap_or_default();
        Err(Doubt::Unseen(format!("nothing could be compared: {failure}")))
    }

    /// Asks with numbers that differ, or else with whole ones that do not where there are others.
    fn alone(
        &self,
        instance: &mut dyn Instance,
        (shapes, plain): ([(usize, usize); 3], Plain),
    ) -> Result<Asked, String> {
        let varied = self.answers(instance, (shapes, Numbers::new(plain.fill)));
        let has_real = required(self.signature).any(|spec| is_real(spec.datatype));
        varied.or_else(|failure| {
            let again = has_real && !self.control.is_cancelled();
            let numbers = Numbers::with_same_whole_ones(plain.fill);
            if again { self.answers(instance, (shapes, numbers)) } else { Err(failure) }
        })
    }

    fn answers(
        &self,
        instance: &mut dyn Instance,
        (shapes, mut numbers): ([(usize, usize); 3], Numbers),
    ) -> Result<Asked, String> {
        let mut asked = Vec::new();
        for size in shapes {
            let began = Instant::now();
            let request = self.request(size, &mut numbers)?;
            let answer = instance.run(&request, self.control);
            asked.push((request, answer.map_err(|error| causes::of_error(&error))?));
            if began.elapsed() > LONGEST {
                return Err("it takes too long to be asked more than once".to_owned());
            }
        }
        Ok(asked)
    }

    fn request(
        &self,
        (rows, inner): (usize, usize),
        numbers: &mut Numbers,
    ) -> Result<PreparedRequest, String> {
        let size = (inner, rows);
        if bytes(self.signature, size).is_none_or(|bytes| bytes > LARGEST / 4) {
            return Err("its inputs would be too large".to_owned());
        }
        let input = |spec: &TensorSpec| {
            let tensor = numbers.tensor(spec.datatype, shape(spec, size))?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        };
        let inputs = required(self.signature).map(input).collect::<Result<_, TensorError>>();
        let inputs = inputs.map_err(|error| error.to_string())?;
        let request = InferenceRequest { inputs, outputs: Vec::new() };
        PreparedRequest::new(self.signature, request).map_err(|error| error.to_string())
    }

    fn together(&self, instance: &mut dyn Instance, asked: &Asked) -> Result<(), Doubt> {
        let requests: Vec<&PreparedRequest> = asked.iter().map(|(request, _)| request).collect();
        let Some(batch) = Batch::of(&requests, self.padding) else {
            return Err(Doubt::Unseen("generated inputs do not fit each other".to_owned()));
        };
        let answer = instance.run(batch.request(), self.control).map_err(|error| {
            let (entries, cause) = (batch.entries(), causes::of_error(&error));
            Doubt::Differs(format!("it does not answer a batch of {entries} entries: {cause}"))
        })?;
        let parts = batch.divide(&answer).map_err(|problem| Doubt::Differs(problem.to_string()))?;
        asked.iter().zip(&parts).try_for_each(|((_, alone), part)| self.compare(alone, part))
    }

    fn compare(&self, alone: &[Tensor], part: &[Tensor]) -> Result<(), Doubt> {
        let outputs = self.signature.outputs.iter().zip(alone).zip(part);
        for ((spec, alone), part) in outputs {
            if let Some(difference) = compare::difference(alone, part, tolerance(alone)) {
                let name = &spec.name;
                let told = format!("its output '{name}' is another one in a batch: {difference}");
                return Err(Doubt::Differs(told));
            }
        }
        Ok(())
    }
}

/// Whether the first and the last request, which are of one shape, have the same answers.
fn tells_nothing(asked: &Asked) -> bool {
    asked.first().map(|(_, answer)| answer) == asked.last().map(|(_, answer)| answer)
}

/// How far numbers may be apart: by what rounding does to the largest of them, whatever its size.
fn tolerance(alone: &Tensor) -> Tolerance {
    let usual = Tolerance::default();
    let zeros = Tensor::zeros(alone.datatype(), alone.shape().to_vec()).ok();
    let largest = zeros.and_then(|zeros| compare::max_abs_diff(&zeros, alone));
    let absolute = largest.map_or(usual.absolute, |largest| usual.absolute * largest.min(1.0));
    let relative = match alone.datatype() {
        DataType::Fp16 => 5e-3,
        DataType::Bf16 => 3e-2,
        _ => usual.relative,
    };
    Tolerance { absolute, relative }
}

fn is_real(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}
