use super::*;
use crate::lifecycle::{CheckKind, Event, Handler, Resource};
use AppState::{Error, Initializing, Stopped, Stopping};

const SECOND: Duration = Duration::from_secs(1);

type Log = Arc<Mutex<Vec<String>>>;

fn application() -> (Application, Log) {
    let config = LifecycleConfig {
        startup_timeout: 60 * SECOND,
        shutdown_timeout: 30 * SECOND,
        handler_timeout: 10 * SECOND,
        pre_stop_delay: 3 * SECOND,
        cleanup_interval: 30 * SECOND,
        idle_ttl: Duration::ZERO,
        health_interval: SECOND,
        health_timeout: SECOND,
        health_failure_threshold: std::num::NonZeroU32::MIN,
        health_success_threshold: std::num::NonZeroU32::MIN,
    };
    (Application::new(config, EventBus::new(256)), Log::default())
}

fn noted(log: &Log, name: &'static str) -> Resource<()> {
    let (up, down) = (Arc::clone(log), Arc::clone(log));
    let resource = Resource::new(name, move || note(&up, &format!("+{name}")));
    resource.clean(move |_| note(&down, &format!("-{name}")))
}

fn note(log: &Log, text: &str) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let (log, text) = (Arc::clone(log), text.to_owned());
    async move {
        lock(&log).push(text);
        Ok(())
    }
}

fn furnish(application: &Application, log: &Log) {
    for name in ["first", "second"] {
        application.resources().register(noted(log, name));
    }
    let (up, down) = (note(log, "+handler"), note(log, "-handler"));
    application.lifecycle().register(Handler::new("handler").on_start(|| up).on_stop(|| down));
    let drain = note(log, "drain");
    application.on_drain("requests", |_| drain);
    let stopping = Arc::clone(log);
    application.on_stopping(move || lock(&stopping).push("stopping".to_owned()));
}

const WHOLE: [&str; 8] =
    ["+first", "+second", "+handler", "stopping", "drain", "-handler", "-second", "-first"];

#[tokio::test(start_paused = true)]
async fn it_starts_and_stops_in_order() {
    let (application, log) = application();
    furnish(&application, &log);
    let (signals, source) = SignalSource::injected();
    let running = application.clone();
    let run = tokio::spawn(async move { running.run(source).await });
    let mut states = application.lifecycle().subscribe();
    states.wait_for(|state| *state == AppState::Running).await.unwrap();
    let begun = tokio::time::Instant::now();
    signals.send(Signal::Stop(StopSignal::Terminate)).await.unwrap();
    assert_eq!(run.await.unwrap(), Ending::Clean);
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!(*lock(&log), WHOLE);
    assert_eq!(application.lifecycle().state(), Stopped);
    assert!(!application.health().verdict(CheckKind::Readiness).passing);
    assert!(application.health().verdict(CheckKind::Liveness).passing);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_requested_early_is_an_orderly_one() {
    let (application, log) = application();
    furnish(&application, &log);
    application.lifecycle().request_shutdown("enough");
    let (_signals, source) = SignalSource::injected();
    assert_eq!(application.run(source).await, Ending::Clean);
    assert!(
        lock(&log).ends_with(&["drain".to_owned()]) || lock(&log).contains(&"drain".to_owned())
    );
    let reasons: Vec<String> =
        application.lifecycle().history().into_iter().map(|step| step.reason).collect();
    assert!(reasons.contains(&"enough".to_owned()), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_fails_ends_the_start_and_the_others_are_cleaned() {
    let (application, log) = application();
    application.resources().register(noted(&log, "first"));
    let fails = Resource::new("second", || async { Err::<(), _>("no disk".to_owned()) });
    application.resources().register(fails);
    let (_signals, source) = SignalSource::injected();
    assert_eq!(application.run(source).await, Ending::Failed);
    assert_eq!(*lock(&log), ["+first", "-first"]);
    let history = application.lifecycle().history();
    let states: Vec<AppState> = history.iter().map(|step| step.to).collect();
    assert_eq!(states, [Initializing, Error, Stopping, Stopped]);
    assert!(history[1].reason.contains("no disk"), "{}", history[1].reason);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_done_in_time_forces_the_end_and_the_rest_is_still_done() {
    let (application, log) = application();
    application.on_drain("requests", |_| std::future::pending());
    furnish(&application, &log);
    let (signals, source) = SignalSource::injected();
    signals.send(Signal::Stop(StopSignal::Interrupt)).await.unwrap();
    let mut events = application.events().subscribe();
    let begun = tokio::time::Instant::now();
    assert_eq!(application.run(source).await, Ending::Forced);
    assert_eq!(begun.elapsed(), 30 * SECOND);
    assert!(lock(&log).contains(&"drain".to_owned()), "{:?}", lock(&log));
    let mut last = None;
    while let Some(Ok(record)) = events.try_recv() {
        if let Event::Application { to, reason, .. } = &record.event {
            last = Some((*to, reason.clone()));
        }
    }
    let (state, reason) = last.unwrap();
    assert_eq!(state, Stopped);
    assert!(reason.contains("requests: it was not done in time"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_it_at_once() {
    let (application, log) = application();
    furnish(&application, &log);
    let (signals, source) = SignalSource::injected();
    signals.send(Signal::Stop(StopSignal::Terminate)).await.unwrap();
    signals.send(Signal::Stop(StopSignal::Interrupt)).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(application.run(source).await, Ending::Signalled(StopSignal::Interrupt));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(!lock(&log).contains(&"-first".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_at_the_end_the_rest_is_done_and_the_end_is_no_clean_one() {
    let (application, log) = application();
    furnish(&application, &log);
    let unclean = Resource::new("unclean", || async { Ok::<_, String>(()) });
    let unclean = unclean.clean(|_| async { Err("it is locked".to_owned()) });
    application.resources().register(unclean);
    let fails = Handler::new("fails").on_stop(|| async { Err("it is away".to_owned()) });
    application.lifecycle().register(fails);
    let (signals, source) = SignalSource::injected();
    let running = application.clone();
    let run = tokio::spawn(async move { running.run(source).await });
    let mut states = application.lifecycle().subscribe();
    states.wait_for(|state| *state == AppState::Running).await.unwrap();
    signals.send(Signal::Stop(StopSignal::Terminate)).await.unwrap();
    assert_eq!(run.await.unwrap(), Ending::Failed);
    assert_eq!(*lock(&log), WHOLE);
    let last = application.lifecycle().history().pop().unwrap();
    assert_eq!((last.to, last.reason.as_str()), (Stopped, "the end was not clean"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_to_start_is_named() {
    for (timeout, after) in [(Some(2 * SECOND), 2), (None, 10)] {
        let (application, log) = application();
        furnish(&application, &log);
        let slow = Handler::new("slow").on_start(std::future::pending::<Result<(), String>>);
        let slow = if let Some(timeout) = timeout { slow.timeout(timeout) } else { slow };
        application.lifecycle().register(slow);
        let (_signals, source) = SignalSource::injected();
        assert_eq!(application.run(source).await, Ending::Failed);
        let history = application.lifecycle().history();
        let error = history.iter().find(|step| step.to == Error).unwrap();
        let told = format!("it did not finish within {after}s");
        assert!(error.reason.contains("'slow'") && error.reason.contains(&told), "{error:?}");
        assert_eq!(lock(&log)[..4], ["+first", "+second", "+handler", "-handler"]);
        assert!(lock(&log).ends_with(&["-second".to_owned(), "-first".to_owned()]));
    }
}
