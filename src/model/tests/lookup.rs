//! What a lookup, the index and the reports tell of each state.

use super::fakes::Step;
use super::*;
use crate::model::IndexEntry;
use StateKind::{Ready, Unloaded, Warming};

#[tokio::test]
async fn what_cannot_be_entered_is_told_apart() {
    let fixture = Fixture::serving_a().await;
    assert!(matches!(fixture.refusal("../a", None), LookupError::Name(_)));
    assert_eq!(fixture.refusal("b", None), LookupError::UnknownModel("b".to_owned()));
    assert_eq!(fixture.refusal("b", Some(1)), LookupError::UnknownModel("b".to_owned()));
    let unknown = LookupError::UnknownVersion { model: "a".to_owned(), version: version(9) };
    assert_eq!(fixture.refusal("a", Some(9)), unknown);
}

#[tokio::test]
async fn a_model_that_loads_for_the_first_time_is_told_to_load() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    let door = fixture.world.door(Step::Run, "a/1");
    let load = fixture.begin_load("a");
    door.has_waiting(1).await;
    for number in [None, Some(1)] {
        let refusal = fixture.refusal("a", number);
        assert!(matches!(refusal, LookupError::NotServing { state: Warming, .. }), "{refusal:?}");
    }
    door.open();
    soon(load).await.unwrap().unwrap();
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn the_index_has_every_model_there_is_and_was() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b", "c"]);
    fixture.load("a").await.unwrap();
    fixture.load("b").await.unwrap();
    fixture.unload("b").await.unwrap();
    fixture.world.remove("a");
    let entry = |model: &str, state: Option<StateKind>, reason: &str| IndexEntry {
        model: name(model),
        version: state.map(|state| (version(1), state)),
        reason: reason.to_owned(),
    };
    let expected =
        [entry("a", Some(Ready), ""), entry("b", Some(Unloaded), "unloaded"), entry("c", None, "")];
    assert_eq!(soon(fixture.manager.index()).await.unwrap(), expected);
    let reported: Vec<ModelName> =
        fixture.manager.reports().into_iter().map(|report| report.name).collect();
    assert_eq!(reported, [name("a"), name("b")]);
    assert!(fixture.manager.report("c").is_none());
}

/// A lookup must never refuse a version with the reason that it is ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_beside_loads_and_unloads_never_contradicts_itself() {
    let fixture = Fixture::serving_a().await;
    let manager = fixture.manager.clone();
    let (over, mut changed) = tokio::sync::oneshot::channel::<()>();
    let looker = std::thread::spawn(move || {
        while matches!(changed.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)) {
            for number in [None, Some(version(1))] {
                if let Err(LookupError::NotServing { state, .. }) = manager.acquire("a", number) {
                    assert_ne!(state, Ready);
                }
            }
        }
    });
    for _ in 0..300 {
        fixture.unload("a").await.unwrap();
        fixture.load("a").await.unwrap();
    }
    over.send(()).unwrap();
    looker.join().unwrap();
}
