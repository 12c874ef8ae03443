//! Tensors as the Open Inference Protocol writes them in JSON: read from requests and from samples.

mod data;
mod element;

pub(crate) use data::read;
pub(crate) use element::word;
