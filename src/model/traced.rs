//! By what a prediction can be traced to the files that made it.

use std::fmt::Write as _;

use bytes::Bytes;

use super::names::VersionId;

/// A version as the heads of its answers tell it: visible ASCII, made once.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The model's name, with everything but visible ASCII percent-encoded.
    pub model: Bytes,
    /// The version's number.
    pub version: Bytes,
    /// `sha256:` and [`VersionHandle::digest`](super::VersionHandle::digest).
    pub digest: Bytes,
}

impl Traced {
    pub(super) fn new(id: &VersionId, digest: &str) -> Self {
        Self {
            model: visible(id.model.as_str()).into(),
            version: id.version.to_string().into(),
            digest: ["sha256:", digest].concat().into(),
        }
    }
}

fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            visible.push(char::from(byte));
        } else {
            write!(visible, "%{byte:02X}").expect("a string takes every text");
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_visible_ascii() {
        assert_eq!(visible("digits-1.0"), "digits-1.0");
        assert_eq!(visible("a b%ü"), "a%20b%25%C3%BC");
    }
}
