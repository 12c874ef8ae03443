//! What the server and its models are.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use crate::inference::{Dim, TensorSpec};
use crate::model::{StateKind, Version};

/// The protocol's extensions that are served; a client takes this literally.
const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "classification", "model_repository", "parameters"];

#[derive(Serialize)]
struct ServerBody {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 4],
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
    let version = env!("CARGO_PKG_VERSION");
    json(&ServerBody { name: "onward", version, extensions: EXTENSIONS })
}

/// `GET /v2/models`: those that answer requests.
pub(super) async fn models(State(services): Shared) -> Response {
    let reports = services.parts.models.reports().into_iter();
    let serving = reports.filter(|report| report.current.is_some());
    json(&ModelsBody { models: serving.map(|report| report.name.to_string()).collect() })
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(super) async fn model(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let models = &services.parts.models;
    let name = target.model.as_str();
    let handle = models.acquire(name, target.wanted(None))?;
    let versions = match target.version {
        Some(_) => vec![handle.id().version.to_string()],
        None => ready_versions(&services, name, handle.id().version),
    };
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

/// The versions that answer requests, `held` always among them.
fn ready_versions(services: &super::Services, name: &str, held: Version) -> Vec<String> {
    let report = services.parts.models.report(name);
    let versions = report.into_iter().flat_map(|report| report.versions);
    let ready = versions.filter(|version| version.state == StateKind::Ready);
    let mut ready: Vec<Version> = ready.map(|version| version.version).chain([held]).collect();
    ready.sort_unstable();
    ready.dedup();
    ready.iter().map(ToString::to_string).collect()
}

impl<'a> From<&'a TensorSpec> for TensorBody<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        let dim = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Dynamic(_) => -1,
        };
        // The protocol has no way to say that a rank is not declared.
        let shape = spec.shape.as_deref().unwrap_or_default().iter().map(dim).collect();
        Self { name: &spec.name, datatype: spec.datatype.name(), shape }
    }
}
