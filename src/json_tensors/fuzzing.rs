//! The same reading of JSON by other means: slow, and simple enough to be believed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::inference::{DataType, Element, Tensor};

/// Deeper arrays are not looked into.
const DEEPEST: usize = 64;

/// Whether a text is JSON, as far as `serde_json` looks at what is not wanted of it.
pub(crate) fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The fields of an object as they are written, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of a text that is an object; `None` for any other.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The first value of a key, as it is written.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// The items of an array as they are written; `None` for any other text.
pub(crate) fn items(text: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// Holds the elements of a tensor against the values that they were read from, one after the other.
#[track_caller]
pub(crate) fn check<'a>(tensor: &Tensor, values: impl IntoIterator<Item = &'a str>) {
    if tensor.shape().len() > DEEPEST {
        return;
    }
    let mut tokens = Vec::new();
    values.into_iter().for_each(|value| leaves(value, &mut tokens));
    let read = match tensor.datatype() {
        DataType::Bool => equal(tensor, &tokens, truth),
        DataType::Uint8 => equal(tensor, &tokens, integer::<u8>),
        DataType::Uint16 => equal(tensor, &tokens, integer::<u16>),
        DataType::Uint32 => equal(tensor, &tokens, integer::<u32>),
        DataType::Uint64 => equal(tensor, &tokens, integer::<u64>),
        DataType::Int8 => equal(tensor, &tokens, integer::<i8>),
        DataType::Int16 => equal(tensor, &tokens, integer::<i16>),
        DataType::Int32 => equal(tensor, &tokens, integer::<i32>),
        DataType::Int64 => equal(tensor, &tokens, integer::<i64>),
        DataType::Fp16 => floats(tensor, &tokens, |token| float(token).map(f16::from_f64)),
        DataType::Bf16 => floats(tensor, &tokens, |token| float(token).map(bf16::from_f64)),
        DataType::Fp32 => floats::<f32>(tensor, &tokens, float),
        DataType::Fp64 => floats::<f64>(tensor, &tokens, float),
        DataType::Bytes => alike(tensor.as_strings(), &tokens, |it, token| {
            text(token).is_some_and(|text| text == *it)
        }),
    };
    assert!(read, "{tensor:?} was read from {tokens:?}");
}

/// What is in an array, in the arrays in it, and so on.
fn leaves<'a>(value: &'a str, tokens: &mut Vec<&'a str>) {
    match items(value) {
        Some(items) => items.into_iter().for_each(|item| leaves(item, tokens)),
        None => tokens.push(value),
    }
}

/// Whether there is one element for each token, and each is what its token says.
fn alike<T>(elements: Option<&[T]>, tokens: &[&str], is_same: impl Fn(&T, &str) -> bool) -> bool {
    elements.is_some_and(|elements| {
        elements.len() == tokens.len()
            && elements.iter().zip(tokens).all(|(element, token)| is_same(element, token))
    })
}

fn equal<T: Element + PartialEq>(
    tensor: &Tensor,
    tokens: &[&str],
    read: impl Fn(&str) -> Option<T>,
) -> bool {
    alike(tensor.as_slice::<T>(), tokens, |it, token| read(token).as_ref() == Some(it))
}

fn floats<T: Element + Copy + Into<f64>>(
    tensor: &Tensor,
    tokens: &[&str],
    read: impl Fn(&str) -> Option<T>,
) -> bool {
    alike(tensor.as_slice::<T>(), tokens, |it, token| {
        let (one, other): (f64, Option<f64>) = ((*it).into(), read(token).map(Into::into));
        other.is_some_and(|other| {
            (one.is_nan() && other.is_nan()) || one.to_bits() == other.to_bits()
        })
    })
}

fn truth(token: &str) -> Option<bool> {
    match token {
        "true" => Some(true),
        "false" => Some(false),
        number => integer::<u8>(number).map(|number| number == 1),
    }
}

fn integer<T: TryFrom<i128>>(token: &str) -> Option<T> {
    T::try_from(token.parse::<i128>().ok()?).ok()
}

/// By the standard library, which rounds to the nearest.
fn float<T: FromStr>(token: &str) -> Option<T> {
    match token.strip_prefix('"') {
        Some(word) => word.strip_suffix('"')?.parse().ok(),
        None => token.parse().ok(),
    }
}

fn text(token: &str) -> Option<Vec<u8>> {
    match Fields::of(token) {
        Some(encoded) => {
            STANDARD.decode(serde_json::from_str::<String>(encoded.get("b64")?).ok()?).ok()
        }
        None => serde_json::from_str::<String>(token).ok().map(String::into_bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[track_caller]
    fn seen<T: Element>(element: T, value: &'static str, is_same: bool) {
        let tensor = Tensor::from_vec(vec![1], vec![element]).unwrap();
        assert_eq!(catch_unwind(|| check(&tensor, [value])).is_ok(), is_same, "{value}");
    }

    #[test]
    fn what_was_read_otherwise_is_seen() {
        seen(0.1_f32, "[[0.1]]", true);
        seen(0.1_f32, "[0.10000001]", false);
        seen(0.0_f64, "[-0.0]", false);
        seen(f32::NAN, "[\"NaN\"]", true);
        seen(f16::ONE, "[1.0001]", true);
        seen(-1_i64, "[-1]", true);
        seen(-1_i64, "[-1,-1]", false);
        seen(true, "[0]", false);
        let texts = Tensor::from_strings(vec![2], vec!["\u{fc}".into(), "".into()]).unwrap();
        check(&texts, [r#"["\u00fc"]"#, r#"{"b64":""}"#]);
    }
}
