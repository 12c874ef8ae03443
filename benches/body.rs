//! The body of a request over HTTP.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::net::SocketAddr;

use serde_json::json;

use super::input::{Input, json_body};
use super::load::{self, Target};

const OCTETS: &str = "application/octet-stream";
const LENGTH: &str = "inference-header-content-length";

/// A body with what has to be said of it.
pub(crate) struct Body {
    headers: Vec<(&'static str, String)>,
    bytes: Vec<u8>,
}

impl Body {
    pub(crate) fn json(inputs: &[Input]) -> Self {
        let bytes = json_body(inputs);
        Self { headers: vec![("content-type", "application/json".to_owned())], bytes }
    }

    /// JSON, and the elements after it; the answer comes so too.
    pub(crate) fn binary(inputs: &[Input]) -> Self {
        let tails: Vec<Vec<u8>> = inputs.iter().map(Input::bytes).collect();
        let described = inputs.iter().zip(&tails).map(|(input, tail)| {
            let mut value = input.described();
            value["parameters"] = json!({ "binary_data_size": tail.len() });
            value
        });
        let parameters = json!({ "binary_data_output": true });
        let head = json!({ "inputs": described.collect::<Vec<_>>(), "parameters": parameters });
        let head = head.to_string().into_bytes();
        let headers = vec![("content-type", OCTETS.to_owned()), (LENGTH, head.len().to_string())];
        Self { headers, bytes: [head, tails.concat()].concat() }
    }

    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn post(&self, address: SocketAddr, path: &str) -> Target {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        load::post(address, path, &headers, &self.bytes)
    }
}
