//! What has to be true of tensors that were read from bytes of strangers.

use std::sync::LazyLock;

use half::{bf16, f16};

use super::{
    DataType, Dim, Element, InferenceRequest, NamedTensor, PreparedRequest, Signature, Tensor,
    TensorSpec,
};

/// Signatures of many kinds: one input or several, each datatype, without a rank, without dimensions, with
/// fixed and with free ones, and inputs that may be left out.
pub(crate) static SIGNATURES: LazyLock<Vec<Signature>> = LazyLock::new(|| {
    let free = || Dim::Dynamic(String::new());
    let batch = || Some(vec![free(), Dim::Fixed(2)]);
    let of = |inputs| Signature { inputs, outputs: vec![input("y", DataType::Fp32, batch())] };
    let mut signatures: Vec<Signature> =
        DataType::ALL.into_iter().map(|datatype| of(vec![input("x", datatype, None)])).collect();
    let shapes = [vec![], vec![Dim::Fixed(2)], vec![free()], vec![free(), free()]];
    let shaped = shapes.into_iter().map(|shape| of(vec![input("x", DataType::Fp32, Some(shape))]));
    signatures.extend(shaped);
    signatures.push(of(vec![input("x", DataType::Bytes, Some(vec![free(), free()]))]));
    let pair = vec![input("a", DataType::Int32, batch()), input("b", DataType::Bytes, None)];
    signatures.push(of(pair));
    let optional = TensorSpec { optional: true, ..input("bias", DataType::Fp64, batch()) };
    signatures.push(of(vec![input("x", DataType::Fp32, batch()), optional]));
    signatures
});

fn input(name: &str, datatype: DataType, shape: Option<Vec<Dim>>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape, optional: false }
}

/// Holds tensors against what [`Tensor`] promises, and against every signature: what that lets through fits.
#[track_caller]
pub(crate) fn check(tensors: &[NamedTensor]) {
    for NamedTensor { tensor, .. } in tensors {
        assert!(is_sound(tensor), "{tensor:?}");
    }
    for signature in SIGNATURES.iter() {
        let request = InferenceRequest { inputs: tensors.to_vec(), outputs: Vec::new() };
        let Ok(prepared) = PreparedRequest::new(signature, request) else { continue };
        for (spec, given) in signature.inputs.iter().zip(prepared.inputs()) {
            let fits = |it: &Tensor| it.datatype() == spec.datatype && spec.admits(it.shape());
            assert!(given.as_ref().map_or(spec.optional, fits), "{spec:?} is not {given:?}");
        }
    }
}

/// Whether its elements are as many as its shape says, and those of its datatype.
fn is_sound(tensor: &Tensor) -> bool {
    fn has<T: Element>(tensor: &Tensor, count: Option<usize>) -> bool {
        tensor.as_slice::<T>().map(<[T]>::len) == count
    }
    let count = tensor.shape().iter().try_fold(1_usize, |count, dim| count.checked_mul(*dim));
    match tensor.datatype() {
        DataType::Bool => has::<bool>(tensor, count),
        DataType::Uint8 => has::<u8>(tensor, count),
        DataType::Uint16 => has::<u16>(tensor, count),
        DataType::Uint32 => has::<u32>(tensor, count),
        DataType::Uint64 => has::<u64>(tensor, count),
        DataType::Int8 => has::<i8>(tensor, count),
        DataType::Int16 => has::<i16>(tensor, count),
        DataType::Int32 => has::<i32>(tensor, count),
        DataType::Int64 => has::<i64>(tensor, count),
        DataType::Fp16 => has::<f16>(tensor, count),
        DataType::Bf16 => has::<bf16>(tensor, count),
        DataType::Fp32 => has::<f32>(tensor, count),
        DataType::Fp64 => has::<f64>(tensor, count),
        DataType::Bytes => tensor.as_strings().map(<[_]>::len) == count,
    }
}
