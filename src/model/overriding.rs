//! A load that brings a model's settings, and perhaps its files, with it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::change::Core;
use super::error::{ChangeError, LoadError};
use super::load::{Choose, LoadOptions, told};
use super::names::{ModelName, Version};
use super::operation::Operation;
use super::report::LoadReport;

/// What a load brings with it, in the place of what its source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overrides {
    /// How the model is to be served, as its source reads it.
    pub config: String,
    /// Its files; where there are any, it has no others.
    pub files: Vec<OverrideFile>,
}

/// A file of a version.
#[derive(Clone, PartialEq, Eq)]
pub struct OverrideFile {
    /// The version.
    pub version: Version,
    /// Its name in the version's folder.
    pub name: String,
    /// What is in it.
    pub content: Bytes,
}

impl fmt::Debug for OverrideFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of {} bytes", self.version, self.name, self.content.len())
    }
}

/// What was laid over a model. Unless it is kept, what was there before is put back when this is dropped;
/// either may block.
#[must_use = "it is taken back when this is dropped"]
pub struct Laid(Option<Box<dyn FnOnce() + Send>>);

impl Laid {
    /// What is taken back by `undo`, which also holds what goes when this is kept.
    pub fn new(undo: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }

    /// Nothing, over nothing.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// Lets it stay.
    pub fn keep(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

impl fmt::Debug for Laid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Laid").finish_non_exhaustive()
    }
}

impl Core {
    /// Loads a model with what is laid over it from now on, or with what its source has. All or nothing:
    /// where the load fails, what was laid over it before is so again.
    pub(super) async fn load_over(
        self: &Arc<Self>,
        name: &ModelName,
        (options, overrides): (LoadOptions, Option<Overrides>),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let brings_files = overrides.as_ref().is_some_and(|overrides| !overrides.files.is_empty());
        // What brings its files need not exist.
        let entry = if brings_files { self.registry.entry(name) } else { self.entry(name).await? };
        let _permit = self.permit(&entry, operation).await?;
        let laying = self.ask(name, move |loader, name| loader.source.lay(name, overrides)).await;
        let result = match laying {
            Ok(laid) => {
                let how = (options, Choose::Any, &[][..]);
                let result = self.load_planned((&entry, None), how, operation).await;
                self.settle(name, laid, result.is_ok()).await;
                result
            }
            Err(refusal) => Err(refusal),
        };
        self.comes_on_demand(&entry, &result);
        told(&entry, result)
    }

    /// Keeps what was laid over a model, or takes it back; on a thread where there is one, for files go.
    async fn settle(&self, name: &ModelName, laid: Laid, is_kept: bool) {
        if laid.0.is_none() {
            return;
        }
        let settle = move || if is_kept { laid.keep() } else { drop(laid) };
        let settled = self.scans.run(&format!("settle {name}"), settle).await;
        if let Err(LoadError::Panicked(cause)) = settled {
            tracing::error!(model = %name, cause, "what was laid over the model is not settled");
        }
    }
}
