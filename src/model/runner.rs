//! What answers the requests of a version: instances of its own, or the steps of an ensemble.

use std::sync::Arc;

use super::ensemble::Ensemble;
use crate::inference::{
    BatchingReport, Completion, InferError, InstancePool, Placement, Positions, PreparedRequest,
    RunCounts, RunTerms, Signature,
};

/// What answers.
pub(super) enum Runner {
    Instances(InstancePool),
    Steps(Arc<Ensemble>),
}

/// For whom a request is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// For a caller, who is refused where a queue is full.
    Usual,
    /// For one who has waited before, as many others may have: it waits for a place in queues too.
    Patient,
    /// For one who wants to see it run: as usual, but it gets no answer that was kept.
    Anew,
    /// For the server itself: it waits, and is not counted among requests.
    Aside,
}

impl Manner {
    /// Whether an answer that was kept will do.
    pub(super) fn may_be_kept(self) -> bool {
        match self {
            Self::Usual | Self::Patient => true,
            Self::Anew | Self::Aside => false,
        }
    }
}

impl Runner {
    /// Runs a request. Cancel safe: dropping the future cancels the run.
    ///
    /// # Errors
    /// Every variant of [`InferError`] except [`InferError::Input`], which only a step has.
    pub(super) async fn run(
        &self,
        request: PreparedRequest,
        (signature, manner): (&Signature, Manner),
        terms: RunTerms,
    ) -> Result<Completion, InferError> {
        let pool = match self {
            // What its steps give was looked at by each of them. Apart, so that the futures of all other
            // requests have no place for it.
            Self::Steps(ensemble) => {
                return Box::pin(ensemble.run(request, (terms, manner))).await;
            }
            Self::Instances(pool) => pool,
        };
        let wanted = Positions::from_slice(request.outputs());
        let completion = match manner {
            Manner::Usual | Manner::Anew => pool.run(request, terms).await?,
            Manner::Patient | Manner::Aside => pool.run_when_there_is_room(request, terms).await?,
        };
        signature.check_outputs(wanted.into_iter().zip(&completion.outputs))?;
        Ok(completion)
    }

    /// Runs a copy of a request for its answer to be compared: it holds nobody up.
    pub(super) async fn run_aside(
        &self,
        request: PreparedRequest,
        terms: RunTerms,
    ) -> Result<Completion, InferError> {
        match self {
            Self::Instances(pool) => pool.run_aside(request, terms.deadline).await,
            Self::Steps(ensemble) => ensemble.run(request, (terms, Manner::Aside)).await,
        }
    }

    /// Its own instances; `None` for an ensemble.
    pub(super) fn pool(&self) -> Option<&InstancePool> {
        match self {
            Self::Instances(pool) => Some(pool),
            Self::Steps(_) => None,
        }
    }

    /// The ensemble; `None` for a model that is none.
    pub(super) fn ensemble(&self) -> Option<&Ensemble> {
        match self {
            Self::Instances(_) => None,
            Self::Steps(ensemble) => Some(ensemble),
        }
    }

    /// How many instances of its own it has.
    pub(super) fn instances(&self) -> usize {
        self.pool().map_or(0, InstancePool::instances)
    }

    /// Whether a request that comes now is refused.
    pub(super) fn is_full(&self) -> bool {
        self.pool().is_some_and(|pool| pool.queue_depth() >= pool.queue_capacity())
    }

    /// How many requests wait for one of them.
    pub(super) fn queue_depth(&self) -> usize {
        self.pool().map_or(0, InstancePool::queue_depth)
    }

    /// How many may wait for one of them.
    pub(super) fn queue_capacity(&self) -> usize {
        self.pool().map_or(0, InstancePool::queue_capacity)
    }

    /// Where runs begin: steps are handed out by who has the request.
    pub(super) fn placement(&self) -> Placement {
        self.pool().map_or(Placement::Inline, InstancePool::placement)
    }

    /// Whether requests share runs.
    pub(super) fn batching(&self) -> BatchingReport {
        let steps = || BatchingReport::Off { reason: "each of its steps batches by itself".into() };
        self.pool().map_or_else(steps, InstancePool::batching)
    }

    /// The runs that gave answers.
    pub(super) fn runs(&self) -> &Arc<RunCounts> {
        match self {
            Self::Instances(pool) => pool.runs(),
            Self::Steps(ensemble) => &ensemble.runs,
        }
    }

    /// Has its runs happen where those of `other` do, until they show how long they take.
    pub(super) fn expect_like(&self, other: &Self) {
        if let (Some(own), Some(other)) = (self.pool(), other.pool()) {
            own.expect_like(other);
        }
    }

    /// Whether runs give way to everything else. Steps go on as those of others: they may be shared.
    pub(super) fn give_way(&self, gives_way: bool) {
        if let Some(pool) = self.pool() {
            pool.give_way(gives_way);
        }
    }

    /// Stops and drops the instances, or lets the steps go. Blocks until all is done.
    pub(super) fn shutdown(&self) {
        match self {
            Self::Instances(pool) => pool.shutdown(),
            Self::Steps(ensemble) => ensemble.let_go(),
        }
    }
}
