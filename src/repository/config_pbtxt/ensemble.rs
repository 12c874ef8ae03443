//! `ensemble_scheduling`: the steps of a model that is made of others.

use std::collections::BTreeMap;

use super::text::{Field, Message};
use super::{Reading, message, number, text};
use crate::model::{
    BatchingSettings, DeclaredSignature, DeclaredTensor, EnsembleDefinition, ModelName,
    StepDefinition, Version, VersionRef,
};

/// The platform of ensembles.
pub(super) const PLATFORM: &str = "ensemble";

/// What is no matter of an ensemble, but of its steps.
const OF_STEPS: &str = "an ensemble has no instances of its own, see its steps";

impl Reading<'_> {
    pub(super) fn ensemble(&mut self, field: &Field) -> Result<(), String> {
        let mut steps = Vec::new();
        for field in &message(field)?.0 {
            if field.name != "step" {
                return Err(format!("there is no field '{}'", field.name));
            }
            let at = |problem: String| format!("step {}: {problem}", steps.len() + 1);
            let step = step(message(field)?).map_err(at)?;
            steps.push(step);
        }
        if steps.is_empty() {
            return Err("it has no 'step'".to_owned());
        }
        self.settings.ensemble =
            Some(EnsembleDefinition { steps, ..EnsembleDefinition::default() });
        Ok(())
    }

    /// Gives an ensemble the inputs and outputs that are declared, and takes what only its steps can have.
    pub(super) fn settle_ensemble(&mut self, declared: &DeclaredSignature) -> Result<(), String> {
        match (&mut self.settings.ensemble, self.platform.as_str()) {
            (None, PLATFORM) => {
                return Err("platform: an ensemble has to have 'ensemble_scheduling'".to_owned());
            }
            (None, _) => return Ok(()),
            (Some(_), platform) if !["", PLATFORM].contains(&platform) => {
                return Err(format!("platform: that of an ensemble is '{PLATFORM}'"));
            }
            (Some(ensemble), _) => {
                let names = |tensors: &[DeclaredTensor]| {
                    let names: Vec<_> = tensors.iter().map(|it| it.name.clone()).collect();
                    Some(names).filter(|names| !names.is_empty())
                };
                ensemble.inputs = names(&declared.inputs);
                ensemble.outputs = names(&declared.outputs);
            }
        }
        if self.settings.instances.take().is_some() {
            self.warn("instance_group", OF_STEPS);
        }
        if self.settings.batching != BatchingSettings::default() {
            self.settings.batching = BatchingSettings::default();
            self.warn("dynamic_batching", OF_STEPS);
        }
        Ok(())
    }
}

fn step(step: &Message) -> Result<StepDefinition, String> {
    let (mut model, mut version) = (None, None);
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    for field in &step.0 {
        match field.name.as_str() {
            "model_name" => {
                let name = ModelName::new(&text(field)?);
                model = Some(name.map_err(|error| format!("model_name: {error}"))?);
            }
            "model_version" => version = self::version(field)?,
            "input_map" => map(field, &mut inputs)?,
            "output_map" => map(field, &mut outputs)?,
            // Names are those of one repository.
            "model_namespace" => {}
            other => return Err(format!("there is no field '{other}'")),
        }
    }
    let model = model.ok_or_else(|| "it has no 'model_name'".to_owned())?;
    Ok(StepDefinition { model, version, inputs, outputs: Some(outputs) })
}

/// `None` for the latest, which is -1.
fn version(field: &Field) -> Result<Option<VersionRef>, String> {
    let given = number(field)?;
    if given == -1 {
        return Ok(None);
    }
    let version = u64::try_from(given).ok().and_then(Version::new).map(VersionRef::Number);
    let wrong = || format!("model_version: expected -1 or a version, got {given}");
    version.map(Some).ok_or_else(wrong)
}

/// An entry of a map from what the step's model calls a tensor to what the ensemble does.
fn map(field: &Field, map: &mut BTreeMap<String, String>) -> Result<(), String> {
    let entry = message(field)?;
    let of_name = |wanted: &str| {
        let found = entry.0.iter().find(|field| field.name == wanted);
        let missing = || format!("{}: it has no '{wanted}'", field.name);
        found.ok_or_else(missing).and_then(text)
    };
    let (key, value) = (of_name("key")?, of_name("value")?);
    if map.insert(key.clone(), value).is_some() {
        return Err(format!("{}: '{key}' is there twice", field.name));
    }
    Ok(())
}
