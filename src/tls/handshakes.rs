//! How many handshakes are under way, and which of them makes room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Handshakes at once. Those that are stuck are the oldest, so that they hold up nobody.
const MOST: usize = 512;

/// Those that are under way, the oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    begun: u64,
    entries: VecDeque<(u64, CancellationToken)>,
}

/// One handshake; it is under way until this is dropped.
#[must_use = "the handshake counts only while this exists"]
#[derive(Debug)]
pub(super) struct Turn {
    number: u64,
    given_up: CancellationToken,
    all: Handshakes,
}

impl Handshakes {
    /// Begins one more, and gives the oldest up where there are too many.
    pub(super) fn begin(&self) -> Turn {
        let given_up = CancellationToken::new();
        let mut waiting = self.waiting();
        let number = waiting.begun;
        waiting.begun += 1;
        waiting.entries.push_back((number, given_up.clone()));
        if waiting.entries.len() > MOST
            && let Some((_, oldest)) = waiting.entries.pop_front()
        {
            oldest.cancel();
        }
        drop(waiting);
        Turn { number, given_up, all: self.clone() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Cancelled when it has to make room.
    pub(super) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.all.waiting();
        if let Ok(at) = waiting.entries.binary_search_by_key(&self.number, |(number, _)| *number) {
            waiting.entries.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let handshakes = Handshakes::default();
        let mut turns: VecDeque<Turn> = (0..MOST).map(|_| handshakes.begin()).collect();
        assert!(turns.iter().all(|turn| !turn.given_up().is_cancelled()));
        drop(turns.remove(1));
        turns.push_back(handshakes.begin());
        assert!(!turns[0].given_up().is_cancelled(), "one had ended");
        turns.push_back(handshakes.begin());
        assert!(turns[0].given_up().is_cancelled());
        assert!(turns.iter().skip(1).all(|turn| !turn.given_up().is_cancelled()));
        drop(turns);
        assert!(handshakes.waiting().entries.is_empty());
    }
}
