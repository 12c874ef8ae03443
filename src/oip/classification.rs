//! Classification: the largest numbers of an output, each as `value:index` or `value:index:label`.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use bytes::Bytes;
use half::{bf16, f16};

use super::refusal::Refusal;
use crate::inference::{DataType, Element, Shape, Tensor};

/// The `count` largest elements of each entry of a batch, or of the whole where it is none, the largest
/// first; BYTES of the shape `[batch, count]` or `[count]`. Without a label, there is none.
///
/// # Errors
/// Where the output has no numbers to be compared.
pub(crate) fn classify(
    tensor: &Tensor,
    (is_batched, count): (bool, NonZeroUsize),
    labels: &[String],
) -> Result<Tensor, Refusal> {
    let values = values(tensor).ok_or_else(|| {
        let datatype = tensor.datatype();
        Refusal::invalid(format!("an output of {datatype} cannot be classified"))
    })?;
    let batch = tensor.shape().first().copied().filter(|_| is_batched);
    let rows = batch.unwrap_or(1);
    let width = values.len().checked_div(rows).unwrap_or(0);
    let count = count.get().min(width);
    let mut classes = Vec::new();
    // Nothing is to be done for rows that are empty, of which there can be any number.
    for row in values.chunks(width.max(1)) {
        let best = best(row, count);
        classes.extend(best.into_iter().map(|(index, value)| class(index, value, labels)));
    }
    let shape: Shape = batch.into_iter().chain([count]).collect();
    let classified = Tensor::from_strings(shape, classes);
    Ok(classified.expect("each row has as many classes as the others"))
}

/// A number that is compared, and how it is written.
#[derive(Debug, Clone, Copy)]
enum Value {
    Float(f64),
    Int(i128),
}

impl Value {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            // What is no number is the least.
            (Self::Float(one), Self::Float(other)) => {
                let rank = |value: &f64| if value.is_nan() { f64::NEG_INFINITY } else { *value };
                rank(one).total_cmp(&rank(other))
            }
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            _ => unreachable!("the elements of a tensor are of one kind"),
        }
    }
}

/// The `count` largest, each with its place; the first of equal ones first.
fn best(row: &[Value], count: usize) -> Vec<(usize, Value)> {
    let mut ranked: Vec<(usize, Value)> = row.iter().copied().enumerate().collect();
    let order = |one: &(usize, Value), other: &(usize, Value)| {
        other.1.compare(&one.1).then(one.0.cmp(&other.0))
    };
    if count < ranked.len() {
        ranked.select_nth_unstable_by(count, order);
        ranked.truncate(count);
    }
    ranked.sort_unstable_by(order);
    ranked
}

fn class(index: usize, value: Value, labels: &[String]) -> Bytes {
    let value = match value {
        Value::Float(value) => format!("{value:.6}"),
        Value::Int(value) => value.to_string(),
    };
    Bytes::from(match labels.get(index) {
        Some(label) if !label.is_empty() => format!("{value}:{index}:{label}"),
        _ => format!("{value}:{index}"),
    })
}

/// `None` where the elements are no numbers.
fn values(tensor: &Tensor) -> Option<Vec<Value>> {
    fn each<T: Element + Copy>(tensor: &Tensor, value: fn(T) -> Value) -> Option<Vec<Value>> {
        Some(tensor.as_slice::<T>()?.iter().map(|element| value(*element)).collect())
    }
    match tensor.datatype() {
        DataType::Bool | DataType::Bytes => None,
        DataType::Uint8 => each::<u8>(tensor, |value| Value::Int(value.into())),
        DataType::Uint16 => each::<u16>(tensor, |value| Value::Int(value.into())),
        DataType::Uint32 => each::<u32>(tensor, |value| Value::Int(value.into())),
        DataType::Uint64 => each::<u64>(tensor, |value| Value::Int(value.into())),
        DataType::Int8 => each::<i8>(tensor, |value| Value::Int(value.into())),
        DataType::Int16 => each::<i16>(tensor, |value| Value::Int(value.into())),
        DataType::Int32 => each::<i32>(tensor, |value| Value::Int(value.into())),
        DataType::Int64 => each::<i64>(tensor, |value| Value::Int(value.into())),
        DataType::Fp16 => each::<f16>(tensor, |value| Value::Float(value.to_f64())),
        DataType::Bf16 => each::<bf16>(tensor, |value| Value::Float(value.to_f64())),
        DataType::Fp32 => each::<f32>(tensor, |value| Value::Float(value.into())),
        DataType::Fp64 => each::<f64>(tensor, Value::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Element>(
        (shape, values): (&[usize], Vec<T>),
        (is_batched, count): (bool, usize),
        (expected_shape, expected): (&[usize], &[&str]),
    ) {
        let tensor = Tensor::from_vec(shape.to_vec(), values).unwrap();
        let labels = ["a".to_owned(), String::new(), "c".to_owned()];
        let count = NonZeroUsize::new(count).unwrap();
        let classified = classify(&tensor, (is_batched, count), &labels).unwrap();
        assert_eq!(classified.shape(), expected_shape);
        assert_eq!(classified.as_strings().unwrap(), expected);
    }

    #[test]
    fn the_largest_come_first_with_their_labels() {
        let row = || (&[4][..], vec![0.25_f32, 0.5, 0.125, f32::NAN]);
        check(row(), (false, 2), (&[2], &["0.500000:1", "0.250000:0:a"]));
        check(row(), (false, 9), (&[4], &["0.500000:1", "0.250000:0:a", "0.125000:2:c", "NaN:3"]));
        let rows = (&[2, 2][..], vec![1_i64, 2, 5, 5]);
        check(rows.clone(), (true, 1), (&[2, 1], &["2:1", "5:0:a"]));
        check(rows, (false, 2), (&[2], &["5:2:c", "5:3"]));
        check((&[0, 3][..], Vec::<f32>::new()), (true, 2), (&[0, 0], &[]));
        check((&[1 << 62, 0][..], Vec::<f32>::new()), (true, 2), (&[1 << 62, 0], &[]));
        let text = Tensor::from_strings(vec![1], vec![Bytes::from("x")]).unwrap();
        assert!(classify(&text, (false, NonZeroUsize::MIN), &[]).is_err());
    }
}
