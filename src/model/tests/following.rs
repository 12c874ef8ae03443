//! A repository that is followed.

use super::fakes::{Fault, Step};
use super::*;
use crate::lifecycle::Deadline;
use crate::model::{Change, Conditions, Operation, OperationKind, RoutingChange};
use StateKind::{Failed, Ready, Unloaded};

/// So long that nothing happens by the clock.
const NEVER: Duration = Duration::from_hours(1);

/// So short that a round is always about to come.
const ALWAYS: Duration = Duration::from_millis(10);

impl Fixture {
    /// One whose repository has version 1 of these models and is watched.
    async fn watching(models: &[&str]) -> Self {
        let fixture = Self::new();
        fixture.world.put_each(models);
        fixture.watch().await;
        fixture
    }

    async fn watch(&self) {
        self.world.give_hints();
        soon(self.manager.watch(NEVER)).await.unwrap();
    }

    /// Waits until a version answers.
    #[track_caller]
    fn is_answered_by(&self, model: &str, number: u64) -> impl Future<Output = ()> {
        let current = move || self.manager.report(model).and_then(|report| report.current);
        let mut events = self.events.subscribe();
        soon(async move {
            while current() != Some(version(number)) {
                events.recv().await.unwrap();
            }
        })
    }

    /// Lets all models take a turn that sees what is the case now.
    async fn has_looked(&self) {
        let marker = format!("marker{}", self.world.times(Step::List, ""));
        self.world.put(&marker, 1, "one");
        self.world.hint();
        self.is_answered_by(&marker, 1).await;
    }

    /// Waits until so many operations of a kind have ended; the last of them.
    async fn has_ended(&self, kind: OperationKind, count: usize) -> Arc<Operation> {
        let ended = |operation: &Arc<Operation>| {
            let report = operation.report();
            report.kind == kind && report.end.is_some()
        };
        soon(async {
            loop {
                let operations = self.manager.operations().into_iter();
                match operations.filter(ended).nth(count - 1) {
                    Some(operation) => return operation,
                    None => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }

    fn opened(&self, place: &str) -> usize {
        self.world.times(Step::Open, place)
    }
}

#[tokio::test]
async fn what_comes_changes_and_goes_is_followed() {
    let fixture = Fixture::watching(&["a"]).await;
    assert_eq!(fixture.answers("a").await, 1);
    fixture.world.put("a", 2, "two");
    fixture.world.put("b", 1, "one");
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
    fixture.is_answered_by("b", 1).await;
    fixture.world.remove("b");
    fixture.world.hint();
    fixture.reaches("b", &[(1, Unloaded)]).await;
    fixture.world.put("b", 3, "three");
    fixture.world.hint();
    fixture.is_answered_by("b", 3).await;
}

#[tokio::test]
async fn without_hints_a_repository_is_followed_by_the_clock() {
    for gives_hints in [false, true] {
        let fixture = Fixture::new();
        fixture.world.put("a", 1, "one");
        if gives_hints {
            soon(fixture.manager.watch(ALWAYS)).await.unwrap();
        } else {
            soon(fixture.manager.follow(ALWAYS)).await.unwrap();
        }
        fixture.world.put("a", 2, "two");
        fixture.is_answered_by("a", 2).await;
    }
}

#[tokio::test]
async fn no_model_waits_for_the_load_of_another() {
    let fixture = Fixture::watching(&["a", "b"]).await;
    let door = fixture.world.door(Step::Open, "a/2");
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    door.has_waiting(1).await;
    for number in 2..5 {
        fixture.world.put("b", number, "another");
        fixture.world.hint();
        fixture.is_answered_by("b", number).await;
    }
    // What is under way is not begun a second time; what came meanwhile is seen afterwards.
    fixture.world.put("a", 3, "three");
    fixture.has_looked().await;
    assert_eq!((fixture.opened("a/2"), fixture.opened("a/3")), (1, 0));
    assert_eq!(fixture.answers("a").await, 1);
    door.open();
    fixture.is_answered_by("a", 3).await;
    assert_eq!(fixture.opened("a/2"), 1);
}

#[tokio::test]
async fn no_model_waits_for_a_glance_at_another() {
    let fixture = Fixture::watching(&["a", "b"]).await;
    let door = fixture.world.door(Step::Glance, "a");
    fixture.world.hint();
    door.has_waiting(1).await;
    fixture.world.put("b", 2, "two");
    fixture.world.hint();
    fixture.is_answered_by("b", 2).await;
    door.open();
}

#[tokio::test]
async fn what_fails_and_is_unchanged_is_not_tried_again() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.world.break_at(Step::Open, "a/2", Fault::Fail);
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    fixture.reaches("a", &[(1, Ready), (2, Failed)]).await;
    for _ in 0..3 {
        fixture.has_looked().await;
    }
    assert_eq!(fixture.opened("a/2"), 1);
    assert!(fixture.report("a").problem.unwrap().contains("a/2"));
    fixture.world.heal();
    fixture.world.put("a", 2, "mended");
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
    assert_eq!(fixture.report("a").problem, None);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_by_the_clock() {
    let fixture = Fixture::new();
    fixture.world.break_at(Step::Fetch, "a/1", Fault::Io);
    fixture.world.put("a", 1, "one");
    soon(fixture.manager.follow(ALWAYS)).await.unwrap();
    fixture.world.has_taken(Step::Fetch, "a/1", 3).await;
    fixture.world.heal();
    fixture.is_answered_by("a", 1).await;
}

#[tokio::test]
async fn what_cannot_be_glanced_at_is_told_once() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.world.break_at(Step::Glance, "a", Fault::Fail);
    fixture.world.break_at(Step::Settings, "a", Fault::Fail);
    let before = fixture.world.times(Step::Settings, "a");
    fixture.world.hint();
    fixture.has_ended(OperationKind::Load, 2).await;
    for _ in 0..3 {
        fixture.has_looked().await;
    }
    assert_eq!(fixture.world.times(Step::Settings, "a"), before + 1);
    assert!(fixture.report("a").problem.unwrap().contains("Settings of a fails"));
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn what_is_being_written_is_loaded_once_it_is_not() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.world.write("a", true);
    fixture.world.put("a", 2, "half");
    fixture.has_looked().await;
    let glances = fixture.world.times(Step::Glance, "a");
    // It is looked at without a hint.
    fixture.world.has_taken(Step::Glance, "a", glances + 2).await;
    assert_eq!(fixture.opened("a/2"), 0);
    fixture.world.put("a", 2, "whole");
    fixture.world.write("a", false);
    fixture.is_answered_by("a", 2).await;
    assert_eq!(fixture.opened("a/2"), 1);
}

#[tokio::test]
async fn a_version_that_is_being_written_hides_no_other() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.edit("a", |model| {
        model.settings.version_policy = VersionPolicy::Specific(vec![version(1)]);
    });
    fixture.world.put("a", 3, "half");
    fixture.world.write("a/3", true);
    // The start waits for no more than what is there.
    fixture.watch().await;
    assert_eq!(fixture.answers("a").await, 1);
    let glances = fixture.world.times(Step::Glance, "a");
    // It is looked at without a hint.
    fixture.world.has_taken(Step::Glance, "a", glances + 2).await;
    fixture.world.put("a", 2, "two");
    fixture.world.edit("a", |model| {
        model.settings.version_policy = VersionPolicy::Specific(vec![version(2)]);
    });
    fixture.is_answered_by("a", 2).await;
    fixture.world.edit("a", |model| model.settings.version_policy = VersionPolicy::default());
    fixture.world.write("a/3", false);
    fixture.is_answered_by("a", 3).await;
    assert_eq!(fixture.opened("a/3"), 1);
}

#[tokio::test]
async fn the_start_waits_for_what_is_being_written() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b"]);
    fixture.world.write("a", true);
    let manager = fixture.manager.clone();
    let started = tokio::spawn(async move { manager.follow(ALWAYS).await });
    fixture.is_answered_by("b", 1).await;
    fixture.world.has_taken(Step::Glance, "a", 3).await;
    assert!(!started.is_finished());
    fixture.world.write("a", false);
    soon(started).await.unwrap().unwrap();
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn a_model_that_was_only_replaced_is_not_unloaded() {
    let fixture = Fixture::watching(&["a"]).await;
    let glances = fixture.world.times(Step::Glance, "a");
    fixture.world.remove("a");
    fixture.world.hint();
    fixture.world.has_taken(Step::Glance, "a", glances + 1).await;
    fixture.world.put("a", 2, "other");
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
    let story = fixture.story("a");
    assert!(!story.contains(&"current 1>-".to_owned()), "{story:?}");
}

#[tokio::test]
async fn a_model_that_is_gone_is_kept_as_long_as_it_is_leased() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    soon(fixture.manager.follow(ALWAYS)).await.unwrap();
    let lease = fixture.manager.lease(&name("a"), "job", NEVER).unwrap();
    fixture.world.remove("a");
    let refused = fixture.has_ended(OperationKind::Unload, 1).await.done().await.unwrap_err();
    assert!(matches!(*refused, ChangeError::Leased { .. }), "{refused}");
    assert_eq!(fixture.answers("a").await, 1);
    fixture.manager.end_lease(&name("a"), &lease.id).unwrap();
    fixture.reaches("a", &[(1, Unloaded)]).await;
}

#[tokio::test]
async fn what_an_operator_has_unloaded_stays_so_until_it_comes_anew() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.unload("a").await.unwrap();
    fixture.world.put("a", 2, "two");
    fixture.has_looked().await;
    assert_eq!(fixture.opened("a/2"), 0);
    fixture.world.remove("a");
    fixture.world.hint();
    fixture.has_ended(OperationKind::Unload, 2).await;
    fixture.has_looked().await;
    fixture.world.put("a", 3, "three");
    fixture.world.hint();
    fixture.is_answered_by("a", 3).await;
}

#[tokio::test]
async fn what_is_lazy_waits_for_its_first_request() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b"]);
    fixture.world.edit("a", |model| model.settings.lazy = true);
    fixture.watch().await;
    assert_eq!((fixture.opened("a/1"), fixture.opened("b/1")), (0, 1));
    fixture.world.put("a", 2, "two");
    fixture.has_looked().await;
    assert_eq!(fixture.opened("a/2"), 0);
    let wanted = None::<Version>.into();
    let handle = soon(fixture.manager.acquire_waiting("a", wanted, later())).await.unwrap();
    assert_eq!(soon(ask(&handle, 1)).await.unwrap(), 2);
    drop(handle);
    // Once it serves, it is followed like any other.
    fixture.world.put("a", 3, "three");
    fixture.world.hint();
    fixture.is_answered_by("a", 3).await;
}

#[tokio::test]
async fn a_version_that_goes_while_it_serves_gives_way_to_what_the_policy_selects() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.put("a", 2, "two");
    fixture.watch().await;
    assert_eq!(fixture.answers("a").await, 2);
    let door = fixture.world.door(Step::Run, "a/2");
    let inside = fixture.begin_stuck("a", &door).await;
    let gone = |number: u64| fixture.world.edit("a", |model| drop(model.versions.remove(&number)));
    gone(2);
    fixture.world.hint();
    fixture.is_answered_by("a", 1).await;
    door.open();
    assert_eq!(soon(inside).await.unwrap().unwrap(), 2, "who was inside is answered");
    fixture.reaches("a", &[(1, Ready), (2, Unloaded)]).await;
    // With the last of them, there is nothing that could take its place.
    gone(1);
    fixture.world.hint();
    fixture.has_ended(OperationKind::Load, 3).await;
    assert_eq!(fixture.answers("a").await, 1);
    assert!(fixture.report("a").problem.unwrap().contains("no version to serve"));
}

#[tokio::test]
async fn a_choice_of_a_version_that_is_gone_is_passed_over_until_it_is_back() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.watch().await;
    fixture.world.edit("a", |model| {
        model.settings.version_policy = VersionPolicy::Specific(vec![version(1)]);
        model.versions.insert(2, "two".to_owned());
    });
    fixture.world.hint();
    fixture.has_ended(OperationKind::Load, 2).await;
    fixture.swap("a", 2).await.unwrap();
    fixture.world.edit("a", |model| drop(model.versions.remove(&2)));
    fixture.world.hint();
    fixture.is_answered_by("a", 1).await;
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
}

#[tokio::test]
async fn a_version_that_is_gone_and_named_serves_on() {
    let fixture = Fixture::watching(&["a"]).await;
    let alias = RoutingChange::SetAlias("stable".parse().unwrap(), VersionRef::Number(version(1)));
    let change = Change::Route(alias);
    let named = fixture.manager.begin(&name("a"), change, Conditions::default()).unwrap();
    soon(named.done()).await.unwrap();
    fixture.world.edit("a", |model| {
        model.versions.remove(&1);
        model.versions.insert(2, "two".to_owned());
    });
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
    assert_eq!(fixture.answers_for("a", 1).await, 1);
    let stable = "stable".parse().unwrap();
    drop(fixture.manager.acquire("a", crate::model::Wanted::Alias(&stable)).unwrap());
}

#[tokio::test]
async fn a_storm_of_hints_is_a_few_looks() {
    let fixture = Fixture::watching(&["a"]).await;
    let (lists, glances) =
        (fixture.world.times(Step::List, ""), fixture.world.times(Step::Glance, "a"));
    let started = Instant::now();
    for count in 0..100_000_u32 {
        fixture.world.hint();
        if count % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    fixture.has_looked().await;
    // One for each half of a second, and a few around them.
    let most = usize::try_from(started.elapsed().as_millis() / 500).unwrap() + 5;
    assert!(fixture.world.times(Step::List, "") - lists <= most);
    assert!(fixture.world.times(Step::Glance, "a") - glances <= most);
}

#[tokio::test]
async fn hints_that_have_ended_are_asked_for_again() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.world.put("a", 2, "two");
    fixture.world.end_hints();
    fixture.is_answered_by("a", 2).await;
    fixture.has_looked().await;
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_changes_nothing() {
    let fixture = Fixture::watching(&["a"]).await;
    fixture.world.break_at(Step::List, "", Fault::Fail);
    let lists = fixture.world.times(Step::List, "");
    fixture.world.put("a", 2, "two");
    fixture.world.hint();
    fixture.world.has_taken(Step::List, "", lists + 1).await;
    assert_eq!(fixture.answers("a").await, 1);
    fixture.world.heal();
    fixture.world.hint();
    fixture.is_answered_by("a", 2).await;
    let unreadable = Fixture::new();
    unreadable.world.break_at(Step::List, "", Fault::Fail);
    let refused = soon(unreadable.manager.follow(NEVER)).await.unwrap_err();
    assert!(matches!(*refused, ChangeError::Repository(_)));
}

#[tokio::test]
async fn the_end_of_the_server_is_the_end_of_following() {
    let fixture = Fixture::watching(&["a", "b"]).await;
    let door = fixture.world.door(Step::Glance, "a");
    fixture.world.hint();
    door.has_waiting(1).await;
    fixture.world.put("b", 2, "two");
    let left = soon(fixture.manager.shutdown(Deadline::after(NEVER))).await;
    assert_eq!(left, []);
    let lists = fixture.world.times(Step::List, "");
    fixture.world.hint();
    tokio::task::yield_now().await;
    assert_eq!(fixture.world.times(Step::List, ""), lists);
    door.open();
}

#[tokio::test]
async fn a_start_that_is_given_up_ends() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    let door = fixture.world.door(Step::Open, "a/1");
    let manager = fixture.manager.clone();
    let started = tokio::spawn(async move { manager.follow(NEVER).await });
    door.has_waiting(1).await;
    fixture.manager.refuse_changes();
    soon(started).await.unwrap().unwrap();
    door.open();
}
