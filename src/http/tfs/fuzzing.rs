//! Predictions, fuzzed: what is read is what is there, and comes back when it is written.

use std::collections::BTreeMap;
use std::str;

use serde_json::value::RawValue;

use super::request::{Form, Predict};
use super::response;
use crate::inference::fuzzing::SIGNATURES;
use crate::inference::{self, NamedTensor, Signature};
use crate::json_tensors::fuzzing::{Fields, check, is_json, items};

/// A body for a model of one of the signatures; which of them comes first, in one byte.
pub fn tfs_predict(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let signature = &SIGNATURES[usize::from(*choice) % SIGNATURES.len()];
    let Ok(predict) = Predict::read(body, signature) else { return };
    assert!(is_json(body), "it is no JSON");
    inference::fuzzing::check(&predict.inputs);
    if let Ok(body) = str::from_utf8(body) {
        says(body, &predict, signature);
    }
    comes_back(&predict, signature);
}

/// Holds inputs against what is written of them.
fn says(body: &str, predict: &Predict, signature: &Signature) {
    let body = Fields::of(body).expect("it was read");
    let field = |key| body.get(key).expect("it was read");
    let values = match predict.form {
        Form::Rows(count) => {
            let rows = items(field("instances")).expect("it was read");
            assert_eq!(rows.len(), count);
            rows
        }
        Form::Columns => vec![field("inputs")],
    };
    // What stands without a name is that of the only input which may not be left out.
    let only = signature.inputs.iter().find(|spec| !spec.optional).map(|spec| spec.name.as_str());
    let mut written: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for value in values {
        let fields = Fields::of(value).filter(|fields| fields.get("b64").is_none());
        let alone = || Fields(vec![(only.expect("it was read").into(), raw(value))]);
        for (name, value) in fields.unwrap_or_else(alone).0 {
            written.entry(name.into_owned()).or_default().push(value.get());
        }
    }
    assert_eq!(written.len(), predict.inputs.len());
    for NamedTensor { name, tensor } in &predict.inputs {
        check(tensor, written[name].iter().copied());
    }
}

fn raw(value: &str) -> &RawValue {
    serde_json::from_str(value).expect("it was read")
}

/// What is written is read as what it was.
fn comes_back(predict: &Predict, signature: &Signature) {
    // How long the rows of no row are is not written, and neither is the name of what is alone.
    let is_lost = |input: &NamedTensor| input.tensor.shape().contains(&0);
    let is_alone = predict.inputs.len() < signature.inputs.len();
    if is_alone || predict.inputs.iter().any(is_lost) {
        return;
    }
    let text = response::text(&predict.inputs, predict.form);
    let (told, asked) = match predict.form {
        Form::Rows(_) => ("{\"predictions\":", "{\"instances\":"),
        Form::Columns => ("{\"outputs\":", "{\"inputs\":"),
    };
    let values = text.strip_prefix(told.as_bytes()).expect("it begins so");
    let back = Predict::read(&[asked.as_bytes(), values].concat(), signature);
    let back = back.expect("it was written");
    assert_eq!(response::text(&back.inputs, back.form), text);
}
