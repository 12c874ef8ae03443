//! What the control plane tells of its models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ensemble::Ensemble;
use super::handle::Serving;
use super::history::Tenure;
use super::intent::ShadowTarget;
use super::lease::{LeaseReport, Leases};
use super::memory::MemoryChange;
use super::mirror::MirrorTally;
use super::names::{AliasName, ModelName, Version, VersionId};
use super::record::VersionRecord;
use super::registry::ModelEntry;
use super::response_cache::{CacheUse, VersionCache};
use super::serving_map::Routes;
use super::state::{StateKind, VersionState};
use super::traffic::Weights;
use super::unrouted::UnroutedReport;
use super::usage::UsageReport;
use crate::inference::{BatchingReport, Placement};

/// A model in the repository, or one that was loaded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub model: ModelName,
    /// The version and its state; `None` for a model that was never loaded.
    pub version: Option<(Version, StateKind)>,
    /// Why it does not serve; empty where it does, or was not asked to.
    pub reason: String,
}

/// What a load has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// What answers requests without a version now.
    pub current: Version,
    /// The versions that were loaded; the others that are selected served already, unchanged.
    pub loaded: Vec<Version>,
    /// How long it took.
    pub took: Duration,
}

/// What an unload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnloadReport {
    /// The versions that take no request any more.
    pub versions: Vec<Version>,
    /// Whether all of them are unloaded; otherwise they are as soon as their last request is done.
    pub drained: bool,
    /// The process's memory before and after, where all were unloaded and the system tells.
    pub memory: Option<MemoryChange>,
}

impl UnloadReport {
    /// Of a model that was not loaded, but would have been on demand.
    pub(super) fn nothing() -> Self {
        Self { versions: Vec::new(), drained: true, memory: None }
    }
}

/// What a swap has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapReport {
    /// The version before.
    pub from: Version,
    /// The version now.
    pub to: Version,
    /// How long loading and warming the new version took.
    pub load_took: Duration,
    /// How long the whole swap took, the wait for the old version included.
    pub took: Duration,
    /// Whether the old version is unloaded (or was to be kept); otherwise it is as soon as its last
    /// request is done.
    pub drained: bool,
    /// Whether the old version stays loaded.
    pub kept: bool,
    /// Until when it stays loaded as the way back, where there is an end.
    pub kept_until: Option<SystemTime>,
    /// The process's memory before the old version was unloaded and after, where it was and the
    /// system tells.
    pub memory: Option<MemoryChange>,
}

/// What a verification has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyReport {
    /// The version that was verified.
    pub version: Version,
    /// The samples that it answered as expected.
    pub samples: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// How requests are routed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficReport {
    /// What answers requests without a version where no weights say otherwise.
    pub current: Option<Version>,
    /// Names for versions.
    pub aliases: Vec<(AliasName, Version)>,
    /// The shares of the requests without a version, in hundredths of a percent; empty where the
    /// current version gets all of them.
    pub weights: Vec<(Version, u32)>,
    /// What gets copies of requests.
    pub shadow: Option<ShadowReport>,
}

/// A version that gets copies of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShadowReport {
    /// The version.
    pub version: Version,
    /// The part of the requests, in hundredths of a percent.
    pub share: u32,
    /// What became of the copies; nothing while the version is not loaded.
    pub tally: MirrorTally,
}

/// One model as the control plane sees it.
#[derive(Debug, Clone)]
pub struct ModelReport {
    /// Its name.
    pub name: ModelName,
    /// What answers requests without a version.
    pub current: Option<Version>,
    /// Whether readiness needs it.
    pub required: bool,
    /// Why the last load failed; `None` if it did not.
    pub problem: Option<String>,
    /// What its settings ask for and is not honoured.
    pub warnings: Vec<String>,
    /// How often it was changed.
    pub generation: u64,
    /// How requests are routed.
    pub traffic: TrafficReport,
    /// The version that is kept as the way back.
    pub parked: Option<Version>,
    /// Who holds a lease.
    pub leases: Vec<LeaseReport>,
    /// Requests that none of its versions has got.
    pub unrouted: UnroutedReport,
    /// Who was current and when, the oldest first.
    pub history: Vec<Tenure>,
    /// Its versions, lowest first; a version is there twice while a newer load of itself replaces it,
    /// and after one failed to.
    pub versions: Vec<VersionReport>,
}

/// One life of a version.
#[derive(Debug, Clone)]
pub struct VersionReport {
    /// The version.
    pub version: Version,
    /// Its state.
    pub state: StateKind,
    /// Since when.
    pub since: SystemTime,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// How long each state that it has left had lasted.
    pub phases: Vec<(StateKind, Duration)>,
    /// What there is to tell while it holds memory.
    pub serving: Option<ServingReport>,
}

/// A version that is loaded.
#[derive(Debug, Clone)]
pub struct ServingReport {
    /// SHA-256 over its files; of an ensemble, over its definition and the digests of its steps too.
    pub digest: String,
    /// What it is estimated to take of the memory, in bytes.
    pub memory: u64,
    /// What loading it did to the resident memory of the process; `None` where another load or unload went
    /// on at the same time, or the system does not tell.
    pub measured: Option<MemoryChange>,
    /// Its instances.
    pub instances: usize,
    /// Where its runs happen.
    pub placement: Placement,
    /// Whether requests share runs.
    pub batching: BatchingReport,
    /// Requests inside it.
    pub in_flight: u64,
    /// Requests that wait for an instance.
    pub queue_depth: usize,
    /// Requests that may wait.
    pub queue_capacity: usize,
    /// Its use so far.
    pub usage: UsageReport,
    /// How often an answer had been kept; `None` where none is.
    pub response_cache: Option<CacheUse>,
    /// What it is made of, where it is an ensemble.
    pub steps: Vec<StepReport>,
    /// The versions of ensembles that have it as a step. It stays in memory as long as they do.
    pub held_by: Vec<VersionId>,
}

/// A step of an ensemble that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Its model.
    pub model: ModelName,
    /// The version that the ensemble has of it.
    pub version: Version,
    /// That version's digest.
    pub digest: String,
    /// The tensors that its inputs take, by their names.
    pub inputs: BTreeMap<String, String>,
    /// The tensors that its outputs give, by their names.
    pub outputs: BTreeMap<String, String>,
}

impl VersionReport {
    /// The time from the beginning until it was ready; `None` if it never was.
    pub fn load_duration(&self) -> Option<Duration> {
        let left_warming = self.phases.iter().position(|(state, _)| *state == StateKind::Warming);
        let failed = self.state == StateKind::Failed;
        let last = left_warming.filter(|_| !failed)?;
        Some(self.phases[..=last].iter().map(|(_, lasted)| *lasted).sum())
    }
}

pub(super) fn model(entry: &ModelEntry, routes: Option<&Routes>, required: bool) -> ModelReport {
    let mut versions: Vec<VersionReport> =
        entry.records().iter().map(|record| version(record)).collect();
    versions.sort_by_key(|version| version.version);
    ModelReport {
        name: entry.name.clone(),
        current: routes.map(|routes| routes.current),
        required,
        problem: entry.problem(),
        warnings: entry.warnings(),
        generation: entry.generation(),
        traffic: traffic(entry, routes),
        parked: entry.parked().map(|parked| parked.version),
        leases: entry.leases(Leases::reports),
        unrouted: entry.unrouted.read(),
        history: entry.tenures(),
        versions,
    }
}

/// How requests are routed by what operators have decided, also of what is not loaded.
pub(super) fn traffic(entry: &ModelEntry, routes: Option<&Routes>) -> TrafficReport {
    let intent = entry.intent();
    let (weights, shadow) = match entry.trial() {
        Some(trial) => (trial.weights, trial.shadow.or(intent.shadow)),
        None => (intent.weights, intent.shadow),
    };
    let mirror = routes.and_then(|routes| routes.mirror.as_ref());
    TrafficReport {
        current: routes.map(|routes| routes.current),
        aliases: intent.aliases.into_iter().collect(),
        weights: weights.iter().flat_map(Weights::iter).collect(),
        shadow: shadow.map(|ShadowTarget { version, share }| {
            let mirror = mirror.filter(|mirror| mirror.version() == version);
            let tally = mirror.map(|mirror| mirror.tally()).unwrap_or_default();
            ShadowReport { version, share, tally }
        }),
    }
}

pub(super) fn version(record: &VersionRecord) -> VersionReport {
    let life = record.snapshot();
    let (serving, reason) = match &life.state {
        VersionState::Ready(serving) | VersionState::Draining(serving) => {
            (Some(loaded(serving)), String::new())
        }
        VersionState::Failed(reason) => (None, reason.message.clone()),
        _ => (None, String::new()),
    };
    VersionReport {
        version: record.id.version,
        state: life.state.kind(),
        since: life.since,
        reason,
        phases: life.phases,
        serving,
    }
}

fn loaded(serving: &Arc<Serving>) -> ServingReport {
    ServingReport {
        digest: serving.digest.clone(),
        memory: serving.reservation.bytes(),
        measured: serving.memory,
        instances: serving.runner.instances(),
        placement: serving.runner.placement(),
        batching: serving.runner.batching(),
        in_flight: serving.gate.entries(),
        queue_depth: serving.runner.queue_depth(),
        queue_capacity: serving.runner.queue_capacity(),
        usage: serving.usage.report(),
        steps: serving.runner.ensemble().map(Ensemble::report).unwrap_or_default(),
        held_by: serving.holds.by(),
        response_cache: serving.responses.as_ref().map(VersionCache::usage),
    }
}

/// The index of one model.
pub(super) fn index(entry: &ModelEntry) -> Vec<IndexEntry> {
    let mut versions: Vec<Version> =
        entry.records().iter().map(|record| record.id.version).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.is_empty() {
        let reason = entry.problem().unwrap_or_default();
        return vec![IndexEntry { model: entry.name.clone(), version: None, reason }];
    }
    let told = versions.iter().filter_map(|version| entry.record(*version));
    told.map(|record| {
        let VersionReport { version, state, reason, .. } = version(&record);
        let reason = if state == StateKind::Unloaded { "unloaded".to_owned() } else { reason };
        IndexEntry { model: entry.name.clone(), version: Some((version, state)), reason }
    })
    .collect()
}
