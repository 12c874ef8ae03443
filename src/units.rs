//! Durations as humans write them.

use std::time::Duration;

/// The longest duration that a request may ask for: moments that far away can be told.
pub(crate) const LONGEST: Duration = Duration::from_hours(24 * 3650);

/// Reads a duration with its units, such as `30s`, `1.5h` or `1m 30s`; `None` for any other text, and
/// for a duration that is too long.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text.trim().is_empty() {
        return None;
    }
    // Added up here, since humantime panics at a sum that is a little too long.
    parts(text).try_fold(Duration::ZERO, |sum, part| {
        let unit = part.contains(char::is_alphabetic);
        let part = unit.then(|| humantime::parse_duration(part).ok())??;
        sum.checked_add(part)
    })
}

/// The numbers of the text, each with its unit.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_end();
    std::iter::from_fn(move || {
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let end = rest[unit..].find(|c: char| !c.is_alphabetic());
        let (part, left) = rest.split_at(end.map_or(rest.len(), |end| unit + end));
        rest = left;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let milliseconds = |text| duration(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("500ms", 500),
            ("1.5s", 1500),
            (" 2 min ", 120_000),
            ("1h 1s", 3_601_000),
            ("1h1s", 3_601_000),
            ("0s", 0),
        ] {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        for text in ["", " ", "0", "30", "s", "1x", "-1s", "1s,2s", "1s,", "1s 2", "1s 0", "1,5s"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_too_long_is_none() {
        for text in
            ["18446744073709551615s 1000ms", "18446744073709551616s", "18446744073709551615m"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert!(duration("18446744073709551615s").is_some());
    }
}
