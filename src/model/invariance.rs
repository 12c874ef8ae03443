//! Whether a model answers the entries of a batch as it answers each alone.
//!
//! That its first dimensions are free does not say so: they may be something else, a model may normalise
//! over the whole batch, or mix its entries. So it is asked.

use bytes::Bytes;
use half::{bf16, f16};

use super::warm_up::{Fill, LARGEST, Plain, bytes, required, shape};
use crate::causes;
use crate::inference::{
    Batch, DataType, InferenceRequest, Instance, NamedTensor, Padding, PreparedRequest, RunControl,
    Signature, Tensor, TensorError, Tolerance, compare,
};

/// How many entries each of the requests has that are joined.
const ROWS: [usize; 3] = [1, 2, 1];

/// Free dimensions other than the first are of this size where the model takes that, so that there is
/// something to mix; of that of the warm-up otherwise.
const INNER: usize = 5;

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
    pub(super) fn run(&self, instance: &mut dyn Instance, plain: Plain) -> Result<(), String> {
        let mut alone = |inner| self.alone(instance, (ROWS.map(|rows| (rows, inner)), plain.fill));
        let (inner, asked) = match alone(INNER) {
            Ok(asked) => (INNER, asked),
            Err(_) => (plain.size, alone(plain.size)?),
        };
        self.together(instance, &asked)?;
        if self.padding.is_empty() {
            return Ok(());
        }
        let uneven = ROWS.map(|rows| (rows, inner + rows));
        let asked = self.alone(instance, (uneven, plain.fill))?;
        self.together(instance, &asked)
    }

    fn alone(
        &self,
        instance: &mut dyn Instance,
        (shapes, fill): ([(usize, usize); 3], Fill),
    ) -> Result<Asked, String> {
        let failed = |failure: String| {
            format!(
                "it does not answer what it was to be compared by, a generated input: {failure}"
            )
        };
        let mut numbers = Numbers(1);
        let mut ask = |(rows, inner)| {
            let request = self.request((rows, inner), fill, &mut numbers)?;
            let answer = instance.run(&request, self.control);
            Ok((request, answer.map_err(|error| causes::of_error(&error))?))
        };
        shapes.into_iter().map(&mut ask).collect::<Result<_, String>>().map_err(failed)
    }

    fn request(
        &self,
        (rows, inner): (usize, usize),
        fill: Fill,
        numbers: &mut Numbers,
    ) -> Result<PreparedRequest, String> {
        let size = (inner, rows);
        if bytes(self.signature, size).is_none_or(|bytes| bytes > LARGEST / 4) {
            return Err("it would be too large".to_owned());
        }
        let input = |spec: &crate::inference::TensorSpec| {
            let tensor = numbers.tensor(spec.datatype, shape(spec, size), fill)?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        };
        let inputs = required(self.signature).map(input).collect::<Result<_, TensorError>>();
        let inputs = inputs.map_err(|error| error.to_string())?;
        let request = InferenceRequest { inputs, outputs: Vec::new() };
        PreparedRequest::new(self.signature, request).map_err(|error| error.to_string())
    }

    fn together(&self, instance: &mut dyn Instance, asked: &Asked) -> Result<(), String> {
        let requests: Vec<&PreparedRequest> = asked.iter().map(|(request, _)| request).collect();
        let Some(batch) = Batch::of(&requests, self.padding) else {
            return Err("its inputs do not have the same first dimension".to_owned());
        };
        let answer = instance.run(batch.request(), self.control);
        let answer = answer.map_err(|error| {
            let (entries, cause) = (batch.entries(), causes::of_error(&error));
            format!("it does not answer a batch of {entries} generated entries: {cause}")
        })?;
        let parts = batch.divide(&answer).map_err(|problem| problem.to_string())?;
        asked.iter().zip(&parts).try_for_each(|((_, alone), part)| self.compare(alone, part))
    }

    fn compare(&self, alone: &[Tensor], part: &[Tensor]) -> Result<(), String> {
        let outputs = self.signature.outputs.iter().zip(alone).zip(part);
        for ((spec, alone), part) in outputs {
            if let Some(difference) = compare::difference(alone, part, Tolerance::default()) {
                let name = &spec.name;
                return Err(format!("its output '{name}' is another one in a batch: {difference}"));
            }
        }
        Ok(())
    }
}

/// Numbers in no order, always the same ones: a linear congruential generator, with the constants of
/// Knuth's MMIX.
struct Numbers(u64);

impl Numbers {
    /// The upper half, as the lower bits have short periods.
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    /// A tensor of numbers that are near those of the fill: the same or one more where they are whole.
    fn tensor(
        &mut self,
        datatype: DataType,
        shape: Vec<usize>,
        fill: Fill,
    ) -> Result<Tensor, TensorError> {
        let count = shape.iter().product();
        let least = match fill {
            Fill::Zeros => 0,
            Fill::Ones => 1,
        };
        let Some(size) = datatype.size() else {
            let text = |_| Bytes::from((least + self.next() % 2).to_string());
            return Tensor::from_strings(shape, (0..count).map(text).collect());
        };
        let mut raw = Vec::with_capacity(count * size);
        for _ in 0..count {
            let number = self.next();
            let real = f64::from(least) + f64::from(number) / 2_f64.powi(32);
            match datatype {
                DataType::Fp16 => raw.extend(f16::from_f64(real).to_le_bytes()),
                DataType::Bf16 => raw.extend(bf16::from_f64(real).to_le_bytes()),
                #[expect(clippy::cast_possible_truncation, reason = "rounded to the datatype")]
                DataType::Fp32 => raw.extend((real as f32).to_le_bytes()),
                DataType::Fp64 => raw.extend(real.to_le_bytes()),
                DataType::Bool => raw.push(u8::from(number % 2 == 1)),
                _ => raw.extend(&u64::from(least + number % 2).to_le_bytes()[..size]),
            }
        }
        Tensor::from_bytes(datatype, shape, Bytes::from(raw))
    }
}
