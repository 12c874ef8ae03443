//! Where runs happen.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::super::backend::RunError;
use super::super::metadata::Signature;
use super::super::placement::STALL;
use super::super::request::InferenceRequest;
use super::super::tensor::Tensor;
use super::shared::lock;
use super::*;

/// What the instances of a pool do, and have done.
#[derive(Default)]
struct World {
    ran_on: Mutex<Vec<ThreadId>>,
    /// Told, and waited for, in each run while it is there.
    door: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// Whether runs go on until they are cancelled.
    endless: AtomicBool,
    instances: AtomicUsize,
}

struct Recorder(Arc<World>);

impl Instance for Recorder {
    fn run(&mut self, _: &PreparedRequest, control: &RunControl) -> Result<Vec<Tensor>, RunError> {
        lock(&self.0.ran_on).push(thread::current().id());
        let door = lock(&self.0.door).take();
        if let Some((inside, open)) = door {
            inside.send(()).unwrap();
            open.recv().unwrap();
        }
        while self.0.endless.load(Ordering::SeqCst) {
            if control.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            thread::yield_now();
        }
        Ok(Vec::new())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    /// Holds up the next run, until the second end is told.
    fn hold_up(&self) -> (Receiver<()>, Sender<()>) {
        let ((inside, told), (open, opened)) = (channel(), channel());
        *lock(&self.door) = Some((inside, opened));
        (told, open)
    }

    fn last(&self) -> ThreadId {
        *lock(&self.ran_on).last().unwrap()
    }
}

fn pool(instances: usize) -> (Arc<InstancePool>, Arc<World>) {
    let world = Arc::new(World::default());
    world.instances.store(instances, Ordering::SeqCst);
    let made = (0..instances).map(|_| Box::new(Recorder(Arc::clone(&world))) as Box<dyn Instance>);
    let spawner = Spawner::start();
    let watch = Arc::new(RunWatch::start(&spawner));
    let options = PoolOptions {
        name: "a/1".to_owned(),
        queue_capacity: NonZeroUsize::MIN,
        batched: false,
        batching: Err("it is not looked at here".to_owned()),
    };
    let pool = InstancePool::new(&options, made.collect(), (&spawner, &watch));
    (Arc::new(pool), world)
}

/// A pool of which the runs are known to be short.
async fn quick(instances: usize) -> (Arc<InstancePool>, Arc<World>) {
    let (pool, world) = pool(instances);
    assert_eq!(pool.placement(), Placement::Thread, "nothing is known");
    // More often on a machine that is busy with others.
    while pool.placement() != Placement::Inline {
        ask(&pool).await.unwrap();
    }
    (pool, world)
}

fn request() -> PreparedRequest {
    let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let request = InferenceRequest { inputs: Vec::new(), outputs: Vec::new() };
    PreparedRequest::new(&signature, request).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

async fn aside(pool: &InstancePool) -> Result<(), InferError> {
    pool.run_aside(request(), later()).await.map(drop)
}

async fn ask(pool: &InstancePool) -> Result<(), InferError> {
    pool.run(request(), later()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_runs_happen_where_the_request_is() {
    let (pool, world) = quick(1).await;
    ask(&pool).await.unwrap();
    assert_eq!(world.last(), thread::current().id());
    pool.run_aside(request(), later()).await.unwrap();
    assert_ne!(world.last(), thread::current().id(), "nobody waits for it");
    pool.give_way(true);
    assert_eq!(pool.placement(), Placement::Thread);
    ask(&pool).await.unwrap();
    assert_ne!(world.last(), thread::current().id(), "this thread gives way to nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_expected_to_be_quick_begins_inline() {
    let ((known, _), (pool, world)) = (quick(1).await, pool(1));
    pool.expect_like(&known);
    ask(&pool).await.unwrap();
    assert_eq!(world.last(), thread::current().id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_idle_instance_waits_for_the_one_that_runs_inline() {
    let (pool, world) = quick(1).await;
    let (inside, open) = world.hold_up();
    let same = Arc::clone(&pool);
    let first = tokio::spawn(async move {
        ask(&same).await.unwrap();
        thread::current().id()
    });
    inside.recv().unwrap();
    let second = ask(&pool);
    let then = async {
        while pool.queue_depth() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&pool).await, Err(InferError::Overloaded { capacity: 1 }));
        open.send(()).unwrap();
    };
    let (second, ()) = tokio::join!(second, then);
    second.unwrap();
    let inline = first.await.unwrap();
    assert!(lock(&world.ran_on).contains(&inline));
    assert_ne!(world.last(), thread::current().id());
}

/// Asks while runs have no end; on which threads they were.
async fn asked_in_vain(pool: &InstancePool, world: &World, patience: Duration) -> Vec<ThreadId> {
    world.endless.store(true, Ordering::SeqCst);
    lock(&world.ran_on).clear();
    let answer = pool.run(request(), Instant::now() + patience).await;
    assert_eq!(answer.map(drop), Err(InferError::DeadlineExceeded));
    world.endless.store(false, Ordering::SeqCst);
    lock(&world.ran_on).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inline_run_ends_at_its_deadline_and_is_the_last_for_a_while() {
    let (pool, world) = quick(1).await;
    let ran_on = asked_in_vain(&pool, &world, STALL / 2).await;
    assert_eq!(ran_on, [thread::current().id()]);
    assert_eq!(pool.placement(), Placement::Thread);
    ask(&pool).await.unwrap();
    assert_ne!(world.last(), thread::current().id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inline_run_that_lasts_begins_again_on_a_thread() {
    let (pool, world) = quick(1).await;
    let ran_on = asked_in_vain(&pool, &world, STALL * 10).await;
    assert_eq!(ran_on[0], thread::current().id());
    assert_ne!(ran_on[1], thread::current().id());
    assert_eq!((ran_on.len(), pool.placement()), (2, Placement::Thread));
    ask(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_waits_for_an_inline_run_and_drops_every_instance() {
    let (pool, world) = quick(2).await;
    let (inside, open) = world.hold_up();
    let same = Arc::clone(&pool);
    let running = tokio::spawn(async move { ask(&same).await });
    inside.recv().unwrap();
    let same = Arc::clone(&pool);
    let ended = thread::spawn(move || same.shutdown());
    while ask(&pool).await != Err(InferError::Stopped) {
        tokio::task::yield_now().await;
    }
    assert!(!ended.is_finished());
    open.send(()).unwrap();
    assert_eq!(running.await.unwrap(), Ok(()));
    ended.join().unwrap();
    assert_eq!(world.instances.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_come_when_there_is_something_to_do_for_them() {
    let (pool, world) = pool(2);
    let threads = || lock(&pool.shared.threads).len();
    assert_eq!(threads(), 0);
    aside(&pool).await.unwrap();
    assert_eq!(threads(), 1);
    let (inside, open) = world.hold_up();
    let held = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { aside(&pool).await }
    });
    tokio::task::spawn_blocking(move || inside.recv().unwrap()).await.unwrap();
    aside(&pool).await.unwrap();
    assert_eq!(threads(), 2);
    open.send(()).unwrap();
    held.await.unwrap().unwrap();
}
