//! `onward check`: what a server would make of a model, or of a repository.

use std::path::{Path, PathBuf};

use onward::app::{self, CheckedModel, CheckedVersion};
use onward::config::Layers;
use onward::inference::{BatchingReport, Signature, TensorSpec};
use onward::model::ModelName;
use serde_json::{Value, json};

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
    /// A repository, the folder of a model, or its file; that of the configuration where no path is given.
    ///
    /// # Errors
    /// Where a path cannot be that of a model.
    pub(crate) fn new(layers: Layers, path: Option<&Path>, json: bool) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self { layers, model: None, json }) };
        let is_model = path.is_file() || app::is_model(path);
        let (repository, model) = if is_model { apart(path)? } else { (path.to_owned(), None) };
        let mut layers = layers;
        layers.flags.retain(|(key, _)| key != "models.repository");
        let repository = repository.to_string_lossy().into_owned();
        layers.flags.push(("models.repository".to_owned(), repository));
        Ok(Self { layers, model, json })
    }
}

/// The repository that a model is in, and its name there.
fn apart(path: &Path) -> Result<(PathBuf, Option<ModelName>), String> {
    let wrong = |problem: String| format!("{}: {problem}", path.display());
    let path = path.canonicalize().map_err(|error| wrong(error.to_string()))?;
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    let name = ModelName::new(name).map_err(|error| wrong(error.to_string()))?;
    let repository = path.parent().unwrap_or(&path).to_owned();
    Ok((repository, Some(name)))
}

/// Whether requests share runs.
fn batching(report: &BatchingReport) -> String {
    match report {
        BatchingReport::On { max_entries, .. } => format!("on, up to {max_entries}"),
        BatchingReport::Off { .. } => "off".to_owned(),
    }
}

/// Whether all of them would serve.
pub(crate) fn are_sound(models: &[CheckedModel]) -> bool {
    models.iter().all(|model| model.problem.is_none())
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
    lines.join("\n") + "\n"
}

fn of_version(checked: &CheckedVersion) -> Vec<String> {
    let report = &checked.report;
    let head = format!("  version {}: {}", report.version, report.state.name());
    let Some(signature) = &checked.signature else {
        return vec![format!("{head}: {}", report.reason)];
    };
    let load = report.load_duration().unwrap_or_default().as_secs_f64();
    let serving = report.serving.as_ref().map(|serving| {
        let shared = batching(&serving.batching);
        format!(", {} instances, batching {shared}", serving.instances)
    });
    let samples = match checked.samples {
        0 => String::new(),
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
    format!("{:#}\n", json!({ "models": models }))
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
        let tensors: Vec<Value> = tensors
            .map(|spec| {
                json!({
                    "name": spec.name,
                    "datatype": spec.datatype.to_string(),
                    "shape": spec.shape_text(),
                    "optional": spec.optional,
                })
            })
            .collect();
        tensors
    };
    json!({
        "version": report.version.to_string(),
        "state": report.state.name(),
        "reason": report.reason,
        "load_seconds": report.load_duration().map(|took| took.as_secs_f64()),
        "instances": report.serving.as_ref().map(|serving| serving.instances),
        "batching": report.serving.as_ref().map(|serving| batching(&serving.batching)),
        "golden_samples": checked.samples,
        "inputs": tensors(|signature| &signature.inputs),
        "outputs": tensors(|signature| &signature.outputs),
    })
}
