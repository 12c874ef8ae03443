//! Which models a caller may know of.

/// The longest pattern, in bytes.
const LONGEST: usize = 256;

/// The models that a credential is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them, and the server itself.
    Everything,
    /// Those whose name one of the patterns has.
    Models(Vec<Pattern>),
}

impl Scope {
    /// Whether the model is in it.
    pub(super) fn has(&self, model: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Models(patterns) => patterns.iter().any(|pattern| pattern.matches(model)),
        }
    }
}

/// A name in which `*` stands for any text, also for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    /// `None` for what is no pattern of a name.
    pub(super) fn new(text: &str) -> Option<Self> {
        let sound = (1..=LONGEST).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c == '/' || c == '\\');
        sound.then(|| Self(text.to_owned()))
    }

    /// In a time that is at most the product of both lengths.
    fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut next) = (0, 0);
        // Where the last star stands, and where what it stands for ends.
        let mut star: Option<(usize, usize)> = None;
        while next < name.len() {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at, next));
                at += 1;
            } else if pattern.get(at) == Some(&name[next]) {
                (at, next) = (at + 1, next + 1);
            } else if let Some((place, end)) = star {
                star = Some((place, end + 1));
                (at, next) = (place + 1, end + 1);
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).unwrap().matches(name);
        for (pattern, name) in [
            ("fraud", "fraud"),
            ("fraud-*", "fraud-"),
            ("fraud-*", "fraud-eu"),
            ("*", "x"),
            ("*-eu", "a-eu-eu"),
            ("a*b*c", "axxbxbxc"),
            ("**", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("fraud", "fraud2"),
            ("fraud", "Fraud"),
            ("fraud-*", "fraud"),
            ("fraud-*", "xfraud-1"),
            ("*-eu", "a-eu-us"),
            ("a*b*c", "acb"),
            ("a?c", "abc"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_name_is_no_pattern() {
        for text in ["", "a/b", "a\\b", "a\nb", &"x".repeat(257)] {
            assert_eq!(Pattern::new(text), None, "{text:?}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let pattern = Pattern::new(&"*a".repeat(128)).unwrap();
        assert!(!pattern.matches(&"a".repeat(127)));
        assert!(!pattern.matches(&"b".repeat(255)));
    }
}
