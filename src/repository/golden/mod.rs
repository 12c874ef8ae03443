//! Golden samples as files: `<model>/golden/` for all versions, `<model>/golden/<version>/` for one.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod npz;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::inference::{DataType, NamedTensor, Tolerance, UnknownDataType};
use crate::json_tensors::{self, Cursor};
use crate::model::GoldenSample;

/// The largest file of samples.
const LARGEST: u64 = 256 << 20;

/// A sample as JSON: a request of the protocol, with the outputs that it has to be answered with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleFile<'a> {
    #[serde(borrow)]
    inputs: Vec<TensorFile<'a>>,
    #[serde(borrow)]
    outputs: Vec<TensorFile<'a>>,
    #[serde(default)]
    tolerance: ToleranceFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorFile<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<usize>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToleranceFile {
    absolute: Option<f64>,
    relative: Option<f64>,
}

/// The files of samples in a folder, by name; none where there is no folder.
///
/// # Errors
/// What the system said.
pub(super) fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let known = path.extension().is_some_and(|kind| kind == "json" || kind == "npz");
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if known && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one file.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(path: &Path) -> Result<GoldenSample, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LARGEST {
        return Err(format!("it has {size} bytes, a sample has {LARGEST} at most"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sample = if path.extension().is_some_and(|kind| kind == "npz") {
        npz::read(path, name)?
    } else {
        json(&fs::read(path).map_err(|error| error.to_string())?, name)?
    };
    if sample.expected.is_empty() {
        return Err("it names no output, and so would prove nothing".to_owned());
    }
    Ok(sample)
}

fn json(text: &[u8], name: String) -> Result<GoldenSample, String> {
    let file: SampleFile<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let usual = Tolerance::default();
    let ToleranceFile { absolute, relative } = file.tolerance;
    let tolerance = Tolerance {
        absolute: absolute.unwrap_or(usual.absolute),
        relative: relative.unwrap_or(usual.relative),
    };
    if [tolerance.absolute, tolerance.relative].iter().any(|part| !part.is_finite() || *part < 0.0)
    {
        return Err("tolerance: expected numbers of 0 or more".to_owned());
    }
    let inputs = file.inputs.into_iter().map(tensor).collect::<Result<_, _>>()?;
    let expected = file.outputs.into_iter().map(tensor).collect::<Result<_, _>>()?;
    Ok(GoldenSample { name, inputs, expected, tolerance })
}

fn tensor(file: TensorFile<'_>) -> Result<NamedTensor, String> {
    let TensorFile { name, shape, datatype, data } = file;
    let wrong = |problem: String| format!("'{name}': {problem}");
    let unknown = |unknown: UnknownDataType| wrong(unknown.to_string());
    let datatype = datatype.parse::<DataType>().map_err(unknown)?;
    let tensor = json_tensors::read(datatype, shape, &mut Cursor::new(data.get().as_bytes()));
    let tensor = tensor.map_err(|error| wrong(error.to_string()))?;
    Ok(NamedTensor { name: name.into_owned(), tensor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, told: &str) {
        let error = json(text.as_bytes(), "x.json".to_owned()).unwrap_err();
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn a_sample_is_a_request_with_its_answer() {
        let text = r#"{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}],
            "outputs": [{"name": "y", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "tolerance": {"relative": 0.5}}"#;
        let sample = json(text.as_bytes(), "x.json".to_owned()).unwrap();
        assert_eq!(sample.tolerance, Tolerance { absolute: 1e-4, relative: 0.5 });
        assert_eq!((sample.inputs.len(), sample.expected[0].name.as_str()), (1, "y"));
        refused("{}", "inputs");
        refused(r#"{"inputs": [], "outputs": [], "extra": 1}"#, "extra");
        let output =
            |rest: &str| format!(r#"{{"inputs": [], "outputs": [{{"name": "y", {rest}}}]}}"#);
        refused(&output(r#""shape": [1], "datatype": "FP33", "data": [1]"#), "'FP33'");
        refused(&output(r#""shape": [2], "datatype": "FP32", "data": [1]"#), "'y'");
        refused(r#"{"inputs": [], "outputs": [], "tolerance": {"absolute": -1}}"#, "tolerance");
    }

    #[test]
    fn files_come_by_name_and_others_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.npz", "notes.txt"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        fs::create_dir(folder.path().join("c.json")).unwrap();
        let found = files(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.npz", "b.json"]);
        assert!(files(&folder.path().join("none")).unwrap().is_empty());
        let empty = r#"{"inputs": [], "outputs": []}"#;
        fs::write(folder.path().join("b.json"), empty).unwrap();
        assert!(read(&folder.path().join("b.json")).unwrap_err().contains("no output"));
    }
}
