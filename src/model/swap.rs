//! Swap and rollback: load the new version beside the old, flip in one step, keep the old one for a
//! while as the way back, then drain and unload it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::change::{Core, Lineup, Warm, Wish};
use super::error::ChangeError;
use super::history::Cause;
use super::intent::Choice;
use super::loading::Demands;
use super::names::{ModelName, Version, VersionId, VersionRef};
use super::operation::Operation;
use super::registry::{ModelEntry, Parked};
use super::report::SwapReport;
use super::serving_map::Routes;

/// How a swap is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapOptions {
    /// The version that is to answer requests without a version.
    pub to: VersionRef,
    /// How long the swap waits for the old version to be unloaded before it reports that it is not;
    /// the manager's default where `None`. The old version's requests are never cut off.
    pub drain_timeout: Option<Duration>,
    /// How long the old version stays loaded and answers requests that name it; the manager's default
    /// where `None`.
    pub keep_previous: Option<Keep>,
    /// Whether the new version may take or give something else than the old one.
    pub allow_incompatible: bool,
}

/// How long a version stays that is not current any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is drained at once.
    No,
    /// It stays for so long.
    For(Duration),
    /// It stays until it is unloaded, or another swap keeps another version.
    Always,
}

/// How a rollback is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollbackOptions {
    /// As for a swap.
    pub drain_timeout: Option<Duration>,
    /// As for a swap, of the version that is left.
    pub keep_previous: Option<Keep>,
    /// Whether the version may be loaded from files that are not those it served from before.
    pub allow_changed: bool,
}

/// A flip to one version.
struct Flip {
    to: Version,
    cause: Cause,
    drain_timeout: Option<Duration>,
    keep: Option<Keep>,
    demands: Demands,
    /// The digest that the version must have.
    digest: Option<String>,
}

impl Core {
    pub(super) async fn swap(
        self: &Arc<Self>,
        name: &ModelName,
        options: SwapOptions,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let entry = self.known(name)?;
        let permit = self.permit_now(&entry, operation)?;
        let old = self.routes_of(name)?;
        let to = named(&entry, &options.to)?;
        if old.current == to && old.split.is_none() {
            let id = VersionId { model: name.clone(), version: to };
            return Err(ChangeError::AlreadyCurrent(id));
        }
        let demands = if options.allow_incompatible {
            Demands::default()
        } else {
            Demands::like(&old.versions[&old.current])
        };
        let flip = Flip {
            to,
            cause: Cause::Swap,
            drain_timeout: options.drain_timeout,
            keep: options.keep_previous,
            demands,
            digest: None,
        };
        self.flip((&entry, permit), flip, operation).await
    }

    /// Lets the version answer again that was current before.
    pub(super) async fn roll_back(
        self: &Arc<Self>,
        name: &ModelName,
        options: RollbackOptions,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let entry = self.known(name)?;
        let permit = self.permit_now(&entry, operation)?;
        let old = self.routes_of(name)?;
        let nothing = || ChangeError::NothingBefore(name.clone());
        let before = entry.tenure_before(old.current).ok_or_else(nothing)?;
        let flip = Flip {
            to: before.version,
            cause: Cause::Rollback,
            drain_timeout: options.drain_timeout,
            keep: options.keep_previous,
            // It has proved itself; the way back is not barred by what came after it.
            demands: Demands::default(),
            digest: (!options.allow_changed).then_some(before.digest),
        };
        self.flip((&entry, permit), flip, operation).await
    }

    async fn flip(
        self: &Arc<Self>,
        (entry, permit): (&Arc<ModelEntry>, tokio::sync::SemaphorePermit<'_>),
        flip: Flip,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let started = Instant::now();
        let old = self.routes_of(&entry.name)?;
        let wish = Wish { entry, version: flip.to, operation };
        let fresh = self.available(wish, &old, &flip).await?;
        let fresh = self.committed(fresh, operation).await?;
        let load_took = started.elapsed();
        let keep = flip.keep.unwrap_or_else(|| self.keep_previous());
        operation.step("FLIP", Some(flip.to));
        let newest = entry.newest(flip.to);
        entry.decide(|intent| {
            intent.chosen = Some(Choice { version: flip.to, newest });
            // From now on all requests that name no version are answered by this one.
            intent.weights = None;
        });
        let until = park(entry, old.current, keep);
        let lineup = flipped(entry, &old, (&fresh, flip.to));
        let kept = lineup.versions.contains_key(&old.current);
        let retired = self.publish(entry, Some(lineup), (fresh, flip.cause));
        self.unpark_later(entry);
        let from = old.current;
        // The model may change again while the old version's requests are waited for.
        drop((permit, old));
        let limit = flip.drain_timeout.unwrap_or_else(|| self.drain_timeout());
        operation.step("DRAIN", Some(from));
        let (drained, memory) = self.retire_measured(retired, limit).await;
        let took = started.elapsed();
        let kept_until = until.filter(|_| kept);
        Ok(SwapReport { from, to: flip.to, load_took, took, drained, kept, kept_until, memory })
    }

    /// The version that is to be flipped to, made warm if it does not serve already.
    async fn available(
        self: &Arc<Self>,
        wish: Wish<'_>,
        old: &Routes,
        flip: &Flip,
    ) -> Result<Vec<Warm>, ChangeError> {
        if old.versions.contains_key(&wish.version) {
            return Ok(Vec::new());
        }
        let settings = self.settings_for(wish.entry, wish.version).await?;
        let warm = self.warm(wish, &settings, flip.demands.clone()).await;
        let warm = self.all_or_nothing(vec![warm], wish.operation).await?;
        match (&flip.digest, warm.first()) {
            (Some(expected), Some(made)) if made.serving.digest != *expected => {
                let id = made.record.id.clone();
                self.abandon(warm, "its files are not those it served from before").await;
                Err(ChangeError::ChangedSince(id))
            }
            _ => Ok(warm),
        }
    }

    fn keep_previous(&self) -> Keep {
        match self.terms.load().keep_previous {
            Duration::ZERO => Keep::No,
            time => Keep::For(time),
        }
    }

    /// Retires the parked version when its time is over.
    fn unpark_later(self: &Arc<Self>, entry: &Arc<ModelEntry>) {
        let Some(parked) = entry.parked() else { return };
        let Some(until) = parked.until else { return };
        let (core, entry) = (Arc::clone(self), Arc::clone(entry));
        self.tasks.spawn(async move {
            let over = tokio::time::sleep_until(until);
            if core.closing.run_until_cancelled(over).await.is_some() {
                core.unpark(&entry, parked).await;
            }
        });
    }

    async fn unpark(self: &Arc<Self>, entry: &ModelEntry, parked: Parked) {
        // The semaphore is never closed.
        let _permit = entry.change.acquire().await;
        if entry.parked() != Some(parked) || self.closing.is_cancelled() {
            return;
        }
        entry.park(None);
        let Some(routes) = self.serving.routes(&entry.name) else { return };
        if stays(entry, &routes, parked.version) {
            return;
        }
        let mut lineup = Lineup::of(&routes);
        lineup.versions.remove(&parked.version);
        let retired = self.publish(entry, Some(lineup), (Vec::new(), Cause::Swap));
        self.retire_all(retired);
    }
}

/// The version that a name stands for.
pub(super) fn named(entry: &ModelEntry, name: &VersionRef) -> Result<Version, ChangeError> {
    match name {
        VersionRef::Number(version) => Ok(*version),
        VersionRef::Alias(alias) => entry.intent().aliases.get(alias).copied().ok_or_else(|| {
            ChangeError::UnknownAlias { model: entry.name.clone(), alias: alias.clone() }
        }),
    }
}

/// Notes that `version` is the way back; until when it is.
fn park(entry: &ModelEntry, version: Version, keep: Keep) -> Option<SystemTime> {
    let until = match keep {
        Keep::No => {
            entry.park(None);
            return None;
        }
        Keep::For(time) => Instant::now().checked_add(time).map(|until| (until, time)),
        Keep::Always => None,
    };
    entry.park(Some(Parked { version, until: until.map(|(until, _)| until) }));
    until.and_then(|(_, time)| SystemTime::now().checked_add(time))
}

/// Whether a version that is not current any more is needed all the same.
fn stays(entry: &ModelEntry, routes: &Routes, version: Version) -> bool {
    routes.current == version || is_wanted(entry, version)
}

/// Whether something other than being current speaks for a version.
fn is_wanted(entry: &ModelEntry, version: Version) -> bool {
    entry.is_selected_among_others(version)
        || entry.parked().is_some_and(|parked| parked.version == version)
        || !entry.intent().uses(version).is_empty()
}

/// What serves with the new version in the place of the old.
fn flipped(entry: &ModelEntry, old: &Routes, (fresh, to): (&[Warm], Version)) -> Lineup {
    let mut versions = old.versions.clone();
    versions.extend(fresh.iter().map(|warm| (to, Arc::clone(&warm.serving))));
    versions.retain(|version, _| *version == to || is_wanted(entry, *version));
    Lineup { current: to, versions }
}
