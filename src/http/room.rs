//! How many connections there may be.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections beyond the bound, on which only probes are answered, and not for long.
const SPARE: usize = 64;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    regular: Arc<Semaphore>,
}

/// The place of one connection; it is taken until this is dropped.
#[must_use = "the place is taken only while this exists"]
#[derive(Debug)]
pub(super) struct Place {
    _any: OwnedSemaphorePermit,
    regular: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// With so many places, and some more for probes.
    pub(super) fn new(places: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(places.saturating_add(SPARE).min(Semaphore::MAX_PERMITS))),
            regular: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a place of any kind. Cancel safe.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_owned().await.expect("nobody closes it")
    }

    /// Tells of which kind it is, which may have changed since it was waited for.
    pub(super) fn assign(&self, place: OwnedSemaphorePermit) -> Place {
        Place { _any: place, regular: Arc::clone(&self.regular).try_acquire_owned().ok() }
    }
}

impl Place {
    pub(super) fn is_spare(&self) -> bool {
        self.regular.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn places_beyond_the_bound_are_spare_and_then_there_are_none() {
        let room = Room::new(2);
        let mut places = Vec::new();
        for _ in 0..2 + SPARE {
            places.push(room.assign(room.place().await));
        }
        let spare = places.iter().filter(|place| place.is_spare()).count();
        assert_eq!(spare, SPARE);
        assert!(room.place().now_or_never().is_none());
        drop(places.remove(0));
        assert!(!room.assign(room.place().await).is_spare());
    }
}
