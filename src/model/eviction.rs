//! Eviction: which models make room, by a pure function, and making it.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::change::{Core, Next, Wish};
use super::ensemble::Along;
use super::error::{ChangeError, LoadError};
use super::handle::Serving;
use super::ledger::{NoRoom, Reservation};
use super::loader::SourceError;
use super::loading::Demands;
use super::names::{ModelName, VersionId};
use super::operation::{Done, Operation};
use super::registry::ModelEntry;
use super::report::UnloadReport;
use super::serving_map::Routes;
use super::swap::served;
use crate::lifecycle::Event;

/// How long a load waits for room that is about to come; longer where requests wait for the model.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two looks for room.
const LOOK: Duration = Duration::from_millis(20);

/// What has come of a look for room.
enum Room {
    Taken(Reservation),
    /// There is too little, but there will be enough once those can go that must stay for now.
    Coming,
    None,
}

/// A model that takes memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// The model.
    pub model: ModelName,
    /// What its versions are estimated to take; those of an ensemble, what its steps take that go with it, or
    /// may go once it has.
    pub bytes: u64,
    /// How long nobody has used it.
    pub idle: Duration,
    /// After how long it may go; `None` for never.
    pub ttl: Option<Duration>,
    /// Why it must stay, if it must.
    pub spared: Option<String>,
    /// Whether it must only for now: requests are inside, or it is being changed.
    pub for_now: bool,
}

impl Resident {
    /// Whether it stays until somebody decides otherwise.
    fn stays(&self) -> bool {
        self.spared.is_some() && !self.for_now
    }
}

/// What becomes of a resident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionVerdict {
    /// Who.
    pub resident: Resident,
    /// Why it goes; `None` where it stays.
    pub evicted: Option<String>,
}

/// What an eviction would do, or has begun to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionReport {
    /// What versions are estimated to take.
    pub used: u64,
    /// What there is for them; `None` where there is no bound.
    pub budget: Option<u64>,
    /// Every model that takes memory, the one that was unused for longest first.
    pub verdicts: Vec<EvictionVerdict>,
}

/// Who goes, so that at least `needed` bytes come free if that can be: all that are idle for longer than
/// they may be, and then those that were unused for longest. Who is spared stays in any case.
pub(super) fn judge(mut residents: Vec<Resident>, needed: u64) -> Vec<EvictionVerdict> {
    residents.sort_by_key(|resident| Reverse(resident.idle));
    let outlived = |resident: &Resident| {
        let ttl = resident.ttl.filter(|ttl| resident.idle >= *ttl && resident.spared.is_none());
        ttl.map(|ttl| format!("unused for {:.0?}, longer than {ttl:?}", resident.idle))
    };
    let mut verdicts: Vec<EvictionVerdict> = residents
        .into_iter()
        .map(|resident| EvictionVerdict { evicted: outlived(&resident), resident })
        .collect();
    let gone = verdicts.iter().filter(|verdict| verdict.evicted.is_some());
    let mut freed: u64 = gone.map(|verdict| verdict.resident.bytes).sum();
    for verdict in &mut verdicts {
        if freed >= needed {
            break;
        }
        if verdict.evicted.is_none() && verdict.resident.spared.is_none() {
            freed = freed.saturating_add(verdict.resident.bytes);
            let reason = format!("least recently used, {needed} bytes are to come free");
            verdict.evicted = Some(reason);
        }
    }
    verdicts
}

impl Core {
    /// Who would go to free so many bytes beyond what the budget asks for.
    pub(super) fn eviction(&self, more: u64) -> EvictionReport {
        let budget = self.terms.load().memory_budget;
        let used = self.loader.ledger.used();
        let over = if budget == 0 { 0 } else { used.saturating_sub(budget) };
        let residents = self.registry.entries();
        let residents = residents.iter().filter_map(|entry| self.resident(entry)).collect();
        let verdicts = judge(residents, over.saturating_add(more));
        EvictionReport { used, budget: (budget > 0).then_some(budget), verdicts }
    }

    fn resident(&self, entry: &ModelEntry) -> Option<Resident> {
        let routes = self.serving.routes(&entry.name)?;
        let versions = || routes.versions.values();
        let busy: u64 = versions().map(|serving| serving.gate.entries()).sum();
        let holders: Vec<VersionId> = versions().flat_map(|serving| serving.holds.by()).collect();
        let is_changed = entry.change.available_permits() == 0;
        let for_now = [
            (busy > 0).then(|| format!("{busy} requests are inside")),
            entry.is_waited_for().then(|| "requests have waited for it".to_owned()),
            is_changed.then(|| "it is being changed".to_owned()),
            holders.first().map(|holder| format!("it is a step of the ensemble {holder}")),
        ];
        let for_long = self.stays_for_long(entry, &mut Vec::new());
        let for_now = for_now.into_iter().flatten().next();
        let ttl = entry.settings().idle_ttl.or(Some(self.terms.load().idle_ttl));
        Some(Resident {
            model: entry.name.clone(),
            bytes: self.with_steps(&routes, Along::MayGo).iter().map(taken).sum(),
            idle: versions().map(|serving| serving.usage.idle()).min()?,
            ttl: ttl.filter(|ttl| !ttl.is_zero()),
            for_now: for_long.is_none() && for_now.is_some(),
            spared: for_long.or(for_now),
        })
    }

    /// Why a model stays until somebody decides otherwise, if it does; asked of the ensembles that have it
    /// too, each model once.
    fn stays_for_long(&self, entry: &ModelEntry, asked: &mut Vec<ModelName>) -> Option<String> {
        let routes = self.serving.routes(&entry.name)?;
        let pinned =
            entry.intent().pinned.iter().any(|version| routes.versions.contains_key(version));
        let own = [
            (entry.settings().pin || pinned).then(|| "it is pinned".to_owned()),
            self.terms.load().required.contains(&entry.name).then(|| "it is required".to_owned()),
            entry.leased().map(|by| format!("it is leased by {}", by.join(", "))),
            entry.is_irreplaceable().then(|| "its files are gone".to_owned()),
        ];
        asked.push(entry.name.clone());
        own.into_iter().flatten().next().or_else(|| {
            let holders = routes.versions.values().flat_map(|serving| serving.holds.by());
            let mut staying = holders.filter(|holder| {
                let entry = self.registry.get(holder.model.as_str());
                let entry = entry.filter(|entry| !asked.contains(&entry.name));
                entry.is_some_and(|entry| self.stays_for_long(&entry, asked).is_some())
            });
            staying.next().map(|holder| format!("it is a step of the ensemble {holder}"))
        })
    }

    /// Drains and unloads a model that nobody needs now. The next request for it loads it again.
    pub(super) async fn evict(
        self: &Arc<Self>,
        name: &ModelName,
        operation: &Arc<Operation>,
    ) -> Result<UnloadReport, ChangeError> {
        let entry = self.known(name)?;
        // Who makes room does not wait for a change that may itself wait for room.
        let permit = self.permit_at_once(&entry, operation).await?;
        let routes = self.routes_of(name)?;
        // What may not come back is spared from then on.
        let can_come_back = self.can_come_back(&entry, &routes).await;
        can_come_back.inspect_err(|_| entry.note_irreplaceable(true))?;
        operation.commit()?;
        entry.seal()?;
        let versions = routes.versions.keys().copied().collect();
        entry.park(None);
        entry.note_served(Some(served(&entry, &routes)));
        entry.load_on_demand(true);
        let going = self.with_steps(&routes, Along::Goes);
        let going: Vec<Weak<Serving>> = going.iter().map(Arc::downgrade).collect();
        let retired = self.publish(&entry, Next::nothing());
        drop((permit, routes));
        let (drained, memory) = self.retire_measured(retired, self.drain_timeout()).await;
        if drained {
            // Else it would seem that too little has come free.
            timeout(PATIENCE, gone(going)).await.ok();
        }
        Ok(UnloadReport { versions, drained, memory })
    }

    /// # Errors
    /// Where a version that is needed could not be loaded again, or that cannot be told.
    async fn can_come_back(&self, entry: &ModelEntry, routes: &Routes) -> Result<(), ChangeError> {
        let all =
            self.ask(&entry.name, |loader, name| Ok(loader.source.model(name)?.versions)).await?;
        let intent = entry.intent();
        let needed = served(entry, routes).versions.into_keys().chain(intent.named());
        let mut loaded = needed.filter(|version| routes.versions.contains_key(version));
        match loaded.find(|version| !all.contains(version)) {
            None => self.steps_can_come_back(routes).await,
            Some(version) => {
                let id = VersionId { model: entry.name.clone(), version };
                let source = SourceError::UnknownVersion(id);
                Err(ChangeError::Source { model: entry.name.clone(), source })
            }
        }
    }

    /// # Errors
    /// Where a step that goes with an ensemble could not be loaded again, or that cannot be told.
    async fn steps_can_come_back(&self, routes: &Routes) -> Result<(), ChangeError> {
        let going = self.with_steps(routes, Along::Goes);
        for step in going.iter().filter(|step| step.holds.is_held()) {
            let id = step.id.clone();
            self.ask(&step.id.model, move |loader, name| {
                let is_there = loader.source.model(name)?.versions.contains(&id.version);
                is_there.then_some(()).ok_or(SourceError::UnknownVersion(id))
            })
            .await?;
        }
        Ok(())
    }

    /// What could not be loaded again may be able to by now.
    async fn look_for_what_was_gone(&self) {
        for entry in self.registry.entries().into_iter().filter(|entry| entry.is_irreplaceable()) {
            if let Some(routes) = self.serving.routes(&entry.name) {
                let can = self.can_come_back(&entry, &routes).await.is_ok();
                entry.note_irreplaceable(!can);
            }
        }
    }

    /// Takes what a version needs of the memory, for which others are evicted if need be. Who must stay
    /// only for now is waited for.
    ///
    /// # Errors
    /// [`LoadError::NoRoom`] when too few can go.
    pub(super) async fn room_for(
        self: &Arc<Self>,
        bytes: u64,
        demands: &Demands,
        wish: Wish<'_>,
    ) -> Result<Reservation, LoadError> {
        let reserve =
            || self.loader.ledger.reserve(bytes, demands.budget, demands.within.as_deref());
        let until = Instant::now() + PATIENCE;
        loop {
            let refused = match reserve() {
                Ok(reservation) => return Ok(reservation),
                Err(room) => room,
            };
            let goes_on = || wish.entry.is_waited_for() || Instant::now() < until;
            match self.make_room(&reserve, wish).await {
                Room::Taken(reservation) => return Ok(reservation),
                Room::Coming if goes_on() => {}
                Room::Coming | Room::None => return Err(LoadError::NoRoom(refused)),
            }
            let pause = self.closing.run_until_cancelled(sleep(LOOK)).await;
            pause.ok_or(LoadError::ShuttingDown)?;
        }
    }

    /// Evicts others until a version fits, or too few can go.
    async fn make_room(
        self: &Arc<Self>,
        reserve: impl Fn() -> Result<Reservation, NoRoom>,
        Wish { entry, operation, .. }: Wish<'_>,
    ) -> Room {
        // The semaphore is never closed.
        let _turn = self.making_room.acquire().await;
        loop {
            let room = match reserve() {
                Ok(reservation) => return Room::Taken(reservation),
                Err(room) => room,
            };
            let missing = room.used.saturating_add(room.needed).saturating_sub(room.budget);
            let over = room.used.saturating_sub(room.budget);
            let verdicts = self.eviction(missing.saturating_sub(over)).verdicts;
            let bytes = |counts: &dyn Fn(&EvictionVerdict) -> bool| -> u64 {
                let counted = verdicts.iter().filter(|verdict| counts(verdict));
                counted.map(|verdict| verdict.resident.bytes).sum()
            };
            let is_other = |verdict: &EvictionVerdict| verdict.resident.model != entry.name;
            if bytes(&|verdict| is_other(verdict) && verdict.evicted.is_some()) < missing {
                // Nobody goes for nothing. What is on its way to or from memory is there for now too.
                let stays = bytes(&|verdict| !is_other(verdict) || verdict.resident.stays());
                let fits = stays.saturating_add(room.needed) <= room.budget;
                return if fits { Room::Coming } else { Room::None };
            }
            let going = verdicts.iter().filter(|verdict| verdict.evicted.is_some());
            for verdict in going.filter(|verdict| is_other(verdict)) {
                operation.step(format!("EVICT {}", verdict.resident.model), None);
                // Who cannot go has become busy, and is spared at the next look.
                self.evict_aside(verdict).await;
            }
        }
    }

    /// Evicts on an interval what nobody has used for too long, and what is over the budget.
    pub(super) async fn clean_up(self: Arc<Self>, interval: Duration) {
        while self.refusing.run_until_cancelled(sleep(interval)).await.is_some() {
            self.look_for_what_was_gone().await;
            self.let_all_steps_go();
            for verdict in self.eviction(0).verdicts {
                if verdict.evicted.is_some() {
                    self.evict_aside(&verdict).await;
                }
            }
        }
    }

    /// Evicts as an operation that nobody has asked for; whether it went.
    pub(super) async fn evict_aside(self: &Arc<Self>, verdict: &EvictionVerdict) -> bool {
        let operation = self.operations.aside(&verdict.resident.model);
        let reason = verdict.evicted.clone().unwrap_or_default();
        operation.step(reason.clone(), None);
        let outcome = self.evict(&verdict.resident.model, &operation).await;
        let went = outcome.is_ok();
        if went {
            let Resident { model, bytes, .. } = &verdict.resident;
            let (model, bytes) = (model.to_string(), *bytes);
            self.events.publish(Event::ModelEvicted { model, reason, bytes });
        }
        operation.end(outcome.map(Done::Unload).map_err(Arc::new));
        went
    }
}

/// What a version takes of the memory.
fn taken(serving: &Arc<Serving>) -> u64 {
    serving.reservation.bytes()
}

/// Waits until what versions have taken is given back. Cancel safe.
async fn gone(versions: Vec<Weak<Serving>>) {
    let is_there = |version: &Weak<Serving>| {
        version.upgrade().is_some_and(|serving| !serving.reservation.is_given_back())
    };
    while versions.iter().any(is_there) {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(name: &str, bytes: u64, idle: u64) -> Resident {
        let (model, idle) = (ModelName::new(name).unwrap(), Duration::from_secs(idle));
        Resident { model, bytes, idle, ttl: None, spared: None, for_now: false }
    }

    #[track_caller]
    fn check(residents: Vec<Resident>, needed: u64, expected: &[(&str, bool)]) {
        let verdicts = judge(residents, needed);
        let told: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.resident.model.as_str(), verdict.evicted.is_some()))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let residents = || vec![resident("a", 10, 1), resident("b", 10, 3), resident("c", 10, 2)];
        check(residents(), 0, &[("b", false), ("c", false), ("a", false)]);
        check(residents(), 10, &[("b", true), ("c", false), ("a", false)]);
        check(residents(), 11, &[("b", true), ("c", true), ("a", false)]);
        check(residents(), 99, &[("b", true), ("c", true), ("a", true)]);
    }

    #[test]
    fn who_has_outlived_its_time_goes_and_counts() {
        let old = Resident { ttl: Some(Duration::from_secs(2)), ..resident("old", 10, 2) };
        let young = Resident { ttl: Some(Duration::from_secs(9)), ..resident("young", 10, 3) };
        check(vec![old.clone(), young.clone()], 0, &[("young", false), ("old", true)]);
        check(vec![old, young], 10, &[("young", false), ("old", true)]);
    }

    #[test]
    fn who_is_spared_stays_whatever_is_needed() {
        let mut pinned = resident("pinned", 10, 9);
        pinned.spared = Some("it is pinned".to_owned());
        pinned.ttl = Some(Duration::from_secs(1));
        check(vec![pinned, resident("b", 10, 1)], 20, &[("pinned", false), ("b", true)]);
    }
}
