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
        let [model, version] = [visible(id.model.as_str()), id.version.to_string()];
        // In one buffer: the threads that answer pass on the count of one, and not of three.
        let text = Bytes::from([&model, &version, "sha256:", digest].concat());
        let rest = text.slice(model.len()..);
        Self {
            model: text.slice(..model.len()),
            version: rest.slice(..version.len()),
            digest: rest.slice(version.len()..),
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
    use super::super::names::{ModelName, Version};
    use super::*;

    #[test]
    fn each_text_is_told_apart() {
        let id = VersionId { model: ModelName::new("a b").unwrap(), version: Version::FIRST };
        let Traced { model, version, digest } = Traced::new(&id, "0123");
        assert_eq!([model, version, digest], ["a%20b", "1", "sha256:0123"]);
    }

    #[test]
    fn names_become_visible_ascii() {
        assert_eq!(visible("digits-1.0"), "digits-1.0");
        assert_eq!(visible("a b%ü"), "a%20b%25%C3%BC");
    }
}
