//! One element of a tensor as JSON has it.

use half::{bf16, f16};

use crate::inference::Element;

/// What JSON has no number for, each with the word that stands for it.
const NOT_A_NUMBER: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// An element that can be read from a JSON token.
///
/// No number becomes another without a word: what does not fit the type is refused. Floating-point
/// numbers are rounded to the nearest that the type has, as everywhere.
pub(super) trait JsonElement: Element + Sized {
    /// The element that the token means; `None` if it means none of this type.
    fn from_token(token: &str) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl JsonElement for $integer {
            fn from_token(token: &str) -> Option<Self> {
                token.parse().ok()
            }
        })*
    };
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl JsonElement for bool {
    fn from_token(token: &str) -> Option<Self> {
        match token {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }
}

macro_rules! floats {
    ($($float:ty),*) => {
        $(impl JsonElement for $float {
            fn from_token(token: &str) -> Option<Self> {
                match token.strip_prefix('"') {
                    None => token.parse().ok().filter(|value: &$float| value.is_finite()),
                    Some(word) => non_finite(word.strip_suffix('"')?).map(Self::from),
                }
            }
        })*
    };
}

floats!(f32, f64);

macro_rules! halves {
    ($($half:ty),*) => {
        $(impl JsonElement for $half {
            fn from_token(token: &str) -> Option<Self> {
                match token.strip_prefix('"') {
                    None => {
                        let value = Self::from_f64(token.parse().ok()?);
                        value.is_finite().then_some(value)
                    }
                    Some(word) => non_finite(word.strip_suffix('"')?).map(Self::from_f32),
                }
            }
        })*
    };
}

halves!(f16, bf16);

fn non_finite(word: &str) -> Option<f32> {
    match word {
        NOT_A_NUMBER => Some(f32::NAN),
        INFINITY => Some(f32::INFINITY),
        NEGATIVE_INFINITY => Some(f32::NEG_INFINITY),
        _ => None,
    }
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

    #[test]
    fn numbers_keep_their_value() {
        assert_eq!(u64::from_token("18446744073709551615"), Some(u64::MAX));
        assert_eq!(i64::from_token("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(f64::from_token("0.1"), Some(0.1));
        assert_eq!(f32::from_token("3.4028235e38"), Some(f32::MAX));
        assert_eq!(f32::from_token("7"), Some(7.0));
        assert_eq!(f16::from_token("65504"), Some(f16::MAX));
        assert_eq!(bf16::from_token("-1.5"), Some(bf16::from_f32(-1.5)));
        assert_eq!(bool::from_token("1"), Some(true));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(u8::from_token("256"), None);
        assert_eq!(u8::from_token("-1"), None);
        assert_eq!(i8::from_token("1e1"), None);
        assert_eq!(f32::from_token("1e39"), None);
        assert_eq!(f64::from_token("1e400"), None);
        assert_eq!(f16::from_token("65520"), None);
        assert_eq!(f32::from_token("true"), None);
        assert_eq!(f32::from_token("\"1\""), None);
        assert_eq!(f32::from_token("\"NaN"), None);
        assert_eq!(bool::from_token("2"), None);
    }

    #[test]
    fn words_stand_for_what_json_lacks() {
        for value in [f64::INFINITY, f64::NEG_INFINITY] {
            let token = format!("\"{}\"", word(value).unwrap());
            assert_eq!(f64::from_token(&token), Some(value));
            assert_eq!(f16::from_token(&token), Some(f16::from_f64(value)));
        }
        assert!(f32::from_token("\"NaN\"").unwrap().is_nan());
        assert_eq!(word(f64::NAN), Some("NaN"));
        assert_eq!(word(1.0), None);
    }
}
