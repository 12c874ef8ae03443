//! What models have done so far, in the words of Triton's statistics.

use std::time::{Duration, SystemTime};

use super::refusal::Refusal;
use crate::model::{
    ModelLifecycleManager, ModelName, ModelReport, ServingReport, Spent, VersionRef, VersionReport,
    Wanted,
};

/// What one version has done since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Milliseconds since 1970; zero for never.
    pub(crate) last_inference: u64,
    pub(crate) inference_count: u64,
    pub(crate) execution_count: u64,
    pub(crate) success: Counted,
    pub(crate) fail: Counted,
    pub(crate) queue: Counted,
    /// Tensors are used where they are, so that this takes no time of its own.
    pub(crate) compute_input: Counted,
    pub(crate) compute_infer: Counted,
    /// What it takes is part of `compute_infer`.
    pub(crate) compute_output: Counted,
    /// The memory that it is estimated to take, in bytes.
    pub(crate) memory: u64,
}

/// How often something happened, and how many nanoseconds it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

/// Of every version that is loaded.
pub(crate) fn of_all(models: &ModelLifecycleManager) -> Vec<Statistics> {
    models.reports().into_iter().flat_map(of_report).collect()
}

/// Of one model's versions that are loaded, or of the one that is named.
///
/// # Errors
/// As [`ModelLifecycleManager::acquire`].
pub(crate) fn of_model(
    models: &ModelLifecycleManager,
    model: &ModelName,
    version: Option<&VersionRef>,
) -> Result<Vec<Statistics>, Refusal> {
    let handle = models.acquire(model.as_str(), Wanted::new(version, None))?;
    let named = version.map(|_| handle.id().version.to_string());
    let all = models.report(model.as_str()).into_iter().flat_map(of_report);
    let is_wanted = |item: &Statistics| named.as_ref().is_none_or(|named| *named == item.version);
    Ok(all.filter(is_wanted).collect())
}

fn of_report(report: ModelReport) -> Vec<Statistics> {
    let name = report.name.to_string();
    let loaded = |version: VersionReport| {
        let serving = version.serving?;
        Some(Statistics::new((&name, version.version.to_string()), &serving))
    };
    report.versions.into_iter().filter_map(loaded).collect()
}

impl Statistics {
    fn new((name, version): (&str, String), serving: &ServingReport) -> Self {
        let (usage, work) = (&serving.usage, &serving.usage.work);
        let without_time = Counted { count: work.compute.count, nanoseconds: 0 };
        Self {
            name: name.to_owned(),
            version,
            last_inference: usage.last_access.map_or(0, milliseconds),
            inference_count: work.inferences,
            // Requests are not put together into batches.
            execution_count: work.compute.count,
            success: work.success.into(),
            fail: work.failure.into(),
            queue: work.queue.into(),
            compute_input: without_time,
            compute_infer: work.compute.into(),
            compute_output: without_time,
            memory: serving.memory,
        }
    }
}

fn milliseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl From<Spent> for Counted {
    fn from(Spent { count, total }: Spent) -> Self {
        Self { count, nanoseconds: nanoseconds(total) }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
