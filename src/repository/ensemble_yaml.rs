//! `ensemble` in `model.yaml`: the steps of a model that is made of others.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::{EnsembleDefinition, ModelName, StepDefinition, Version, VersionRef};

/// What an ensemble is made of. Only the steps' models have to be said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnsembleYaml {
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
    steps: Vec<StepYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepYaml {
    model: String,
    version: Option<StepVersionYaml>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    outputs: Option<BTreeMap<String, String>>,
}

/// A version as a number, as a text, or by its alias.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a version, such as 3, or an alias, such as stable")]
enum StepVersionYaml {
    Number(u64),
    Text(String),
}

impl EnsembleYaml {
    /// # Errors
    /// What is wrong, with the key.
    pub(super) fn read(self) -> Result<EnsembleDefinition, String> {
        let Self { inputs, outputs, steps } = self;
        if steps.is_empty() {
            return Err("ensemble.steps: expected one at least".to_owned());
        }
        let steps = steps.into_iter().enumerate().map(|(number, step)| {
            step.read().map_err(|problem| format!("ensemble.steps: step {}: {problem}", number + 1))
        });
        Ok(EnsembleDefinition { inputs, outputs, steps: steps.collect::<Result<_, _>>()? })
    }
}

impl StepYaml {
    fn read(self) -> Result<StepDefinition, String> {
        let Self { model, version, inputs, outputs } = self;
        let model = ModelName::new(&model).map_err(|error| format!("model: {error}"))?;
        let version = version.map(version_of).transpose();
        let version = version.map_err(|problem| format!("version: {problem}"))?;
        Ok(StepDefinition { model, version, inputs, outputs })
    }
}

fn version_of(yaml: StepVersionYaml) -> Result<VersionRef, String> {
    match yaml {
        StepVersionYaml::Number(number) => {
            let version = Version::new(number).map(VersionRef::Number);
            version.ok_or_else(|| "a version is 1 or more".to_owned())
        }
        StepVersionYaml::Text(text) => text.parse().map_err(|error| format!("{error}")),
    }
}
