use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::*;
use crate::causes;
use crate::lifecycle::{
    CheckKind, Deadline, EventBus, HealthOptions, HealthRegistry, Jitter, ResourceHandle,
    ResourceManager, ResourceState, ResourceType,
};

const SECOND: Duration = Duration::from_secs(1);

/// Where items come from, and what has become of them.
#[derive(Default)]
struct World {
    born: AtomicU32,
    cleaned: Mutex<Vec<u32>>,
    /// What the next initialisers say instead.
    refusals: Mutex<VecDeque<&'static str>>,
    /// Those that are not well.
    ill: Mutex<Vec<u32>>,
    /// How long an initialiser and a cleaner take.
    slow: Mutex<Duration>,
    unclean: AtomicBool,
}

impl World {
    fn cleaned(&self) -> Vec<u32> {
        let mut cleaned = self.cleaned.lock().unwrap().clone();
        cleaned.sort_unstable();
        cleaned
    }

    /// Each item is a number of its own.
    fn kind(self: &Arc<Self>) -> ResourceType<(), u32> {
        let (init, clean, check) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let kind = ResourceType::new(move |()| {
            let world = Arc::clone(&init);
            async move {
                let slow = *world.slow.lock().unwrap();
                sleep(slow).await;
                match world.refusals.lock().unwrap().pop_front() {
                    Some(refusal) => Err(refusal),
                    None => Ok(world.born.fetch_add(1, Ordering::SeqCst) + 1),
                }
            }
        });
        let kind = kind.clean(move |item: Arc<u32>| {
            let world = Arc::clone(&clean);
            async move {
                let slow = *world.slow.lock().unwrap();
                sleep(slow).await;
                world.cleaned.lock().unwrap().push(*item);
                if world.unclean.load(Ordering::SeqCst) { Err("stuck") } else { Ok(()) }
            }
        });
        kind.check(move |item: Arc<u32>| {
            let ill = check.ill.lock().unwrap().contains(&*item);
            async move { if ill { Err(format!("{item} is ill")) } else { Ok(()) } }
        })
    }
}

struct Fixture {
    world: Arc<World>,
    manager: ResourceManager,
    health: HealthRegistry,
    handle: ResourceHandle<Pool<u32>>,
}

fn options(min: usize, max: usize) -> PoolOptions {
    PoolOptions {
        min,
        max_waiting: 2,
        wait: 5 * SECOND,
        idle_timeout: 60 * SECOND,
        ..PoolOptions::new(NonZeroUsize::new(max).unwrap())
    }
}

fn fixture(options: PoolOptions) -> Fixture {
    let (world, events) = (Arc::new(World::default()), EventBus::new(256));
    let hour = Duration::from_hours(1);
    let health = HealthOptions { jitter: Jitter::none(), ..HealthOptions::new(hour, SECOND) };
    let health = HealthRegistry::with(health, events.clone());
    let manager = ResourceManager::with_jitter(health.clone(), events, Jitter::none());
    let handle = manager.register(world.kind().pool("pool", (), options));
    Fixture { world, manager, health, handle }
}

fn soon() -> Deadline {
    Deadline::after(10 * SECOND)
}

/// Until what is under way has come to its next wait.
async fn settle() {
    for _ in 0..32 {
        yield_now().await;
    }
}

impl Fixture {
    async fn end(&self) {
        let failures = self.manager.clean_all(soon()).await;
        assert!(failures.is_empty(), "{failures:?}");
        let all: Vec<u32> = (1..=self.world.born.load(Ordering::SeqCst)).collect();
        assert_eq!(self.world.cleaned(), all, "each is cleaned up once");
    }
}

#[track_caller]
fn refused<T: fmt::Debug>(result: Result<T, PoolError>, expected: &str) {
    assert_eq!(causes::of_error(&result.unwrap_err()), expected);
}

#[tokio::test(start_paused = true)]
async fn items_are_kept_lent_once_and_used_again() {
    let at = fixture(options(2, 3));
    at.manager.init_all(soon()).await.unwrap();
    let pool = at.handle.get().await.unwrap();
    assert_eq!((pool.status().size, pool.status().in_use), (2, 0));
    let (a, b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let mut c = pool.get().await.unwrap();
    let mut numbers = [*a, *b, *c];
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    *c = 3;
    assert_eq!(pool.status().in_use, 3);
    drop((a, b, c));
    drop(pool.get().await.unwrap());
    let expected =
        PoolStatus { size: 3, in_use: 0, waiting: 0, initialized: 3, cleaned: 0, unclean: 0 };
    assert_eq!(pool.status(), expected);
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn users_wait_in_line_and_not_for_ever() {
    let at = fixture(options(0, 1));
    let pool = at.handle.get().await.unwrap();
    let (item, begun) = (pool.get().await.unwrap(), Instant::now());
    let served = Mutex::new(Vec::new());
    let user = async |name: &'static str| {
        let item = pool.get().await?;
        served.lock().unwrap().push(name);
        sleep(SECOND).await;
        drop(item);
        Ok::<_, PoolError>(())
    };
    let (first, second, third, ()) =
        tokio::join!(user("first"), user("second"), user("third"), async {
            settle().await;
            assert_eq!(pool.status().waiting, 2);
            drop(item);
            // Whoever comes now does not overtake those who wait.
            settle().await;
            assert!(pool.items.timeout_get(&AT_ONCE).await.is_err());
        });
    first.and(second).unwrap();
    refused(third, "2 others wait for an item already");
    assert_eq!(*served.lock().unwrap(), ["first", "second"]);
    assert_eq!(begun.elapsed(), 2 * SECOND);
    let _item = pool.get().await.unwrap();
    refused(pool.get().await, "no item came back within 5s");
    assert_eq!(pool.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_not_well_is_replaced_at_the_next_use() {
    let at = fixture(options(2, 2));
    at.manager.init_all(soon()).await.unwrap();
    let pool = at.handle.get().await.unwrap();
    at.world.ill.lock().unwrap().extend([1, 2]);
    assert_eq!(*pool.get().await.unwrap(), 3);
    settle().await;
    assert_eq!(at.world.cleaned(), [1, 2]);
    // The other is set up again without a user.
    assert_eq!((pool.status().size, pool.status().initialized), (2, 4));
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_is_let_go_down_to_what_is_kept() {
    let at = fixture(options(1, 4));
    at.manager.init_all(soon()).await.unwrap();
    let pool = at.handle.get().await.unwrap();
    let items: Vec<_> = join_all((0..4).map(|_| pool.get())).await;
    // A long use is no idleness.
    sleep(100 * SECOND).await;
    drop(items);
    sleep(50 * SECOND).await;
    assert_eq!(pool.status().size, 4);
    drop(pool.get().await.unwrap());
    sleep(45 * SECOND).await;
    assert_eq!(pool.status().size, 1, "{:?}", pool.status());
    sleep(200 * SECOND).await;
    assert_eq!(pool.status().size, 1);
    assert_eq!(at.world.cleaned().len(), 3);
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_discarded_is_cleaned_up_and_replaced() {
    let at = fixture(options(2, 2));
    at.manager.init_all(soon()).await.unwrap();
    let pool = at.handle.get().await.unwrap();
    let (gone, kept) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let (gone_number, kept_number) = (*gone, *kept);
    *at.world.refusals.lock().unwrap() = ["away", "away"].into();
    gone.discard();
    settle().await;
    assert_eq!(at.world.cleaned(), [gone_number]);
    assert_eq!(pool.status().size, 1);
    // It is tried again, each time after a longer pause.
    sleep(SECOND).await;
    assert_eq!((pool.status().size, at.world.refusals.lock().unwrap().len()), (2, 0));
    assert_eq!(*kept, kept_number);
    drop((kept, pool));
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_item_of_a_user_that_panics_is_not_used_again() {
    let at = fixture(options(0, 1));
    let handle = at.handle.clone();
    let user = tokio::spawn(async move {
        let pool = handle.get().await.unwrap();
        let _item = pool.get().await.unwrap();
        panic!("on purpose");
    });
    assert!(user.await.unwrap_err().is_panic());
    let pool = at.handle.get().await.unwrap();
    assert_eq!(*pool.get().await.unwrap(), 2);
    assert_eq!(at.world.cleaned(), [1]);
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn users_that_go_away_take_nothing_with_them() {
    let at = fixture(options(0, 1));
    let pool = at.handle.get().await.unwrap();
    // While it is set up.
    *at.world.slow.lock().unwrap() = SECOND;
    assert!(soon().at_most(SECOND / 2).bound(pool.get()).await.is_none());
    let item = pool.get().await.unwrap();
    // While it waits.
    assert!(soon().at_most(SECOND / 2).bound(pool.get()).await.is_none());
    assert_eq!((pool.status().waiting, pool.status().in_use), (0, 1));
    drop(item);
    assert_eq!(*pool.get().await.unwrap(), 1);
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_start_leaves_nothing() {
    let at = fixture(options(3, 3));
    at.world.refusals.lock().unwrap().push_back("not yet");
    let start = at.manager.init_all(soon()).await.unwrap_err();
    let told = "resource 'pool' failed: no item can be set up: not yet";
    assert_eq!(causes::of_error(&start), told);
    assert_eq!(at.handle.report().state, ResourceState::Failed);
    at.manager.init("pool").await.unwrap();
    at.end().await;

    let wrong = fixture(options(4, 3));
    let start = wrong.manager.init_all(soon()).await.unwrap_err();
    assert!(causes::of_error(&start).ends_with("a pool of at most 3 items cannot keep 4"));
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_that_fails_takes_the_others_with_it() {
    let at = fixture(options(3, 3));
    let world = Arc::clone(&at.world);
    *at.world.slow.lock().unwrap() = SECOND;
    let (start, ()) = tokio::join!(at.manager.init_all(soon()), async move {
        sleep(5 * SECOND / 2).await;
        world.refusals.lock().unwrap().push_back("not yet");
    });
    start.unwrap_err();
    assert_eq!(at.world.cleaned(), [1, 2]);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_refuses_who_waits_and_waits_for_who_has() {
    let at = fixture(options(1, 1));
    at.manager.init_all(soon()).await.unwrap();
    let pool = at.handle.get().await.unwrap();
    let item = pool.get().await.unwrap();
    let waits = async {
        let refusal = pool.get().await;
        refused(refusal, "the pool is closed");
        sleep(SECOND).await;
        drop(item);
    };
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(pool.end(), waits);
    ended.unwrap();
    assert_eq!(begun.elapsed(), SECOND);
    assert_eq!(at.world.cleaned(), [1]);
    refused(pool.get().await, "the pool is closed");
    drop(pool);
    at.end().await;
}

#[tokio::test(start_paused = true)]
async fn cleaners_that_fail_are_counted_and_told() {
    let at = fixture(options(2, 2));
    at.manager.init_all(soon()).await.unwrap();
    at.world.unclean.store(true, Ordering::SeqCst);
    let failures = at.manager.clean_all(soon()).await;
    let told: Vec<_> = failures.iter().map(|failure| causes::of_error(failure)).collect();
    assert_eq!(told, ["resource 'pool' failed: 2 items were not cleaned up"]);
    assert_eq!(at.world.cleaned(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_set_items_up_is_degraded_until_it_can() {
    let at = fixture(options(0, 1));
    let pool = at.handle.get().await.unwrap();
    at.world.refusals.lock().unwrap().push_back("the server is away");
    refused(pool.get().await, "no item can be set up: the server is away");
    at.health.run(CheckKind::Readiness, "pool").await.unwrap();
    let report = at.handle.report();
    assert_eq!(report.state, ResourceState::Degraded);
    assert_eq!(report.error.as_deref(), Some("the server is away"));
    drop(pool.get().await.unwrap());
    at.health.run(CheckKind::Readiness, "pool").await.unwrap();
    assert_eq!(at.handle.report().state, ResourceState::Ready);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_without_an_end_is_cleaned_up_all_the_same() {
    let Fixture { world, manager, handle, .. } = fixture(options(2, 2));
    manager.init_all(soon()).await.unwrap();
    let pool = handle.get().await.unwrap();
    let item = pool.get().await.unwrap();
    drop((manager, handle, pool));
    settle().await;
    drop(item);
    settle().await;
    assert_eq!(world.cleaned(), [1, 2]);
}

/// Users that take, hold, discard, give up and panic, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_users_do_each_item_is_cleaned_up_once() {
    let at = fixture(PoolOptions { max_waiting: 64, ..options(2, 4) });
    at.manager.init_all(soon()).await.unwrap();
    let users = (0..64_u64).map(|user| {
        let (handle, world) = (at.handle.clone(), Arc::clone(&at.world));
        tokio::spawn(async move {
            for turn in 0..50 {
                let pool = handle.get().await.unwrap();
                let item = pool.get().await.unwrap();
                match (user * 31 + turn * 17) % 23 {
                    0 => item.discard(),
                    1 => world.ill.lock().unwrap().push(*item),
                    2 => {
                        let hurry = Deadline::after(Duration::from_micros(50));
                        drop(item);
                        drop(hurry.bound(pool.get()).await);
                    }
                    3 if turn > 40 => panic!("on purpose"),
                    _ => yield_now().await,
                }
            }
        })
    });
    join_all(users).await;
    // What was made ready for somebody who has given up comes back by itself.
    let pool = at.handle.get().await.unwrap();
    let settled = async {
        while pool.status().in_use > 0 {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    let status = pool.status();
    assert!(status.size <= 4 && status.waiting == 0, "{status:?}");
    drop(pool);
    at.end().await;
}
