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
    /// Takes so many bytes of the budget; zero is no bound.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn reserve(&self, bytes: u64, budget: u64) -> Result<Reservation, NoRoom> {
        let mut used = self.sum();
        let sum = used.saturating_add(bytes);
        if budget > 0 && sum > budget {
            return Err(NoRoom { needed: bytes, used: *used, budget });
        }
        *used = sum;
        Ok(Reservation { ledger: self.clone(), bytes, given_back: AtomicBool::new(false) })
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

    /// Gives it back now, whoever still holds what it was for.
    pub(super) fn give_back(&self) {
        if !self.given_back.swap(true, Ordering::SeqCst) {
            let mut used = self.ledger.sum();
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
        let first = ledger.reserve(60, 100).unwrap();
        let refused = ledger.reserve(41, 100).unwrap_err();
        assert_eq!(refused, NoRoom { needed: 41, used: 60, budget: 100 });
        let second = ledger.reserve(40, 100).unwrap();
        assert_eq!((ledger.used(), first.bytes(), second.bytes()), (100, 60, 40));
        first.give_back();
        assert_eq!(ledger.used(), 40);
        drop(first);
        assert_eq!(ledger.used(), 40, "once");
        let unbounded = ledger.reserve(u64::MAX, 0).unwrap();
        assert!(ledger.reserve(1, 100).is_err());
        drop((unbounded, second));
    }
}
