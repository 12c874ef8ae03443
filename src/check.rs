//! `onward check`: what a server would make of a model, or of a repository.

use std::path::{Path, PathBuf};

use onward::app::{CheckedModel, CheckedVersion};
use onward::config::Layers;
use onward::inference::{BatchingReport, Dim, Signature, TensorSpec};
use onward::model::ModelName;
use serde_json::{Value, json};

use crate::terminal::{self, safe};

/// What is to be checked.
pub(crate) struct Subject {
    /// The configuration, with the repository in it.
    pub(crate) layers: Layers,
    /// The only model to look at; all where there is none.
    pub(crate) model: Option<ModelName>,
    /// Whether it is told for programs.
    pub(crate) json: bool,
}

impl Subject {
    /// A repository, the folder of a model, or a file or folder in that; the repository of the configuration
    /// where no path is given.
    ///
    /// # Errors
    /// Where a path is that of no model.
    pub(crate) fn new(layers: Layers, path: Option<&Path>, json: bool) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self { layers, model: None, json }) };
        let is_address = path.to_str().is_some_and(|text| text.contains("://"));
        let (repository, model) = match model_folder(path)? {
            _ if is_address => (path.to_owned(), None),
            None => (path.to_owned(), None),
            Some(folder) => apart(&folder)?,
        };
        let Some(repository) = repository.to_str() else {
            return Err(format!("{}: it is not valid UTF-8", path.display()));
        };
        let mut layers = layers;
        layers.flags.retain(|(key, _)| key != "models.repository");
        layers.flags.push(("models.repository".to_owned(), repository.to_owned()));
        Ok(Self { layers, model, json })
    }
}

/// The folder of the model that a path leads into, or the file that is one; `None` for a repository.
fn model_folder(path: &Path) -> Result<Option<PathBuf>, String> {
    let whole = std::path::absolute(path).map_err(|error| shown(path, &error.to_string()))?;
    let above = |path: &Path| path.parent().map(Path::to_owned);
    if path.is_file() {
        if path.extension().is_none_or(|extension| extension != "onnx") {
            return Err(shown(path, "it is no ONNX file, whose name ends in .onnx"));
        }
        let folder = above(&whole).filter(|folder| is_version(folder));
        return Ok(folder.and_then(|folder| above(&folder)).or(Some(whole)));
    }
    if is_version(&whole) {
        return Ok(above(&whole));
    }
    Ok(Some(whole).filter(|whole| is_model(whole)))
}

/// Whether a folder is that of a model rather than a repository.
fn is_model(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    let has_files = ["model.onnx", "model.yaml", "config.pbtxt", "golden"].into_iter().any(has);
    has_files || folders(folder).any(|inside| is_version(&inside))
}

/// Whether a folder is that of a version: its name is a number, and it has none of its own. A model may have
/// a number for its name.
fn is_version(folder: &Path) -> bool {
    has_number(folder) && !folders(folder).any(|inside| has_number(&inside))
}

fn has_number(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.parse::<u64>().is_ok()) && folder.is_dir()
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// The repository that a model is in, and its name there.
fn apart(model: &Path) -> Result<(PathBuf, Option<ModelName>), String> {
    // What stands for the folder that one is in has no name; a link has its own.
    let model =
        if model.file_name().is_none() { model.canonicalize() } else { Ok(model.to_owned()) };
    let model = model.map_err(|error| error.to_string())?;
    let name = if model.is_file() { model.file_stem() } else { model.file_name() };
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    let name = ModelName::new(name).map_err(|error| shown(&model, &error.to_string()))?;
    let repository = model.parent().unwrap_or(&model).to_owned();
    Ok((repository, Some(name)))
}

fn shown(path: &Path, problem: &str) -> String {
    format!("{}: {problem}", path.display())
}

/// Whether requests share runs.
fn batching(report: &BatchingReport) -> String {
    match report {
        BatchingReport::On { max_entries, .. } => format!("on, up to {max_entries}"),
        BatchingReport::Off { .. } => "off".to_owned(),
    }
}

/// Whether there are any, and all of them would serve.
pub(crate) fn are_sound(models: &[CheckedModel]) -> bool {
    !models.is_empty() && models.iter().all(|model| model.problem.is_none())
}

/// For humans.
pub(crate) fn text(models: &[CheckedModel]) -> String {
    if models.is_empty() {
        return "no models\n".to_owned();
    }
    let told: Vec<String> = models.iter().map(of_model).collect();
    let failed = models.iter().filter(|model| model.problem.is_some()).count();
    let (all, good) = (models.len(), models.len() - failed);
    format!("{}\n{good} of {all} models would serve\n", told.join("\n"))
}

fn of_model(model: &CheckedModel) -> String {
    let mut lines = vec![match &model.problem {
        None => format!("{}: it would serve", model.name),
        Some(problem) => format!("{}: it would NOT serve: {problem}", model.name),
    }];
    lines.extend(model.loaded.iter().flat_map(of_version));
    if !model.others.is_empty() {
        let others: Vec<String> = model.others.iter().map(ToString::to_string).collect();
        lines.push(format!("  not selected by its version policy: {}", others.join(", ")));
    }
    lines.extend(model.warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.extend(model.advice.iter().map(|advice| format!("  advice: {advice}")));
    let lines = lines.iter().map(|line| safe(line));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn of_version(checked: &CheckedVersion) -> Vec<String> {
    let report = &checked.report;
    let head = format!("  version {}: {}", report.version, report.state.name());
    let Some(signature) = &checked.signature else {
        return vec![format!("{head}: {}", report.reason)];
    };
    let load = report.load_duration().unwrap_or_default().as_secs_f64();
    let serving = report.serving.as_ref().map(|serving| {
        if !serving.steps.is_empty() {
            return format!(", an ensemble of {} steps", serving.steps.len());
        }
        let shared = batching(&serving.batching);
        let instances = if serving.instances == 1 { "instance" } else { "instances" };
        format!(", {} {instances}, batching {shared}", serving.instances)
    });
    let samples = match checked.samples {
        0 => String::new(),
        1 => ", 1 golden sample answered".to_owned(),
        count => format!(", {count} golden samples answered"),
    };
    let mut lines = vec![format!("{head} in {load:.2} s{}{samples}", serving.unwrap_or_default())];
    lines.extend(signature.inputs.iter().map(|spec| of_tensor("takes", spec)));
    lines.extend(signature.outputs.iter().map(|spec| of_tensor("gives", spec)));
    lines
}

fn of_tensor(what: &str, spec: &TensorSpec) -> String {
    let optional = if spec.optional { ", optional" } else { "" };
    format!("    {what} {} {} {}{optional}", spec.name, spec.datatype, spec.shape_text())
}

/// For programs.
pub(crate) fn json(models: &[CheckedModel]) -> String {
    let models: Vec<Value> = models.iter().map(model_json).collect();
    terminal::json(&json!({ "models": models }))
}

fn model_json(model: &CheckedModel) -> Value {
    let versions: Vec<Value> = model.loaded.iter().map(version_json).collect();
    let others: Vec<String> = model.others.iter().map(ToString::to_string).collect();
    json!({
        "name": model.name.as_str(),
        "problem": model.problem,
        "warnings": model.warnings,
        "advice": model.advice,
        "versions": versions,
        "not_selected": others,
    })
}

fn version_json(checked: &CheckedVersion) -> Value {
    let report = &checked.report;
    let tensors = |of: fn(&Signature) -> &Vec<TensorSpec>| {
        let tensors = checked.signature.iter().flat_map(of);
        tensors.map(tensor_json).collect::<Vec<Value>>()
    };
    let serving = report.serving.as_ref();
    let most = serving.map(|serving| match &serving.batching {
        BatchingReport::On { max_entries, .. } => json!(max_entries),
        BatchingReport::Off { .. } => Value::Null,
    });
    json!({
        "version": report.version.to_string(),
        "state": report.state.name(),
        "reason": report.reason,
        "load_seconds": report.load_duration().map(|took| took.as_secs_f64()),
        "instances": serving.map(|serving| serving.instances),
        "max_batch_size": most,
        "golden_samples": checked.samples,
        "inputs": tensors(|signature| &signature.inputs),
        "outputs": tensors(|signature| &signature.outputs),
    })
}

/// As the protocol tells tensors: a dimension that is free is -1.
fn tensor_json(spec: &TensorSpec) -> Value {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => json!(size),
        Dim::Dynamic(_) => json!(-1),
    };
    let shape = spec.shape.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>());
    json!({
        "name": spec.name,
        "datatype": spec.datatype.to_string(),
        "shape": shape,
        "optional": spec.optional,
    })
}
