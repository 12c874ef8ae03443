//! The name that was probably meant.

/// How alike two names have to be; 1 is equal.
pub(crate) const ALIKE: f64 = 0.8;

/// The known name that is most like one that is unknown, if one is like it.
pub(crate) fn name<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    best(known.into_iter().map(|name| (strsim::jaro_winkler(wrong, name), name)))
}

/// What has the highest score, if that is high enough.
pub(crate) fn best<T>(scored: impl Iterator<Item = (f64, T)>) -> Option<T> {
    let alike = scored.filter(|(score, _)| *score > ALIKE);
    alike.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}
