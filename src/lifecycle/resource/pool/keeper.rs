//! What a pool does beside its users: it lets go what is idle, and sets up what is missing.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Pool, PoolError, Timeouts, WeakPool};
use tokio::select;
use tokio::time::sleep;

use super::items::Items;
use crate::causes;
use crate::lifecycle::handler::HandlerError;
use crate::lifecycle::resource::backoff::Backoff;

/// Between two looks at what is idle, at most and at least.
const LOOKS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(10));

/// Takes what can be had without a wait for others.
pub(super) const AT_ONCE: Timeouts =
    Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

/// Keeps a pool for as long as there is one.
pub(super) async fn keep<T: Send + Sync + 'static>(pool: WeakPool<Items<T>>) {
    let Some(kept) = pool.upgrade() else { return };
    let (gone, options) = (Arc::clone(&kept.manager().gone), kept.manager().recipe().options);
    drop(kept);
    let look = (options.idle_timeout / 2).clamp(LOOKS.1, LOOKS.0);
    let mut failures = 0;
    loop {
        if failures == 0 {
            select! {
                () = sleep(look) => {}
                () = gone.notified() => {}
            }
        } else {
            sleep(Backoff::default().delay(failures, 0.0)).await;
        }
        let Some(kept) = pool.upgrade() else { return };
        drop_idle(&kept);
        failures = match fill(&kept).await {
            Ok(()) => 0,
            Err(failure) => {
                let resource = kept.manager().recipe().name();
                let cause = causes::of_error(&failure);
                tracing::warn!(resource, cause, "an item of a pool could not be set up");
                failures + 1
            }
        };
    }
}

/// Sets items up until there are as many as shall be kept. Those that are idle are held meanwhile.
pub(super) async fn fill<T>(pool: &Pool<Items<T>>) -> Result<(), HandlerError>
where
    T: Send + Sync + 'static,
{
    let min = pool.manager().recipe().options.min;
    let mut held = Vec::new();
    while pool.status().size < min {
        match pool.timeout_get(&AT_ONCE).await {
            Ok(item) => held.push(item),
            Err(PoolError::Backend(failure)) => return Err(failure),
            // Users have them all, or there is no pool any more.
            Err(_) => break,
        }
    }
    Ok(())
}

fn drop_idle<T: Send + Sync + 'static>(pool: &Pool<Items<T>>) {
    let options = pool.manager().recipe().options;
    let mut spare = pool.status().size.saturating_sub(options.min);
    pool.retain(|item, _| {
        let keep = spare == 0 || item.idle_since.elapsed() < options.idle_timeout;
        if !keep {
            spare -= 1;
        }
        keep
    });
}
