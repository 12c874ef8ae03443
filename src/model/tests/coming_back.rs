//! What is evicted, taken back or gone for a moment, and comes back as it was.

use super::fakes::{Fault, Step};
use super::*;
use crate::inference::DataType;
use crate::lifecycle::Deadline;
use crate::model::operation::By;
use crate::model::{
    Bake, Change, Conditions, DesiredModel, DesiredState, Intent, Limits, Operation,
    RollbackOptions, RoutingChange, Wanted,
};
use StateKind::{Failed, Ready, Unloaded, Unloading};

const NEVER: Duration = Duration::from_hours(1);

const ALWAYS: Duration = Duration::from_millis(10);

impl Fixture {
    /// One whose models may take so many bytes together, of which each takes ten, and are lazy.
    fn with_room_for(bytes: u64, models: &[&str]) -> Self {
        let fixture = Self::with(|options| {
            options.terms.memory_budget = bytes;
            options.queue_capacity = many(64);
        });
        fixture.world.put_each(models);
        for model in models {
            fixture.world.weigh(model, 10);
            fixture.world.edit(model, |model| model.settings.lazy = true);
        }
        fixture
    }

    fn is_outdated(&self, model: &str) -> bool {
        let served = self.manager.core.registry.get(model).unwrap().served_last();
        served.is_some_and(|served| served.is_outdated)
    }

    async fn evict(&self) {
        let report = soon(self.manager.evict(u64::MAX)).await;
        assert!(report.verdicts.iter().any(|verdict| verdict.evicted.is_some()), "{report:?}");
    }

    /// Asks, and waits for the model if need be.
    async fn ask_waiting(&self, model: &str) -> Result<u64, LookupError> {
        let any = Wanted::Any { key: None };
        let handle = soon(self.manager.acquire_waiting(model, any, later())).await?;
        Ok(soon(ask(&handle, 1)).await.unwrap())
    }

    /// Begins to ask, beside the test, for the version that answers.
    fn begin_asking(&self, model: &str) -> JoinHandle<Result<Version, LookupError>> {
        let (manager, model) = (self.manager.clone(), model.to_owned());
        tokio::spawn(async move {
            let any = Wanted::Any { key: None };
            manager.acquire_waiting(&model, any, later()).await.map(|handle| handle.id().version)
        })
    }

    async fn change(&self, change: Change) -> crate::model::Ended {
        let begun = self.manager.begin(&name("a"), change, Conditions::default()).unwrap();
        soon(begun.done()).await
    }

    async fn watch_now(&self) {
        self.world.give_hints();
        soon(self.manager.watch(NEVER)).await.unwrap();
    }

    /// Waits until something is the case that no event tells.
    async fn comes_to(&self, is_so: impl Fn(&Self) -> bool) {
        soon(async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn baked(to: u64) -> SwapOptions {
    let limits = Limits::default();
    SwapOptions { bake: Some(Bake { time: NEVER, limits }), ..swap_to(to) }
}

#[tokio::test]
async fn what_was_evicted_comes_back_as_it_was() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture.evict().await;
    assert_eq!(fixture.ask_waiting("a").await, Ok(1), "nobody has asked for the newer one");
    assert_eq!(fixture.load("a").await.unwrap().current, version(2));
    fixture.evict().await;
    fixture.world.edit("a", |model| drop(model.versions.remove(&2)));
    assert_eq!(fixture.ask_waiting("a").await, Ok(1), "what is left");
}

#[tokio::test]
async fn a_bad_version_takes_nothing_away_from_what_was_evicted() {
    let fixture = Fixture::serving_a().await;
    fixture.world.give_hints();
    soon(fixture.manager.watch(NEVER)).await.unwrap();
    fixture.evict().await;
    fixture.world.break_at(Step::Open, "a/2", Fault::Fail);
    fixture.world.put("a", 2, "two");
    let glances = fixture.world.times(Step::Glance, "a");
    fixture.world.hint();
    fixture.world.has_taken(Step::Glance, "a", glances + 1).await;
    fixture.comes_to(|fixture| fixture.is_outdated("a")).await;
    assert_eq!(fixture.ask_waiting("a").await, Ok(1));
    assert!(fixture.report("a").problem.unwrap().contains("a/2"));
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Failed)]);
    fixture.evict().await;
    assert_eq!(fixture.ask_waiting("a").await, Ok(1));
    assert_eq!(fixture.world.times(Step::Open, "a/2"), 1, "it is not tried again and again");
    fixture.evict().await;
    fixture.world.heal();
    fixture.world.put("a", 2, "mended");
    fixture.world.hint();
    fixture.comes_to(|fixture| fixture.is_outdated("a")).await;
    assert_eq!(fixture.ask_waiting("a").await, Ok(2));
}

#[tokio::test]
async fn a_version_that_is_half_there_is_not_loaded_for_a_request() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "half");
    fixture.world.write("a/2", true);
    fixture.evict().await;
    fixture.world.edit("a", |model| drop(model.versions.remove(&1)));
    let asked = fixture.begin_asking("a");
    fixture.world.has_taken(Step::Glance, "a", 3).await;
    assert!(!asked.is_finished(), "it waits until it is whole");
    fixture.world.write("a/2", false);
    assert_eq!(soon(asked).await.unwrap(), Ok(version(2)));
    assert_eq!(fixture.world.times(Step::Open, "a/2"), 1);
}

#[tokio::test]
async fn a_version_that_was_taken_back_does_not_come_back_by_itself() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    let swap = Change::Swap(baked(2));
    let trial = fixture.manager.begin(&name("a"), swap, Conditions::default()).unwrap();
    fixture.reaches("a", &[(1, Ready), (2, Ready)]).await;
    fixture.comes_to(|fixture| fixture.report("a").current == Some(version(2))).await;
    // So it is also where the process ends now.
    let chosen = fixture.manager.desired().models[&name("a")].intent.chosen.unwrap();
    assert_eq!((chosen.version, chosen.newest), (version(1), version(2)));
    trial.cancel().unwrap();
    soon(trial.done()).await.unwrap_err();
    assert_eq!(fixture.load("a").await.unwrap().current, version(1));
    fixture.evict().await;
    assert_eq!(fixture.ask_waiting("a").await, Ok(1));
    fixture.world.put("a", 3, "three");
    assert_eq!(fixture.load("a").await.unwrap().current, version(3));
}

#[tokio::test]
async fn a_trial_is_not_ended_by_who_knows_the_model_otherwise() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    let swap = Change::Swap(baked(2));
    let trial = fixture.manager.begin(&name("a"), swap, Conditions::default()).unwrap();
    fixture.comes_to(|fixture| fixture.report("a").current == Some(version(2))).await;
    let back = |generation| {
        let conditions = Conditions { generation: Some(generation), ..Conditions::default() };
        let change = Change::Rollback(RollbackOptions::default());
        fixture.manager.begin(&name("a"), change, conditions).unwrap()
    };
    let known = fixture.report("a").generation;
    let refused = soon(back(known + 1).done()).await.unwrap_err();
    assert!(matches!(*refused, ChangeError::Generation { .. }), "{refused:?}");
    assert!(trial.report().end.is_none());
    soon(back(known).done()).await.unwrap();
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn requests_wait_for_room_that_is_about_to_come() {
    let fixture = Fixture::with_room_for(10, &["a", "b"]);
    fixture.load("a").await.unwrap();
    fixture.manager.load_all().await.unwrap();
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    let waiting = fixture.begin_asking("b");
    fixture.world.has_taken(Step::Digest, "b/1", 1).await;
    tokio::time::sleep(BRIEF * 5).await;
    assert!(!waiting.is_finished() && fixture.states("a") == [(1, Ready)]);
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    soon(waiting).await.unwrap().unwrap();
    assert_eq!(fixture.world.times(Step::Digest, "b/1"), 2, "loaded once");
    assert_eq!(fixture.states("a"), [(1, Unloaded)]);
}

#[tokio::test]
async fn who_can_never_go_is_not_waited_for() {
    let fixture = Fixture::with_room_for(10, &["a", "b"]);
    fixture.world.edit("a", |model| model.settings.pin = true);
    fixture.load("a").await.unwrap();
    let refused = fixture.load("b").await.unwrap_err();
    assert!(causes(&refused).contains("10 of 10 are taken"), "{}", causes(&refused));
    let refused = fixture.ask_waiting("b").await.unwrap_err();
    assert!(matches!(refused, LookupError::NotServing { .. }), "{refused:?}");
}

#[tokio::test]
async fn no_request_is_lost_where_models_take_turns_in_too_little_room() {
    let fixture = Arc::new(Fixture::with_room_for(20, &["a", "b", "c", "d"]));
    fixture.manager.load_all().await.unwrap();
    let asked = (0..400_usize).map(|turn| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let model = ["a", "b", "c", "d"][turn % 4];
            tokio::time::sleep(Duration::from_millis(u64::try_from(turn).unwrap())).await;
            fixture.ask_waiting(model).await
        })
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), Ok(1));
    }
    assert!(fixture.manager.eviction(0).used <= 20);
}

#[tokio::test]
async fn a_model_that_comes_back_while_it_drains_is_loaded_again() {
    let fixture = Fixture::serving_a().await;
    fixture.world.give_hints();
    soon(fixture.manager.watch(NEVER)).await.unwrap();
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    fixture.world.remove("a");
    fixture.world.hint();
    fixture.comes_to(|fixture| fixture.report("a").current.is_none()).await;
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    tokio::time::sleep(Duration::from_secs(1)).await;
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    fixture.comes_to(|fixture| fixture.report("a").current == Some(version(2))).await;
}

fn declared(model: &str, alias: u64) -> DesiredState {
    let aliases = [("stable".parse().unwrap(), version(alias))].into();
    let intent = Intent { aliases, ..Intent::default() };
    let desire = crate::model::Desire::Loaded;
    let declared = DesiredModel { desire, intent, ..DesiredModel::default() };
    DesiredState { models: [(name(model), declared)].into() }
}

impl Fixture {
    /// Declares what cannot be.
    async fn declare_in_vain(&self, model: &str) {
        for (_, operation) in self.manager.declare(&declared(model, 7)).await.unwrap() {
            soon(operation.done()).await.unwrap_err();
        }
    }

    fn failures(&self) -> Vec<u32> {
        self.manager.unmet().iter().map(|unmet| unmet.failures).collect()
    }
}

#[tokio::test]
async fn what_is_declared_outlasts_that_the_model_is_gone_for_a_while() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    soon(fixture.manager.follow(ALWAYS)).await.unwrap();
    fixture.declare_in_vain("a").await;
    fixture.world.remove("a");
    fixture.reaches("a", &[(1, Unloaded)]).await;
    let gone: fn(&Arc<Operation>) -> bool = |operation| operation.report().end.is_none();
    fixture.comes_to(|fixture| !fixture.manager.operations().iter().any(gone)).await;
    let kept = &fixture.manager.desired().models[&name("a")];
    assert_eq!(kept.target().intent, declared("a", 7).models[&name("a")].intent);
}

#[tokio::test]
async fn an_operators_own_failure_does_not_put_off_what_is_declared() {
    let fixture = Fixture::serving_a().await;
    fixture.declare_in_vain("a").await;
    assert_eq!(fixture.failures(), [1]);
    for _ in 0..5 {
        fixture.change(Change::Swap(swap_to(9))).await.unwrap_err();
    }
    assert_eq!(fixture.failures(), [1]);
    fixture.world.put("a", 7, "seven");
    fixture.load("a").await.unwrap();
    assert!(fixture.failures().is_empty());
}

#[tokio::test]
async fn no_attempt_waits_for_another_model() {
    let fixture = Fixture::with(|options| options.terms.reconcile_interval = ALWAYS);
    fixture.world.put_each(&["a", "b"]);
    let door = fixture.world.door(Step::Open, "a/1");
    for model in ["a", "b"] {
        fixture.world.break_at(Step::Fetch, &format!("{model}/1"), Fault::Fail);
    }
    let mut wanted = declared("a", 1);
    wanted.models.extend(declared("b", 1).models);
    for (_, operation) in fixture.manager.declare(&wanted).await.unwrap() {
        soon(operation.done()).await.unwrap_err();
    }
    fixture.world.mend(Step::Fetch, "a/1");
    fixture.manager.start_reconciling();
    door.has_waiting(1).await;
    let before = fixture.world.times(Step::Fetch, "b/1");
    fixture.world.has_taken(Step::Fetch, "b/1", before + 2).await;
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1);
    door.open();
    fixture.comes_to(|fixture| fixture.failures().len() == 1).await;
}

#[tokio::test]
async fn what_was_declared_and_never_was_is_forgotten_with_its_declaration() {
    let fixture = Fixture::new();
    fixture.declare_in_vain("ghost").await;
    assert!(fixture.manager.report("ghost").is_some(), "it is still tried");
    let nothing = DesiredState { models: [].into() };
    for (_, operation) in fixture.manager.declare(&nothing).await.unwrap() {
        soon(operation.done()).await.unwrap();
    }
    assert!(fixture.manager.report("ghost").is_none());
    assert!(fixture.manager.desired().models.is_empty());
}

#[tokio::test]
async fn copies_keep_nothing_from_its_end() {
    for shuts_down in [false, true] {
        let fixture = Fixture::serving_a().await;
        fixture.world.put("a", 2, "two");
        fixture
            .swap_with("a", SwapOptions { keep_previous: Some(Keep::Always), ..swap_to(2) })
            .await
            .unwrap();
        fixture
            .swap_with("a", SwapOptions { keep_previous: Some(Keep::Always), ..swap_to(1) })
            .await
            .unwrap();
        let shadow = RoutingChange::SetShadow(VersionRef::Number(version(2)), 10_000);
        fixture.change(Change::Route(shadow)).await.unwrap();
        let door = fixture.world.door(Step::Run, "a/2");
        assert_eq!(fixture.answers("a").await, 1);
        door.has_waiting(1).await;
        let leaving = {
            let manager = fixture.manager.clone();
            tokio::spawn(async move {
                if shuts_down {
                    manager.shutdown(Deadline::after(NEVER)).await;
                } else {
                    manager.unload(&name("a")).await.unwrap();
                }
            })
        };
        // Only the engine is waited for, which cannot be interrupted.
        fixture.comes_to(|fixture| fixture.states("a").contains(&(2, Unloading))).await;
        door.open();
        soon(leaving).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_server_does_by_itself_leaves_the_operations_of_callers_in_memory() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    let swap = Change::Swap(swap_to(2));
    let asked_for = fixture.manager.begin(&name("a"), swap, Conditions::default()).unwrap();
    soon(asked_for.done()).await.unwrap();
    for _ in 0..300 {
        fixture.evict().await;
        assert_eq!(fixture.ask_waiting("a").await, Ok(2));
    }
    assert!(fixture.manager.operation(asked_for.id()).is_some());
    assert!(fixture.manager.operations().len() < 300);
}

#[tokio::test]
async fn to_keep_a_version_for_no_time_is_not_to_keep_it() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    let zero = SwapOptions { keep_previous: Some(Keep::For(Duration::ZERO)), ..swap_to(2) };
    let report = fixture.swap_with("a", zero).await.unwrap();
    assert!(!report.kept && report.kept_until.is_none() && report.drained);
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Ready)]);
}

#[tokio::test]
async fn the_end_of_a_parking_stands_against_no_swap() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    let moment = Some(Keep::For(Duration::from_millis(1)));
    for turn in 0..200_u64 {
        let to = swap_to(2 - turn % 2);
        let report = fixture.swap_with("a", SwapOptions { keep_previous: moment, ..to }).await;
        assert!(report.is_ok(), "{turn}: {report:?}");
    }
}

#[tokio::test]
async fn what_was_evicted_and_touched_comes_back_and_no_other() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    assert_eq!(fixture.load("a").await.unwrap().current, version(2));
    fixture.evict().await;
    // Its files are those that it had, whoever has touched them.
    fixture.world.write("a/2", true);
    assert_eq!(fixture.ask_waiting("a").await, Ok(2));
    fixture.evict().await;
    // Now they are not, and it is waited for.
    fixture.world.put("a", 2, "half");
    let asked = fixture.begin_asking("a");
    let glances = fixture.world.times(Step::Glance, "a");
    fixture.world.has_taken(Step::Glance, "a", glances + 2).await;
    assert!(!asked.is_finished());
    fixture.world.write("a/2", false);
    assert_eq!(soon(asked).await.unwrap(), Ok(version(2)));
}

#[tokio::test]
async fn what_comes_back_is_what_callers_can_call() {
    let fixture = Fixture::serving_a().await;
    fixture.world.give_hints();
    soon(fixture.manager.watch(NEVER)).await.unwrap();
    fixture.evict().await;
    fixture.world.put("a", 2, "two");
    fixture.world.edit("a", |model| model.signature.inputs[0].datatype = DataType::Fp32);
    fixture.world.hint();
    fixture.comes_to(|fixture| fixture.is_outdated("a")).await;
    let refused = fixture.ask_waiting("a").await;
    assert!(fixture.report("a").problem.unwrap().contains("cannot take the place of version 1"));
    // The fake has one signature for all versions, so that the old one is refused as well.
    assert!(matches!(refused, Err(LookupError::NotServing { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_said_of_a_model_and_cannot_be_read_takes_nothing_away() {
    let fixture = Fixture::serving_a().await;
    fixture.evict().await;
    fixture.world.break_at(Step::Settings, "a", Fault::Fail);
    assert_eq!(fixture.ask_waiting("a").await, Ok(1));
    let warnings = fixture.report("a").warnings;
    assert!(warnings[0].contains("Settings of a fails"), "{warnings:?}");
}

#[tokio::test]
async fn what_could_not_come_back_is_not_evicted() {
    let fixture = Fixture::serving_a().await;
    fixture.world.edit("a", |model| drop(model.versions.remove(&1)));
    for _ in 0..2 {
        soon(fixture.manager.evict(u64::MAX)).await;
        assert_eq!(fixture.answers("a").await, 1);
    }
    let verdicts = fixture.manager.eviction(u64::MAX).verdicts;
    assert_eq!(verdicts[0].resident.spared.as_deref(), Some("its files are gone"));
    fixture.world.put("a", 1, "one");
    fixture.manager.start_clean_up(ALWAYS);
    fixture
        .comes_to(|fixture| fixture.manager.eviction(0).verdicts[0].resident.spared.is_none())
        .await;
}

#[tokio::test]
async fn who_makes_room_does_not_wait_for_a_change_of_another() {
    let fixture = Fixture::serving_a().await;
    let verdict = fixture.manager.eviction(u64::MAX).verdicts.remove(0);
    fixture.world.put("a", 1, "anew");
    let door = fixture.world.door(Step::Open, "a/1");
    let change = fixture.manager.begin_load(&name("a"), By::Follower).unwrap();
    door.has_waiting(1).await;
    assert!(!soon(fixture.manager.core.evict_aside(&verdict)).await);
    door.open();
    soon(change.done()).await.unwrap();
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn a_start_with_a_bad_version_serves_the_one_before() {
    for follows in [false, true] {
        let fixture = Fixture::new();
        fixture.world.put("a", 1, "one");
        fixture.world.put("a", 2, "two");
        fixture.world.break_at(Step::Open, "a/2", Fault::Fail);
        if follows {
            fixture.watch_now().await;
        } else {
            soon(fixture.manager.load_all()).await.unwrap();
        }
        assert_eq!(fixture.answers("a").await, 1);
        assert!(fixture.report("a").problem.unwrap().contains("a/2"));
        // An operator gets what he asks for, or why not.
        fixture.load("a").await.unwrap_err();
        assert_eq!(fixture.answers("a").await, 1);
    }
}

#[tokio::test]
async fn what_could_not_be_read_for_the_moment_takes_its_place_later() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.put("a", 2, "two");
    fixture.world.break_at(Step::Fetch, "a/2", Fault::Io);
    soon(fixture.manager.follow(ALWAYS)).await.unwrap();
    assert_eq!(fixture.answers("a").await, 1);
    fixture.world.heal();
    fixture.comes_to(|fixture| fixture.report("a").current == Some(version(2))).await;
}

#[tokio::test]
async fn what_somebody_writes_is_not_loaded_by_a_declaration_of_something_else() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "half");
    fixture.world.write("a/2", true);
    for (_, operation) in fixture.manager.declare(&declared("a", 1)).await.unwrap() {
        soon(operation.done()).await.unwrap();
    }
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(fixture.world.times(Step::Open, "a/2"), 0);
    assert!(fixture.manager.acquire("a", Wanted::Alias(&"stable".parse().unwrap())).is_ok());
}

#[tokio::test]
async fn what_is_declared_is_tried_again_only_with_what_is_whole() {
    let fixture = Fixture::with(|options| options.terms.reconcile_interval = ALWAYS);
    for (_, operation) in fixture.manager.declare(&declared("a", 1)).await.unwrap() {
        soon(operation.done()).await.unwrap_err();
    }
    fixture.world.put("a", 1, "half");
    fixture.world.write("a/1", true);
    fixture.manager.start_reconciling();
    fixture.world.has_taken(Step::Glance, "a", 3).await;
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 0);
    fixture.world.write("a/1", false);
    fixture.comes_to(|fixture| fixture.manager.unmet().is_empty()).await;
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn a_model_that_comes_becomes_what_was_declared_of_it_at_once() {
    let fixture = Fixture::new();
    fixture.watch_now().await;
    for (_, operation) in fixture.manager.declare(&declared("a", 1)).await.unwrap() {
        soon(operation.done()).await.unwrap_err();
    }
    fixture.world.put("a", 1, "one");
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    fixture.comes_to(|fixture| fixture.manager.unmet().is_empty()).await;
    assert!(fixture.manager.acquire("a", Wanted::Alias(&"stable".parse().unwrap())).is_ok());
}

#[tokio::test]
async fn a_model_that_is_gone_is_forgotten_once_nothing_is_left_of_it() {
    let fixture = Fixture::with(|options| options.terms.reconcile_interval = ALWAYS);
    fixture.world.put_each(&["a", "b"]);
    soon(fixture.manager.follow(ALWAYS)).await.unwrap();
    fixture.manager.start_reconciling();
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    fixture.world.remove("a");
    fixture.world.remove("b");
    fixture.comes_to(|fixture| fixture.manager.report("b").is_none()).await;
    assert!(fixture.manager.report("a").is_some(), "a request is still inside");
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    fixture.comes_to(|fixture| fixture.manager.report("a").is_none()).await;
    assert!(matches!(fixture.refusal("a", None), LookupError::UnknownModel(_)));
    fixture.world.put("a", 1, "one");
    fixture.comes_to(|fixture| fixture.manager.acquire("a", None).is_ok()).await;
}

#[tokio::test]
async fn a_load_that_requests_wait_for_is_held_up_by_no_other() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b", "c"]);
    fixture.world.edit("c", |model| model.settings.lazy = true);
    let doors = ["a/1", "b/1"].map(|place| fixture.world.door(Step::Open, place));
    let loads = ["a", "b"].map(|model| fixture.begin_load(model));
    for door in &doors {
        door.has_waiting(1).await;
    }
    fixture.manager.core.registry.entry(&name("c")).load_on_demand(true);
    assert_eq!(fixture.ask_waiting("c").await, Ok(1));
    for door in doors {
        door.open();
    }
    for load in loads {
        soon(load).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn operators_wait_for_what_the_server_does_by_itself() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture.evict().await;
    let door = fixture.world.door(Step::Open, "a/1");
    let asked = fixture.begin_asking("a");
    door.has_waiting(1).await;
    let swap = fixture.begin_swap("a", swap_to(2));
    tokio::time::sleep(BRIEF).await;
    assert!(!swap.is_finished());
    door.open();
    soon(asked).await.unwrap().unwrap();
    assert_eq!(soon(swap).await.unwrap().unwrap().to, version(2));
}
