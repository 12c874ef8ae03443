//! One element of a tensor as JSON has it.

use half::{bf16, f16};

use super::number::Number;
use crate::inference::Element;

/// What JSON has no number for, each with the word that stands for it.
const NOT_A_NUMBER: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// All of them.
pub(super) const WORDS: [&str; 3] = [NOT_A_NUMBER, INFINITY, NEGATIVE_INFINITY];

/// An element that can be read from JSON.
///
/// No number becomes another without a word: what does not fit the type is refused. Floating-point
/// numbers are rounded to the nearest that the type has, as everywhere.
pub(super) trait JsonElement: Element + Sized {
    /// The element that the text begins with, and its length; `None` if that is none of this type.
    fn read(text: &[u8]) -> Option<(Self, usize)>;
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl JsonElement for $integer {
            #[inline(always)]
            fn read(text: &[u8]) -> Option<(Self, usize)> {
                let number = Number::read(text)?;
                Some((number.as_integer()?, number.text.len()))
            }
        })*
    };
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl JsonElement for bool {
    fn read(text: &[u8]) -> Option<(Self, usize)> {
        let words: [(&[u8], bool); 2] = [(b"true", true), (b"false", false)];
        let word = words.into_iter().find(|(word, _)| text.starts_with(word));
        if let Some((word, value)) = word {
            return Some((value, word.len()));
        }
        match u8::read(text)? {
            (number @ (0 | 1), length) => Some((number == 1, length)),
            _ => None,
        }
    }
}

macro_rules! floats {
    ($($float:ty, $nearest:ident;)*) => {
        $(impl JsonElement for $float {
            #[inline(always)]
            fn read(text: &[u8]) -> Option<(Self, usize)> {
                let Some(number) = Number::read(text) else {
                    return non_finite(text).map(|(value, length)| (Self::from(value), length));
                };
                let value = number.$nearest();
                value.is_finite().then_some((value, number.text.len()))
            }
        })*
    };
}

floats!(f32, as_f32; f64, as_f64;);

macro_rules! halves {
    ($($half:ty),*) => {
        $(impl JsonElement for $half {
            fn read(text: &[u8]) -> Option<(Self, usize)> {
                let Some(number) = Number::read(text) else {
                    return non_finite(text).map(|(value, length)| (Self::from_f32(value), length));
                };
                let value = Self::from_f64(number.as_f64());
                value.is_finite().then_some((value, number.text.len()))
            }
        })*
    };
}

halves!(f16, bf16);

/// A word in quotes, and its length with them.
fn non_finite(text: &[u8]) -> Option<(f32, usize)> {
    let words = [
        (NOT_A_NUMBER, f32::NAN),
        (INFINITY, f32::INFINITY),
        (NEGATIVE_INFINITY, f32::NEG_INFINITY),
    ];
    let inside = text.strip_prefix(b"\"")?;
    words.into_iter().find_map(|(word, value)| {
        let after = inside.strip_prefix(word.as_bytes())?;
        after.starts_with(b"\"").then_some((value, word.len() + 2))
    })
}

/// The word that stands for `value`; `None` for a number that JSON has.
pub(crate) fn word(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_finite() => None,
        _ if value.is_nan() => Some(NOT_A_NUMBER),
        _ if value > 0.0 => Some(INFINITY),
        _ => Some(NEGATIVE_INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The element that a whole token is.
    fn element<T: JsonElement>(text: &str) -> Option<T> {
        T::read(text.as_bytes()).filter(|(_, length)| *length == text.len()).map(|(value, _)| value)
    }

    #[test]
    fn numbers_keep_their_value() {
        assert_eq!(element::<u64>("18446744073709551615"), Some(u64::MAX));
        assert_eq!(element::<i64>("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(element::<f64>("0.1"), Some(0.1));
        assert_eq!(element::<f32>("3.4028235e38"), Some(f32::MAX));
        assert_eq!(element::<f32>("7"), Some(7.0));
        assert_eq!(element::<f16>("65504"), Some(f16::MAX));
        assert_eq!(element::<bf16>("-1.5"), Some(bf16::from_f32(-1.5)));
        assert_eq!(element::<bool>("1"), Some(true));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(element::<u8>("256"), None);
        assert_eq!(element::<u8>("-1"), None);
        assert_eq!(element::<i8>("1e1"), None);
        assert_eq!(element::<f32>("1e39"), None);
        assert_eq!(element::<f64>("1e400"), None);
        assert_eq!(element::<f16>("65520"), None);
        assert_eq!(element::<f32>("true"), None);
        assert_eq!(element::<f32>("\"1\""), None);
        assert_eq!(element::<f32>("\"NaN"), None);
        assert_eq!(element::<bool>("2"), None);
    }

    #[test]
    fn words_stand_for_what_json_lacks() {
        for value in [f64::INFINITY, f64::NEG_INFINITY] {
            let token = format!("\"{}\"", word(value).unwrap());
            assert_eq!(element::<f64>(&token), Some(value));
            assert_eq!(element::<f16>(&token), Some(f16::from_f64(value)));
        }
        assert!(element::<f32>("\"NaN\"").unwrap().is_nan());
        assert_eq!(word(f64::NAN), Some("NaN"));
        assert_eq!(word(1.0), None);
    }
}
