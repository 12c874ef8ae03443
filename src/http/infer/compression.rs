//! Compression of bodies: what of requests is undone, and which answers get which.

use std::io::{self, Read, Write};

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::parts::Parts;

/// Shorter answers are sent as they are: they would not become shorter by much.
const SHORT: usize = 1024;

/// How far back Zstandard may refer, as a power of two of bytes, which is memory that it takes: what
/// [RFC 9659](https://www.rfc-editor.org/rfc/rfc9659) allows over HTTP.
const WINDOW: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Coding {
    Gzip,
    /// The zlib format, as HTTP means it.
    Deflate,
    Zstd,
}

impl Coding {
    const ALL: [(&'static str, Self); 4] = [
        ("gzip", Self::Gzip),
        ("x-gzip", Self::Gzip),
        ("deflate", Self::Deflate),
        ("zstd", Self::Zstd),
    ];

    /// The coding of this name.
    pub(in crate::http) fn from_name(name: &str) -> Option<Self> {
        let is_named = |(known, _): &&(&str, Self)| known.eq_ignore_ascii_case(name);
        Self::ALL.iter().find(is_named).map(|(_, coding)| *coding)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The best of those that a client takes; `None` where it has not said that it takes one.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        // The first of equal ones.
        let better =
            |one: (Self, f32), other: (Self, f32)| if other.1 > one.1 { other } else { one };
        Self::all_accepted(headers).reduce(better).map(|(coding, _)| coding)
    }

    /// Whether a client has said that it takes this one.
    pub(in crate::http) fn is_accepted(self, headers: &HeaderMap) -> bool {
        Self::all_accepted(headers).any(|(coding, _)| coding == self)
    }

    /// Those that a client takes, and how gladly.
    fn all_accepted(headers: &HeaderMap) -> impl Iterator<Item = (Self, f32)> {
        let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).filter_map(|item| {
            let (name, rest) = item.split_once(';').unwrap_or((item, ""));
            let quality = rest.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
            let (coding, quality) = (Self::from_name(name.trim())?, quality.ok()?);
            (quality > 0.0).then_some((coding, quality))
        })
    }

    /// Whether an answer of so many bytes is compressed.
    pub(super) const fn is_worth(length: usize) -> bool {
        length >= SHORT
    }

    pub(super) fn describe(self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(self.name()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }

    pub(super) fn encode(self, parts: &Parts) -> Parts {
        let encoded = match self {
            Self::Gzip => {
                finished(GzEncoder::new(Vec::new(), Compression::fast()), parts, GzEncoder::finish)
            }
            Self::Deflate => finished(
                ZlibEncoder::new(Vec::new(), Compression::fast()),
                parts,
                ZlibEncoder::finish,
            ),
            Self::Zstd => zstd::Encoder::new(Vec::new(), 1)
                .and_then(|encoder| finished(encoder, parts, zstd::Encoder::finish)),
        };
        Parts::new([Bytes::from(encoded.expect("memory takes what is written"))])
    }

    /// Undoes it, up to a limit.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(in crate::http) fn decode(self, body: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
        let decoded = match self {
            Self::Gzip => within(MultiGzDecoder::new(body), limit),
            Self::Deflate => inflated(body, limit),
            Self::Zstd => zstd::Decoder::with_buffer(body).and_then(|mut decoder| {
                decoder.window_log_max(WINDOW)?;
                within(decoder, limit)
            }),
        };
        let decoded = decoded.map_err(|_| DecodeError::Damaged(self.name()))?;
        if decoded.len() > limit { Err(DecodeError::TooLarge) } else { Ok(decoded.into()) }
    }
}

/// Why a compressed body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum DecodeError {
    /// It is not compressed as it says.
    Damaged(&'static str),
    /// It is too large once that is undone.
    TooLarge,
}

fn finished<W: Write>(
    mut encoder: W,
    parts: &Parts,
    finish: impl FnOnce(W) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    parts.iter().try_for_each(|part| encoder.write_all(part))?;
    finish(encoder)
}

/// As [`within`]; the format has an end, behind which nothing may come.
fn inflated(body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut decoder = ZlibDecoder::new(body);
    let plain = within(&mut decoder, limit)?;
    let is_all = plain.len() > limit || decoder.total_in() == body.len() as u64;
    if is_all { Ok(plain) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// What there is, and a byte more than the limit where there is more.
fn within(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    #[test]
    fn what_is_compressed_comes_back_up_to_the_limit() {
        let text = b"tensor ".repeat(100);
        let parts = Parts::new([Bytes::from_static(b"tensor "), Bytes::from(text[7..].to_vec())]);
        for coding in ALL {
            let encoded = coding.encode(&parts);
            assert!(encoded.len() < text.len());
            let encoded = encoded.iter().next().unwrap();
            assert_eq!(coding.decode(encoded, text.len()).unwrap(), text);
            assert_eq!(coding.decode(encoded, text.len() - 1), Err(DecodeError::TooLarge));
            let cut = &encoded[..encoded.len() / 2];
            assert!(matches!(coding.decode(cut, 1 << 20), Err(DecodeError::Damaged(_))));
            assert!(matches!(coding.decode(b"plain", 1 << 20), Err(DecodeError::Damaged(_))));
        }
    }

    #[test]
    fn what_comes_after_the_end_is_read_or_refused() {
        let parts = Parts::new([Bytes::from_static(b"tensor")]);
        for coding in ALL {
            let encoded = coding.encode(&parts).iter().next().unwrap().to_vec();
            let more = [&encoded[..], b"more"].concat();
            assert!(matches!(coding.decode(&more, 1 << 20), Err(DecodeError::Damaged(_))));
            let twice = coding.decode(&encoded.repeat(2), 1 << 20);
            match coding {
                Coding::Deflate => assert!(matches!(twice, Err(DecodeError::Damaged(_)))),
                Coding::Gzip | Coding::Zstd => assert_eq!(twice.unwrap(), "tensortensor"),
            }
        }
    }

    #[test]
    fn zstandard_takes_no_more_memory_than_http_allows() {
        // A frame of one byte with a window of 2^(10 + n) bytes.
        let frame = |n: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, n << 3, 9, 0, 0, b'x'];
        assert_eq!(Coding::Zstd.decode(&frame(13), 1).unwrap(), "x");
        assert!(matches!(Coding::Zstd.decode(&frame(14), 1), Err(DecodeError::Damaged(_))));
    }

    #[test]
    fn the_best_that_a_client_takes_is_chosen() {
        let accepted = |text: &'static str| {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(text))];
            Coding::accepted(&headers.into_iter().collect())
        };
        assert_eq!(accepted("gzip, deflate, br"), Some(Coding::Gzip));
        assert_eq!(accepted("br, deflate;q=0.5, zstd;q=0.9"), Some(Coding::Zstd));
        assert_eq!(accepted("gzip;q=0, DEFLATE"), Some(Coding::Deflate));
        for none in ["", "br", "identity", "*", "gzip;q=0", "gzip;q=x"] {
            assert_eq!(accepted(none), None, "{none}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn one_that_is_not_the_best_is_accepted_too() {
        let value = HeaderValue::from_static("zstd, gzip;q=0.1, deflate;q=0");
        let headers: HeaderMap = [(ACCEPT_ENCODING, value)].into_iter().collect();
        let accepted = ALL.map(|coding| coding.is_accepted(&headers));
        assert_eq!(accepted, [true, false, true]);
    }
}
