//! What a request presents.

use std::fmt;

/// What a key is made to begin with, so that others find those that were let out by mistake.
pub(super) const PREFIX: &str = "onw_";

/// What a request presents to be let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// A key, or a token.
    Bearer(&'a [u8]),
    /// A key.
    Key(&'a [u8]),
    /// Something that cannot be one credential.
    Malformed,
}

impl<'a> Presented<'a> {
    /// What is in the values of `authorization` and `x-api-key`. Another scheme than `Bearer` is for
    /// somebody else, such as a proxy in front.
    pub fn read(
        authorization: impl IntoIterator<Item = &'a [u8]>,
        api_key: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut authorization = authorization.into_iter();
        let mut api_key = api_key.into_iter();
        let bearer = authorization.next().and_then(bearer);
        let key = api_key.next().map(<[u8]>::trim_ascii);
        let is_ambiguous = authorization.next().is_some() || api_key.next().is_some();
        match (bearer, key) {
            _ if is_ambiguous => Self::Malformed,
            (None, None) => Self::Nothing,
            (Some(token), None) => whole(token).map_or(Self::Malformed, Self::Bearer),
            (None, Some(key)) => whole(key).map_or(Self::Malformed, Self::Key),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }
}

/// What comes after `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, token) = value.split_at(end);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

fn whole(credential: &[u8]) -> Option<&[u8]> {
    let sound = !credential.is_empty() && credential.iter().all(u8::is_ascii_graphic);
    sound.then_some(credential)
}

/// Without what is presented.
impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Bearer(_) => "Bearer",
            Self::Key(_) => "Key",
            Self::Malformed => "Malformed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(authorization: &[&'static str], api_key: &[&'static str]) -> Presented<'static> {
        let bytes = |values: &[&'static str]| -> Vec<&'static [u8]> {
            values.iter().map(|value| value.as_bytes()).collect()
        };
        Presented::read(bytes(authorization), bytes(api_key))
    }

    #[test]
    fn one_credential_is_read() {
        assert_eq!(read(&[], &[]), Presented::Nothing);
        for value in ["Bearer abc", "bearer abc", "BEARER   abc ", "Bearer\tabc"] {
            assert_eq!(read(&[value], &[]), Presented::Bearer(b"abc"), "{value}");
        }
        assert_eq!(read(&[], &[" abc"]), Presented::Key(b"abc"));
        assert_eq!(read(&["Basic abc"], &["abc"]), Presented::Key(b"abc"));
        assert_eq!(read(&["Basic abc"], &[]), Presented::Nothing);
    }

    #[test]
    fn what_may_mean_two_things_is_none() {
        for (authorization, api_key) in [
            (&["Bearer a", "Bearer a"][..], &[][..]),
            (&[], &["a", "a"]),
            (&["Bearer a"], &["a"]),
            (&["Bearer"], &[]),
            (&["Bearer "], &[]),
            (&["Bearer a b"], &[]),
            (&["Bearer ä"], &[]),
            (&[], &[""]),
            (&[], &["a b"]),
        ] {
            assert_eq!(read(authorization, api_key), Presented::Malformed, "{authorization:?}");
        }
        assert_eq!(format!("{:?}", Presented::Key(b"secret")), "Key");
    }
}
