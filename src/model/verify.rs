//! Verify: ask a version that serves whether it still answers its golden samples.

use std::sync::Arc;

use tokio::time::Instant;

use super::change::Core;
use super::error::ChangeError;
use super::golden::GoldenSample;
use super::handle::VersionHandle;
use super::names::{ModelName, VersionId, VersionRef};
use super::operation::Operation;
use super::report::VerifyReport;
use super::serving_map::Wanted;
use crate::causes;

/// How long one sample may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

impl Core {
    /// Sends every golden sample to a version, as a request like any other. Changes nothing, and waits
    /// for no change.
    pub(super) async fn verify(
        self: &Arc<Self>,
        name: &ModelName,
        version: Option<&VersionRef>,
        operation: &Operation,
    ) -> Result<VerifyReport, ChangeError> {
        let started = Instant::now();
        self.known(name)?;
        let current = VersionRef::Number(self.routes_of(name)?.current);
        let wanted = Wanted::new(Some(version.unwrap_or(&current)), None);
        let handle = self.serving.enter(name.as_str(), wanted);
        let handle = handle.ok_or_else(|| ChangeError::NotLoaded(name.clone()))?;
        let id = handle.id().clone();
        let asked = id.clone();
        let samples = self.ask(name, move |loader, _| loader.source.samples(&asked)).await?;
        if samples.is_empty() {
            return Err(ChangeError::NoSamples(id));
        }
        for sample in &samples {
            operation.goes_on()?;
            operation.step(format!("SAMPLE {}", sample.name), Some(id.version));
            answered(&handle, sample).await.map_err(|problem| unlike(&id, sample, problem))?;
        }
        let samples = samples.into_iter().map(|sample| sample.name).collect();
        Ok(VerifyReport { version: id.version, samples, took: started.elapsed() })
    }
}

async fn answered(handle: &VersionHandle, sample: &GoldenSample) -> Result<(), String> {
    let answer = handle.infer_anew(sample.request(), Instant::now() + PATIENCE).await;
    let answer = answer.map_err(|error| causes::of_error(&error))?;
    sample.judge(answer.outputs.iter().map(|(_, tensor)| tensor))
}

fn unlike(id: &VersionId, sample: &GoldenSample, problem: String) -> ChangeError {
    ChangeError::Unlike { id: id.clone(), sample: sample.name.clone(), problem }
}
