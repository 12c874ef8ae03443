//! Leases: as long as somebody holds one, a model is neither unloaded nor evicted.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The most leases that a model may have.
const MOST: usize = 1024;

/// A lease lasts no longer.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// A lease as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// Its id, by which it is renewed and ended.
    pub id: String,
    /// Who holds it, in the holder's words.
    pub holder: String,
    /// When it ends by itself.
    pub expires: SystemTime,
}

/// The leases of one model.
#[derive(Debug, Default)]
pub(super) struct Leases {
    begun: u64,
    held: BTreeMap<String, Lease>,
    /// Whether the model is about to go, so that nobody gets a lease any more.
    sealed: bool,
}

/// Why there is no new lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLease {
    /// There are as many as there may be.
    TooMany,
    /// The model is about to go.
    Sealed,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    over: Instant,
    expires: SystemTime,
}

impl Leases {
    /// A new lease.
    pub(super) fn grant(
        &mut self,
        holder: &str,
        ttl: Duration,
        life: &str,
    ) -> Result<LeaseReport, NoLease> {
        self.forget();
        if self.sealed {
            return Err(NoLease::Sealed);
        }
        if self.held.len() >= MOST {
            return Err(NoLease::TooMany);
        }
        self.begun += 1;
        let id = format!("{life}-{}", self.begun);
        Ok(self.hold(id, holder.to_owned(), ttl))
    }

    /// Nobody gets a lease from now on, until they are unsealed.
    ///
    /// # Errors
    /// The holders of leases, where there are any; then nothing has changed.
    pub(super) fn seal(&mut self) -> Result<(), Vec<String>> {
        self.forget();
        if !self.held.is_empty() {
            return Err(self.holders());
        }
        self.sealed = true;
        Ok(())
    }

    pub(super) fn unseal(&mut self) {
        self.sealed = false;
    }

    /// Lets a lease last for `ttl` from now on; `None` when there is no such lease, or not any more.
    pub(super) fn renew(&mut self, id: &str, ttl: Duration) -> Option<LeaseReport> {
        self.forget();
        let holder = self.held.get(id)?.holder.clone();
        Some(self.hold(id.to_owned(), holder, ttl))
    }

    /// Ends a lease; whether there was one.
    pub(super) fn end(&mut self, id: &str) -> bool {
        self.forget();
        self.held.remove(id).is_some()
    }

    /// The leases that hold now.
    pub(super) fn reports(&mut self) -> Vec<LeaseReport> {
        self.forget();
        let report = |(id, lease): (&String, &Lease)| LeaseReport {
            id: id.clone(),
            holder: lease.holder.clone(),
            expires: lease.expires,
        };
        self.held.iter().map(report).collect()
    }

    /// Who holds a lease now: holders by their name, or else by the id of the lease.
    pub(super) fn holders(&mut self) -> Vec<String> {
        self.forget();
        let holder = |(id, lease): (&String, &Lease)| {
            if lease.holder.is_empty() { format!("lease {id}") } else { lease.holder.clone() }
        };
        self.held.iter().map(holder).collect()
    }

    fn hold(&mut self, id: String, holder: String, ttl: Duration) -> LeaseReport {
        let ttl = ttl.min(LONGEST);
        let (over, expires) = (Instant::now() + ttl, SystemTime::now() + ttl);
        self.held.insert(id.clone(), Lease { holder: holder.clone(), over, expires });
        LeaseReport { id, holder, expires }
    }

    fn forget(&mut self) {
        let now = Instant::now();
        self.held.retain(|_, lease| lease.over > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_itself_unless_it_is_renewed() {
        let mut leases = Leases::default();
        let minute = Duration::from_mins(1);
        let one = leases.grant("one", minute, "x").unwrap();
        let two = leases.grant("two", minute, "x").unwrap();
        assert_eq!(leases.reports().len(), 2);
        tokio::time::advance(minute / 2).await;
        assert!(leases.renew(&one.id, minute).is_some());
        tokio::time::advance(minute / 2).await;
        let left: Vec<String> = leases.reports().into_iter().map(|lease| lease.holder).collect();
        assert_eq!(left, ["one"]);
        assert!(leases.renew(&two.id, minute).is_none());
        let nameless = leases.grant("", minute, "x").unwrap();
        let holders = vec!["one".to_owned(), format!("lease {}", nameless.id)];
        assert_eq!(leases.seal(), Err(holders));
        assert!(leases.end(&one.id) && !leases.end(&one.id));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_about_to_go_is_not_leased() {
        let mut leases = Leases::default();
        assert_eq!(leases.seal(), Ok(()));
        let granted = leases.grant("late", Duration::MAX, "x").map(drop);
        assert_eq!(granted, Err(NoLease::Sealed));
        leases.unseal();
        assert!(leases.grant("now", Duration::MAX, "x").is_ok());
    }
}
