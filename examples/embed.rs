//! A program that is no model server, with Onward's lifecycle core: it has a pool of connections, a
//! worker that uses them, a check, a hook, and an end that loses nothing.
//!
//! `cargo run --example embed` works until Ctrl-C; `cargo run --example embed -- --jobs 20` ends by
//! itself after so many jobs, as a test does.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onward::lifecycle::{
    Application, Ending, EventBus, EventKind, Handler, Hook, LifecycleConfig, LifecycleManager,
    Pool, PoolOptions, ResourceHandle, ResourceType, SignalSource,
};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that are open at once.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Something that is expensive to open, and must be closed.
#[derive(Debug)]
struct Connection {
    number: usize,
    queries: usize,
}

impl Connection {
    async fn open(number: usize) -> Result<Self, String> {
        sleep(Duration::from_millis(5)).await;
        println!("opened connection {number}");
        Ok(Self { number, queries: 0 })
    }

    /// Only one user at a time may send a query.
    async fn query(&mut self, job: usize) -> String {
        sleep(Duration::from_millis(20)).await;
        self.queries += 1;
        format!("job {job} was done on connection {}", self.number)
    }

    async fn close(&self, queries: &AtomicUsize) -> Result<(), String> {
        sleep(Duration::from_millis(5)).await;
        queries.fetch_add(self.queries, Ordering::Relaxed);
        println!("closed connection {} after {} queries", self.number, self.queries);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        // As a server does that ends old connections.
        if self.queries < 1000 { Ok(()) } else { Err("it is worn out".to_owned()) }
    }
}

/// Connections are opened one by one, checked before each use, and closed for certain.
fn connections(queries: &Arc<AtomicUsize>) -> ResourceType<Arc<AtomicUsize>, Connection> {
    let queries = Arc::clone(queries);
    ResourceType::new(|numbers: Arc<AtomicUsize>| async move {
        Connection::open(numbers.fetch_add(1, Ordering::Relaxed) + 1).await
    })
    .check(|connection| async move { connection.check() })
    .clean(move |connection| {
        let queries = Arc::clone(&queries);
        async move { connection.close(&queries).await }
    })
}

/// One job, on the next connection that is free.
async fn run(job: usize, pool: ResourceHandle<Pool<Connection>>) {
    let done: Result<String, Box<dyn std::error::Error + Send + Sync>> = async {
        let pool = pool.get().await?;
        let mut connection = pool.get().await?;
        Ok(connection.query(job).await)
    }
    .await;
    match done {
        Ok(done) => println!("{done}"),
        Err(refusal) => println!("job {job} was not done: {refusal}"),
    }
}

/// Takes a job every few milliseconds until it is told to stop.
async fn work(pool: ResourceHandle<Pool<Connection>>, stop: CancellationToken, limit: Limit) {
    let (jobs, mut ticks) = (TaskTracker::new(), interval(Duration::from_millis(10)));
    for job in 1..=limit.jobs {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            break;
        }
        jobs.spawn(run(job, pool.clone()));
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
    let options = PoolOptions { min: 1, ..PoolOptions::new(CONNECTIONS) };
    let pool = connections(queries).pool("connections", Arc::default(), options);
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
        // Nobody sends it requests that would have to go elsewhere.
        pre_stop_delay: Duration::ZERO,
        ..LifecycleConfig::default()
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
