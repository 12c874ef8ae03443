//! How a model is set up, as Triton's clients read it.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use crate::model::VersionPolicy;
use crate::oip::model_config::{BACKEND, ConfigTensor, FILE, ModelConfig, datatype_name};

#[derive(Serialize)]
struct ConfigBody {
    name: String,
    platform: &'static str,
    backend: &'static str,
    version_policy: PolicyBody,
    max_batch_size: i32,
    input: Vec<InputBody>,
    output: Vec<OutputBody>,
    instance_group: [InstancesBody; 1],
    default_model_filename: &'static str,
    model_transaction_policy: TransactionBody,
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
        let name = format!("{}_0", config.name);
        Self {
            name: config.name,
            platform: config.platform,
            backend: BACKEND,
            version_policy: PolicyBody::from(config.version_policy),
            max_batch_size: config.max_batch_size,
            input: config.inputs.into_iter().map(InputBody::from).collect(),
            output: config.outputs.into_iter().map(OutputBody::from).collect(),
            instance_group: [InstancesBody { name, kind: "KIND_CPU", count: config.instances }],
            default_model_filename: FILE,
            model_transaction_policy: TransactionBody { decoupled: false },
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
