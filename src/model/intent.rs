//! What operators have decided for a model. It outlasts loads, and unloads too.

use std::collections::BTreeMap;

use super::names::{AliasName, Version};
use super::traffic::Weights;

/// Decisions about one model; everything else follows its settings in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    /// The version that a swap or a rollback chose to be current.
    pub chosen: Option<Choice>,
    /// Names for versions.
    pub aliases: BTreeMap<AliasName, Version>,
    /// How the requests that name no version are shared; the current version gets all of them where
    /// this is `None`.
    pub weights: Option<Weights>,
    /// The version that gets copies of requests.
    pub shadow: Option<ShadowTarget>,
    /// Versions that are never evicted.
    pub pinned: Vec<Version>,
}

/// A version that was chosen among those there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The version.
    pub version: Version,
    /// The highest version that was known then. A higher one takes over when the model is loaded.
    pub newest: Version,
}

/// A version that gets copies of a part of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowTarget {
    /// The version.
    pub version: Version,
    /// The part, in hundredths of a percent.
    pub share: u32,
}

impl Intent {
    /// The versions to serve, lowest first, and which of them is to be current, where `selected` is
    /// what the model's policy says, lowest first. A choice holds until a higher version comes that
    /// was not known when it was made; it takes the place of what a policy for one version selects.
    pub(super) fn apply(&self, selected: &[Version]) -> Option<(Vec<Version>, Version)> {
        let newest = *selected.last()?;
        let mut versions = selected.to_vec();
        let current = match self.chosen {
            Some(chosen) if newest <= chosen.newest => {
                if versions.len() == 1 {
                    versions.clear();
                }
                chosen.version
            }
            _ => newest,
        };
        versions.push(current);
        versions.sort_unstable();
        versions.dedup();
        Some((versions, current))
    }

    /// The decisions without those about versions that are gone, each of which is told in words. They
    /// hold again when the version comes back. What names a version is content with one that is loaded;
    /// but one that is not `available` is not current for having been chosen.
    pub(super) fn without(
        mut self,
        available: &[Version],
        is_loaded: impl Fn(&Version) -> bool,
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let is_there = |version: &Version| available.contains(version);
        let mut gone = |what: &str, version: Version| {
            if is_there(&version) {
                return false;
            }
            let serves = is_loaded(&version);
            let still = if serves { ", and serves only as long as it is loaded" } else { "" };
            let gone = "which is not there any more";
            warnings.push(format!("{what} is version {version}, {gone}{still}"));
            !serves
        };
        self.aliases.retain(|alias, version| !gone(&format!("the alias '{alias}'"), *version));
        self.shadow = self.shadow.filter(|shadow| !gone("the shadow", shadow.version));
        let in_split = |weights: &Weights| {
            weights.iter().all(|(version, _)| !gone("a part of the traffic split", version))
        };
        self.weights = self.weights.filter(in_split);
        if let Some(Choice { version, .. }) = self.chosen.take_if(|it| !is_there(&it.version)) {
            warnings.push(format!("version {version} was chosen, which is not there any more"));
        }
        (self, warnings)
    }

    /// Every version that something other than being current speaks for.
    pub(super) fn named(&self) -> impl Iterator<Item = Version> {
        let weighted = self.weights.iter().flat_map(Weights::iter).map(|(version, _)| version);
        let shadow = self.shadow.iter().map(|shadow| shadow.version);
        self.aliases.values().copied().chain(weighted).chain(shadow)
    }

    /// What a version is needed for besides being current; empty when nothing is.
    pub(super) fn uses(&self, version: Version) -> Vec<String> {
        let aliases = self.aliases.iter().filter(|(_, named)| **named == version);
        let mut uses: Vec<String> =
            aliases.map(|(alias, _)| format!("the alias '{alias}'")).collect();
        if self.weights.as_ref().is_some_and(|weights| weights.of(version) > 0) {
            uses.push("the traffic split".to_owned());
        }
        if self.shadow.is_some_and(|shadow| shadow.version == version) {
            uses.push("the shadow".to_owned());
        }
        uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::WHOLE;

    fn versions(numbers: &[u64]) -> Vec<Version> {
        numbers.iter().map(|number| Version::new(*number).unwrap()).collect()
    }

    #[track_caller]
    fn check(chosen: Option<(u64, u64)>, selected: &[u64], expected: (&[u64], u64)) {
        let version = |number| Version::new(number).unwrap();
        let chosen = chosen
            .map(|(chosen, newest)| Choice { version: version(chosen), newest: version(newest) });
        let intent = Intent { chosen, ..Intent::default() };
        let applied = intent.apply(&versions(selected)).unwrap();
        assert_eq!(applied, (versions(expected.0), version(expected.1)));
    }

    #[test]
    fn a_choice_takes_the_place_of_the_newest_until_a_newer_one_comes() {
        check(None, &[2], (&[2], 2));
        check(None, &[1, 2], (&[1, 2], 2));
        check(Some((1, 2)), &[2], (&[1], 1));
        check(Some((1, 2)), &[1, 2], (&[1, 2], 1));
        check(Some((2, 2)), &[1], (&[2], 2));
        check(Some((1, 2)), &[3], (&[3], 3));
        check(Some((1, 2)), &[2, 3], (&[2, 3], 3));
        assert_eq!(Intent::default().apply(&[]), None);
    }

    #[test]
    fn what_is_gone_is_left_out_and_told() {
        let [one, two, three] = [1, 2, 3].map(|number| Version::new(number).unwrap());
        let intent = Intent {
            chosen: Some(Choice { version: one, newest: three }),
            aliases: BTreeMap::from([("old".parse().unwrap(), one), ("new".parse().unwrap(), two)]),
            weights: Some(Weights::between((two, 1), one)),
            shadow: Some(ShadowTarget { version: three, share: WHOLE }),
            ..Intent::default()
        };
        assert_eq!(intent.clone().without(&[one, two, three], |_| false), (intent.clone(), vec![]));
        let (left, told) = intent.clone().without(&[two, three], |_| true);
        assert!(told[0].ends_with("serves only as long as it is loaded"), "{told:?}");
        assert_eq!((left.chosen, told.len()), (None, 3));
        assert_eq!(Intent { chosen: intent.chosen, ..left }, intent);
        let (left, told) = intent.without(&[two], |version| *version == three);
        assert_eq!(left.named().collect::<Vec<_>>(), [two, three]);
        assert_eq!((left.chosen, left.weights), (None, None));
        assert_eq!(told[0], "the alias 'old' is version 1, which is not there any more");
        assert_eq!(told[3], "version 1 was chosen, which is not there any more");
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn uses_are_named() {
        let [one, two, three] = [1, 2, 3].map(|number| Version::new(number).unwrap());
        let intent = Intent {
            aliases: BTreeMap::from([("stable".parse().unwrap(), one)]),
            weights: Some(Weights::between((two, 1), one)),
            shadow: Some(ShadowTarget { version: three, share: WHOLE }),
            ..Intent::default()
        };
        assert_eq!(intent.uses(one), ["the alias 'stable'", "the traffic split"]);
        assert_eq!(intent.uses(two), ["the traffic split"]);
        assert_eq!(intent.uses(three), ["the shadow"]);
        assert!(Intent::default().uses(one).is_empty());
    }
}
