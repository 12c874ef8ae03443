//! A time to wait for what mostly comes at once.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, timeout_at};

/// What `future` gives; `None` at the deadline.
///
/// As [`timeout_at`], but that no timer is set before the future has had a second chance, for which its task is woken:
/// that costs as much as reading a small body, for which a connection over HTTP/1.1 has to be asked only once.
///
/// Cancel safe if `future` is.
pub(super) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut has_waited = false;
    let soon = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if has_waited => Poll::Ready(None),
        Poll::Pending => {
            has_waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    match soon.await {
        Some(output) => Some(output),
        None => timeout_at(deadline, future).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn what_comes_soon_sets_no_timer() {
        // One that is set would panic, as this runtime has none.
        let runtime = Builder::new_current_thread().build().unwrap();
        let long_ago = Instant::now();
        let had = runtime.block_on(async {
            let second = async {
                yield_now().await;
                2
            };
            (within(long_ago, ready(1)).await, within(long_ago, second).await)
        });
        assert_eq!(had, (Some(1), Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_beyond_its_time() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let later = async {
            sleep(Duration::from_millis(999)).await;
            3
        };
        assert_eq!(within(deadline, later).await, Some(3));
        assert_eq!(within(deadline, pending::<()>()).await, None);
        assert_eq!(Instant::now(), deadline);
        assert_eq!(within(deadline, pending::<()>()).await, None);
    }
}
