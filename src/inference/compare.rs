//! Whether two answers to one request say the same.

use bytes::Bytes;
use half::{bf16, f16};

use super::datatype::DataType;
use super::tensor::Tensor;

/// How far two floating-point numbers may be apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In units of the numbers.
    pub absolute: f64,
    /// In parts of the expected number.
    pub relative: f64,
}

impl Default for Tolerance {
    /// What the same computation on another machine stays within.
    fn default() -> Self {
        Self { absolute: 1e-4, relative: 1e-3 }
    }
}

impl Tolerance {
    /// NaN is close to NaN only, and an infinity to itself only.
    fn close(self, expected: f64, actual: f64) -> bool {
        if expected.is_nan() && actual.is_nan() {
            return true;
        }
        if !expected.is_finite() || !actual.is_finite() {
            return expected.total_cmp(&actual).is_eq();
        }
        (expected - actual).abs() <= self.absolute + self.relative * expected.abs()
    }
}

/// How two tensors differ.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// They cannot be compared element by element.
    Form(String),
    /// Some elements differ.
    Elements {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// The first of them, in row-major order, with what was expected and what is there.
        first: (usize, String, String),
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(text) => f.write_str(text),
            Self::Elements { count, of, first: (place, expected, actual) } => write!(
                f,
                "{count} of {of} elements differ, the first at {place}: expected {expected}, got {actual}"
            ),
        }
    }
}

/// What `actual` has otherwise than `expected`; `None` where both say the same. Floating-point
/// numbers may differ within the tolerance, everything else must be equal.
pub fn difference(expected: &Tensor, actual: &Tensor, tolerance: Tolerance) -> Option<Difference> {
    if expected.datatype() != actual.datatype() || expected.shape() != actual.shape() {
        let form = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
        let text = format!("expected {}, got {}", form(expected), form(actual));
        return Some(Difference::Form(text));
    }
    if let (Some(expected), Some(actual)) = (floats(expected), floats(actual)) {
        let differ = |(expected, actual): (&f64, &f64)| !tolerance.close(*expected, *actual);
        return elements(&expected, &actual, differ, ToString::to_string);
    }
    if let (Some(expected), Some(actual)) = (expected.as_strings(), actual.as_strings()) {
        let text = |bytes: &Bytes| format!("{:?}", String::from_utf8_lossy(bytes));
        return elements(expected, actual, |(expected, actual)| expected != actual, text);
    }
    let (expected, actual) = (integers(expected), integers(actual));
    elements(&expected, &actual, |(expected, actual)| expected != actual, ToString::to_string)
}

/// The elements of a tensor of integers or of truth values.
fn integers(tensor: &Tensor) -> Vec<i128> {
    let size = tensor.datatype().size().unwrap_or(1);
    let bytes = tensor.as_bytes().map(Bytes::as_ref).unwrap_or_default();
    bytes.chunks(size).map(|element| integer(tensor.datatype(), element)).collect()
}

fn elements<T>(
    expected: &[T],
    actual: &[T],
    differ: impl Fn((&T, &T)) -> bool,
    text: impl Fn(&T) -> String,
) -> Option<Difference> {
    let pairs = || expected.iter().zip(actual);
    let place = pairs().position(&differ)?;
    let count = pairs().filter(|pair| differ(*pair)).count();
    let first = (place, text(&expected[place]), text(&actual[place]));
    Some(Difference::Elements { count, of: expected.len(), first })
}

/// The largest distance of two numbers at the same place; `None` where the tensors have no numbers in
/// common, or one that is none.
pub fn max_abs_diff(expected: &Tensor, actual: &Tensor) -> Option<f64> {
    if expected.shape() != actual.shape() {
        return None;
    }
    let (expected, actual) = (floats(expected)?, floats(actual)?);
    let apart = expected.iter().zip(&actual).map(|(expected, actual)| (expected - actual).abs());
    let max = apart.fold(0.0_f64, f64::max);
    max.is_finite().then_some(max)
}

/// Whether two answers lead to the same decision: the largest number of every row is at the same
/// place, where rows have several; numbers on their own are within the tolerance; everything else is
/// equal.
pub fn agree(expected: &Tensor, actual: &Tensor, tolerance: Tolerance) -> bool {
    let width = expected.shape().last().copied().unwrap_or(1);
    match (floats(expected), floats(actual)) {
        (Some(one), Some(other)) if width > 1 && expected.shape() == actual.shape() => {
            one.chunks(width).map(largest).eq(other.chunks(width).map(largest))
        }
        _ => difference(expected, actual, tolerance).is_none(),
    }
}

fn largest(row: &[f64]) -> usize {
    let by_value = |one: &(usize, &f64), other: &(usize, &f64)| one.1.total_cmp(other.1);
    // The first of several equal ones, as argmax has it.
    let rank = |(place, value): (usize, &f64)| (row.len() - place, *value);
    let best = row
        .iter()
        .enumerate()
        .max_by(|one, other| by_value(one, other).then_with(|| rank(*one).0.cmp(&rank(*other).0)));
    best.map_or(0, |(place, _)| place)
}

/// The elements of a tensor of floating-point numbers.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    Some(match tensor.datatype() {
        DataType::Fp16 => tensor.as_slice::<f16>()?.iter().map(|value| value.to_f64()).collect(),
        DataType::Bf16 => tensor.as_slice::<bf16>()?.iter().map(|value| value.to_f64()).collect(),
        DataType::Fp32 => tensor.as_slice::<f32>()?.iter().map(|value| f64::from(*value)).collect(),
        DataType::Fp64 => tensor.as_slice::<f64>()?.to_vec(),
        _ => return None,
    })
}

/// The number in an element of an integer's or of a truth value's datatype.
fn integer(datatype: DataType, element: &[u8]) -> i128 {
    let signed = [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64];
    let negative = signed.contains(&datatype) && element.last().is_some_and(|top| top & 0x80 != 0);
    let mut bytes = [if negative { 0xff } else { 0 }; 16];
    // In memory as on the wire, numbers are little-endian.
    bytes[..element.len()].copy_from_slice(element);
    i128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Element;

    fn tensor<T: Element>(shape: &[usize], values: Vec<T>) -> Tensor {
        Tensor::from_vec(shape.to_vec(), values).unwrap()
    }

    #[track_caller]
    fn check(expected: &Tensor, actual: &Tensor, told: Option<&str>) {
        let difference = difference(expected, actual, Tolerance::default());
        assert_eq!(difference.map(|difference| difference.to_string()).as_deref(), told);
    }

    #[test]
    fn numbers_may_differ_a_little_and_everything_else_not_at_all() {
        let floats = |values: &[f32]| tensor(&[values.len()], values.to_vec());
        check(&floats(&[1.0, 0.0]), &floats(&[1.0009, 0.000_09]), None);
        let told = "1 of 2 elements differ, the first at 1: expected 2, got 2.5";
        check(&floats(&[1.0, 2.0]), &floats(&[1.0, 2.5]), Some(told));
        check(&floats(&[f32::NAN, f32::INFINITY]), &floats(&[f32::NAN, f32::INFINITY]), None);
        let told = "1 of 1 elements differ, the first at 0: expected inf, got 1";
        check(&floats(&[f32::INFINITY]), &floats(&[1.0]), Some(told));
        let integers = |values: &[i64]| tensor(&[values.len()], values.to_vec());
        check(&integers(&[-1, 7]), &integers(&[-1, 7]), None);
        let told = "1 of 2 elements differ, the first at 0: expected -1, got 1";
        check(&integers(&[-1, 7]), &integers(&[1, 7]), Some(told));
        let told = "1 of 1 elements differ, the first at 0: expected 255, got 254";
        check(&tensor(&[1], vec![255_u8]), &tensor(&[1], vec![254_u8]), Some(told));
        let text =
            |text: &'static str| Tensor::from_strings(vec![1], vec![Bytes::from(text)]).unwrap();
        let told = r#"1 of 1 elements differ, the first at 0: expected "a", got "b""#;
        check(&text("a"), &text("b"), Some(told));
        check(&integers(&[1]), &floats(&[1.0]), Some("expected INT64 [1], got FP32 [1]"));
    }

    #[test]
    fn answers_agree_that_lead_to_the_same_decision() {
        let rows = |values: Vec<f32>| tensor(&[2, 3], values);
        let one = rows(vec![0.1, 0.7, 0.2, 0.9, 0.1, 0.0]);
        let sure = rows(vec![0.0, 1.0, 0.0, 0.5, 0.2, 0.3]);
        let other = rows(vec![0.0, 1.0, 0.0, 0.3, 0.4, 0.3]);
        let agree = |one: &Tensor, other: &Tensor| agree(one, other, Tolerance::default());
        assert!(agree(&one, &sure));
        assert!(!agree(&one, &other));
        assert!(agree(
            &tensor(&[2, 1], vec![1.0_f64, 2.0]),
            &tensor(&[2, 1], vec![1.0_f64, 2.001])
        ));
        assert!(!agree(&tensor(&[2, 1], vec![1.0_f64, 2.0]), &tensor(&[2, 1], vec![1.0_f64, 3.0])));
        assert!(!agree(&tensor(&[2], vec![1_i32, 2]), &tensor(&[2], vec![1_i32, 3])));
        assert_eq!(largest(&[0.5, 0.5, 0.1]), 0);
        assert_eq!(max_abs_diff(&one, &sure).map(|max| (max * 100.0).round()), Some(40.0));
        assert_eq!(max_abs_diff(&one, &tensor(&[1], vec![1_i32])), None);
    }
}
