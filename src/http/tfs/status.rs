//! What there is to tell of a model: the states of its versions, and its signature.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::request::SIGNATURE;
use super::target::Named;
use crate::http::Shared;
use crate::http::error::ApiError;
use crate::http::target::Target;
use crate::http::wire::json;
use crate::inference::{DataType, TensorSpec};
use crate::model::{
    LookupError, ModelReport, StateKind, Version, VersionRef, VersionReport, Wanted,
};
use crate::oip::metadata::shape;

#[derive(Serialize)]
struct StatesBody {
    model_version_status: Vec<StateBody>,
}

#[derive(Serialize)]
struct StateBody {
    version: String,
    state: &'static str,
    status: StatusBody,
}

#[derive(Serialize)]
struct StatusBody {
    error_code: &'static str,
    error_message: String,
}

#[derive(Serialize)]
struct MetadataBody {
    model_spec: SpecBody,
    metadata: SignaturesBody,
}

#[derive(Serialize)]
struct SpecBody {
    name: String,
    signature_name: &'static str,
    version: String,
}

#[derive(Serialize)]
struct SignaturesBody {
    signature_def: SignatureMapBody,
}

#[derive(Serialize)]
struct SignatureMapBody {
    signature_def: BTreeMap<&'static str, SignatureBody>,
}

#[derive(Serialize)]
struct SignatureBody {
    inputs: BTreeMap<String, TensorBody>,
    outputs: BTreeMap<String, TensorBody>,
    method_name: &'static str,
}

#[derive(Serialize)]
struct TensorBody {
    dtype: &'static str,
    tensor_shape: ShapeBody,
    name: String,
}

#[derive(Serialize)]
struct ShapeBody {
    dim: Vec<DimBody>,
    unknown_rank: bool,
}

/// Whole numbers of 64 bits are texts, as protocol buffers write them in JSON.
#[derive(Serialize)]
struct DimBody {
    size: String,
    name: &'static str,
}

/// `GET /v1/models/{model}[/versions/{version}|/labels/{label}]`
pub(in crate::http) async fn states(
    State(services): Shared,
    Named(target): Named,
) -> Result<Response, ApiError> {
    let Target { model, version } = target;
    let unknown = || LookupError::UnknownModel(model.to_string());
    let report = services.parts.models.report(model.as_str()).ok_or_else(unknown)?;
    let named = version.map(|named| version_of(&report, named)).transpose()?;
    let is_wanted = |version: &VersionReport| named.is_none_or(|named| named == version.version);
    let mut versions: Vec<&VersionReport> =
        report.versions.iter().filter(|version| is_wanted(version)).collect();
    if let (Some(version), true) = (named, versions.is_empty()) {
        let model = model.to_string();
        return Err(LookupError::UnknownVersion { model, version }.into());
    }
    // The newest first.
    versions.reverse();
    let model_version_status = versions.into_iter().map(StateBody::from).collect();
    Ok(json(&StatesBody { model_version_status }))
}

fn version_of(report: &ModelReport, named: VersionRef) -> Result<Version, LookupError> {
    match named {
        VersionRef::Number(version) => Ok(version),
        VersionRef::Alias(alias) => {
            let aliases = report.traffic.aliases.iter();
            let found = aliases.into_iter().find(|(name, _)| *name == alias);
            let model = report.name.to_string();
            found.map(|(_, version)| *version).ok_or(LookupError::UnknownAlias { model, alias })
        }
    }
}

/// `GET /v1/models/{model}[/versions/{version}|/labels/{label}]/metadata`
pub(in crate::http) async fn metadata(
    State(services): Shared,
    Named(target): Named,
) -> Result<Response, ApiError> {
    let wanted = Wanted::new(target.version.as_ref(), None);
    let handle = services.parts.models.acquire(target.model.as_str(), wanted)?;
    let signature = handle.signature();
    let tensors = |specs: &[TensorSpec]| {
        specs.iter().map(|spec| (spec.name.clone(), TensorBody::from(spec))).collect()
    };
    let signature = SignatureBody {
        inputs: tensors(&signature.inputs),
        outputs: tensors(&signature.outputs),
        method_name: "tensorflow/serving/predict",
    };
    let signature_def = BTreeMap::from([(SIGNATURE, signature)]);
    Ok(json(&MetadataBody {
        model_spec: SpecBody {
            name: target.model.to_string(),
            signature_name: "",
            version: handle.id().version.to_string(),
        },
        metadata: SignaturesBody { signature_def: SignatureMapBody { signature_def } },
    }))
}

impl From<&VersionReport> for StateBody {
    fn from(report: &VersionReport) -> Self {
        let error_code = if report.state == StateKind::Failed { "UNKNOWN" } else { "OK" };
        Self {
            version: report.version.to_string(),
            state: state(report.state),
            status: StatusBody { error_code, error_message: report.reason.clone() },
        }
    }
}

/// TensorFlow Serving's word for a state.
const fn state(state: StateKind) -> &'static str {
    match state {
        StateKind::New => "START",
        StateKind::Fetching | StateKind::Verifying | StateKind::Loading | StateKind::Warming => {
            "LOADING"
        }
        StateKind::Ready => "AVAILABLE",
        StateKind::Draining | StateKind::Unloading => "UNLOADING",
        StateKind::Unloaded | StateKind::Failed => "END",
    }
}

impl From<&TensorSpec> for TensorBody {
    fn from(spec: &TensorSpec) -> Self {
        let dim = |size: i64| DimBody { size: size.to_string(), name: "" };
        Self {
            dtype: dtype(spec.datatype),
            tensor_shape: ShapeBody {
                dim: shape(spec).into_iter().map(dim).collect(),
                unknown_rank: spec.shape.is_none(),
            },
            name: spec.name.clone(),
        }
    }
}

/// TensorFlow's name of a datatype.
const fn dtype(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bytes => "DT_STRING",
    }
}
