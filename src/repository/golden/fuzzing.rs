//! Golden samples, fuzzed: what is read is what is there.

use std::io::Cursor;
use std::str;

use super::{json, npz};
use crate::inference::{self, NamedTensor};
use crate::json_tensors::fuzzing::{Fields, check, items};
use crate::model::GoldenSample;

/// The most bytes that an archive may unpack to.
const LIMIT: u64 = 64 * 1024;

/// A sample in JSON, an archive or an array; which of them comes first, in one byte.
pub fn golden(data: &[u8]) {
    let Some((choice, file)) = data.split_first() else { return };
    match choice % 3 {
        0 => text(file),
        1 => archive(file),
        _ => array(file),
    }
}

fn text(file: &[u8]) {
    let Ok(sample) = json(file, String::new()) else { return };
    assert!(sample.tolerance.absolute >= 0.0 && sample.tolerance.relative >= 0.0);
    let text = str::from_utf8(file).expect("nothing in it is left out");
    let Some(fields) = Fields::of(text) else {
        // Serde takes an array of the fields too.
        return;
    };
    says(fields.get("inputs").expect("it was read"), &sample.inputs);
    says(fields.get("outputs").expect("it was read"), &sample.expected);
}

/// Holds tensors against what is written of them.
fn says(written: &str, tensors: &[NamedTensor]) {
    inference::fuzzing::check(tensors);
    let written = items(written).expect("it was read");
    assert_eq!(written.len(), tensors.len());
    for (written, NamedTensor { tensor, .. }) in written.into_iter().zip(tensors) {
        if let Some(data) = Fields::of(written).and_then(|fields| fields.get("data")) {
            check(tensor, [data]);
        }
    }
}

fn archive(file: &[u8]) {
    let Ok(sample) = npz::read_within(Cursor::new(file), String::new(), LIMIT) else { return };
    let GoldenSample { inputs, expected, .. } = sample;
    let tensors = [inputs, expected].concat();
    inference::fuzzing::check(&tensors);
    let bytes = |it: &NamedTensor| it.tensor.as_bytes().map_or(0, bytes::Bytes::len) as u64;
    assert!(tensors.iter().map(bytes).sum::<u64>() <= LIMIT);
}

fn array(file: &[u8]) {
    let Ok(tensor) = npz::array(file) else { return };
    let raw = tensor.as_bytes().expect("there are only numbers");
    assert!(file.ends_with(raw));
    inference::fuzzing::check(&[NamedTensor { name: "x".to_owned(), tensor }]);
}
