//! The registry with checks that do what a test tells them. Time is paused: it moves only while
//! every task waits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::CheckStatus::{Failing, Passing, Unknown};
use super::*;
use crate::lifecycle::{Event, EventBus};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_hours(1);

fn registry() -> HealthRegistry {
    let options = HealthOptions { jitter: Jitter::none(), ..HealthOptions::new(SECOND, SECOND) };
    HealthRegistry::with(options, EventBus::new(64))
}

/// A check whose result the test sets, and which counts its runs.
#[derive(Clone, Default)]
struct Puppet {
    fails: Arc<AtomicBool>,
    runs: Arc<AtomicUsize>,
}

impl Puppet {
    fn check(&self, name: &str, kind: CheckKind) -> Check {
        let puppet = self.clone();
        Check::new(name, kind, move || {
            puppet.runs.fetch_add(1, Ordering::SeqCst);
            let fails = puppet.fails.load(Ordering::SeqCst);
            async move { if fails { Err("gone".to_owned()) } else { Ok(()) } }
        })
    }

    fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// Holds the threads of a blocking check until it is opened, and counts those that came.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    fn check(&self, name: &str) -> Check {
        let gate = self.clone();
        Check::blocking(name, CheckKind::Readiness, move || {
            let (state, opened) = &*gate.0;
            let mut state = state.lock().unwrap();
            state.1 += 1;
            drop(opened.wait_while(state, |(open, _)| !*open).unwrap());
            Ok(())
        })
    }

    fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    fn runs(&self) -> usize {
        self.0.0.lock().unwrap().1
    }
}

#[track_caller]
fn report(registry: &HealthRegistry, kind: CheckKind, name: &str) -> CheckReport {
    registry.check(kind, name).expect("the check is registered").report
}

#[track_caller]
fn statuses(registry: &HealthRegistry, kind: CheckKind) -> Vec<(String, CheckStatus)> {
    let checks = registry.verdict(kind).checks;
    checks.into_iter().map(|check| (check.name, check.status)).collect()
}

fn published(events: &EventBus) -> Vec<(String, bool, String)> {
    let records = events.since(0);
    let health = records.events.iter().filter_map(|record| match &record.event {
        Event::Health { check, passing, detail, .. } => {
            Some((check.clone(), *passing, detail.clone()))
        }
        _ => None,
    });
    health.collect()
}

#[tokio::test]
async fn a_reported_change_is_seen_at_once() {
    let registry = registry();
    let reporter = registry.reporter("state", CheckKind::Readiness, Err("starting".to_owned()));
    assert!(!registry.verdict(CheckKind::Readiness).passing);
    assert!(registry.verdict(CheckKind::Liveness).passing);
    reporter.report(Ok(()));
    assert!(registry.verdict(CheckKind::Readiness).passing);
    reporter.report(Err("stopping".to_owned()));
    let verdict = registry.verdict(CheckKind::Readiness);
    assert_eq!(verdict.checks[0].last_error.as_deref(), Some("stopping"));
    assert!(!verdict.passing);
    let detail = registry.run(CheckKind::Readiness, "state").await.unwrap();
    assert_eq!((detail.schedule, detail.report.status), (None, Failing));
    assert_eq!(detail.history.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn thresholds_count_runs_in_a_row() {
    let (registry, puppet) = (registry(), Puppet::default());
    registry.register(puppet.check("db", CheckKind::Readiness).thresholds(3, 2));
    let status_after = async |runs: u32| {
        sleep(SECOND * runs).await;
        report(&registry, CheckKind::Readiness, "db").status
    };
    sleep(SECOND / 2).await;
    assert_eq!(report(&registry, CheckKind::Readiness, "db").status, Unknown);
    assert_eq!(status_after(1).await, Passing);
    puppet.set_failing(true);
    assert_eq!(status_after(2).await, Passing);
    assert_eq!(status_after(1).await, Failing);
    assert_eq!(report(&registry, CheckKind::Readiness, "db").consecutive_failures, 3);
    puppet.set_failing(false);
    assert_eq!(status_after(1).await, Failing);
    assert_eq!(status_after(1).await, Passing);
    let told = published(registry.events());
    let expected = [("db", true, ""), ("db", false, "gone"), ("db", true, "")];
    assert_eq!(told, expected.map(|(name, passing, text)| (name.into(), passing, text.into())));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_or_panics_fails_alone() {
    let registry = registry();
    let liveness = CheckKind::Liveness;
    registry.register(Check::new("hangs", liveness, std::future::pending));
    registry.register(Check::new("panics", liveness, || async { panic!("oh") }));
    registry.register(Check::new("fine", liveness, || async { Ok(()) }));
    sleep(SECOND * 3).await;
    let verdict = registry.verdict(liveness);
    let state: Vec<_> =
        verdict.checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
    assert_eq!(state, [("fine", Passing), ("hangs", Failing), ("panics", Failing)]);
    let errors = verdict.checks.iter().map(|check| check.last_error.as_deref().unwrap_or_default());
    let errors: Vec<&str> = errors.collect();
    assert_eq!(errors, ["", "it did not finish within 1s", "it panicked: oh"]);
    registry.stop().await;
}

/// What a probe makes of a critical check by its kind and its status.
#[tokio::test(start_paused = true)]
async fn an_initial_status_holds_until_the_first_result() {
    for (kind, status, passes) in [
        (CheckKind::Liveness, Unknown, true),
        (CheckKind::Liveness, Passing, true),
        (CheckKind::Liveness, Failing, false),
        (CheckKind::Readiness, Unknown, false),
        (CheckKind::Readiness, Passing, true),
        (CheckKind::Readiness, Failing, false),
        (CheckKind::Startup, Unknown, false),
        (CheckKind::Startup, Passing, true),
        (CheckKind::Startup, Failing, false),
    ] {
        let (registry, puppet) = (registry(), Puppet::default());
        registry.register(puppet.check("c", kind).initially(status));
        assert_eq!(registry.verdict(kind).passing, passes, "{kind} {status}");
        assert_eq!(report(&registry, kind, "c").status, status);
        registry.register(puppet.check("c", kind).initially(status).not_critical());
        assert!(registry.verdict(kind).passing, "{kind} {status}, not critical");
        sleep(SECOND / 2).await;
        assert_eq!(report(&registry, kind, "c").status, Passing);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_runs_nothing() {
    let (registry, puppet) = (registry(), Puppet::default());
    registry.register(puppet.check("db", CheckKind::Readiness).interval(LONG));
    sleep(SECOND).await;
    for _ in 0..1000 {
        assert!(registry.verdict(CheckKind::Readiness).passing);
        registry.checks();
        registry.check(CheckKind::Readiness, "db");
    }
    sleep(SECOND).await;
    assert_eq!(puppet.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn excluded_checks_are_listed_and_do_not_count() {
    let registry = registry();
    let readiness = CheckKind::Readiness;
    for name in ["a", "b"] {
        drop(registry.reporter(name, readiness, Err("no".to_owned())));
    }
    drop(registry.reporter("a", CheckKind::Liveness, Err("no".to_owned())));
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.into()).collect() };
    for (excluded, passing, found, unmatched) in [
        (names(&[]), false, names(&[]), names(&[])),
        (names(&["a"]), false, names(&["a"]), names(&[])),
        (names(&["b", "a"]), true, names(&["a", "b"]), names(&[])),
        (names(&["c", "a"]), false, names(&["a"]), names(&["c"])),
        (names(&["", "z"]), false, names(&[]), names(&["", "z"])),
    ] {
        let excluded: BTreeSet<String> = excluded.into_iter().collect();
        let verdict = registry.verdict_excluding(readiness, &excluded);
        assert_eq!(verdict.passing, passing, "{excluded:?}");
        assert_eq!((verdict.excluded, verdict.unmatched), (found, unmatched), "{excluded:?}");
        assert_eq!(verdict.checks.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_blocks_is_never_started_twice_and_delays_nobody() {
    let (registry, gate, puppet) = (registry(), Gate::default(), Puppet::default());
    registry.register(gate.check("stuck").thresholds(3, 1));
    registry.register(puppet.check("fine", CheckKind::Readiness));
    let readiness = CheckKind::Readiness;
    let stuck = || report(&registry, readiness, "stuck");
    // It runs at 0, its timeout is at 1, and it is due again at 2, 3 ...
    sleep(SECOND / 2).await;
    // Threads need real time. Paused time stands still as long as a task has something to do.
    while gate.runs() == 0 {
        yield_now().await;
    }
    sleep(SECOND * 2).await;
    assert_eq!((stuck().status, stuck().consecutive_failures), (Unknown, 2));
    sleep(SECOND).await;
    assert_eq!((stuck().status, stuck().consecutive_failures), (Failing, 3));
    sleep(SECOND * 7).await;
    assert_eq!((gate.runs(), puppet.runs()), (1, 11), "a stuck run delays another check");
    assert_eq!(stuck().running_for, Some(SECOND * 21 / 2));
    let error = stuck().last_error.unwrap();
    assert_eq!(error, "a run has not returned for 10s, and no other is started");
    let before = Instant::now();
    let answer = registry.run(readiness, "stuck").await.unwrap();
    assert_eq!(answer.report.status, Failing);
    assert_eq!((before.elapsed(), gate.runs()), (Duration::ZERO, 1), "it was started again");
    gate.open();
    while stuck().running_for.is_some() {
        yield_now().await;
    }
    assert_eq!(stuck().status, Failing, "a result that comes too late counts");
    let asking = registry.clone();
    let asked = tokio::spawn(async move { asking.run(readiness, "stuck").await });
    while !asked.is_finished() {
        yield_now().await;
    }
    assert_eq!((stuck().status, gate.runs()), (Passing, 2));
}

/// An async check that blocks is a mistake of its author, and still one check's failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_check_that_blocks_its_thread_fails_alone() {
    let registry = registry();
    let (release, blocked) = mpsc::channel::<()>();
    let (blocked, runs) = (Mutex::new(blocked), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    let check = Check::new("blocks", CheckKind::Readiness, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        blocked.lock().unwrap().recv().ok();
        async { Ok(()) }
    });
    let quick = Duration::from_millis(1);
    registry.register(check.interval(quick).timeout(quick).thresholds(3, 1));
    let puppet = Puppet::default();
    registry.register(puppet.check("fine", CheckKind::Readiness).interval(quick));
    let failing = async {
        while report(&registry, CheckKind::Readiness, "blocks").status != Failing {
            yield_now().await;
        }
    };
    tokio::time::timeout(SECOND * 60, failing).await.expect("the check comes to fail");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let runs_before = puppet.runs();
    registry.run(CheckKind::Readiness, "fine").await.unwrap();
    assert!(puppet.runs() > runs_before);
    drop(release);
    registry.stop().await;
}

#[tokio::test]
async fn a_blocking_check_has_a_thread_of_its_own_and_may_panic() {
    let registry = registry();
    let (sender, receiver) = mpsc::channel();
    let check = Check::blocking("c", CheckKind::Readiness, move || {
        let thread = std::thread::current();
        sender.send(thread.name().map(str::to_owned)).unwrap();
        panic!("oh {}", 1 + 1)
    });
    registry.register(check.interval(LONG).timeout(LONG));
    let report = registry.run(CheckKind::Readiness, "c").await.unwrap().report;
    assert_eq!(report.last_error.as_deref(), Some("it panicked: oh 2"));
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("health-check"));
}

#[tokio::test(start_paused = true)]
async fn runs_on_demand_and_by_schedule_are_one() {
    let registry = registry();
    let (release, runs) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (Arc::clone(&release), Arc::clone(&runs));
    let check = Check::new("slow", CheckKind::Readiness, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            Ok(())
        }
    });
    registry.register(check.timeout(SECOND * 30).interval(SECOND * 10));
    sleep(SECOND).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "the schedule began");
    let asking = |registry: HealthRegistry| {
        tokio::spawn(async move { registry.run(CheckKind::Readiness, "slow").await })
    };
    let asked: Vec<_> = (0..5).map(|_| asking(registry.clone())).collect();
    sleep(SECOND).await;
    let running_for = report(&registry, CheckKind::Readiness, "slow").running_for;
    assert_eq!((runs.load(Ordering::SeqCst), running_for), (1, Some(SECOND * 2)));
    release.notify_one();
    for answer in asked {
        let report = answer.await.unwrap().unwrap().report;
        assert_eq!((report.status, report.running_for), (Passing, None));
        assert_eq!(report.duration, SECOND * 2);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1, "each that asked ran it anew");
    // The other way round: the schedule joins what was asked for.
    sleep(SECOND * 6).await;
    let asked = asking(registry.clone());
    sleep(SECOND * 4).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    release.notify_one();
    assert!(asked.await.unwrap().is_ok());
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn who_asks_waits_no_longer_than_the_timeout_and_may_go_away() {
    let registry = registry();
    let (sender, mut runs) = tokio::sync::mpsc::channel(8);
    let check = Check::new("hangs", CheckKind::Readiness, move || {
        let sender = sender.clone();
        async move {
            sender.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    registry.register(check.interval(LONG).timeout(SECOND * 3));
    runs.recv().await.unwrap();
    let begin = Instant::now();
    let gone = registry.run(CheckKind::Readiness, "hangs");
    assert!(tokio::time::timeout(SECOND, gone).await.is_err());
    let report = registry.run(CheckKind::Readiness, "hangs").await.unwrap().report;
    assert_eq!((begin.elapsed(), report.consecutive_failures), (SECOND * 3, 1));
    assert_eq!(report.last_error.as_deref(), Some("it did not finish within 3s"));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_taken_out_has_no_say_any_more() {
    let (registry, puppet) = (registry(), Puppet::default());
    let readiness = CheckKind::Readiness;
    puppet.set_failing(true);
    registry.register(puppet.check("db", readiness));
    registry.register(puppet.check("db", CheckKind::Liveness).interval(LONG));
    sleep(SECOND / 2).await;
    assert!(!registry.verdict(readiness).passing);
    assert!(registry.deregister(readiness, "db"));
    assert!(!registry.deregister(readiness, "db"));
    assert!(registry.verdict(readiness).passing);
    assert_eq!(registry.check(readiness, "db"), None);
    assert!(registry.check(CheckKind::Liveness, "db").is_some());
    let runs = puppet.runs();
    sleep(SECOND * 10).await;
    assert_eq!(puppet.runs(), runs, "it runs on");
    let unknown = CheckRunError::Unknown { kind: readiness, name: "db".to_owned() };
    assert_eq!(registry.run(readiness, "db").await, Err(unknown));
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_check_that_was_replaced_or_taken_out_counts_for_nothing() {
    let registry = registry();
    let readiness = CheckKind::Readiness;
    let hangs = || Check::new("db", readiness, std::future::pending).timeout(LONG);
    registry.register(hangs());
    sleep(SECOND).await;
    let asking = registry.clone();
    let asked = tokio::spawn(async move { asking.run(readiness, "db").await });
    sleep(SECOND).await;
    let puppet = Puppet::default();
    registry.register(puppet.check("db", readiness));
    assert!(matches!(asked.await.unwrap(), Err(CheckRunError::Unknown { .. })));
    sleep(SECOND * 3 / 2).await;
    assert_eq!(statuses(&registry, readiness), [("db".to_owned(), Passing)]);
    assert_eq!(puppet.runs(), 2);
    let old = registry.reporter("db", readiness, Ok(()));
    let new = registry.reporter("db", readiness, Ok(()));
    old.report(Err("old".to_owned()));
    assert!(registry.verdict(readiness).passing);
    let told = published(registry.events()).len();
    old.deregister();
    assert_eq!(statuses(&registry, readiness).len(), 1, "it took out another's check");
    new.report(Err("new".to_owned()));
    assert!(!registry.verdict(readiness).passing);
    assert_eq!(published(registry.events()).len(), told + 1);
    new.deregister();
    assert!(registry.verdict(readiness).checks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_checks_do_not_run_at_the_same_instant() {
    const CHECKS: u32 = 100;
    let shares = AtomicUsize::new(0);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    let jitter = Jitter::from_fn(move || {
        // The golden ratio spreads evenly, and never the same twice.
        (shares.fetch_add(1, Ordering::SeqCst) as f64 * 0.618_033_988_749_895).fract()
    });
    let options = HealthOptions { jitter, ..HealthOptions::new(SECOND * 10, SECOND) };
    let registry = HealthRegistry::with(options, EventBus::new(64));
    let begun = Instant::now();
    let instants: Arc<Mutex<Vec<Duration>>> = Arc::default();
    for number in 0..CHECKS {
        let instants = Arc::clone(&instants);
        let name = format!("check {number}");
        registry.register(Check::new(name, CheckKind::Readiness, move || {
            instants.lock().unwrap().push(begun.elapsed());
            async { Ok(()) }
        }));
    }
    sleep(SECOND * 17).await;
    let mut instants = instants.lock().unwrap().clone();
    assert_eq!(instants.len(), 2 * CHECKS as usize);
    assert!(instants.iter().filter(|at| **at <= SECOND).count() == CHECKS as usize);
    instants.sort();
    let most_at_once = instants.chunk_by(|a, b| a == b).map(<[Duration]>::len).max();
    // Timers have a resolution of a millisecond.
    assert!(most_at_once.unwrap() <= 3, "{most_at_once:?} at once");
}

#[tokio::test(start_paused = true)]
async fn after_the_stop_nothing_runs_and_everything_can_be_read() {
    let (registry, gate, puppet) = (registry(), Gate::default(), Puppet::default());
    let readiness = CheckKind::Readiness;
    registry.register(gate.check("stuck"));
    registry.register(puppet.check("fine", readiness));
    let (dropped, drop_seen) = oneshot::channel::<()>();
    let dropped = Mutex::new(Some(dropped));
    registry.register(Check::new("awaits", readiness, move || {
        let dropped = dropped.lock().unwrap().take();
        async move {
            std::future::pending::<()>().await;
            drop(dropped);
            Ok(())
        }
    }));
    let reporter = registry.reporter("state", readiness, Ok(()));
    sleep(SECOND / 2).await;
    let asking = registry.clone();
    let asked = tokio::spawn(async move { asking.run(readiness, "awaits").await });
    yield_now().await;
    registry.stop().await;
    assert!(drop_seen.await.is_err(), "what awaited is dropped");
    assert_eq!(asked.await.unwrap(), Err(CheckRunError::Stopped));
    assert_eq!(registry.run(readiness, "fine").await, Err(CheckRunError::Stopped));
    assert_eq!(report(&registry, readiness, "fine").status, Passing);
    sleep(SECOND * 10).await;
    assert_eq!(puppet.runs(), 1);
    reporter.report(Err("STOPPED".to_owned()));
    assert_eq!(report(&registry, readiness, "state").last_error.as_deref(), Some("STOPPED"));
    gate.open();
}
