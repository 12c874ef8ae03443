//! Loads that fail: what served still serves, the cause is told, nothing is leaked.

use super::fakes::{Fault, Step};
use super::*;
use StateKind::{Failed, Fetching, Loading, Ready, Verifying, Warming};

/// Breaks version 2 of a model that serves version 1.
async fn fails(step: Step, fault: Fault, phase: StateKind) {
    let fixture = Fixture::with(|options| options.instances = many(2));
    fixture.world.put("a", 1, "one");
    fixture.load("a").await.unwrap();
    fixture.world.put("a", 2, "two");
    fixture.world.break_at(step, "a/2", fault);
    let error = causes(&fixture.load("a").await.unwrap_err());
    let cause = match fault {
        Fault::Panic => format!("loading it panicked: {step:?} of a/2 panics"),
        Fault::Fail | Fault::Io | Fault::Mute | Fault::Divide => format!("{step:?} of a/2 fails"),
    };
    assert!(error.contains("failed to load 'a/2'") && error.contains(&cause), "{error}");
    let failed = fixture.version("a", 2);
    assert_eq!(failed.state, Failed);
    assert!(failed.reason.contains(&cause), "{}", failed.reason);
    assert_eq!(failed.phases.last().unwrap().0, phase);
    assert_eq!(failed.load_duration(), None);
    assert_eq!(fixture.version("a", 1).state, Ready);
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(fixture.report("a").problem.as_deref(), Some(error.as_str()));
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (2, 1));
    fixture.world.heal();
    fixture.load("a").await.unwrap();
    assert_eq!((fixture.answers("a").await, fixture.report("a").problem), (2, None));
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_old_version_serving() {
    fails(Step::Fetch, Fault::Fail, Fetching).await;
    fails(Step::Digest, Fault::Fail, Verifying).await;
    fails(Step::Open, Fault::Fail, Loading).await;
    fails(Step::Instantiate, Fault::Fail, Loading).await;
    fails(Step::Run, Fault::Fail, Warming).await;
}

#[tokio::test]
async fn a_step_that_panics_leaves_the_old_version_serving() {
    fails(Step::Fetch, Fault::Panic, Fetching).await;
    fails(Step::Digest, Fault::Panic, Verifying).await;
    fails(Step::Open, Fault::Panic, Loading).await;
    fails(Step::Instantiate, Fault::Panic, Loading).await;
    fails(Step::Run, Fault::Panic, Warming).await;
}

#[tokio::test]
async fn a_model_that_never_served_tells_why() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.break_at(Step::Run, "a/1", Fault::Fail);
    fixture.load("a").await.unwrap_err();
    for number in [None, Some(1)] {
        let LookupError::NotServing { state, reason, .. } = fixture.refusal("a", number) else {
            panic!("the model is known");
        };
        assert_eq!(state, Failed);
        assert!(reason.contains("Run of a/1 fails") && reason.contains("warm_up"), "{reason}");
    }
    assert_eq!((fixture.world.instances(), fixture.world.released()), (0, 1));
    assert_eq!(fixture.report("a").current, None);
}

#[tokio::test]
async fn an_unchanged_version_is_loaded_anew_beside_the_old_when_it_cannot_be_read() {
    let fixture = Fixture::serving_a().await;
    fixture.world.break_at(Step::Digest, "a/1", Fault::Panic);
    fixture.load("a").await.unwrap_err();
    assert_eq!(fixture.states("a"), [(1, Ready), (1, Failed)]);
    assert_eq!(fixture.answers_for("a", 1).await, 1);
    let index = soon(fixture.manager.index()).await.unwrap();
    assert_eq!(index.len(), 1);
    assert_eq!(index[0].version, Some((version(1), Ready)));
}

#[tokio::test]
async fn several_versions_are_loaded_all_or_none() {
    let fixture = Fixture::with(|options| options.load_threads = many(1));
    (1..=3).for_each(|number| fixture.world.put("a", number, "x"));
    fixture.world.edit("a", |a| a.settings.version_policy = VersionPolicy::All);
    fixture.world.break_at(Step::Open, "a/2", Fault::Fail);
    let error = fixture.load("a").await.unwrap_err();
    assert!(causes(&error).contains("Open of a/2 fails"));
    assert_eq!(fixture.states("a"), [(1, Failed), (2, Failed), (3, Failed)]);
    assert_eq!(fixture.version("a", 3).reason, "another version of the same load failed");
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    assert_eq!(fixture.world.released(), 3);
    fixture.world.heal();
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready), (3, Ready)]);
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_the_models_problem() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    for (fault, cause) in [(Fault::Fail, "Settings of a fails"), (Fault::Panic, "panics")] {
        fixture.world.break_at(Step::Settings, "a", fault);
        let error = fixture.load("a").await.unwrap_err();
        assert!(causes(&error).contains(cause), "{}", causes(&error));
        let report = fixture.report("a");
        assert!(report.problem.unwrap().contains(cause));
        assert!(report.versions.is_empty());
    }
    let LookupError::NotServing { state, reason, .. } = fixture.refusal("a", None) else {
        panic!("the model is known");
    };
    assert_eq!(state, StateKind::Unloaded);
    assert!(reason.contains("panics"));
    let index = soon(fixture.manager.index()).await.unwrap();
    assert!(index[0].version.is_none() && index[0].reason.contains("panics"));
}

#[tokio::test]
async fn a_model_without_versions_and_one_that_is_not_there_are_refused() {
    let fixture = Fixture::new();
    fixture.world.edit("empty", |_| {});
    let error = fixture.load("empty").await.unwrap_err();
    assert!(matches!(*error, ChangeError::NoVersions(_)), "{error:?}");
    let error = fixture.load("absent").await.unwrap_err();
    assert_eq!(causes(&error), "failed to load 'absent': the repository has no model 'absent'");
    assert!(fixture.manager.report("absent").is_none());
}

#[tokio::test]
async fn a_model_that_left_the_repository_still_serves() {
    let fixture = Fixture::serving_a().await;
    fixture.world.remove("a");
    fixture.load("a").await.unwrap_err();
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(soon(fixture.manager.index()).await.unwrap()[0].model, name("a"));
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_told() {
    let fixture = Fixture::serving_a().await;
    for (fault, cause) in [(Fault::Fail, "List of  fails"), (Fault::Panic, "List of  panics")] {
        fixture.world.break_at(Step::List, "", fault);
        let error = soon(fixture.manager.index()).await.unwrap_err();
        assert!(matches!(error, ChangeError::Repository(_)));
        assert!(causes(&error).contains(cause), "{}", causes(&error));
        assert!(soon(fixture.manager.load_all()).await.is_err());
    }
    assert_eq!(fixture.answers("a").await, 1);
}
