//! Swap and rollback: load the new version beside the old, flip in one step, keep the old one for a
//! while as the way back, then drain and unload it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::error::ChangeError;
use super::handle::Serving;
use super::history::Cause;
use super::intent::{Choice, Intent};
use super::loading::Demands;
use super::names::{ModelName, Version, VersionId, VersionRef};
use super::operation::Operation;
use super::record::VersionRecord;
use super::registry::{ModelEntry, Parked, Served};
use super::report::SwapReport;
use super::serving_map::Routes;
use super::trial::{Bake, CanaryPlan, Contest, OnTrial, TrialRules, Watch};

/// How a swap is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct SwapOptions {
    /// The version that is to answer requests without a version.
    pub to: VersionRef,
    /// In which order, and by which proof.
    pub strategy: Strategy,
    /// How the new version is watched after the flip, and taken back if it is worse than the old one.
    pub bake: Option<Bake>,
    /// How long the swap waits for the old version to be unloaded before it reports that it is not;
    /// the manager's default where `None`. The old version's requests are never cut off.
    pub drain_timeout: Option<Duration>,
    /// How long the old version stays loaded and answers requests that name it; the manager's default
    /// where `None`.
    pub keep_previous: Option<Keep>,
    /// Whether the new version may take or give something else than the old one.
    pub allow_incompatible: bool,
    /// Whether the new version's golden samples are not asked.
    pub skip_verification: bool,
}

/// The order of a swap.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Strategy {
    /// The new version is loaded beside the old one, and takes its place at once.
    #[default]
    Availability,
    /// The old version is unloaded before the new one is loaded, for machines that have no room for
    /// both. In between, requests wait as long as they may. If the new one cannot be loaded, the old
    /// one is loaded again.
    Resource,
    /// The new version gets more and more of the requests, as long as nothing speaks against it.
    Canary(CanaryPlan),
}

/// How long a version stays that is not current any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is drained at once.
    No,
    /// It stays for so long; not at all for zero.
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
pub(super) struct Flip {
    pub(super) to: Version,
    pub(super) cause: Cause,
    pub(super) drain_timeout: Option<Duration>,
    keep: Option<Keep>,
    pub(super) demands: Demands,
    /// The digest that the version must have.
    digest: Option<String>,
    strategy: Strategy,
    bake: Option<Bake>,
}

impl Core {
    pub(super) async fn swap(
        self: &Arc<Self>,
        name: &ModelName,
        options: SwapOptions,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        if let Strategy::Canary(plan) = &options.strategy {
            plan.check()?;
        }
        let entry = self.known(name)?;
        let permit = self.permit_now(&entry, operation).await?;
        let old = self.routes_of(name)?;
        let to = named(&entry, &options.to)?;
        let is_canary = matches!(options.strategy, Strategy::Canary(_));
        // A split ends by a swap to any version, but nobody is a canary beside itself.
        if old.current == to && (old.split.is_none() || is_canary) {
            let id = VersionId { model: name.clone(), version: to };
            return Err(ChangeError::AlreadyCurrent(id));
        }
        let demands = if options.allow_incompatible {
            Demands::default()
        } else {
            Demands::like(&old.versions[&old.current])
        };
        let demands = Demands { unverified: options.skip_verification, ..demands };
        let flip = Flip {
            to,
            cause: Cause::Swap,
            drain_timeout: options.drain_timeout,
            keep: options.keep_previous,
            demands,
            digest: None,
            strategy: options.strategy,
            bake: options.bake,
        };
        if flip.strategy == Strategy::Resource {
            return self.flip_one_by_one((&entry, permit), flip, operation).await;
        }
        self.flip((&entry, permit), flip, operation).await
    }

    /// Lets the version answer again that was current before.
    pub(super) async fn roll_back(
        self: &Arc<Self>,
        name: &ModelName,
        options: RollbackOptions,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let started = Instant::now();
        let entry = self.known(name)?;
        if let Some(trial) = entry.trial_of() {
            operation.expects(entry.generation())?;
            if let Some(report) = self.end_trial(&entry, trial, started).await {
                return Ok(report);
            }
        }
        let permit = self.permit_now(&entry, operation).await?;
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
            strategy: Strategy::Availability,
            bake: None,
        };
        self.flip((&entry, permit), flip, operation).await
    }

    /// Takes a version back that is on trial; `None` where the trial has ended by itself before.
    async fn end_trial(
        &self,
        entry: &ModelEntry,
        OnTrial { operation, new, old }: OnTrial,
        started: Instant,
    ) -> Option<SwapReport> {
        operation.cancel().ok()?;
        let outcome = operation.done().await;
        outcome.is_err_and(|error| matches!(*error, ChangeError::Cancelled)).then(|| {
            let routes = self.serving.routes(&entry.name);
            let kept = routes.is_some_and(|routes| routes.versions.contains_key(&new));
            SwapReport {
                from: new,
                to: old,
                load_took: Duration::ZERO,
                took: started.elapsed(),
                drained: true,
                kept,
                kept_until: None,
                memory: None,
            }
        })
    }

    async fn flip(
        self: &Arc<Self>,
        (entry, permit): (&Arc<ModelEntry>, SemaphorePermit<'_>),
        flip: Flip,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let started = Instant::now();
        let old = self.routes_of(&entry.name)?;
        let wish = Wish { entry, version: flip.to, operation };
        let fresh = self.available(wish, &old, &flip).await?;
        let load_took = started.elapsed();
        let (new, fresh) = self.tried(wish, (&old, fresh), &flip).await?;
        let fresh = match &flip.bake {
            Some(bake) => self.baked(wish, (&old, &new, fresh), bake).await?,
            None => fresh,
        };
        let keep = flip.keep.unwrap_or_else(|| self.keep_previous());
        let kept_until = park(entry, old.current, keep);
        operation.step("FLIP", Some(flip.to));
        let intent = choice(entry, flip.to);
        let retired = self.make_current(entry, (&new, fresh), (flip.cause, Some(intent)));
        self.unpark_later(entry);
        let (from, kept) = (old.current, is_wanted(entry, old.current));
        // The model may change again while the old version's requests are waited for.
        drop((permit, old));
        let limit = flip.drain_timeout.unwrap_or_else(|| self.drain_timeout());
        operation.step("DRAIN", Some(from));
        let (drained, memory) = self.retire_measured(retired, limit).await;
        let took = started.elapsed();
        Ok(SwapReport { from, to: flip.to, load_took, took, drained, kept, kept_until, memory })
    }

    /// The new version once it has proved itself as far as the strategy wants it to, and it is too
    /// late to cancel, unless it is to be baked.
    async fn tried(
        self: &Arc<Self>,
        wish: Wish<'_>,
        (old, fresh): (&Routes, Vec<Warm>),
        flip: &Flip,
    ) -> Result<(Arc<Serving>, Vec<Warm>), ChangeError> {
        let loaded = fresh.first().map(|warm| &warm.serving);
        let there = loaded.or_else(|| old.versions.get(&wish.version));
        let new = Arc::clone(there.expect("it was made available"));
        let Strategy::Canary(plan) = &flip.strategy else {
            let committed = match flip.bake {
                Some(_) => fresh,
                None => self.committed(fresh, wish.operation).await?,
            };
            return Ok((new, committed));
        };
        let watch = Watch { entry: wish.entry, operation: wish.operation, limits: &plan.limits };
        let _busy = wish.entry.busy(OnTrial::new(wish, old));
        self.open_trial(wish.entry, old.current, wish.version).await;
        self.canary(watch, plan, (&new, fresh)).await?;
        let committed = if flip.bake.is_none() { wish.operation.commit() } else { Ok(()) };
        if let Err(refusal) = committed {
            self.take_back(wish.entry, &new).await;
            return Err(refusal);
        }
        Ok((new, Vec::new()))
    }

    /// Lets the new version answer, and watches it, with the way back open, until it is too late to
    /// cancel.
    async fn baked(
        self: &Arc<Self>,
        wish: Wish<'_>,
        (old, new, fresh): (&Routes, &Arc<Serving>, Vec<Warm>),
        bake: &Bake,
    ) -> Result<Vec<Warm>, ChangeError> {
        let Wish { entry, version, operation } = wish;
        let before = &old.versions[&old.current];
        let contest = Contest::with_the_past(new, before);
        let _busy = entry.busy(OnTrial::new(wish, old));
        operation.step("BAKE", Some(version));
        entry.park(Some(Parked { version: old.current, until: None }));
        self.open_trial(entry, old.current, version).await;
        entry.set_trial(Some(TrialRules::all_to_the_current()));
        self.retire_all(self.publish_current(entry, (new, fresh), (Cause::Swap, None)));
        let watch = Watch { entry, operation, limits: &bake.limits };
        let outcome = self.bake(watch, bake, &contest).await;
        match outcome.and_then(|()| operation.commit()) {
            Ok(()) => Ok(Vec::new()),
            // The old version is current in the next life.
            Err(ChangeError::ShuttingDown) => Err(ChangeError::ShuttingDown),
            Err(refusal) => {
                entry.park(None);
                let cause = (Cause::RolledBackByItself, None);
                let retired = self.make_current(entry, (before, Vec::new()), cause);
                self.retire_within(retired, self.drain_timeout()).await;
                Err(refusal)
            }
        }
    }

    /// Lets the version answer all requests that name none; what is to be retired now.
    fn make_current(
        &self,
        entry: &ModelEntry,
        new: (&Arc<Serving>, Vec<Warm>),
        decided: (Cause, Option<Intent>),
    ) -> Vec<Arc<VersionRecord>> {
        entry.set_trial(None);
        self.publish_current(entry, new, decided)
    }

    /// [`Core::make_current`], also while it is on trial.
    fn publish_current(
        &self,
        entry: &ModelEntry,
        (new, fresh): (&Arc<Serving>, Vec<Warm>),
        (cause, intent): (Cause, Option<Intent>),
    ) -> Vec<Arc<VersionRecord>> {
        let version = new.id.version;
        let Some(routes) = self.serving.routes(&entry.name) else { return Vec::new() };
        let mut lineup = Lineup { current: version, ..Lineup::of(&routes) };
        lineup.versions.insert(version, Arc::clone(new));
        lineup.versions.retain(|other, _| *other == version || is_wanted(entry, *other));
        let next = Next::lineup(lineup, cause).with(fresh);
        self.publish(entry, if let Some(intent) = intent { next.decided(intent) } else { next })
    }

    /// Stops routing what nothing speaks for any more; what is to be retired now.
    pub(super) fn tidy(&self, entry: &ModelEntry) -> Vec<Arc<VersionRecord>> {
        let Some(routes) = self.serving.routes(&entry.name) else { return Vec::new() };
        let mut lineup = Lineup::of(&routes);
        let current = lineup.current;
        lineup.versions.retain(|version, _| *version == current || is_wanted(entry, *version));
        self.publish(entry, Next::lineup(lineup, Cause::Swap))
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
        Keep::For(self.terms.load().keep_previous)
    }

    /// Retires the parked version when its time is over.
    fn unpark_later(self: &Arc<Self>, entry: &Arc<ModelEntry>) {
        let ends = entry.parked().and_then(|parked| Some((parked, parked.until?)));
        let timer = ends.map(|(parked, until)| {
            let (core, entry) = (Arc::clone(self), Arc::clone(entry));
            let task = self.tasks.spawn(async move {
                let over = tokio::time::sleep_until(until);
                if core.closing.run_until_cancelled(over).await.is_some() {
                    core.unpark(&entry, parked).await;
                }
            });
            task.abort_handle()
        });
        entry.unparked_by(timer);
    }

    /// Ends a parking. Cancel safe: nothing is awaited once the permit is there.
    async fn unpark(self: &Arc<Self>, entry: &ModelEntry, parked: Parked) {
        let _tidying = entry.tidy();
        // The semaphore is never closed.
        let _permit = entry.change.acquire().await;
        if entry.parked() == Some(parked) && !self.closing.is_cancelled() {
            entry.park(None);
            self.retire_all(self.tidy(entry));
        }
    }
}

/// What is decided of a model when a version is chosen to be current.
pub(super) fn choice(entry: &ModelEntry, version: Version) -> Intent {
    let newest = entry.newest(version);
    Intent { chosen: Some(Choice { version, newest }), weights: None, ..entry.intent() }
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
        Keep::No | Keep::For(Duration::ZERO) => {
            entry.park(None);
            return None;
        }
        Keep::For(time) => Instant::now().checked_add(time).map(|until| (until, time)),
        Keep::Always => None,
    };
    entry.park(Some(Parked { version, until: until.map(|(until, _)| until) }));
    until.and_then(|(_, time)| SystemTime::now().checked_add(time))
}

/// What comes back of what a model serves, when it has gone without anybody's wish. What operators have
/// named comes back by its name.
pub(super) fn served(entry: &ModelEntry, routes: &Routes) -> Served {
    let stays =
        |version: &Version| *version == routes.current || entry.is_selected_among_others(*version);
    let staying = routes.versions.iter().filter(|(version, _)| stays(version));
    let current = &routes.versions[&routes.current];
    Served {
        current: routes.current,
        versions: staying.map(|(version, it)| (*version, it.files_digest().to_owned())).collect(),
        settings: current.settings.clone(),
        is_outdated: false,
    }
}

/// Whether something other than being current speaks for a version.
pub(super) fn is_wanted(entry: &ModelEntry, version: Version) -> bool {
    is_wanted_by_itself(entry, version) || is_held(entry, version)
}

/// The same, but for ensembles.
pub(super) fn is_wanted_by_itself(entry: &ModelEntry, version: Version) -> bool {
    entry.is_selected_among_others(version)
        || entry.parked().is_some_and(|parked| parked.version == version)
        || !entry.intent().uses(version).is_empty()
}

/// Whether an ensemble has a version that serves as a step.
pub(super) fn is_held(entry: &ModelEntry, version: Version) -> bool {
    let serving = entry.record(version).and_then(|record| record.ready());
    serving.is_some_and(|serving| serving.holds.is_held())
}
