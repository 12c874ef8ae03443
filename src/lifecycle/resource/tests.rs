use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use crate::causes;
use crate::lifecycle::{
    CheckKind, Deadline, Event, EventBus, HealthOptions, HealthRegistry, Jitter,
};

const SECOND: Duration = Duration::from_secs(1);

/// What was done, in its order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    #[track_caller]
    fn check(&self, expected: &[&str]) {
        assert_eq!(*self.0.lock().unwrap(), expected);
    }

    /// A resource whose value is its name, and which tells what is done with it.
    fn resource(&self, name: &'static str) -> Resource<&'static str> {
        let (init, clean) = (self.clone(), self.clone());
        let kind = ResourceType::new(move |name: &'static str| {
            init.note(format!("init {name}"));
            async move { if name == "bad" { Err("refused") } else { Ok(name) } }
        });
        let kind = kind.clean(move |name| {
            clean.note(format!("clean {name}"));
            async move { if *name == "unclean" { Err("stuck") } else { Ok(()) } }
        });
        kind.resource(name, name)
    }
}

struct Fixture {
    manager: ResourceManager,
    health: HealthRegistry,
    events: EventBus,
    log: Log,
}

fn fixture() -> Fixture {
    let events = EventBus::new(256);
    let options = HealthOptions { jitter: Jitter::none(), ..HealthOptions::new(SECOND, SECOND) };
    let health = HealthRegistry::with(options, events.clone());
    let manager = ResourceManager::with_jitter(health.clone(), events.clone(), Jitter::none());
    Fixture { manager, health, events, log: Log::default() }
}

impl Fixture {
    fn register(&self, resource: Resource<&'static str>) -> ResourceHandle<&'static str> {
        self.manager.register(resource)
    }

    #[track_caller]
    fn states(&self, expected: &[&str]) {
        let states: Vec<_> = self.manager.reports().iter().map(|one| one.state.name()).collect();
        assert_eq!(states, expected);
    }

    fn told(&self, wanted: &str) -> Vec<String> {
        let events = self.events.since(0).events;
        let told = events.iter().filter_map(|record| match &record.event {
            Event::Resource { resource, state, .. } if resource == wanted => {
                Some(state.to_string())
            }
            _ => None,
        });
        told.collect()
    }
}

fn soon() -> Deadline {
    Deadline::after(10 * SECOND)
}

#[track_caller]
fn refused<T>(result: Result<T, ResourceError>, expected: &str) {
    let error = result.err().expect("it is refused");
    assert_eq!(causes::of_error(&error), expected);
}

#[tokio::test(start_paused = true)]
async fn resources_come_after_what_they_need_and_are_cleaned_in_reverse_once() {
    let at = fixture();
    at.register(at.log.resource("server").after("database").after("cache"));
    at.register(at.log.resource("cache").after("database").lazy());
    at.register(at.log.resource("database"));
    at.register(at.log.resource("never").lazy());
    at.manager.init_all(soon()).await.unwrap();
    at.states(&["READY", "READY", "READY", "UNINITIALIZED"]);
    assert!(at.manager.clean_all(soon()).await.is_empty());
    assert!(at.manager.clean_all(soon()).await.is_empty());
    let (up, down) = (["init database", "init cache", "init server"], ["clean server"]);
    let expected = [up.as_slice(), &down, &["clean cache", "clean database"]].concat();
    at.log.check(&expected);
    assert_eq!(at.told("cache"), ["INITIALIZING", "READY", "CLEANING", "CLEANED"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_leaves_the_rest_and_what_was_set_up_is_cleaned() {
    let at = fixture();
    for name in ["a", "unclean", "bad", "d"] {
        at.register(at.log.resource(name));
    }
    refused(at.manager.init_all(soon()).await, "resource 'bad' failed: refused");
    let failures = at.manager.clean_all(soon()).await;
    let failures: Vec<_> = failures.iter().map(|failure| causes::of_error(failure)).collect();
    assert_eq!(failures, ["resource 'unclean' failed: stuck"]);
    at.log.check(&["init a", "init unclean", "init bad", "clean unclean", "clean a"]);
    at.states(&["CLEANED", "FAILED", "FAILED", "UNINITIALIZED"]);
}

#[tokio::test]
async fn a_cycle_is_told_and_nothing_is_set_up() {
    let at = fixture();
    let egg = at.register(at.log.resource("egg").after("hen"));
    at.register(at.log.resource("hen").after("egg").lazy());
    let cycle = "the resources have no order: there is no first among egg -> hen -> egg";
    refused(at.manager.init_all(soon()).await, cycle);
    refused(egg.get().await, cycle);
    assert!(at.manager.clean_all(soon()).await.is_empty());
    at.log.check(&[]);
}

#[tokio::test]
async fn callers_at_once_wait_for_one_initialisation_that_outlives_them() {
    let at = fixture();
    let (count, door) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let (inits, held) = (Arc::clone(&count), Arc::clone(&door));
    let resource = Resource::new("slow", move || {
        inits.fetch_add(1, Ordering::SeqCst);
        let held = Arc::clone(&held);
        async move { held.acquire().await.map(|_| 7) }
    });
    let handle = at.manager.register(resource.lazy());
    assert!(handle.try_get().is_none());
    let first = tokio::spawn({
        let handle = handle.clone();
        async move { handle.get().await.map(|value| *value) }
    });
    while count.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let others = (0..50).map(|_| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.get().await.map(|value| *value) })
    });
    let others: Vec<_> = others.collect();
    door.add_permits(1);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), 7);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let report = handle.report();
    assert_eq!((report.uses, report.in_use, report.initializations), (50, 0, 1));
    assert!(report.last_use.is_some());
}

/// A resource that fails so many times, and counts how often it is tried.
fn failing(failures: u32) -> (Resource<u32>, Arc<AtomicU32>) {
    let tried = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tried);
    let resource = Resource::new("flaky", move || {
        let attempt = count.fetch_add(1, Ordering::SeqCst);
        async move { if attempt < failures { Err("not yet") } else { Ok(attempt) } }
    });
    (resource, tried)
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_after_a_back_off() {
    let at = fixture();
    let (resource, tried) = failing(3);
    let handle =
        at.manager.register(resource.lazy().retry(2, Backoff { first: SECOND, most: 8 * SECOND }));
    let begun = tokio::time::Instant::now();
    refused(handle.get().await.map(drop), "resource 'flaky' failed: not yet");
    assert_eq!((begun.elapsed(), tried.load(Ordering::SeqCst)), (SECOND, 2));
    let early = "resource 'flaky' failed and is not tried again for 2s: not yet";
    refused(handle.get().await.map(drop), early);
    let report = handle.report();
    assert_eq!((report.consecutive_failures, report.retry_in), (2, Some(2 * SECOND)));
    assert_eq!(tried.load(Ordering::SeqCst), 2);
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(*handle.get().await.unwrap(), 3, "after one more failure and four seconds");
    let report = handle.report();
    assert_eq!((report.consecutive_failures, report.retry_in, report.error), (0, None, None));
    assert_eq!(at.told("flaky"), ["INITIALIZING", "FAILED", "INITIALIZING", "READY"]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_try_before_the_back_off_is_over() {
    let at = fixture();
    let (resource, tried) = failing(1);
    let handle = at.manager.register(resource.lazy());
    handle.get().await.map(drop).unwrap_err();
    assert_eq!(at.manager.init("flaky").await.unwrap().state, ResourceState::Ready);
    assert_eq!(at.manager.init("flaky").await.unwrap().initializations, 1);
    assert_eq!(tried.load(Ordering::SeqCst), 2);
    refused(at.manager.init("nope").await, "there is no resource 'nope'");
}

#[tokio::test(start_paused = true)]
async fn initialisers_and_cleaners_that_panic_or_hang_hurt_nobody_else() {
    let at = fixture();
    at.register(at.log.resource("sound"));
    let hang = Resource::new("hang", || async { Ok::<_, &str>(()) });
    let hang = hang.clean(|_| std::future::pending::<Result<(), &str>>());
    at.manager.register(hang.timeout(SECOND));
    let panic = Resource::new("panic", || async { Ok::<_, &str>(()) });
    at.manager.register(panic.clean(|_| -> std::future::Ready<Result<(), &str>> { panic!("oh") }));
    let boom = Resource::new("boom", || -> std::future::Ready<Result<(), &str>> { panic!("no") });
    at.manager.register(boom.lazy());
    at.manager.init_all(soon()).await.unwrap();
    let boom = at.manager.init("boom").await;
    refused(boom, "resource 'boom' failed: it panicked: no");
    let failures = at.manager.clean_all(soon()).await;
    let failures: Vec<_> = failures.iter().map(|failure| causes::of_error(failure)).collect();
    let [of_panic, of_hang] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!(of_panic, "resource 'panic' failed: it panicked: oh");
    assert!(of_hang.starts_with("resource 'hang' failed: it did not finish within"), "{of_hang}");
    at.log.check(&["init sound", "clean sound"]);
}

#[tokio::test(start_paused = true)]
async fn the_cleaner_waits_for_who_uses_it_but_not_for_ever() {
    let at = fixture();
    let handle = at.register(at.log.resource("pool"));
    let user = handle.get().await.unwrap();
    assert_eq!((*user, handle.report().in_use), ("pool", 1));
    let begun = tokio::time::Instant::now();
    let (cleaned, ()) = tokio::join!(at.manager.clean("pool"), async {
        tokio::time::sleep(2 * SECOND).await;
        at.log.note("drop user");
        drop(user);
    });
    assert_eq!(cleaned.unwrap().state, ResourceState::Cleaned);
    assert_eq!(begun.elapsed(), 2 * SECOND);
    let user = handle.get().await.unwrap();
    assert!(at.manager.clean_all(soon()).await.is_empty());
    assert_eq!(begun.elapsed(), 7 * SECOND, "half of the ten seconds");
    drop(user);
    let twice = ["init pool", "drop user", "clean pool", "init pool", "clean pool"];
    at.log.check(&twice);
    refused(handle.get().await, "resource 'pool' is CLEANED");
}

#[tokio::test(start_paused = true)]
async fn what_others_need_and_what_lasts_is_not_cleaned_on_request() {
    let at = fixture();
    at.register(at.log.resource("database"));
    at.register(at.log.resource("cache").after("database").lazy());
    at.register(at.log.resource("listener").lasting());
    at.manager.init_all(soon()).await.unwrap();
    at.manager.reset("database").await.unwrap();
    at.manager.init("cache").await.unwrap();
    refused(at.manager.clean("database").await, "resource 'database' is needed by cache");
    refused(
        at.manager.reset("listener").await,
        "resource 'listener' lasts as long as the application",
    );
    at.manager.clean("cache").await.unwrap();
    at.manager.clean("database").await.unwrap();
    at.states(&["CLEANED", "CLEANED", "READY"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_check_degrades_what_goes_on_being_used() {
    let at = fixture();
    let sound = Arc::new(Mutex::new(Err("no answer".to_owned())));
    let result = Arc::clone(&sound);
    let resource = at.log.resource("database").lazy();
    let handle = at.register(resource.check(move |_| {
        let result = result.lock().unwrap().clone();
        async move { result }
    }));
    let checked = async || at.health.run(CheckKind::Readiness, "database").await.unwrap().report;
    assert_eq!(checked().await.last_error, None, "nobody has needed it");
    drop(handle.get().await.unwrap());
    assert_eq!(checked().await.last_error.as_deref(), Some("no answer"));
    let report = handle.report();
    assert_eq!(
        (report.state, report.error.as_deref()),
        (ResourceState::Degraded, Some("no answer"))
    );
    assert!(handle.try_get().is_some());
    *sound.lock().unwrap() = Ok(());
    checked().await;
    assert_eq!(handle.report().state, ResourceState::Ready);
    assert_eq!(at.told("database"), ["INITIALIZING", "READY", "DEGRADED", "READY"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_without_an_end_it_is_cleaned_by_the_runtime() {
    let Fixture { manager, log, .. } = fixture();
    let handle = manager.register(log.resource("a"));
    manager.register(log.resource("b").after("a"));
    manager.init_all(soon()).await.unwrap();
    drop(manager);
    while handle.report().state != ResourceState::Cleaned {
        tokio::task::yield_now().await;
    }
    log.check(&["init a", "init b", "clean b", "clean a"]);
    refused(handle.get().await, "resource 'a' is CLEANED");
}

#[tokio::test]
async fn what_is_set_up_too_late_is_cleaned_at_once() {
    let Fixture { manager, log, .. } = fixture();
    let door = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&door);
    let cleaned = log.clone();
    let resource = Resource::new("late", move || {
        let held = Arc::clone(&held);
        async move { held.acquire().await.map(drop) }
    });
    let handle = manager.register(resource.lazy().clean(move |_| {
        cleaned.note("clean late");
        async { Ok::<_, &str>(()) }
    }));
    let getting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.get().await.map(drop) }
    });
    while handle.report().state != ResourceState::Initializing {
        tokio::task::yield_now().await;
    }
    getting.abort();
    getting.await.unwrap_err();
    drop(manager);
    door.add_permits(1);
    while handle.report().state != ResourceState::Cleaned {
        tokio::task::yield_now().await;
    }
    log.check(&["clean late"]);
}

#[tokio::test]
async fn what_blocks_is_set_up_checked_and_cleaned_on_threads_of_its_own() {
    let at = fixture();
    let (init, clean) = (at.log.clone(), at.log.clone());
    let kind = ResourceType::blocking(move |name: &'static str| {
        init.note(format!("init {name}"));
        if name == "boom" { panic!("no") } else { Ok::<_, String>(name) }
    });
    let kind = kind.clean_blocking(move |name: Arc<&'static str>| {
        clean.note(format!("clean {name}"));
        Err::<(), _>("stuck")
    });
    let kind = kind.check_blocking(|name| Err(format!("{name} is not well")));
    let file = at.manager.register(kind.resource("file", "a file").not_critical());
    at.manager.register(kind.resource("boom", "boom").lazy());
    at.manager.init_all(soon()).await.unwrap();
    refused(at.manager.init("boom").await, "resource 'boom' failed: it panicked: no");
    at.health.run(CheckKind::Readiness, "file").await.unwrap();
    assert_eq!(file.report().state, ResourceState::Degraded);
    assert_eq!(file.report().error.as_deref(), Some("a file is not well"));
    let verdict = at.health.verdict(CheckKind::Readiness);
    let checked = verdict.checks.iter().find(|check| check.name == "file").unwrap();
    assert!(!checked.critical, "{checked:?}");
    let failures = at.manager.clean_all(soon()).await;
    assert_eq!(failures.len(), 1, "{failures:?}");
    at.log.check(&["init a file", "init boom", "clean a file"]);
}

#[tokio::test]
async fn what_is_set_up_too_late_is_cleaned_up() {
    let at = fixture();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (wait, clean) = (Mutex::new(wait), at.log.clone());
    let late = Resource::blocking("late", move || {
        wait.lock().unwrap().recv().unwrap();
        Ok::<_, String>("late")
    });
    let late = late.clean(move |name| {
        clean.note(format!("clean {name}"));
        async { Ok::<_, String>(()) }
    });
    at.manager.register(late.lazy().timeout(Duration::from_millis(10)));
    let refusal = at.manager.init("late").await.unwrap_err();
    assert!(causes::of_error(&refusal).contains("did not finish within"), "{refusal}");
    at.log.check(&[]);
    // The end waits for what is under way.
    let (failures, ()) = tokio::join!(at.manager.clean_all(soon()), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        go.send(()).unwrap();
    });
    assert!(failures.is_empty(), "{failures:?}");
    at.log.check(&["clean late"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_being_set_up_at_the_deadline_is_told() {
    let at = fixture();
    let hung = Resource::new("hung", std::future::pending::<Result<(), String>>);
    let handle = at.manager.register(hung.lazy());
    let (got, failures) = tokio::join!(handle.get(), async {
        tokio::task::yield_now().await;
        at.manager.clean_all(Deadline::after(3 * SECOND)).await
    });
    got.map(drop).unwrap_err();
    let told: Vec<_> = failures.iter().map(|failure| causes::of_error(failure)).collect();
    assert_eq!(told, ["resource 'hung' failed: it did not finish within 3s"]);
}

#[test]
fn dropped_outside_a_runtime_nothing_can_be_cleaned() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (manager, log) = runtime.block_on(async {
        let at = fixture();
        at.register(at.log.resource("pool"));
        at.manager.init_all(soon()).await.unwrap();
        (at.manager, at.log)
    });
    drop(manager);
    runtime.block_on(tokio::task::yield_now());
    log.check(&["init pool"]);
}

#[tokio::test]
async fn a_cleaner_that_fails_after_a_drop_hurts_no_other() {
    let at = fixture();
    at.register(at.log.resource("first"));
    at.register(at.log.resource("unclean"));
    at.manager.init_all(soon()).await.unwrap();
    let log = at.log.clone();
    drop(at);
    let cleaned = async {
        while log.0.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(10 * SECOND, cleaned).await.unwrap();
    log.check(&["init first", "init unclean", "clean unclean", "clean first"]);
}

/// Those who need it, set it up, clean it and reset it, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_needs_it_gets_it_however_often_others_clean_it() {
    let at = fixture();
    let handle = at.register(at.log.resource("pool").lazy());
    let manager = Arc::new(at.manager);
    let turns = |turn: usize| {
        let (manager, handle) = (Arc::clone(&manager), handle.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                match turn % 4 {
                    0 => drop(manager.clean("pool").await.unwrap()),
                    1 => drop(manager.reset("pool").await.unwrap()),
                    2 => drop(manager.init("pool").await.unwrap()),
                    _ => assert_eq!(*handle.get().await.unwrap(), "pool"),
                }
            }
        })
    };
    for turn in futures_util::future::join_all((0..16).map(turns)).await {
        turn.unwrap();
    }
    assert!(manager.clean_all(soon()).await.is_empty());
    let log = at.log.0.lock().unwrap();
    let (pairs, rest) = log.as_chunks::<2>();
    assert!(pairs.iter().all(|pair| pair == &["init pool", "clean pool"]) && rest.is_empty());
    assert!(handle.report().uses >= 800);
}
