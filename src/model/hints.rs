//! Hints of a source that something may have changed.

use tokio::sync::watch;

/// The end of a source, which its clones share. When the last is dropped, hints have ended.
#[derive(Debug, Clone, Default)]
pub struct Hinter(watch::Sender<()>);

/// The end of who follows. However many hints come before one is heard, they are one.
#[derive(Debug)]
pub struct Hints(watch::Receiver<()>);

impl Hinter {
    /// The end of somebody who follows, for the hints from now on.
    pub fn hints(&self) -> Hints {
        Hints(self.0.subscribe())
    }

    /// Says that something may have changed. Never waits.
    pub fn hint(&self) {
        self.0.send_replace(());
    }
}

impl Hints {
    /// Waits for a hint; `false` when there will be none any more. Cancel safe.
    pub async fn heard(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Takes the hints that have come until now as heard.
    pub fn catch_up(&mut self) {
        self.0.mark_unchanged();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn many_hints_are_one_and_the_last_end_is_told() {
        let hinter = Hinter::default();
        let mut hints = hinter.hints();
        assert_eq!(hints.heard().now_or_never(), None);
        (0..1000).for_each(|_| hinter.hint());
        assert_eq!(hints.heard().now_or_never(), Some(true));
        assert_eq!(hints.heard().now_or_never(), None);
        hinter.hint();
        hints.catch_up();
        assert_eq!(hints.heard().now_or_never(), None);
        drop(hinter);
        assert_eq!(hints.heard().now_or_never(), Some(false));
    }
}
