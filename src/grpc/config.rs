//! A model's configuration as its message.

use super::proto::model_ensembling::Step;
use super::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use super::proto::{
    DataType as ProtoType, ModelConfig as Message, ModelEnsembling, ModelInput, ModelInstanceGroup,
    ModelOutput, ModelResponseCache, ModelTransactionPolicy, ModelVersionPolicy,
    model_instance_group,
};
use crate::inference::DataType;
use crate::model::{StepReport, VersionPolicy};
use crate::oip::model_config::{ConfigTensor, ModelConfig, datatype_name};

impl From<ModelConfig> for Message {
    fn from(config: ModelConfig) -> Self {
        let is_ensemble = !config.steps.is_empty();
        let step = config.steps.into_iter().map(Step::from).collect();
        let instances = ModelInstanceGroup {
            name: format!("{}_0", config.name),
            count: config.instances,
            kind: model_instance_group::Kind::Cpu.into(),
        };
        Self {
            name: config.name,
            platform: config.platform.to_owned(),
            version_policy: Some(policy(config.version_policy)),
            max_batch_size: config.max_batch_size,
            input: config.inputs.into_iter().map(ModelInput::from).collect(),
            output: config.outputs.into_iter().map(ModelOutput::from).collect(),
            instance_group: if is_ensemble { Vec::new() } else { vec![instances] },
            default_model_filename: config.file.to_owned(),
            ensemble_scheduling: is_ensemble.then_some(ModelEnsembling { step }),
            backend: config.backend.to_owned(),
            response_cache: Some(ModelResponseCache { enable: config.response_cache }),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        }
    }
}

impl From<StepReport> for Step {
    fn from(step: StepReport) -> Self {
        Self {
            model_name: step.model.to_string(),
            model_version: i64::try_from(step.version.number()).unwrap_or(i64::MAX),
            input_map: step.inputs.into_iter().collect(),
            output_map: step.outputs.into_iter().collect(),
        }
    }
}

impl From<ConfigTensor> for ModelInput {
    fn from(tensor: ConfigTensor) -> Self {
        let ConfigTensor { name, datatype, dims, optional, .. } = tensor;
        Self { name, data_type: data_type(datatype), dims, optional }
    }
}

impl From<ConfigTensor> for ModelOutput {
    fn from(tensor: ConfigTensor) -> Self {
        let ConfigTensor { name, datatype, dims, label_file, .. } = tensor;
        Self { name, data_type: data_type(datatype), dims, label_filename: label_file }
    }
}

fn data_type(datatype: DataType) -> i32 {
    let known = ProtoType::from_str_name(datatype_name(datatype));
    known.expect("every datatype has its value in the message").into()
}

fn policy(policy: VersionPolicy) -> ModelVersionPolicy {
    let choice = match policy {
        VersionPolicy::Latest(count) => {
            let num_versions = u32::try_from(count.get()).unwrap_or(u32::MAX);
            PolicyChoice::Latest(Latest { num_versions })
        }
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => {
            let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let versions = versions.iter().map(|version| number(version.number())).collect();
            PolicyChoice::Specific(Specific { versions })
        }
    };
    ModelVersionPolicy { policy_choice: Some(choice) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_has_a_value() {
        let mut values: Vec<i32> = DataType::ALL.into_iter().map(data_type).collect();
        values.sort_unstable();
        assert_eq!(values, (1..=14).collect::<Vec<_>>());
    }
}
