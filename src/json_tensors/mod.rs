//! Tensors as the Open Inference Protocol writes them in JSON: read from requests and from samples.

mod cursor;
mod data;
mod element;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inferred;
mod nested;
mod number;

pub(crate) use cursor::{Cursor, JsonError, in_words_of_json};
pub(crate) use data::{DataError, read};
pub(crate) use element::word;
pub(crate) use inferred::{Column, column};
pub(crate) use nested::Nested;
