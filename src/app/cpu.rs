//! How the cores that the process may use are divided.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tracing::info;

use crate::config::{Config, Profile};

/// How many cores the process may use, by its affinity mask and the quota of its control group.
pub(super) fn cores() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The threads of one version. Those of several share the cores as the operating system sees fit: a
/// version that is idle takes nothing, as its threads do not spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuPlan {
    /// Runs at once.
    pub(super) instances: NonZeroUsize,
    /// Threads of one run.
    pub(super) intra_op_threads: NonZeroUsize,
}

impl CpuPlan {
    pub(super) fn of(config: &Config) -> Self {
        let cores = cores();
        let instances = config.inference.instances.given().copied();
        let threads = config.onnxruntime.intra_op_threads.given().copied();
        let plan = Self::new(cores, config.inference.profile, (instances, threads));
        let Self { instances, intra_op_threads } = plan;
        info!(cores, instances, intra_op_threads, "the cores are divided, for each model version");
        plan
    }

    /// What was not given is chosen so that the runs of one version keep all cores busy and no more.
    fn new(
        cores: NonZeroUsize,
        profile: Profile,
        given: (Option<NonZeroUsize>, Option<NonZeroUsize>),
    ) -> Self {
        let beside = |other: NonZeroUsize| share(cores, other);
        let (instances, intra_op_threads) = match (given, profile) {
            ((Some(instances), Some(threads)), _) => (instances, threads),
            ((None, Some(threads)), _) => (beside(threads), threads),
            ((Some(instances), None), Profile::Latency) => (instances, beside(instances)),
            ((Some(instances), None), Profile::Throughput) => (instances, NonZeroUsize::MIN),
            ((None, None), Profile::Latency) => (NonZeroUsize::MIN, cores),
            ((None, None), Profile::Throughput) => (cores, NonZeroUsize::MIN),
        };
        Self { instances, intra_op_threads }
    }
}

/// What is left for each of `others`: one at least.
fn share(cores: NonZeroUsize, others: NonZeroUsize) -> NonZeroUsize {
    NonZeroUsize::new(cores.get() / others.get()).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_are_neither_idle_nor_divided_twice() {
        let count = |count: usize| NonZeroUsize::new(count);
        let (latency, throughput) = (Profile::Latency, Profile::Throughput);
        for (cores, profile, given, expected) in [
            (8, throughput, (0, 0), (8, 1)),
            (8, latency, (0, 0), (1, 8)),
            (8, throughput, (0, 2), (4, 2)),
            (8, latency, (0, 3), (2, 3)),
            (8, throughput, (2, 0), (2, 1)),
            (8, latency, (2, 0), (2, 4)),
            (8, latency, (16, 0), (16, 1)),
            (8, throughput, (0, 16), (1, 16)),
            (8, latency, (3, 5), (3, 5)),
            (1, latency, (0, 0), (1, 1)),
        ] {
            let given = (count(given.0), count(given.1));
            let plan = CpuPlan::new(count(cores).unwrap(), profile, given);
            let planned = (plan.instances.get(), plan.intra_op_threads.get());
            assert_eq!(planned, expected, "{cores} {profile:?} {given:?}");
        }
    }
}
