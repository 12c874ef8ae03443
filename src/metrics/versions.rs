//! What versions have done. A version's series end with its last life.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::names::{self, Described};
use super::page::{Grain, Page, float};
use crate::inference::{RunsReport, StagesReport};
use crate::model::{Outcome, Outcomes, Protocol, UsageReader, UsageReport, VersionId};
use crate::tally::DurationsReport;

/// The outcomes of requests that were given up for want of something, and what that was.
const SHED: [(Outcome, &str); 3] = [
    (Outcome::Shed, "queue_full"),
    (Outcome::DeadlineExceeded, "deadline"),
    (Outcome::Cancelled, "cancelled"),
];

/// The versions that there are.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<HashMap<VersionId, Lives>>);

/// The lives of a version: two while it is loaded anew.
#[derive(Debug, Default)]
struct Lives {
    begun: u64,
    living: Vec<(u64, UsageReader)>,
    /// What earlier lives have done, so that no counter falls while another goes on.
    past: Totals,
}

/// What a version has done in all of its lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    outcomes: Outcomes,
    entries: u64,
    answered: Duration,
    durations: DurationsReport,
    waits: DurationsReport,
    runs: RunsReport,
    stages: StagesReport,
    batches: BTreeMap<u64, u64>,
    beyond: (u64, u64),
    last_used: Option<SystemTime>,
}

/// One life of a version, which ends when this is dropped.
pub(super) struct Life {
    versions: Arc<Versions>,
    id: VersionId,
    number: u64,
}

impl Versions {
    pub(super) fn begin(self: &Arc<Self>, id: &VersionId, usage: UsageReader) -> Life {
        let mut all = self.all();
        let lives = all.entry(id.clone()).or_default();
        lives.begun += 1;
        let number = lives.begun;
        lives.living.push((number, usage));
        Life { versions: Arc::clone(self), id: id.clone(), number }
    }

    pub(super) fn totals(&self) -> Vec<(VersionId, Totals)> {
        let all = self.all();
        all.iter().map(|(id, lives)| (id.clone(), lives.totals())).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<VersionId, Lives>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lives {
    fn totals(&self) -> Totals {
        let mut totals = self.past.clone();
        self.living.iter().for_each(|(_, usage)| totals.add(&usage.read()));
        totals
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut all = self.versions.all();
        let Some(lives) = all.get_mut(&self.id) else { return };
        let ended = lives.living.iter().position(|(number, _)| *number == self.number);
        if let Some(place) = ended {
            let (_, usage) = lives.living.swap_remove(place);
            lives.past.add(&usage.read());
        }
        if lives.living.is_empty() {
            all.remove(&self.id);
        }
    }
}

impl Totals {
    fn add(&mut self, usage: &UsageReport) {
        let (work, stages) = (&usage.work, &usage.work.stages);
        for (all, more) in self.outcomes.iter_mut().flatten().zip(usage.outcomes.iter().flatten()) {
            *all += more;
        }
        self.entries += work.inferences;
        self.answered += work.success.total;
        self.runs.count += work.runs.count;
        self.runs.input += work.runs.input;
        self.runs.infer += work.runs.infer;
        self.runs.output += work.runs.output;
        for (all, more) in [
            (&mut self.durations, &usage.durations),
            (&mut self.waits, &usage.waits),
            (&mut self.stages.whole, &stages.whole),
            (&mut self.stages.input, &stages.input),
            (&mut self.stages.infer, &stages.infer),
            (&mut self.stages.output, &stages.output),
        ] {
            all.add(more);
        }
        for (size, runs) in &work.batches {
            *self.batches.entry(*size).or_default() += runs.count;
        }
        self.beyond = (self.beyond.0 + work.beyond.0, self.beyond.1 + work.beyond.1);
        self.last_used = self.last_used.max(usage.last_access);
    }

    /// How many requests ended so, over every protocol.
    fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().map(|counts| counts[outcome as usize]).sum()
    }

    /// Tells everything of the version.
    pub(super) fn tell(&self, page: &mut Page, id: &VersionId) {
        let (model, version) = (id.model.as_str(), id.version.to_string());
        let labels = &[model, version.as_str()];
        self.tell_outcomes(page, labels);
        page.set(&names::INFERENCE_ENTRIES_TOTAL, labels, float(self.entries));
        if let Some(since) =
            self.last_used.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        {
            page.set(&names::MODEL_LAST_USED_TIMESTAMP_SECONDS, labels, since.as_secs_f64());
        }
        // Nothing is told of what nobody has asked for yet: models may be many, and buckets are more.
        let StagesReport { whole, input, infer, output } = &self.stages;
        for (name, report, grain) in [
            (&names::INFERENCE_REQUEST_DURATION_SECONDS, &self.durations, Grain::Fine),
            (&names::INFERENCE_QUEUE_DURATION_SECONDS, &self.waits, Grain::Fine),
            (&names::INFERENCE_COMPUTE_DURATION_SECONDS, whole, Grain::Fine),
            (&names::INFERENCE_COMPUTE_INPUT_DURATION_SECONDS, input, Grain::Coarse),
            (&names::INFERENCE_COMPUTE_INFER_DURATION_SECONDS, infer, Grain::Coarse),
            (&names::INFERENCE_COMPUTE_OUTPUT_DURATION_SECONDS, output, Grain::Coarse),
        ] {
            if report.count() > 0 {
                page.durations(name, labels, (report, grain));
            }
        }
        if self.runs.count > 0 {
            page.sizes(&names::INFERENCE_BATCH_SIZE, labels, (&self.batches, self.beyond));
        }
    }

    fn tell_outcomes(&self, page: &mut Page, &[model, version]: &[&str; 2]) {
        for protocol in Protocol::ALL {
            let counts = self.outcomes[protocol as usize];
            // Few models have requests of the server's own.
            if protocol == Protocol::Internal && counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (outcome, count) in Outcome::ALL.into_iter().zip(counts) {
                let labels = &[model, outcome.name(), protocol.name(), version];
                page.set(&names::INFERENCE_REQUESTS_TOTAL, labels, float(count));
            }
        }
        for (outcome, reason) in SHED {
            let count = float(self.count(outcome));
            page.set(&names::INFERENCE_REQUESTS_SHED_TOTAL, &[model, reason, version], count);
        }
    }

    /// Tells what Triton does of a version, by Triton's names.
    pub(super) fn tell_as_triton(&self, page: &mut Page, id: &VersionId) {
        let (model, version) = (id.model.as_str(), id.version.to_string());
        let labels = &[model, version.as_str()];
        let success = self.count(Outcome::Success);
        let all: u64 = self.outcomes.iter().flatten().sum();
        let counts: [(&Described, u64); 4] = [
            (&names::NV_REQUEST_SUCCESS, success),
            (&names::NV_REQUEST_FAILURE, all - success),
            (&names::NV_COUNT, self.entries),
            (&names::NV_EXEC_COUNT, self.runs.count),
        ];
        for (name, count) in counts {
            page.set(name, labels, float(count));
        }
        let RunsReport { input, infer, output, .. } = self.runs;
        let durations: [(&Described, Duration); 5] = [
            (&names::NV_REQUEST_DURATION, self.answered),
            (&names::NV_QUEUE_DURATION, self.waits.total),
            (&names::NV_COMPUTE_INPUT_DURATION, input),
            (&names::NV_COMPUTE_INFER_DURATION, infer),
            (&names::NV_COMPUTE_OUTPUT_DURATION, output),
        ];
        for (name, total) in durations {
            let micros = u64::try_from(total.as_micros()).unwrap_or(u64::MAX);
            page.set(name, labels, float(micros));
        }
    }
}
