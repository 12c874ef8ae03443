//! Aliases and weights, which move without a load.

use super::*;
use crate::model::{
    AliasName, Change, Conditions, Done, RoutingChange, TrafficReport, VersionRef, Wanted, Weights,
    WeightsError,
};
use StateKind::{Ready, Unloaded};

/// Serves versions 1 and 2; 2 is current.
async fn serving_two() -> Fixture {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.put("a", 2, "two");
    fixture.world.edit("a", |model| model.settings.version_policy = VersionPolicy::All);
    fixture.load("a").await.unwrap();
    fixture
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

fn number(number: u64) -> VersionRef {
    VersionRef::Number(version(number))
}

fn set(name: &str, to: VersionRef) -> RoutingChange {
    RoutingChange::SetAlias(alias(name), to)
}

fn weights(weights: &[(u64, u32)]) -> RoutingChange {
    let weights = weights.iter().map(|(version, weight)| (number(*version), *weight));
    RoutingChange::SetWeights(weights.collect())
}

impl Fixture {
    async fn route(&self, change: RoutingChange) -> Result<TrafficReport, Arc<ChangeError>> {
        let operation =
            self.manager.begin(&name("a"), Change::Route(change), Conditions::default()).unwrap();
        match soon(operation.done()).await? {
            Done::Traffic(report) => Ok(report),
            other => panic!("{other:?}"),
        }
    }

    fn named(&self, name: &str) -> Result<u64, LookupError> {
        let handle = self.manager.acquire("a", Wanted::Alias(&alias(name)))?;
        Ok(handle.id().version.number())
    }

    fn keyed(&self, key: Option<&str>) -> u64 {
        self.manager.acquire("a", Wanted::Any { key }).unwrap().id().version.number()
    }
}

#[tokio::test]
async fn an_alias_answers_for_its_version_and_moves() {
    let fixture = serving_two().await;
    let report = fixture.route(set("stable", number(1))).await.unwrap();
    assert_eq!(report.aliases, [(alias("stable"), version(1))]);
    assert_eq!(fixture.named("stable"), Ok(1));
    fixture.route(set("canary", number(2))).await.unwrap();
    fixture.route(set("stable", VersionRef::Alias(alias("canary")))).await.unwrap();
    assert_eq!((fixture.named("stable"), fixture.named("canary")), (Ok(2), Ok(2)));
    fixture.route(RoutingChange::RemoveAlias(alias("stable"))).await.unwrap();
    let unknown = LookupError::UnknownAlias { model: "a".to_owned(), alias: alias("stable") };
    assert_eq!(fixture.named("stable"), Err(unknown));
    let again = fixture.route(RoutingChange::RemoveAlias(alias("stable"))).await.unwrap_err();
    assert!(matches!(*again, ChangeError::UnknownAlias { .. }), "{again:?}");
}

#[tokio::test]
async fn what_an_alias_names_is_kept_by_a_swap_and_by_a_load() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture.route(set("stable", number(1))).await.unwrap();
    let report = fixture.swap("a", 2).await.unwrap();
    assert!(report.kept && report.kept_until.is_none());
    assert_eq!((fixture.named("stable"), fixture.answers("a").await), (Ok(1), 2));
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready)]);
    assert_eq!(fixture.world.times(fakes::Step::Open, "a/1"), 1);
    fixture.route(RoutingChange::RemoveAlias(alias("stable"))).await.unwrap();
    fixture.load("a").await.unwrap();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
}

#[tokio::test]
async fn an_alias_of_a_model_that_is_unloaded_is_back_with_it() {
    let fixture = serving_two().await;
    fixture.route(set("stable", number(1))).await.unwrap();
    fixture.unload("a").await.unwrap();
    let refusal = fixture.named("stable").unwrap_err();
    assert!(matches!(refusal, LookupError::NotServing { state: Unloaded, .. }), "{refusal:?}");
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.named("stable"), Ok(1));
}

#[tokio::test]
async fn requests_are_shared_by_weights_until_a_swap_ends_it() {
    let fixture = serving_two().await;
    fixture.route(weights(&[(1, 7_500), (2, 2_500)])).await.unwrap();
    let on_two = (0..10_000).filter(|_| fixture.keyed(None) == 2).count();
    assert_eq!(on_two, 2_500);
    for user in 0..50 {
        let key = format!("user-{user}");
        let first = fixture.keyed(Some(&key));
        assert!((0..20).all(|_| fixture.keyed(Some(&key)) == first));
    }
    fixture.swap("a", 2).await.unwrap();
    assert!((0..100).all(|_| fixture.keyed(None) == 2));
    assert!(fixture.report("a").traffic.weights.is_empty());
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready)], "the policy wants both");
    fixture.route(weights(&[(1, 10_000)])).await.unwrap();
    assert_eq!(fixture.keyed(None), 1);
    fixture.route(RoutingChange::RemoveWeights).await.unwrap();
    assert_eq!(fixture.keyed(None), 2);
}

#[tokio::test]
async fn rules_that_cannot_be_change_nothing() {
    let fixture = serving_two().await;
    fixture.route(weights(&[(1, 5_000), (2, 5_000)])).await.unwrap();
    let before = (fixture.report("a").traffic, fixture.report("a").generation);
    let sum = fixture.route(weights(&[(1, 5_000), (2, 4_999)])).await.unwrap_err();
    assert!(matches!(*sum, ChangeError::Weights(WeightsError::Sum(9_999))), "{sum:?}");
    for change in [weights(&[(1, 5_000), (3, 5_000)]), set("stable", number(3))] {
        let absent = fixture.route(change).await.unwrap_err();
        assert!(matches!(*absent, ChangeError::VersionNotLoaded(_)), "{absent:?}");
    }
    let same = vec![(version(1), 5_000), (version(1), 5_000)];
    assert_eq!(Weights::new(same), Err(WeightsError::Twice(version(1))));
    assert_eq!((fixture.report("a").traffic, fixture.report("a").generation), before);
}

#[tokio::test]
async fn what_is_needed_is_not_unloaded() {
    let fixture = serving_two().await;
    fixture.route(set("stable", number(1))).await.unwrap();
    fixture.route(weights(&[(1, 5_000), (2, 5_000)])).await.unwrap();
    let unload = async |number: u64| {
        let change = Change::Unload(Some(version(number)));
        let operation = fixture.manager.begin(&name("a"), change, Conditions::default()).unwrap();
        soon(operation.done()).await
    };
    let needed = unload(1).await.unwrap_err();
    assert!(needed.to_string().contains("the alias 'stable' and the traffic split"), "{needed}");
    let current = unload(2).await.unwrap_err();
    assert!(current.to_string().contains("requests that name no version"), "{current}");
    assert!(matches!(*unload(3).await.unwrap_err(), ChangeError::VersionNotLoaded(_)));
    fixture.route(RoutingChange::RemoveWeights).await.unwrap();
    fixture.route(RoutingChange::RemoveAlias(alias("stable"))).await.unwrap();
    unload(1).await.unwrap();
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Ready)]);
}
