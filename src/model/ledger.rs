//! What loaded versions take of the memory that models may have: reserved before a load, given back
//! with the version.

use std::sync::atomic::{AtomicBool, Ordering};
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
    given_back: AtomicBool,
}

impl Ledger {
    /// Takes so many bytes of the budget; zero is no bound. Those that `instead_of` has are given back for
    /// it, in the same moment.
    ///
    /// # Errors
    /// [`NoRoom`]; then `instead_of` is kept.
    pub(super) fn reserve(
        &self,
        bytes: u64,
        budget: u64,
        instead_of: Option<&Reservation>,
    ) -> Result<Reservation, NoRoom> {
        let mut used = self.sum();
        let given = instead_of.map_or(0, Reservation::held);
        let others = used.saturating_sub(given);
        let sum = others.saturating_add(bytes);
        if budget > 0 && sum > budget {
            return Err(NoRoom { needed: bytes, used: others, budget });
        }
        if let Some(given) = instead_of {
            given.given_back.store(true, Ordering::SeqCst);
        }
        *used = sum;
        Ok(Reservation { ledger: self.clone(), bytes, given_back: AtomicBool::new(false) })
    }

    /// Takes so many bytes whatever the budget.
    pub(super) fn hold(&self, bytes: u64) -> Reservation {
        let mut used = self.sum();
        *used = used.saturating_add(bytes);
        Reservation { ledger: self.clone(), bytes, given_back: AtomicBool::new(false) }
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

    /// The bytes that were not given back.
    fn held(&self) -> u64 {
        if self.given_back.load(Ordering::SeqCst) { 0 } else { self.bytes }
    }

    /// Gives it back now, whoever still holds what it was for.
    pub(super) fn give_back(&self) {
        let mut used = self.ledger.sum();
        if !self.given_back.swap(true, Ordering::SeqCst) {
            *used = used.saturating_sub(self.bytes);
        }
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
        drop(held);
        assert_eq!((ledger.used(), instead.bytes()), (90, 50));
    }
}
