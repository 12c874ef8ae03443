//! What the server and its models are.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use crate::auth::Access;
use crate::inference::TensorSpec;
use crate::oip::metadata::{self, EXTENSIONS, ModelMetadata};

#[derive(Serialize)]
struct ServerBody {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; EXTENSIONS.len()],
}

#[derive(Serialize)]
struct ModelsBody {
    models: Vec<String>,
}

#[derive(Serialize)]
struct ModelBody<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorBody<'a>>,
    outputs: Vec<TensorBody<'a>>,
}

#[derive(Serialize)]
struct TensorBody<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

#[derive(Serialize)]
struct ReadyBody<'a> {
    name: &'a str,
    ready: bool,
}

/// `GET /v2`
pub(super) async fn server() -> Response {
    let (name, version) = (metadata::SERVER, metadata::SERVER_VERSION);
    json(&ServerBody { name, version, extensions: EXTENSIONS })
}

/// `GET /v2/models`: those that answer requests, and that the caller may see.
pub(super) async fn models(State(services): Shared, access: Access) -> Response {
    let reports = services.parts.models.reports().into_iter();
    let serving = reports.filter(|report| report.current.is_some());
    let serving = serving.filter(|report| access.sees(report.name.as_str()));
    json(&ModelsBody { models: serving.map(|report| report.name.to_string()).collect() })
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(super) async fn model(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let Target { model, version } = target;
    let told = ModelMetadata::of(&services.parts.models, &model, version.as_ref())?;
    let ModelMetadata { handle, versions } = told;
    let (name, versions) = (model.as_str(), versions.iter().map(ToString::to_string).collect());
    let (inputs, outputs) = (&handle.signature().inputs, &handle.signature().outputs);
    Ok(json(&ModelBody {
        name,
        versions,
        platform: handle.platform(),
        inputs: inputs.iter().map(TensorBody::from).collect(),
        outputs: outputs.iter().map(TensorBody::from).collect(),
    }))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(super) async fn ready(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let name = target.model.as_str();
    drop(services.parts.models.acquire(name, target.wanted(None))?);
    Ok(json(&ReadyBody { name, ready: true }))
}

impl<'a> From<&'a TensorSpec> for TensorBody<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        let shape = metadata::shape(spec);
        Self { name: &spec.name, datatype: spec.datatype.name(), shape }
    }
}
