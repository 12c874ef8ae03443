//! Reading a model's signature from its graph.

use ort::AsPointer;
use ort::session::Session;
use ort::sys;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::inference::{BackendError, DataType, Dim, Signature, TensorSpec};

/// The inputs (first the required ones, then those with a default in the graph) and outputs.
pub(super) fn of(session: &Session) -> Result<Signature, BackendError> {
    let required = session.inputs().iter().enumerate().map(|(index, outlet)| {
        let ranked = || has_rank(session, index, ort::api().SessionGetInputTypeInfo);
        of_outlet("input", outlet, ranked)
    });
    let defaulted = session.overridable_initializers().into_iter().map(|initializer| {
        let mut spec = spec("input", initializer.name(), initializer.dtype(), || true)?;
        spec.optional = true;
        Ok(spec)
    });
    let outputs = session.outputs().iter().enumerate().map(|(index, outlet)| {
        let ranked = || has_rank(session, index, ort::api().SessionGetOutputTypeInfo);
        of_outlet("output", outlet, ranked)
    });
    Ok(Signature {
        inputs: required.chain(defaulted).collect::<Result<_, _>>()?,
        outputs: outputs.collect::<Result<_, _>>()?,
    })
}

fn of_outlet(
    direction: &'static str,
    outlet: &Outlet,
    ranked: impl FnOnce() -> bool,
) -> Result<TensorSpec, BackendError> {
    spec(direction, outlet.name(), outlet.dtype(), ranked)
}

fn spec(
    direction: &'static str,
    name: &str,
    dtype: &ValueType,
    ranked: impl FnOnce() -> bool,
) -> Result<TensorSpec, BackendError> {
    let unservable =
        |what: String| Err(BackendError::Unservable { direction, name: name.to_owned(), what });
    let ValueType::Tensor { ty, shape, dimension_symbols } = dtype else {
        return unservable(format!("type {dtype}"));
    };
    let Some(datatype) = datatype(*ty) else {
        return unservable(format!("element type {ty}"));
    };
    let dims = shape.iter().enumerate().map(|(index, size)| match usize::try_from(*size) {
        Ok(fixed) => Dim::Fixed(fixed),
        Err(_) => Dim::Dynamic(dimension_symbols.get(index).cloned().unwrap_or_default()),
    });
    let dims: Vec<Dim> = dims.collect();
    // A scalar and a tensor of undeclared rank both have no dimensions here.
    let shape = (!dims.is_empty() || ranked()).then_some(dims);
    Ok(TensorSpec { name: name.to_owned(), datatype, shape, optional: false })
}

fn datatype(element: TensorElementType) -> Option<DataType> {
    match element {
        TensorElementType::Bool => Some(DataType::Bool),
        TensorElementType::Uint8 => Some(DataType::Uint8),
        TensorElementType::Uint16 => Some(DataType::Uint16),
        TensorElementType::Uint32 => Some(DataType::Uint32),
        TensorElementType::Uint64 => Some(DataType::Uint64),
        TensorElementType::Int8 => Some(DataType::Int8),
        TensorElementType::Int16 => Some(DataType::Int16),
        TensorElementType::Int32 => Some(DataType::Int32),
        TensorElementType::Int64 => Some(DataType::Int64),
        TensorElementType::Float16 => Some(DataType::Fp16),
        TensorElementType::Bfloat16 => Some(DataType::Bf16),
        TensorElementType::Float32 => Some(DataType::Fp32),
        TensorElementType::Float64 => Some(DataType::Fp64),
        TensorElementType::String => Some(DataType::Bytes),
        _ => None,
    }
}

/// `SessionGetInputTypeInfo` or `SessionGetOutputTypeInfo`.
type GetTypeInfo = unsafe extern "system" fn(
    *const sys::OrtSession,
    usize,
    *mut *mut sys::OrtTypeInfo,
) -> sys::OrtStatusPtr;

/// Whether the graph declares a rank for the tensor at `index`. Without an answer it is taken to:
/// then a request is checked more strictly, never less.
#[expect(unsafe_code, reason = "ort does not tell a scalar from a tensor of undeclared rank")]
fn has_rank(session: &Session, index: usize, get_type_info: GetTypeInfo) -> bool {
    let api = ort::api();
    let mut type_info = std::ptr::null_mut();
    // SAFETY: the session is alive, the index is that of an outlet it told us of, and the out
    // pointer is valid for a write.
    let status = unsafe { get_type_info(session.ptr(), index, &raw mut type_info) };
    // SAFETY: the status comes from the call above and is given up here.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || type_info.is_null() {
        return true;
    }
    let mut tensor_info = std::ptr::null();
    // SAFETY: type_info was given by the runtime and not yet released; tensor_info borrows from it.
    let status = unsafe { (api.CastTypeInfoToTensorInfo)(type_info, &raw mut tensor_info) };
    // SAFETY: as above.
    let cast = unsafe { ort::Error::result_from_status(status) };
    // SAFETY: tensor_info is checked to be there and lives as long as type_info.
    let ranked = cast.is_err()
        || tensor_info.is_null()
        || unsafe { (api.TensorTypeAndShape_HasShape)(tensor_info) };
    // SAFETY: type_info is owned here and not used after this.
    unsafe { (api.ReleaseTypeInfo)(type_info) };
    ranked
}
