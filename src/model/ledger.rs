//! What loaded versions take of the memory that models may have: reserved before a load, given back
//! with the version.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A load that does not fit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// What the version is estimated to take.
    pub needed: u64,
    /// What is taken.
    pub used: u64,
    /// What there is.
    pub budget: u64,
}

/// The sum of all reservations.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<u64>>);

/// A part of the memory that is taken. Given back when it is dropped, or before.
#[derive(Debug)]
#[must_use]
pub(super) struct Reservation {
    ledger: Ledger,
    bytes: u64,
    /// What of them is in the ledger's sum: less where they lie within another reservation, none when
    /// they were given back. Written only with the sum locked.
    charged: AtomicU64,
}

impl Ledger {
    /// Takes so many bytes of the budget; zero is no bound. They lie `within` what is reserved already, as
    /// far as they can: see [`Reservation::take_over`].
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn reserve(
        &self,
        bytes: u64,
        budget: u64,
        within: Option<&Reservation>,
    ) -> Result<Reservation, NoRoom> {
        let mut used = self.sum();
        let kept = within.map_or(0, Reservation::charged);
        let others = used.saturating_sub(kept);
        // Who takes nothing fits, also where too much is taken already.
        if budget > 0 && bytes > 0 && others.saturating_add(bytes) > budget {
            return Err(NoRoom { needed: bytes, used: others, budget });
        }
        let charged = bytes.saturating_sub(kept);
        *used = used.saturating_add(charged);
        Ok(Reservation { ledger: self.clone(), bytes, charged: AtomicU64::new(charged) })
    }

    /// Takes so many bytes whatever the budget.
    pub(super) fn hold(&self, bytes: u64) -> Reservation {
        let mut used = self.sum();
        *used = used.saturating_add(bytes);
        Reservation { ledger: self.clone(), bytes, charged: AtomicU64::new(bytes) }
    }

    pub(super) fn used(&self) -> u64 {
        *self.sum()
    }

    fn sum(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is taken by it any more.
    pub(super) fn is_given_back(&self) -> bool {
        self.charged() == 0
    }

    /// Takes the place of the reservation that it lies within, of which what is left is given back. Until
    /// then, that one is whole again when this is dropped.
    pub(super) fn take_over(&self, kept: &Self) {
        let mut used = self.ledger.sum();
        let both = kept.charged.swap(0, Ordering::SeqCst).saturating_add(self.charged());
        *used = used.saturating_sub(both).saturating_add(self.bytes);
        self.charged.store(self.bytes, Ordering::SeqCst);
    }

    fn charged(&self) -> u64 {
        self.charged.load(Ordering::SeqCst)
    }

    /// Gives it back now, whoever still holds what it was for.
    pub(super) fn give_back(&self) {
        let mut used = self.ledger.sum();
        *used = used.saturating_sub(self.charged.swap(0, Ordering::SeqCst));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let ledger = Ledger::default();
        let first = ledger.reserve(60, 100, None).unwrap();
        let refused = ledger.reserve(41, 100, None).unwrap_err();
        assert_eq!(refused, NoRoom { needed: 41, used: 60, budget: 100 });
        let second = ledger.reserve(40, 100, None).unwrap();
        assert_eq!((ledger.used(), first.bytes(), second.bytes()), (100, 60, 40));
        first.give_back();
        assert_eq!(ledger.used(), 40);
        drop(first);
        assert_eq!(ledger.used(), 40, "once");
        let unbounded = ledger.reserve(u64::MAX, 0, None).unwrap();
        assert!(ledger.reserve(1, 100, None).is_err());
        assert!(ledger.reserve(0, 100, None).is_ok(), "nothing fits always");
        drop((unbounded, second));
    }

    #[test]
    fn one_takes_the_place_of_another_in_one_step() {
        let ledger = Ledger::default();
        let (_other, held) = (ledger.reserve(40, 100, None).unwrap(), ledger.hold(60));
        assert!(ledger.reserve(1, 100, None).is_err(), "nobody else gets in between");
        let refused = ledger.reserve(61, 100, Some(&held)).unwrap_err();
        assert_eq!(refused, NoRoom { needed: 61, used: 40, budget: 100 });
        let instead = ledger.reserve(50, 100, Some(&held)).unwrap();
        assert_eq!((ledger.used(), instead.bytes()), (100, 50), "it lies within");
        drop(instead);
        assert_eq!(ledger.used(), 100, "and leaves what it lay in");
        let instead = ledger.reserve(50, 100, Some(&held)).unwrap();
        instead.take_over(&held);
        assert_eq!((ledger.used(), instead.bytes()), (90, 50));
        drop(held);
        assert_eq!(ledger.used(), 90);
        drop(instead);
        assert_eq!(ledger.used(), 40);
    }

    #[test]
    fn what_does_not_lie_within_is_taken_besides() {
        let ledger = Ledger::default();
        let held = ledger.hold(60);
        let larger = ledger.reserve(80, 100, Some(&held)).unwrap();
        assert_eq!(ledger.used(), 80);
        drop(larger);
        assert_eq!(ledger.used(), 60);
        let larger = ledger.reserve(80, 100, Some(&held)).unwrap();
        larger.take_over(&held);
        drop(held);
        assert_eq!(ledger.used(), 80);
        larger.give_back();
        assert_eq!(ledger.used(), 0);
    }
}
