//! Eviction: which models make room, by a pure function, and making it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::change::{Core, Next, Wish};
use super::error::{ChangeError, LoadError};
use super::ledger::{NoRoom, Reservation};
use super::loading::Demands;
use super::names::ModelName;
use super::operation::{Done, Operation};
use super::registry::ModelEntry;
use super::report::UnloadReport;
use crate::lifecycle::Event;

/// How often it is looked for room for one load. At each look somebody goes, or has become busy.
const LOOKS: usize = 64;

/// A model that takes memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// The model.
    pub model: ModelName,
    /// What its versions are estimated to take.
    pub bytes: u64,
    /// How long nobody has used it.
    pub idle: Duration,
    /// After how long it may go; `None` for never.
    pub ttl: Option<Duration>,
    /// Why it must stay, if it must.
    pub spared: Option<String>,
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
        let pinned =
            entry.intent().pinned.iter().any(|version| routes.versions.contains_key(version));
        let spared = [
            (entry.settings().pin || pinned).then(|| "it is pinned".to_owned()),
            self.terms.load().required.contains(&entry.name).then(|| "it is required".to_owned()),
            entry.leased().map(|by| format!("it is leased by {}", by.join(", "))),
            (busy > 0).then(|| format!("{busy} requests are inside")),
            (entry.change.available_permits() == 0).then(|| "it is being changed".to_owned()),
        ];
        let ttl = entry.settings().idle_ttl.or(Some(self.terms.load().idle_ttl));
        Some(Resident {
            model: entry.name.clone(),
            bytes: versions().map(|serving| serving.reservation.bytes()).sum(),
            idle: versions().map(|serving| serving.usage.idle()).min()?,
            ttl: ttl.filter(|ttl| !ttl.is_zero()),
            spared: spared.into_iter().flatten().next(),
        })
    }

    /// Drains and unloads a model that nobody needs now. The next request for it loads it again.
    pub(super) async fn evict(
        self: &Arc<Self>,
        name: &ModelName,
        operation: &Arc<Operation>,
    ) -> Result<UnloadReport, ChangeError> {
        let entry = self.known(name)?;
        let permit = self.permit_now(&entry, operation)?;
        let routes = self.routes_of(name)?;
        operation.commit()?;
        entry.seal()?;
        let versions = routes.versions.keys().copied().collect();
        entry.park(None);
        entry.load_on_demand(true);
        let retired = self.publish(&entry, Next::nothing());
        drop((permit, routes));
        let (drained, memory) = self.retire_measured(retired, self.drain_timeout()).await;
        Ok(UnloadReport { versions, drained, memory })
    }

    /// Takes what a version needs of the memory, for which others are evicted if need be.
    ///
    /// # Errors
    /// [`LoadError::NoRoom`] when too few can go.
    pub(super) async fn room_for(
        self: &Arc<Self>,
        bytes: u64,
        demands: &Demands,
        wish: Wish<'_>,
    ) -> Result<Reservation, LoadError> {
        let instead_of = demands.instead_of.as_deref();
        let reserve = || self.loader.ledger.reserve(bytes, demands.budget, instead_of);
        if let Ok(reservation) = reserve() {
            return Ok(reservation);
        }
        // The semaphore is never closed.
        let _turn = self.making_room.acquire().await;
        for _ in 0..LOOKS {
            match reserve() {
                Ok(reservation) => return Ok(reservation),
                Err(room) if self.make_room(room, wish).await => {}
                Err(room) => return Err(LoadError::NoRoom(room)),
            }
        }
        reserve().map_err(LoadError::NoRoom)
    }

    /// Evicts others until a version fits; whether anything went.
    async fn make_room(self: &Arc<Self>, room: NoRoom, wish: Wish<'_>) -> bool {
        let Wish { entry, operation, .. } = wish;
        let missing = room.used.saturating_add(room.needed).saturating_sub(room.budget);
        let over = room.used.saturating_sub(room.budget);
        let verdicts = self.eviction(missing.saturating_sub(over)).verdicts;
        let going = verdicts.into_iter().filter(|verdict| verdict.evicted.is_some());
        let going: Vec<_> = going.filter(|verdict| verdict.resident.model != entry.name).collect();
        let freed: u64 = going.iter().map(|verdict| verdict.resident.bytes).sum();
        if freed < missing {
            // Nobody goes for nothing.
            return false;
        }
        let mut any = false;
        for verdict in going {
            operation.step(format!("EVICT {}", verdict.resident.model), None);
            any |= self.evict_aside(&verdict).await;
        }
        // Who was to go and could not has become busy, and is spared at the next look.
        any || freed > 0
    }

    /// Evicts on an interval what nobody has used for too long, and what is over the budget.
    pub(super) async fn clean_up(self: Arc<Self>, interval: Duration) {
        while self.refusing.run_until_cancelled(sleep(interval)).await.is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(name: &str, bytes: u64, idle: u64) -> Resident {
        let (model, idle) = (ModelName::new(name).unwrap(), Duration::from_secs(idle));
        Resident { model, bytes, idle, ttl: None, spared: None }
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
