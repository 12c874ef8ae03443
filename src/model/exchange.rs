//! The swap where there is no room for two versions: one goes before the other comes.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::SemaphorePermit;
use tokio::time::{Duration, Instant, timeout};

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::error::ChangeError;
use super::history::Cause;
use super::ledger::Reservation;
use super::loading::Demands;
use super::names::{Version, VersionId};
use super::operation::Operation;
use super::registry::ModelEntry;
use super::report::SwapReport;
use super::serving_map::Routes;
use super::swap::{Flip, choice, is_held, is_wanted, served};

impl Core {
    /// Unloads the version that is current, then loads the new one. Requests wait in between.
    ///
    /// What the old version took of the memory stays reserved until one of the two serves, so that nobody
    /// else takes it, be it between the new one and the way back; and nothing is loaded before it is free: the old version's requests are waited
    /// for, however long they take.
    pub(super) async fn flip_one_by_one(
        self: &Arc<Self>,
        (entry, _permit): (&Arc<ModelEntry>, SemaphorePermit<'_>),
        flip: Flip,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let started = Instant::now();
        let old = self.routes_of(&entry.name)?;
        let from = old.current;
        may_go(entry, &old)?;
        // Asked before anything is given up: whether the version is there at all.
        self.settings_for(entry, flip.to).await?;
        let sealed = held_by_none(entry, &old).and_then(|()| operation.commit());
        sealed.and_then(|()| entry.seal()).inspect_err(|_| unseal(&old))?;
        entry.park(None);
        let _arrival = entry.begin_coming();
        operation.step("DRAIN", Some(from));
        let bytes = old.versions.values().map(|serving| serving.reservation.bytes()).sum();
        let room = Arc::new(self.loader.ledger.hold(bytes));
        let retired = self.publish(entry, Next::nothing());
        // Whatever happens from here on, a request or who reconciles brings the model back.
        entry.strand();
        entry.note_served(Some(served(entry, &old)));
        drop(old);
        let limit = flip.drain_timeout.unwrap_or_else(|| self.drain_timeout());
        let mut retiring = pin!(self.retire_measured(retired, Duration::MAX));
        let (drained, memory) = match timeout(limit, &mut retiring).await {
            Ok(retired) => retired,
            Err(_) => (false, retiring.await.1),
        };
        let loading = Instant::now();
        let exchanged = self.exchange((entry, from), (&flip, room), operation).await;
        let (load_took, took) = (loading.elapsed(), started.elapsed());
        let report = SwapReport {
            from,
            to: flip.to,
            load_took,
            took,
            drained,
            kept: false,
            kept_until: None,
            memory,
        };
        exchanged.map(|()| report)
    }

    /// Loads the new version where nothing serves; the old one again if that fails.
    async fn exchange(
        self: &Arc<Self>,
        (entry, from): (&Arc<ModelEntry>, Version),
        (flip, room): (&Flip, Arc<Reservation>),
        operation: &Arc<Operation>,
    ) -> Result<(), ChangeError> {
        let demands = Demands { within: Some(Arc::clone(&room)), ..flip.demands.clone() };
        let failure = match self.alone((entry, flip.to), demands, operation).await {
            Ok(warm) => {
                warm.serving.reservation.take_over(&room);
                self.become_only(entry, warm, (flip.cause, true));
                return Ok(());
            }
            Err(failure) => failure,
        };
        let within = Some(Arc::clone(&room));
        let demands = Demands { within, unverified: true, ..Demands::default() };
        match self.alone((entry, from), demands, operation).await {
            Ok(back) => {
                back.serving.reservation.take_over(&room);
                self.become_only(entry, back, (Cause::RolledBackByItself, false));
                Err(failure)
            }
            Err(no_way_back) => {
                let (failure, no_way_back) = (Box::new(failure), Box::new(no_way_back));
                Err(ChangeError::NothingServes { model: entry.name.clone(), failure, no_way_back })
            }
        }
    }

    /// Makes a version warm that is to be the only one. Nobody gives it up half-way.
    async fn alone(
        self: &Arc<Self>,
        (entry, version): (&ModelEntry, Version),
        demands: Demands,
        operation: &Arc<Operation>,
    ) -> Result<Warm, ChangeError> {
        let settings = self.settings_for(entry, version).await?;
        let wish = Wish { entry, version, operation };
        let warm = self.warm(wish, &settings, demands).await;
        let mut warm = self.all_or_nothing(vec![warm], operation).await?;
        Ok(warm.pop().expect("it is what was asked for"))
    }

    fn become_only(&self, entry: &ModelEntry, warm: Warm, (cause, chosen): (Cause, bool)) {
        let version = warm.record.id.version;
        let versions = [(version, Arc::clone(&warm.serving))].into();
        let lineup = Lineup { current: version, versions };
        let next = Next::lineup(lineup, cause).with(vec![warm]);
        // Nothing else serves, so nothing is to be retired.
        self.publish(entry, if chosen { next.decided(choice(entry, version)) } else { next });
    }
}

/// Whether nothing but being current speaks for what the model serves.
fn may_go(entry: &ModelEntry, old: &Routes) -> Result<(), ChangeError> {
    let needed = |version: &&Version| {
        let is_parked = entry.parked().is_some_and(|parked| parked.version == **version);
        let is_current = **version == old.current;
        let uses = !entry.intent().uses(**version).is_empty();
        uses || is_held(entry, **version)
            || (!is_current && !is_parked && is_wanted(entry, **version))
    };
    match old.versions.keys().find(needed) {
        None => Ok(()),
        Some(version) => Err(in_use(entry, old, *version)),
    }
}

/// Lets no ensemble take what the model serves from then on.
///
/// # Errors
/// Where one has it by now.
fn held_by_none(entry: &ModelEntry, old: &Routes) -> Result<(), ChangeError> {
    match old.versions.iter().find(|(_, serving)| !serving.holds.seal()) {
        None => Ok(()),
        Some((version, _)) => Err(in_use(entry, old, *version)),
    }
}

fn unseal(old: &Routes) {
    for serving in old.versions.values() {
        serving.holds.unseal();
    }
}

fn in_use(entry: &ModelEntry, old: &Routes, version: Version) -> ChangeError {
    let id = VersionId { model: entry.name.clone(), version };
    let mut by = entry.intent().uses(version);
    by.extend(old.versions[&version].holds.users());
    by.push("others: with the strategy 'resource' the model has one version".into());
    ChangeError::InUse { id, by }
}
