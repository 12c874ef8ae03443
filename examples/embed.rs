//! A program that is no model server, with Onward's lifecycle core: it has a pool of connections, a
//! worker that uses them, a check, a hook, and an end that loses nothing.
//!
//! `cargo run --example embed` works until Ctrl-C; `cargo run --example embed -- --jobs 20` ends by
//! itself after so many jobs, as a test does.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onward::lifecycle::{
    Application, Ending, EventBus, EventKind, Handler, Hook, LifecycleConfig, LifecycleManager,
    Resource, ResourceHandle, SignalSource,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that are open at once.
const CONNECTIONS: usize = 4;

/// Something that is expensive to open and must be closed.
#[derive(Debug)]
struct Connection {
    number: usize,
}

/// Connections to be borrowed.
#[derive(Debug)]
struct Pool {
    idle: Mutex<VecDeque<Connection>>,
    places: Arc<Semaphore>,
    queries: Arc<AtomicUsize>,
}

/// A connection that goes back to its pool.
struct Borrowed<'a> {
    connection: Option<Connection>,
    pool: &'a Pool,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    async fn open(queries: Arc<AtomicUsize>) -> Result<Self, String> {
        let mut idle = VecDeque::new();
        for number in 1..=CONNECTIONS {
            sleep(Duration::from_millis(5)).await;
            idle.push_back(Connection { number });
        }
        println!("opened {CONNECTIONS} connections");
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self { idle: Mutex::new(idle), places, queries })
    }

    /// Closes every connection; none is borrowed any more.
    fn close(&self) -> Result<(), String> {
        let connections = std::mem::take(&mut *self.idle());
        if connections.len() < CONNECTIONS {
            return Err(format!(
                "{} connections are still borrowed",
                CONNECTIONS - connections.len()
            ));
        }
        println!("closed {} connections", connections.len());
        Ok(())
    }

    async fn borrow(&self) -> Borrowed<'_> {
        let place = self.places.acquire().await.expect("the semaphore is never closed");
        let connection = self.idle().pop_front();
        Borrowed { connection, pool: self, _place: place }
    }

    fn check(&self) -> Result<(), String> {
        if self.idle().is_empty() { Err("every connection is borrowed".to_owned()) } else { Ok(()) }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Borrowed<'_> {
    async fn query(&self, job: usize) -> String {
        let number = self.connection.as_ref().map_or(0, |connection| connection.number);
        sleep(Duration::from_millis(20)).await;
        self.pool.queries.fetch_add(1, Ordering::Relaxed);
        format!("job {job} was done on connection {number}")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.pool.idle().extend(self.connection.take());
    }
}

/// Takes a job every few milliseconds until it is told to stop.
async fn work(pool: ResourceHandle<Pool>, stop: CancellationToken, limit: Limit) {
    let (jobs, mut ticks) = (TaskTracker::new(), interval(Duration::from_millis(10)));
    for job in 1..=limit.jobs {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            break;
        }
        let pool = pool.clone();
        jobs.spawn(async move {
            match pool.get().await {
                Ok(pool) => println!("{}", pool.borrow().await.query(job).await),
                Err(refusal) => println!("job {job} was not done: {refusal}"),
            }
        });
    }
    // What was taken is done, however the work ended.
    jobs.close();
    jobs.wait().await;
    limit.lifecycle.request_shutdown("no more jobs");
}

/// When the work ends by itself.
struct Limit {
    jobs: usize,
    lifecycle: Arc<LifecycleManager>,
}

fn furnish(application: &Application, queries: &Arc<AtomicUsize>, jobs: usize) {
    let queries = Arc::clone(queries);
    let pool = Resource::new("pool", move || Pool::open(Arc::clone(&queries)))
        .clean(|pool| async move { pool.close() })
        .check(|pool| async move { pool.check() })
        .timeout(Duration::from_secs(2));
    let pool = application.resources().register(pool);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let limit = Limit { jobs, lifecycle: Arc::clone(application.lifecycle()) };
    let (spawner, worker) = (tasks.clone(), work(pool, stop.clone(), limit));
    application.lifecycle().register(Handler::new("worker").on_start(move || async move {
        spawner.spawn(worker);
        Ok::<_, String>(())
    }));
    application.on_drain("worker", move |_| async move {
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        Ok(())
    });
    let hook = Hook::new("diary", |record: Arc<onward::lifecycle::EventRecord>| async move {
        println!("event {}: {:?}", record.sequence, record.event);
        Ok::<_, String>(())
    });
    application.hooks().register(hook.kinds([EventKind::Application, EventKind::Resource]));
}

fn config() -> LifecycleConfig {
    LifecycleConfig {
        startup_timeout: Duration::from_secs(10),
        shutdown_timeout: Duration::from_secs(10),
        handler_timeout: Duration::from_secs(5),
        pre_stop_delay: Duration::ZERO,
        health_interval: Duration::from_secs(1),
        health_timeout: Duration::from_secs(1),
        health_failure_threshold: std::num::NonZeroU32::MIN,
        health_success_threshold: std::num::NonZeroU32::MIN,
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let jobs = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => usize::MAX,
        (Some("--jobs"), Some(count)) => count.parse()?,
        _ => return Err("usage: embed [--jobs COUNT]".into()),
    };
    let signals = SignalSource::of_process()?;
    let application = Application::new(config(), EventBus::new(1024));
    let queries = Arc::new(AtomicUsize::new(0));
    furnish(&application, &queries, jobs);
    let ending = application.run(signals).await;
    println!("{ending:?} end after {} queries", queries.load(Ordering::Relaxed));
    Ok(if ending == Ending::Clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
