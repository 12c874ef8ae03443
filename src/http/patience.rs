//! A time to wait for what mostly comes at once.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, sleep_until};

/// What `future` gives; `None` at the deadline.
///
/// As `timeout_at` of tokio, but that no timer is set before the future has had a second chance: that costs as much as
/// reading a small body, for which a connection has to be asked only once.
///
/// Cancel safe if `future` is.
pub(super) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut has_waited = false;
    let first = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if has_waited => Poll::Ready(None),
        Poll::Pending => {
            has_waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    if let Some(output) = first.await {
        return Some(output);
    }
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep_until(deadline) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::task::yield_now;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_had_and_nothing_is_waited_for_beyond_it() {
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(within(deadline, ready(1)).await, Some(1));
        let soon = async {
            yield_now().await;
            yield_now().await;
            2
        };
        assert_eq!(within(deadline, soon).await, Some(2));
        let later = async {
            sleep(Duration::from_millis(999)).await;
            3
        };
        assert_eq!(within(deadline, later).await, Some(3));
        assert_eq!(within(deadline, pending::<()>()).await, None);
        assert_eq!(Instant::now(), deadline);
        advance(Duration::from_secs(1)).await;
        assert_eq!(within(deadline, ready(4)).await, Some(4), "what is there is not refused");
        assert_eq!(within(deadline, pending::<()>()).await, None);
    }
}
