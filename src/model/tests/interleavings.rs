//! Random sequences of changes and requests, against a simple model of what should be visible.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime;

use super::fakes::{Fault, Step};
use super::*;
use crate::model::{
    AliasName, Change, Conditions, RollbackOptions, RoutingChange, VersionHandle, Wanted,
};

/// The versions in the repository; the policy selects the highest.
const VERSIONS: [u64; 3] = [1, 2, 3];

#[derive(Debug, Clone, Copy)]
enum Action {
    Load,
    Unload,
    UnloadVersion(u64),
    Swap(u64, bool),
    Rollback,
    Alias(u64),
    RemoveAlias,
    /// From now on, the version cannot be opened, or can again.
    Break(u64),
    Heal(u64),
    /// A request begins, and stays inside until it is let go.
    Hold(Option<u64>),
    LetGo,
    /// A swap where there is no room for two, once nobody is inside.
    Exchange(u64),
    /// Whoever is not needed goes.
    Evict,
    /// A request that waits for the model if need be.
    Ask,
}

fn action() -> impl Strategy<Value = Action> {
    let version = || prop::sample::select(VERSIONS.to_vec());
    prop_oneof![
        3 => Just(Action::Load),
        1 => Just(Action::Unload),
        2 => version().prop_map(Action::UnloadVersion),
        6 => (version(), any::<bool>()).prop_map(|(version, keep)| Action::Swap(version, keep)),
        3 => Just(Action::Rollback),
        2 => version().prop_map(Action::Alias),
        1 => Just(Action::RemoveAlias),
        2 => version().prop_map(Action::Break),
        3 => version().prop_map(Action::Heal),
        3 => prop::option::of(version()).prop_map(Action::Hold),
        3 => Just(Action::LetGo),
        2 => version().prop_map(Action::Exchange),
        3 => Just(Action::Evict),
        4 => Just(Action::Ask),
    ]
}

/// What should be visible of the one model there is.
#[derive(Debug, Default)]
struct Expected {
    broken: BTreeSet<u64>,
    /// Each version that serves, with a number of its own for its life.
    serving: BTreeMap<u64, u64>,
    lives: u64,
    /// Whom requests are inside, by version and life.
    held: Vec<(u64, u64)>,
    /// Whether the model is to be loaded.
    wanted: bool,
    /// Whether a request loads it, and whether none does for the moment.
    on_demand: bool,
    resting: bool,
    current: Option<u64>,
    chosen: Option<u64>,
    alias: Option<u64>,
    parked: Option<u64>,
    /// Who was current, one after the other.
    tenures: Vec<u64>,
}

impl Expected {
    /// Takes the action; whether it succeeds.
    fn take(&mut self, action: Action) -> bool {
        match action {
            Action::Load => self.load(),
            Action::Unload => {
                let was_loaded = self.current.is_some() || self.on_demand || self.wanted;
                self.goes();
                (self.on_demand, self.resting, self.wanted) = (false, false, false);
                was_loaded
            }
            Action::UnloadVersion(version) => self.unload(version),
            Action::Swap(to, keep) => {
                self.current.is_some_and(|current| current != to) && self.flip(to, keep)
            }
            Action::Rollback => {
                let before = self.tenures.iter().rfind(|version| Some(**version) != self.current);
                let before = before.copied().filter(|_| self.current.is_some());
                before.is_some_and(|to| self.flip(to, false))
            }
            Action::Alias(version) => {
                let there = self.serving.contains_key(&version);
                self.alias = if there { Some(version) } else { self.alias };
                there
            }
            Action::RemoveAlias => self.alias.take().is_some(),
            Action::Break(version) => {
                self.broken.insert(version);
                true
            }
            Action::Heal(version) => {
                self.broken.remove(&version);
                true
            }
            Action::Hold(version) => {
                self.hold(version);
                true
            }
            Action::LetGo => {
                if !self.held.is_empty() {
                    self.held.remove(0);
                }
                true
            }
            Action::Exchange(to) => self.exchange(to),
            Action::Evict => self.evict(),
            Action::Ask => {
                if self.current.is_none() && self.on_demand && !self.resting {
                    self.resting = !self.load();
                }
                self.current.is_some()
            }
        }
    }

    fn hold(&mut self, version: Option<u64>) {
        let entered = version.or(self.current);
        let life = entered.and_then(|version| self.serving.get_key_value(&version));
        self.held.extend(life.map(|(version, life)| (*version, *life)));
    }

    fn evict(&mut self) -> bool {
        let inside =
            self.held.iter().any(|(version, life)| self.serving.get(version) == Some(life));
        if self.current.is_none() || inside {
            return false;
        }
        self.goes();
        (self.on_demand, self.resting) = (true, false);
        true
    }

    /// Nothing serves any more.
    fn goes(&mut self) {
        (self.current, self.parked) = (None, None);
        self.serving.clear();
    }

    fn exchange(&mut self, to: u64) -> bool {
        self.held.clear();
        let Some(from) = self.current.filter(|current| *current != to) else { return false };
        if self.alias.is_some_and(|named| self.serving.contains_key(&named)) {
            return false;
        }
        self.goes();
        let there = [to, from].into_iter().find(|version| !self.broken.contains(version));
        (self.on_demand, self.resting) = (true, false);
        if let Some(version) = there {
            self.chosen = if version == to { Some(to) } else { self.chosen };
            self.serves([version].into());
            self.becomes_current(version);
        }
        there == Some(to)
    }

    /// Exactly these serve, those that did already in the life that they had.
    fn serves(&mut self, versions: BTreeSet<u64>) {
        self.serving.retain(|version, _| versions.contains(version));
        for version in versions {
            self.lives += 1;
            self.serving.entry(version).or_insert(self.lives);
        }
    }

    fn load(&mut self) -> bool {
        let current = self.chosen.unwrap_or(3);
        let versions: BTreeSet<u64> = [current].into_iter().chain(self.alias).collect();
        let serves = |version: &u64| self.serving.contains_key(version);
        if versions.iter().any(|version| !serves(version) && self.broken.contains(version)) {
            return false;
        }
        self.serves(versions);
        (self.parked, self.wanted) = (None, true);
        self.becomes_current(current);
        true
    }

    fn unload(&mut self, version: u64) -> bool {
        let needed = self.current == Some(version) || self.alias == Some(version);
        if needed || self.serving.remove(&version).is_none() {
            return false;
        }
        self.parked = self.parked.filter(|parked| *parked != version);
        true
    }

    fn flip(&mut self, to: u64, keep: bool) -> bool {
        if !self.serving.contains_key(&to) && self.broken.contains(&to) {
            return false;
        }
        self.parked = self.current.filter(|_| keep);
        self.chosen = Some(to);
        let (alias, parked) = (self.alias, self.parked);
        let stays = |version: &u64| alias == Some(*version) || parked == Some(*version);
        let others = self.serving.keys().copied().filter(stays);
        self.serves(others.chain([to]).collect());
        self.becomes_current(to);
        true
    }

    fn becomes_current(&mut self, version: u64) {
        if self.current != Some(version) {
            self.tenures.push(version);
        }
        self.current = Some(version);
    }
}

fn alias() -> AliasName {
    "stable".parse().unwrap()
}

/// The manager with the requests that are inside.
struct Actual {
    fixture: Fixture,
    held: Vec<VersionHandle>,
}

impl Actual {
    fn new() -> Self {
        let fixture = Fixture::with(|options| options.terms.drain_timeout = Duration::ZERO);
        for version in VERSIONS {
            fixture.world.put("a", version, &format!("digest {version}"));
        }
        Self { fixture, held: Vec::new() }
    }

    /// Takes the action; whether it has succeeded.
    async fn take(&mut self, action: Action) -> bool {
        let number = |number: u64| VersionRef::Number(version(number));
        let change = match action {
            Action::Load => return self.fixture.load("a").await.is_ok(),
            Action::Unload => Change::Unload(None),
            Action::UnloadVersion(number) => Change::Unload(Some(version(number))),
            Action::Swap(to, keep) => {
                let keep_previous = Some(if keep { Keep::Always } else { Keep::No });
                Change::Swap(SwapOptions { keep_previous, ..swap_to(to) })
            }
            Action::Rollback => Change::Rollback(RollbackOptions::default()),
            Action::Alias(to) => Change::Route(RoutingChange::SetAlias(alias(), number(to))),
            Action::RemoveAlias => Change::Route(RoutingChange::RemoveAlias(alias())),
            Action::Break(number) => {
                self.fixture.world.break_at(Step::Open, &format!("a/{number}"), Fault::Fail);
                return true;
            }
            Action::Heal(number) => {
                self.fixture.world.mend(Step::Open, &format!("a/{number}"));
                return true;
            }
            Action::Hold(number) => {
                let handle = self.fixture.manager.acquire("a", number.map(version));
                self.held.extend(handle);
                return true;
            }
            Action::LetGo => {
                if !self.held.is_empty() {
                    drop(self.held.remove(0));
                }
                return true;
            }
            Action::Exchange(to) => {
                self.held.clear();
                let strategy = crate::model::Strategy::Resource;
                Change::Swap(SwapOptions { strategy, ..swap_to(to) })
            }
            Action::Evict => {
                let report = soon(self.fixture.manager.evict(u64::MAX)).await;
                return report.verdicts.iter().any(|verdict| verdict.evicted.is_some());
            }
            Action::Ask => {
                let any = Wanted::Any { key: None };
                let manager = &self.fixture.manager;
                return soon(manager.acquire_waiting("a", any, later())).await.is_ok();
            }
        };
        let begun = self.fixture.manager.begin(&name("a"), change, Conditions::default()).unwrap();
        soon(begun.done()).await.is_ok()
    }

    /// Compares what is visible.
    async fn check(&self, expected: &Expected) {
        let any = self.fixture.manager.acquire("a", None).ok();
        assert_eq!(any.as_ref().map(|handle| handle.id().version.number()), expected.current);
        if let Some(handle) = &any {
            assert_eq!(soon(ask(handle, 1)).await.ok(), expected.current);
        }
        let stable = self.fixture.manager.acquire("a", Wanted::Alias(&alias())).ok();
        let named = expected.alias.filter(|version| expected.serving.contains_key(version));
        assert_eq!(stable.map(|handle| handle.id().version.number()), named);
        for number in VERSIONS {
            let there = self.fixture.manager.acquire("a", Some(version(number))).is_ok();
            assert_eq!(there, expected.serving.contains_key(&number), "version {number}");
        }
        // Whoever is inside is answered by the version that it has entered.
        for handle in &self.held {
            assert_eq!(soon(ask(handle, 1)).await, Ok(handle.id().version.number()));
        }
        let parked = self.fixture.manager.report("a").and_then(|report| report.parked);
        assert_eq!(parked.map(Version::number), expected.parked);
    }

    /// When nobody is inside any more, exactly what serves is left.
    async fn settles(mut self, expected: &Expected) {
        self.held.clear();
        let serving = expected.serving.len();
        let settled = async {
            while self.fixture.world.instances() != serving {
                tokio::task::yield_now().await;
            }
        };
        soon(settled).await;
    }
}

#[test]
fn whatever_happens_in_whatever_order_is_as_expected() {
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(800) });
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let actions = prop::collection::vec(action(), 1..40);
    let checked = runner.run(&actions, |actions| {
        runtime.block_on(async {
            let (mut actual, mut expected) = (Actual::new(), Expected::default());
            for action in actions {
                let before = format!("{expected:?}");
                let succeeds = expected.take(action);
                assert_eq!(actual.take(action).await, succeeds, "{action:?}: {before}");
                actual.check(&expected).await;
            }
            actual.settles(&expected).await;
        });
        Ok(())
    });
    checked.unwrap();
}
