//! How often clients may ask.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts that are locked on their own.
const PARTS: usize = 16;

/// The clients that are known in one part. One more is counted with all others that are too many.
const CLIENTS: usize = 4096;

/// A bucket for each client, in which tokens come at the rate and go with requests. Of a bucket, only the
/// moment is kept at which it will be full; one that is full is forgotten.
#[derive(Debug)]
pub struct Rates {
    /// Between two requests at the rate.
    interval: Duration,
    /// How far ahead of the rate a client may be.
    tolerance: Duration,
    begun: Instant,
    parts: [Mutex<HashMap<IpAddr, Duration>>; PARTS],
    hasher: RandomState,
}

impl Rates {
    /// `rate` requests a second, and `burst` of them at once.
    pub fn new(rate: NonZeroUsize, burst: NonZeroUsize) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let interval = Duration::from_secs(1) / count(rate.get());
        Self {
            interval,
            tolerance: interval * (count(burst.get()) - 1),
            begun: Instant::now(),
            parts: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long the client has to wait before another is let in; this one is not counted.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        self.take_at(address, self.begun.elapsed())
    }

    fn take_at(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let client = client(address);
        let part = usize::try_from(self.hasher.hash_one(client) % PARTS as u64);
        let part = &self.parts[part.expect("there are few parts")];
        let mut full_at = part.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= CLIENTS && !full_at.contains_key(&client) {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let is_known = full_at.len() < CLIENTS || full_at.contains_key(&client);
        let others = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let full_at = full_at.entry(if is_known { client } else { others }).or_default();
        let ahead = full_at.saturating_sub(now);
        let wait = ahead.saturating_sub(self.tolerance);
        if !wait.is_zero() {
            return Err(wait);
        }
        *full_at = (*full_at).max(now) + self.interval;
        Ok(())
    }
}

/// Who is counted as one: of IPv6 a whole network, which is what a single user gets.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate: usize, burst: usize) -> Rates {
        Rates::new(NonZeroUsize::new(rate).unwrap(), NonZeroUsize::new(burst).unwrap())
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let rates = rates(10, 3);
        let ask = |address: &str, now| rates.take_at(address.parse().unwrap(), at(now));
        for _ in 0..3 {
            assert_eq!(ask("10.0.0.1", 5000), Ok(()));
        }
        assert_eq!(ask("10.0.0.1", 5000), Err(at(100)));
        assert_eq!(ask("10.0.0.2", 5000), Ok(()));
        assert_eq!(ask("10.0.0.1", 5099), Err(at(1)));
        assert_eq!(ask("10.0.0.1", 5100), Ok(()));
        assert_eq!(ask("10.0.0.1", 5100), Err(at(100)));
        for _ in 0..3 {
            assert_eq!(ask("::ffff:10.0.0.1", 6000), Ok(()), "it is the same, and has waited");
        }
        assert!(ask("10.0.0.1", 6000).is_err());
    }

    #[test]
    fn a_network_is_one_client() {
        let rates = rates(1, 1);
        let ask = |address: &str| rates.take_at(address.parse().unwrap(), at(0));
        assert!(ask("2001:db8::1").is_ok());
        assert!(ask("2001:db8::2").is_err());
        assert!(ask("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn no_number_of_clients_takes_more_memory() {
        let rates = rates(1, 1);
        let kept = || rates.parts.iter().map(|part| part.lock().unwrap().len()).sum::<usize>();
        for number in 0..200_000_u32 {
            rates.take_at(IpAddr::from(number.to_be_bytes()), at(0)).ok();
        }
        assert!(kept() <= (CLIENTS + 1) * PARTS, "{}", kept());
        // Those who were there are forgotten once they have waited.
        for number in 200_000..200_100_u32 {
            assert!(rates.take_at(IpAddr::from(number.to_be_bytes()), at(5000)).is_ok());
        }
    }
}
