//! Triton's `config.pbtxt`: what it says is honoured, or told not to be, field by field.
//!
//! The fields are those of `ModelConfig` in Triton's `model_config.proto`. What is not honoured and
//! would change answers is an error; everything else that is not is a warning.

mod batching;
mod ensemble;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod json;
mod text;

use std::num::NonZeroUsize;

use super::labels::{ReadLabels, check_name};
use crate::inference::{DataType, ExecutionProvider};
use crate::model::{
    DeclaredSignature, DeclaredTensor, Labels, MOST_INSTANCES, ModelName, ModelSettings, Version,
    VersionPolicy,
};
use crate::nearest;
use text::{Field, Message, Value};

/// Fields that are read.
const HONOURED: [&str; 13] = [
    "name",
    "platform",
    "backend",
    "version_policy",
    "max_batch_size",
    "dynamic_batching",
    "ensemble_scheduling",
    "input",
    "output",
    "instance_group",
    "default_model_filename",
    "optimization",
    "response_cache",
];

/// Fields of no consequence for answers that Onward does in its own way, with what to tell.
const NOT_HONOURED: [(&str, &str); 6] = [
    ("parameters", "parameters are for Triton's backends"),
    ("model_warmup", "versions are warmed up by 'warm_up' and golden samples of Onward's own"),
    ("metric_tags", "metrics have the model and the version as labels"),
    ("model_operations", "no libraries of operators are loaded"),
    ("model_repository_agents", "no agents are loaded"),
    ("model_metrics", "histograms have the same buckets for all models"),
];

/// Fields that would make other answers, with why.
const WOULD_CHANGE_ANSWERS: [(&str, &str); 5] = [
    ("sequence_batching", "models with state are not served"),
    ("batch_input", "inputs are not made up from batches"),
    ("batch_output", "outputs are not taken apart by batches"),
    ("cc_model_filenames", "there is one file for all devices"),
    ("model_transaction_policy", "it may be decoupled, which is not served"),
];

/// What the file of a model says, and what of it is not honoured.
///
/// # Errors
/// What is wrong, with the line or the field.
pub(super) fn parse(
    text: &str,
    (name, labels): (&ModelName, ReadLabels<'_>),
) -> Result<ModelSettings, String> {
    settings(&text::read(text)?, (name, labels))
}

/// What the same says as JSON.
///
/// # Errors
/// What is wrong, with the field.
pub(super) fn parse_json(
    text: &str,
    (name, labels): (&ModelName, ReadLabels<'_>),
) -> Result<ModelSettings, String> {
    settings(&json::read(text)?, (name, labels))
}

fn settings(
    message: &Message,
    (name, labels): (&ModelName, ReadLabels<'_>),
) -> Result<ModelSettings, String> {
    let settings = ModelSettings::default();
    let mut reading = Reading { settings, platform: String::new(), labels };
    let mut declared = DeclaredSignature::default();
    for field in &message.0 {
        let line = field.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let at = |problem: String| format!("{line}{}: {problem}", field.name);
        match field.name.as_str() {
            "name" => is_named(field, name).map_err(at)?,
            "platform" => reading.platform(field).map_err(at)?,
            "backend" | "runtime" => is_for_onnxruntime(field).map_err(at)?,
            "version_policy" => reading.settings.version_policy = policy(field).map_err(at)?,
            "max_batch_size" => {
                let most = batch(field).map_err(at)?;
                reading.settings.max_batch_size = Some(most);
                declared.batched = most > 0;
            }
            "dynamic_batching" => reading.batching(field).map_err(at)?,
            "ensemble_scheduling" => reading.ensemble(field).map_err(at)?,
            "input" => declared.inputs.push(reading.tensor(field).map_err(at)?),
            "output" => declared.outputs.push(reading.tensor(field).map_err(at)?),
            "instance_group" => reading.instances(field).map_err(at)?,
            "optimization" => reading.optimization(field).map_err(at)?,
            "response_cache" => reading.settings.response_cache = is_cached(field).map_err(at)?,
            "default_model_filename" => is_usual_file(field).map_err(at)?,
            _ => reading.other(field).map_err(at)?,
        }
    }
    reading.settle_ensemble(&declared)?;
    let instances = reading.settings.instances.map_or(0, NonZeroUsize::get);
    if instances > MOST_INSTANCES {
        return Err(format!("instance_group: expected {MOST_INSTANCES} instances at most"));
    }
    reading.settings.declared = Some(declared);
    Ok(reading.settings)
}

fn is_cached(field: &Field) -> Result<bool, String> {
    let mut enabled = false;
    for field in &message(field)?.0 {
        match field.name.as_str() {
            "enable" => enabled = boolean(field)?,
            other => return Err(format!("there is no field '{other}'")),
        }
    }
    Ok(enabled)
}

struct Reading<'a> {
    settings: ModelSettings,
    /// As it is given; empty where it is not.
    platform: String,
    labels: ReadLabels<'a>,
}

impl Reading<'_> {
    fn warn(&mut self, field: &str, why: &str) {
        let warning = format!("config.pbtxt: {field} is not honoured: {why}");
        if !self.settings.warnings.contains(&warning) {
            self.settings.warnings.push(warning);
        }
    }

    fn other(&mut self, field: &Field) -> Result<(), String> {
        let known = |(name, _): &&(&str, &str)| *name == field.name;
        if field.name == "model_transaction_policy" {
            let mut fields = message(field)?.0.iter();
            let decoupled = fields.any(|field| field.name == "decoupled" && !is_false(field));
            if !decoupled {
                return Ok(());
            }
        }
        if let Some((_, why)) = WOULD_CHANGE_ANSWERS.iter().find(known) {
            return Err(format!("it is not honoured and would change answers: {why}"));
        }
        match NOT_HONOURED.iter().find(known) {
            Some((name, why)) => self.warn(name, why),
            None => return Err(unknown(&field.name)),
        }
        Ok(())
    }

    fn platform(&mut self, field: &Field) -> Result<(), String> {
        self.platform = text(field)?;
        if self.platform == ensemble::PLATFORM { Ok(()) } else { is_for_onnxruntime(field) }
    }

    fn instances(&mut self, field: &Field) -> Result<(), String> {
        let mut count = 1;
        for field in &message(field)?.0 {
            match (field.name.as_str(), &field.value) {
                ("count", _) => count = instances(field)?,
                ("name" | "passive" | "secondary_devices", _) => {}
                ("kind", Value::Word(kind) | Value::Either(kind)) => match kind.as_str() {
                    "KIND_CPU" | "KIND_AUTO" => {}
                    "KIND_GPU" => self.warn("instance_group.kind", "instances run on the CPU"),
                    other => return Err(format!("the kind {other} is not served")),
                },
                ("gpus" | "profile" | "rate_limiter" | "host_policy", _) => {
                    let name = format!("instance_group.{}", field.name);
                    self.warn(&name, "instances run on the CPU, and all at the same rate");
                }
                _ => return Err(format!("there is no field '{}'", field.name)),
            }
        }
        let before = self.settings.instances.map_or(0, NonZeroUsize::get);
        self.settings.instances = NonZeroUsize::new(before.saturating_add(count));
        Ok(())
    }

    fn optimization(&mut self, field: &Field) -> Result<(), String> {
        for field in &message(field)?.0 {
            if field.name == "execution_accelerators" {
                self.accelerators(message(field)?)?;
            } else {
                self.warn("optimization", "graphs are optimised as far as ONNX Runtime can");
            }
        }
        Ok(())
    }

    /// The execution providers that they stand for, and the CPU's for the rest, as in Triton.
    fn accelerators(&mut self, accelerators: &Message) -> Result<(), String> {
        for field in &accelerators.0 {
            self.accelerator(message(field)?)?;
        }
        let providers = &mut self.settings.execution_providers;
        providers.retain(|provider| *provider != ExecutionProvider::Cpu);
        if !providers.is_empty() {
            providers.push(ExecutionProvider::Cpu);
        }
        Ok(())
    }

    fn accelerator(&mut self, accelerator: &Message) -> Result<(), String> {
        const FIELD: &str = "optimization.execution_accelerators";
        let of_name = |wanted: &str| accelerator.0.iter().find(|field| field.name == wanted);
        let name = of_name("name").map_or(Ok(String::new()), text)?;
        let known = ExecutionProvider::from_name(&name).filter(|provider| provider.is_built_in());
        let Some(provider) = known else {
            self.warn(FIELD, &format!("this build of the server has no '{name}'"));
            return Ok(());
        };
        if of_name("parameters").is_some() {
            self.warn(FIELD, &format!("the parameters of '{name}' have their defaults"));
        }
        let providers = &mut self.settings.execution_providers;
        if !providers.contains(&provider) {
            providers.push(provider);
        }
        Ok(())
    }

    fn tensor(&mut self, field: &Field) -> Result<DeclaredTensor, String> {
        let mut tensor = DeclaredTensor { name: String::new(), datatype: None, dims: None };
        let mut labels = None;
        for field in &message(field)?.0 {
            match field.name.as_str() {
                "name" => tensor.name = text(field)?,
                "data_type" => tensor.datatype = Some(datatype(field)?),
                "dims" => tensor.dims.get_or_insert_default().push(dim(field)?),
                "label_filename" if text(field)?.is_empty() => {}
                "label_filename" => labels = Some(self.label_file(text(field)?)?),
                "optional" | "format" => {}
                "is_shape_tensor" | "allow_ragged_batch" | "is_non_linear_format_io"
                    if is_false(field) => {}
                "reshape"
                | "is_shape_tensor"
                | "allow_ragged_batch"
                | "is_non_linear_format_io" => {
                    let name = &field.name;
                    return Err(format!("'{name}' is not honoured and would change answers"));
                }
                other => return Err(format!("there is no field '{other}'")),
            }
        }
        if tensor.name.is_empty() {
            return Err("it has no 'name'".to_owned());
        }
        let labels = labels.map(|labels| (tensor.name.clone(), labels));
        self.settings.labels.extend(labels);
        Ok(tensor)
    }

    fn label_file(&self, name: String) -> Result<Labels, String> {
        let texts = check_name(&name).and_then(|()| (self.labels)(&name));
        let texts = texts.map_err(|problem| format!("label_filename: {problem}"))?;
        Ok(Labels { file: Some(name), texts })
    }
}

/// What to tell of a field that there is not.
fn unknown(name: &str) -> String {
    let others = NOT_HONOURED.iter().chain(&WOULD_CHANGE_ANSWERS).map(|(name, _)| *name);
    let near = nearest::name(name, HONOURED.into_iter().chain(others));
    let near = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    format!("there is no such field{near}")
}

fn is_named(field: &Field, name: &ModelName) -> Result<(), String> {
    let given = text(field)?;
    if given == name.as_str() {
        return Ok(());
    }
    Err(format!("it is '{given}', but the model's folder is '{name}'"))
}

fn is_for_onnxruntime(field: &Field) -> Result<(), String> {
    let given = text(field)?;
    let known = ["", "onnxruntime", "onnxruntime_onnx"];
    if known.contains(&given.as_str()) {
        return Ok(());
    }
    Err(format!("'{given}' is not served, only onnxruntime"))
}

fn is_usual_file(field: &Field) -> Result<(), String> {
    match text(field)?.as_str() {
        "" | "model.onnx" => Ok(()),
        other => Err(format!("'{other}' is not looked for, rename the file to model.onnx")),
    }
}

fn policy(field: &Field) -> Result<VersionPolicy, String> {
    let [choice] = message(field)?.0.as_slice() else {
        return Err("expected one of latest, all and specific".to_owned());
    };
    let inner = message(choice)?;
    match choice.name.as_str() {
        "all" => Ok(VersionPolicy::All),
        "latest" => {
            let count = inner.0.iter().find(|field| field.name == "num_versions");
            let count = count.map_or(Ok(1), number)?;
            let count = usize::try_from(count).ok().and_then(NonZeroUsize::new);
            count.map(VersionPolicy::Latest).ok_or_else(|| "num_versions is 1 or more".to_owned())
        }
        "specific" => {
            let versions = inner.0.iter().filter(|field| field.name == "versions").map(|field| {
                let number = u64::try_from(number(field)?).ok().and_then(Version::new);
                number.ok_or_else(|| "a version is 1 or more".to_owned())
            });
            let versions: Vec<Version> = versions.collect::<Result<_, String>>()?;
            if versions.is_empty() {
                Err("it names no version".to_owned())
            } else {
                Ok(VersionPolicy::Specific(versions))
            }
        }
        other => Err(format!("there is no policy '{other}'")),
    }
}

fn datatype(field: &Field) -> Result<DataType, String> {
    let (Value::Word(word) | Value::Either(word)) = &field.value else {
        return Err("data_type is a word".to_owned());
    };
    let name = match word.strip_prefix("TYPE_") {
        Some("STRING") => Some("BYTES"),
        other => other,
    };
    let datatype = name.and_then(DataType::from_name);
    datatype.ok_or_else(|| format!("there is no data_type {word}"))
}

fn dim(field: &Field) -> Result<Option<usize>, String> {
    match number(field)? {
        -1 => Ok(None),
        size => {
            let wrong = || format!("dims: expected -1 or a size, got {size}");
            usize::try_from(size).map(Some).map_err(|_| wrong())
        }
    }
}

/// A number of instances; zero for the usual one.
fn instances(field: &Field) -> Result<usize, String> {
    let count = number(field)?;
    usize::try_from(count).map_err(|_| format!("count: expected 0 or more, got {count}"))
}

/// The largest batch; zero for none.
fn batch(field: &Field) -> Result<u32, String> {
    let most = number(field)?;
    u32::try_from(most).map_err(|_| format!("expected 0 to {}, got {most}", u32::MAX))
}

/// Whether it is one of the words for what is not so.
fn boolean(field: &Field) -> Result<bool, String> {
    match &field.value {
        Value::Word(word) if ["true", "True", "t", "1"].contains(&word.as_str()) => Ok(true),
        _ if is_false(field) => Ok(false),
        _ => Err(format!("{}: expected true or false", field.name)),
    }
}

fn is_false(field: &Field) -> bool {
    matches!(&field.value, Value::Word(word) if ["false", "False", "f", "0"].contains(&word.as_str()))
}

fn number(field: &Field) -> Result<i64, String> {
    let wrong = || format!("{}: expected a whole number", field.name);
    let (Value::Word(word) | Value::Either(word)) = &field.value else { return Err(wrong()) };
    word.parse().map_err(|_| wrong())
}

fn text(field: &Field) -> Result<String, String> {
    match &field.value {
        Value::Text(text) | Value::Either(text) => Ok(text.clone()),
        _ => Err(format!("{}: expected a text in quotes", field.name)),
    }
}

fn message(field: &Field) -> Result<&Message, String> {
    match &field.value {
        Value::Message(message) => Ok(message),
        _ => Err(format!("{}: expected a message in braces", field.name)),
    }
}

#[cfg(test)]
mod tests;
