//! The model repository extension: index, load, unload.

use bytes::Bytes;

use super::refusal::Refusal;
use crate::model::{
    Change, Conditions, IndexEntry, LoadOptions, ModelLifecycleManager, ModelName, OverrideFile,
    Overrides, StateKind, Version,
};

/// The parameter with a model's configuration, as JSON.
const CONFIG: &str = "config";

/// What the name of a parameter with a file begins with.
pub(crate) const FILE: &str = "file:";

/// Longer paths are cut short in messages.
const SHOWN: usize = 80;

/// Every model of the repository with its versions; only those that answer requests where `ready`.
///
/// # Errors
/// When the repository cannot be read.
pub(crate) async fn index(
    models: &ModelLifecycleManager,
    ready: bool,
) -> Result<Vec<IndexEntry>, Refusal> {
    let is_ready =
        |entry: &IndexEntry| entry.version.is_some_and(|(_, state)| state == StateKind::Ready);
    let mut entries = models.index().await?;
    entries.retain(|entry| !ready || is_ready(entry));
    Ok(entries)
}

/// What a parameter of a load has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    Text(String),
    Bytes(Bytes),
    Other,
}

/// What the parameters of a load bring; `None` where they bring nothing. Names that mean nothing are the
/// caller's own.
///
/// # Errors
/// What makes no sense.
pub(crate) fn overrides(
    parameters: impl IntoIterator<Item = (String, Given)>,
) -> Result<Option<Overrides>, Refusal> {
    let (mut config, mut files) = (None, Vec::new());
    for (name, given) in parameters {
        if let Some(path) = name.strip_prefix(FILE) {
            files.push(file(path, given)?);
        } else if name == CONFIG {
            let Given::Text(text) = given else {
                return Err(Refusal::invalid("parameter 'config' is a string"));
            };
            config = Some(text);
        }
    }
    match (config, files.is_empty()) {
        (Some(config), _) => Ok(Some(Overrides { config, files })),
        (None, true) => Ok(None),
        (None, false) => {
            let text = "a load with files needs the parameter 'config' too";
            Err(Refusal::invalid(text))
        }
    }
}

/// A file by its path in the model's folder, which is that of a version and a name.
fn file(path: &str, content: Given) -> Result<OverrideFile, Refusal> {
    let wrong = || {
        let shown: String = path.chars().take(SHOWN).collect();
        Refusal::invalid(format!(
            "parameter '{FILE}{shown}': expected the path of a file in the folder of a version, such \
             as 1/model.onnx"
        ))
    };
    let (version, name) = path.split_once('/').ok_or_else(wrong)?;
    let version: Version = version.parse().map_err(|_| wrong())?;
    // What can be no folder of a model can be no file either.
    ModelName::new(name).map_err(|_| wrong())?;
    let Given::Bytes(content) = content else {
        return Err(Refusal::invalid(format!("parameter '{FILE}{path}' has no bytes")));
    };
    Ok(OverrideFile { version, name: name.to_owned(), content })
}

/// Loads a model, with what the load brings, and waits for it. `origin` is by what the caller finds it.
///
/// # Errors
/// Where the load fails.
pub(crate) async fn load(
    models: &ModelLifecycleManager,
    (model, origin): (&ModelName, Option<String>),
    overrides: Option<Overrides>,
) -> Result<(), Refusal> {
    let plain = || Change::Load(LoadOptions::default());
    let change = overrides.map_or_else(plain, Change::LoadWith);
    make(models, (model, origin), change).await
}

async fn make(
    models: &ModelLifecycleManager,
    (model, origin): (&ModelName, Option<String>),
    change: Change,
) -> Result<(), Refusal> {
    let conditions = Conditions { origin, ..Conditions::default() };
    models.begin(model, change, conditions)?.done().await?;
    Ok(())
}

/// Unloads a model and waits for it. What was loaded only as a step of it goes with it anyway, and what
/// was loaded for itself stays, so `unload_dependents` changes nothing.
///
/// # Errors
/// Where the unload fails.
pub(crate) async fn unload(
    models: &ModelLifecycleManager,
    of: (&ModelName, Option<String>),
) -> Result<(), Refusal> {
    make(models, of, Change::Unload(None)).await
}

/// The protocol's word for a state.
pub(crate) const fn state(state: StateKind) -> &'static str {
    match state {
        StateKind::New => "UNKNOWN",
        StateKind::Fetching | StateKind::Verifying | StateKind::Loading | StateKind::Warming => {
            "LOADING"
        }
        StateKind::Ready => "READY",
        StateKind::Draining | StateKind::Unloading => "UNLOADING",
        StateKind::Unloaded | StateKind::Failed => "UNAVAILABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, Given)]) -> Result<Option<Overrides>, Refusal> {
        overrides(given.iter().map(|(name, given)| ((*name).to_owned(), given.clone())))
    }

    #[test]
    fn a_load_brings_a_configuration_and_files() {
        let (config, bytes) = (Given::Text("{}".to_owned()), Given::Bytes(Bytes::from("x")));
        assert_eq!(read(&[("unload_dependents", Given::Other)]).unwrap(), None);
        let given = [("config", config.clone()), ("file:2/model.onnx", bytes.clone())];
        let overrides = read(&given).unwrap().unwrap();
        assert_eq!(overrides.config, "{}");
        let file = &overrides.files[0];
        assert_eq!((file.version.number(), file.name.as_str()), (2, "model.onnx"));
        let long = format!("file:1/{}", "x".repeat(256));
        for path in [
            "file:model.onnx",
            "file:1/a/model.onnx",
            "file:1/../model.onnx",
            "file:../1/model.onnx",
            "file:1/..",
            "file:1/",
            "file:/1/model.onnx",
            "file:01/model.onnx",
            "file:1/a\\b",
            "file:1/\0",
            "file:",
            &long,
        ] {
            let refused = read(&[("config", config.clone()), (path, bytes.clone())]);
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{path}");
        }
        assert!(read(&[("file:1/model.onnx", bytes)]).is_err(), "without a configuration");
        assert!(read(&[("config", Given::Other)]).is_err());
        assert!(read(&[("config", config), ("file:1/x", Given::Other)]).is_err());
    }
}
