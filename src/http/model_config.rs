//! How a model is set up, as Triton's clients read it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use crate::model::{StepReport, VersionPolicy};
use crate::oip::model_config::{ConfigTensor, ModelConfig, datatype_name};

#[derive(Serialize)]
struct ConfigBody {
    name: String,
    platform: &'static str,
    backend: &'static str,
    version_policy: PolicyBody,
    max_batch_size: i32,
    input: Vec<InputBody>,
    output: Vec<OutputBody>,
    instance_group: Vec<InstancesBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ensemble_scheduling: Option<EnsembleBody>,
    default_model_filename: &'static str,
    response_cache: CacheBody,
    model_transaction_policy: TransactionBody,
}

#[derive(Serialize)]
struct CacheBody {
    enable: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum PolicyBody {
    Latest { num_versions: usize },
    All {},
    Specific { versions: Vec<u64> },
}

#[derive(Serialize)]
struct InputBody {
    name: String,
    data_type: &'static str,
    dims: Vec<i64>,
    optional: bool,
}

#[derive(Serialize)]
struct OutputBody {
    name: String,
    data_type: &'static str,
    dims: Vec<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    label_filename: String,
}

#[derive(Serialize)]
struct InstancesBody {
    name: String,
    kind: &'static str,
    count: i32,
}

#[derive(Serialize)]
struct EnsembleBody {
    step: Vec<StepBody>,
}

#[derive(Serialize)]
struct StepBody {
    model_name: String,
    model_version: u64,
    input_map: BTreeMap<String, String>,
    output_map: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct TransactionBody {
    decoupled: bool,
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub(super) async fn config(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let Target { model, version } = target;
    let config = ModelConfig::of(&services.parts.models, &model, version.as_ref())?;
    Ok(json(&ConfigBody::from(config)))
}

impl From<ModelConfig> for ConfigBody {
    fn from(config: ModelConfig) -> Self {
        let (name, count) = (format!("{}_0", config.name), config.instances);
        let instances = InstancesBody { name, kind: "KIND_CPU", count };
        let is_ensemble = !config.steps.is_empty();
        let step = config.steps.into_iter().map(StepBody::from).collect();
        Self {
            name: config.name,
            platform: config.platform,
            backend: config.backend,
            version_policy: PolicyBody::from(config.version_policy),
            max_batch_size: config.max_batch_size,
            input: config.inputs.into_iter().map(InputBody::from).collect(),
            output: config.outputs.into_iter().map(OutputBody::from).collect(),
            instance_group: if is_ensemble { Vec::new() } else { vec![instances] },
            ensemble_scheduling: is_ensemble.then_some(EnsembleBody { step }),
            default_model_filename: config.file,
            response_cache: CacheBody { enable: config.response_cache },
            model_transaction_policy: TransactionBody { decoupled: false },
        }
    }
}

impl From<StepReport> for StepBody {
    fn from(step: StepReport) -> Self {
        Self {
            model_name: step.model.to_string(),
            model_version: step.version.number(),
            input_map: step.inputs,
            output_map: step.outputs,
        }
    }
}

impl From<VersionPolicy> for PolicyBody {
    fn from(policy: VersionPolicy) -> Self {
        match policy {
            VersionPolicy::Latest(count) => Self::Latest { num_versions: count.get() },
            VersionPolicy::All => Self::All {},
            VersionPolicy::Specific(versions) => Self::Specific {
                versions: versions.iter().map(|version| version.number()).collect(),
            },
        }
    }
}

impl From<ConfigTensor> for InputBody {
    fn from(tensor: ConfigTensor) -> Self {
        let ConfigTensor { name, datatype, dims, optional, .. } = tensor;
        Self { name, data_type: datatype_name(datatype), dims, optional }
    }
}

impl From<ConfigTensor> for OutputBody {
    fn from(tensor: ConfigTensor) -> Self {
        let ConfigTensor { name, datatype, dims, label_file, .. } = tensor;
        Self { name, data_type: datatype_name(datatype), dims, label_filename: label_file }
    }
}
