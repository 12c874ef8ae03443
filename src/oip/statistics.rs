//! What models have done so far, in the words of Triton's statistics.

use std::time::{Duration, SystemTime};

use super::refusal::Refusal;
use crate::inference::RunsReport;
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
    pub(crate) compute: Compute,
    pub(crate) cache_hit: Counted,
    pub(crate) cache_miss: Counted,
    /// By the size of the batch, the smallest first.
    pub(crate) batches: Vec<(u64, Compute)>,
    /// The memory that it is estimated to take, in bytes.
    pub(crate) memory: u64,
}

/// How often something happened, and how many nanoseconds it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

/// Runs, and where their time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compute {
    /// Making values of the engine of the tensors of requests, which were read before.
    pub(crate) input: Counted,
    /// The engine.
    pub(crate) infer: Counted,
    /// Making tensors of the engine's values, which are written later.
    pub(crate) output: Counted,
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
        let cache = serving.response_cache.unwrap_or_default();
        Self {
            name: name.to_owned(),
            version,
            last_inference: usage.last_access.map_or(0, milliseconds),
            inference_count: work.inferences,
            execution_count: work.runs.count,
            success: work.success.into(),
            fail: work.failure.into(),
            queue: work.queue.into(),
            compute: work.runs.into(),
            cache_hit: cache.hits.into(),
            cache_miss: cache.misses.into(),
            batches: work.batches.iter().map(|(size, runs)| (*size, (*runs).into())).collect(),
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

impl From<RunsReport> for Compute {
    fn from(RunsReport { count, input, infer, output }: RunsReport) -> Self {
        let spent = |total| Counted { count, nanoseconds: nanoseconds(total) };
        Self { input: spent(input), infer: spent(infer), output: spent(output) }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
