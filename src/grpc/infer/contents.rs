//! Tensors whose elements are in the fields of their datatypes.

use crate::grpc::proto::InferTensorContents;
use crate::inference::{DataType, Element, Shape, Tensor, TensorError};

/// Why contents are not a tensor of the datatype and shape given with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContentsError {
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The datatype has no field.
    #[error("{0} has no field in contents, send it in raw_input_contents")]
    RawOnly(DataType),
    /// Another field has elements.
    #[error("{datatype} goes into {expected}, but {field} has elements")]
    OtherField { datatype: DataType, expected: &'static str, field: &'static str },
    /// An element is larger or smaller than its datatype can have.
    #[error(
        "element {index} of its contents must be {} ({datatype}), got {value}",
        .datatype.values()
    )]
    OutOfRange { datatype: DataType, index: usize, value: i64 },
}

/// Whether no field has elements.
pub(super) fn is_empty(contents: &InferTensorContents) -> bool {
    fields(contents).iter().all(|(_, count)| *count == 0)
}

/// # Errors
/// [`ContentsError`].
pub(super) fn read(
    datatype: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor, ContentsError> {
    let expected = field(datatype).ok_or(ContentsError::RawOnly(datatype))?;
    let others = fields(&contents).into_iter();
    let mut others = others.filter(|(name, count)| *name != expected && *count > 0);
    if let Some((field, _)) = others.next() {
        return Err(ContentsError::OtherField { datatype, expected, field });
    }
    let tensor = match datatype {
        DataType::Bool => Tensor::from_vec(shape, contents.bool_contents),
        DataType::Uint8 => Tensor::from_vec(shape, narrow::<u8, _>(contents.uint_contents)?),
        DataType::Uint16 => Tensor::from_vec(shape, narrow::<u16, _>(contents.uint_contents)?),
        DataType::Uint32 => Tensor::from_vec(shape, contents.uint_contents),
        DataType::Uint64 => Tensor::from_vec(shape, contents.uint64_contents),
        DataType::Int8 => Tensor::from_vec(shape, narrow::<i8, _>(contents.int_contents)?),
        DataType::Int16 => Tensor::from_vec(shape, narrow::<i16, _>(contents.int_contents)?),
        DataType::Int32 => Tensor::from_vec(shape, contents.int_contents),
        DataType::Int64 => Tensor::from_vec(shape, contents.int64_contents),
        DataType::Fp32 => Tensor::from_vec(shape, contents.fp32_contents),
        DataType::Fp64 => Tensor::from_vec(shape, contents.fp64_contents),
        DataType::Bytes => Tensor::from_strings(shape, contents.bytes_contents),
        DataType::Fp16 | DataType::Bf16 => return Err(ContentsError::RawOnly(datatype)),
    };
    Ok(tensor?)
}

/// The field of a datatype; `None` for those that only travel raw.
const fn field(datatype: DataType) -> Option<&'static str> {
    Some(match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

/// How many elements each field has.
fn fields(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// Elements that travel in more bytes than they have.
fn narrow<T: Element + TryFrom<W>, W: Copy + Into<i64>>(
    wide: Vec<W>,
) -> Result<Vec<T>, ContentsError> {
    let element = |(index, value): (usize, W)| {
        let (datatype, told) = (T::DATATYPE, value.into());
        let wrong = |_| ContentsError::OutOfRange { datatype, index, value: told };
        T::try_from(value).map_err(wrong)
    };
    wide.into_iter().enumerate().map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(datatype: DataType, contents: InferTensorContents, told: &str) {
        assert_eq!(read(datatype, vec![2].into(), contents).unwrap_err().to_string(), told);
    }

    #[test]
    fn elements_are_in_the_field_of_their_datatype_and_within_its_range() {
        let ints = |values: [i32; 2]| InferTensorContents {
            int_contents: values.to_vec(),
            ..InferTensorContents::default()
        };
        let tensor = read(DataType::Int8, vec![2].into(), ints([-128, 127])).unwrap();
        assert_eq!(tensor.as_slice::<i8>(), Some(&[-128, 127][..]));
        refused(
            DataType::Int8,
            ints([0, 128]),
            "element 1 of its contents must be a whole number from -128 to 127 (INT8), got 128",
        );
        refused(
            DataType::Fp32,
            ints([1, 2]),
            "FP32 goes into fp32_contents, but int_contents has elements",
        );
        refused(
            DataType::Fp16,
            InferTensorContents::default(),
            "FP16 has no field in contents, send it in raw_input_contents",
        );
        refused(
            DataType::Int32,
            InferTensorContents::default(),
            "shape [2] needs 2 elements, got 0",
        );
    }

    #[test]
    fn every_datatype_but_two_has_a_field() {
        let contents = InferTensorContents::default();
        let names = fields(&contents).map(|(name, _)| name);
        let without = DataType::ALL.into_iter().filter(|datatype| field(*datatype).is_none());
        assert_eq!(without.collect::<Vec<_>>(), [DataType::Fp16, DataType::Bf16]);
        assert!(DataType::ALL.into_iter().filter_map(field).all(|field| names.contains(&field)));
        assert!(is_empty(&contents));
    }
}
