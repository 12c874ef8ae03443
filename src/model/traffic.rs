//! Which version answers a request that names none, where several share them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::names::Version;

/// The sum of all weights: a weight is a number of hundredths of a percent.
pub const WHOLE: u32 = 10_000;

/// How far the next request without a key steps through the whole. It has no divisor in common with
/// [`WHOLE`], so that so many requests in a row meet every slot once; and it is the golden section of
/// it, so that also a few requests in a row are spread evenly.
const STRIDE: u64 = 6_181;

/// How requests are shared: versions with their weights, the highest version first. No weight is
/// zero, and their sum is [`WHOLE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights(Vec<(Version, u32)>);

/// Why weights cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// They do not make a whole.
    #[error("weights sum to 100, these to {}", percent(*.0))]
    Sum(u64),
    /// A version is there twice.
    #[error("version {0} is weighted twice")]
    Twice(Version),
}

impl Weights {
    /// Checks weights; those of zero are left out.
    ///
    /// # Errors
    /// [`WeightsError`].
    pub fn new(mut weights: Vec<(Version, u32)>) -> Result<Self, WeightsError> {
        weights.sort_unstable_by(|one, other| other.cmp(one));
        if let Some(twice) = weights.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(WeightsError::Twice(twice[0].0));
        }
        let sum = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if sum != u64::from(WHOLE) {
            return Err(WeightsError::Sum(sum));
        }
        weights.retain(|(_, weight)| *weight > 0);
        Ok(Self(weights))
    }

    /// A part of the requests, at most the whole, for one version, the rest for the other.
    pub(super) fn between(one: (Version, u32), rest: Version) -> Self {
        let given = one.1.min(WHOLE);
        Self::new(vec![(one.0, given), (rest, WHOLE - given)]).expect("both parts make a whole")
    }

    /// Each version with its weight, the highest version first.
    pub fn iter(&self) -> impl Iterator<Item = (Version, u32)> {
        self.0.iter().copied()
    }

    /// The weight of a version; zero where it has none.
    pub fn of(&self, version: Version) -> u32 {
        self.iter().find(|(known, _)| *known == version).map_or(0, |(_, weight)| weight)
    }

    /// The version that has this slot of the whole. As long as two versions share the whole, one
    /// whose weight grows keeps the slots it has.
    fn at(&self, slot: u32) -> Version {
        let mut end = 0;
        let owner = self.iter().find(|(_, weight)| {
            end += weight;
            slot < end
        });
        owner.expect("the weights make a whole").0
    }
}

/// Weights as text: hundredths of a percent as percent.
fn percent(hundredths: u64) -> String {
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:02}") }
}

/// Weights in use.
#[derive(Debug)]
pub(super) struct Split {
    weights: Weights,
    turn: AtomicU64,
}

impl Split {
    pub(super) fn new(weights: Weights) -> Self {
        Self { weights, turn: AtomicU64::new(0) }
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The version for a request: always the same for a key, as long as the weights are; in turn
    /// without one, exact over every [`WHOLE`] requests.
    pub(super) fn pick(&self, model: &str, key: Option<&str>) -> Version {
        let place = match key {
            Some(key) => hash(model, key),
            None => self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE),
        };
        let slot = u32::try_from(place % u64::from(WHOLE)).expect("the whole is below 2^32");
        self.weights.at(slot)
    }
}

/// Where a key falls, the same on every machine and in every release. The model is a part of it, so
/// that not the same users try what is new of every model.
fn hash(model: &str, key: &str) -> u64 {
    // FNV-1a, which is spread over all bits by the last steps of MurmurHash3's 64-bit variant.
    let bytes = model.bytes().chain([0]).chain(key.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn split(weights: &[(u64, u32)]) -> Split {
        let weights = weights.iter().map(|(number, weight)| (version(*number), *weight)).collect();
        Split::new(Weights::new(weights).unwrap())
    }

    fn counts(split: &Split, requests: u64) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            *counts.entry(split.pick("m", None).number()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn weights_make_a_whole() {
        let new = |weights: &[(u64, u32)]| {
            Weights::new(weights.iter().map(|(v, weight)| (version(*v), *weight)).collect())
        };
        assert_eq!(new(&[(1, 9_000), (2, 999)]), Err(WeightsError::Sum(9_999)));
        assert_eq!(new(&[]), Err(WeightsError::Sum(0)));
        assert_eq!(
            new(&[(1, u32::MAX), (2, u32::MAX)]).unwrap_err(),
            WeightsError::Sum(8_589_934_590)
        );
        assert_eq!(new(&[(1, 5_000), (1, 5_000)]), Err(WeightsError::Twice(version(1))));
        let text = WeightsError::Sum(9_950).to_string();
        assert_eq!(text, "weights sum to 100, these to 99.50");
        let zero = new(&[(1, 0), (2, WHOLE)]).unwrap();
        assert_eq!(zero.iter().collect::<Vec<_>>(), [(version(2), WHOLE)]);
    }

    #[test]
    fn shares_are_exact_over_the_whole_and_near_it_before() {
        let split = split(&[(1, 9_000), (2, 999), (3, 1)]);
        assert_eq!(counts(&split, 10_000), BTreeMap::from([(1, 9_000), (2, 999), (3, 1)]));
        assert_eq!(counts(&split, 10_000), BTreeMap::from([(1, 9_000), (2, 999), (3, 1)]));
        for requests in [100, 300, 1_000] {
            let got = counts(&self::split(&[(1, 7_500), (2, 2_500)]), requests)[&2];
            let due = requests / 4;
            assert!(got.abs_diff(due) <= 2, "{got} of {requests}");
        }
    }

    #[test]
    fn a_key_stays_where_it_is_and_follows_what_grows() {
        let keys: Vec<String> = (0..20_000).map(|user| format!("user-{user}")).collect();
        let on_two = |weight: u32| {
            let split = split(&[(1, WHOLE - weight), (2, weight)]);
            let fresh = keys.iter().map(|key| split.pick("m", Some(key)).number() == 2);
            fresh.collect::<Vec<bool>>()
        };
        let (few, many) = (on_two(500), on_two(2_500));
        assert_eq!(few, on_two(500));
        assert!(few.iter().zip(&many).all(|(before, after)| !before || *after));
        let share = |picked: &[bool]| picked.iter().filter(|on_two| **on_two).count();
        assert!(share(&few).abs_diff(1_000) < 120, "{}", share(&few));
        assert!(share(&many).abs_diff(5_000) < 250, "{}", share(&many));
    }

    #[test]
    fn a_key_falls_at_the_same_place_for_ever() {
        assert_eq!(hash("digits", "user-1"), 0xb76f_291c_60d7_7275);
        assert_ne!(hash("digits", "user-1"), hash("other", "user-1"));
        assert_eq!(hash("", ""), 0xb903_4ad3_7056_f5fb);
    }
}
