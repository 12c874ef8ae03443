//! The model repository extension: index, load, unload.

use super::refusal::Refusal;
use crate::model::{IndexEntry, ModelLifecycleManager, ModelName, StateKind};

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

/// Loads a model and waits for it; `parameters` are the names of what the request says beside that.
///
/// # Errors
/// Where the load fails, or is to load something else than what the repository has.
pub(crate) async fn load<'a>(
    models: &ModelLifecycleManager,
    model: &ModelName,
    mut parameters: impl Iterator<Item = &'a String>,
) -> Result<(), Refusal> {
    if let Some(name) = parameters.find(|name| overrides(name)) {
        let text = format!("a load with the parameter '{name}' is not supported: change the files");
        return Err(Refusal::unsupported(text));
    }
    models.load(model).await?;
    Ok(())
}

/// Unloads a model and waits for it. No model depends on another, so `unload_dependents` changes
/// nothing.
///
/// # Errors
/// Where the unload fails.
pub(crate) async fn unload(
    models: &ModelLifecycleManager,
    model: &ModelName,
) -> Result<(), Refusal> {
    models.unload(model).await?;
    Ok(())
}

/// Whether the parameter asks for something else than what the repository has.
fn overrides(name: &str) -> bool {
    name == "config" || name.starts_with("file:")
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
