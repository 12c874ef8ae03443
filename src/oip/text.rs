//! Messages that may quote what a client has sent.

use std::borrow::Cow;

/// What is left of a message that is longer than so many bytes: about its first two thirds and its last
/// third, as what was expected comes last.
pub(crate) fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return Cow::Borrowed(text);
    }
    let last = longest / 3;
    let head = &text[..text.floor_char_boundary(longest - last)];
    let tail = &text[text.ceil_char_boundary(text.len() - last)..];
    Cow::Owned(format!("{head}...{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("unexpected xxxxxxxxxx, give y", 18), "unexpected x...give y");
        for longest in 0..20 {
            assert!(shortened(&"\u{20ac}".repeat(10), longest).len() <= longest + 3);
        }
    }
}
